"""JPEG files: coloured without a change to their luma.

Knows nothing of networks. The coloured file holds the source's luma bit by bit, the same DCT coefficients and the same quantization table;
two planes of chroma at half the resolution (4:2:0), upsampled along the picture's own edges; and all APPn and COM segments
in their order. What comes of each source:

- grey, or luma with scans of its own: JPEG allows a component scans of its own, so the luma's entropy-coded bytes are copied as they
  are, sequential or progressive, and the scans of Cb and Cr come after them;
- YCbCr of any sampling with luma at full resolution: the old chroma is dropped, the luma's coefficients are encoded anew by jpeglib,
  sequential with optimised tables;
- red, green and blue without luma (Adobe transform 0): pixels anew, their lightness kept to rounding, quality 95, 4:4:4, and
  `is_lossless` is False;
- CMYK, 12 bits, arithmetic, lossless, hierarchical: PictureError.

Bytes after the end of the picture are left out, such as the other pictures of an MPO, whose index goes too. The lightness of a picture is
that of the greys of its luma: what its grey copy shows.
Small pictures are made of luma alone at 1/2, 1/4 or 1/8 of the size (libjpeg's reduced inverse DCT): at 128 pixels the lightness of 23
scans differs by 0.09 in the mean from that of a full decode, shrunk alike (at 64 by 0.17; 0.27 and 0.48 without care for the last pixel).

Measured in megapixels/s of one thread's time (EPYC, Pillow 13, 17 MP of quality 90, chroma of 64×85): lightness 930, of progressive
files 180; write 78 grey, 57 grey progressive, 41 YCbCr, 31 YCbCr progressive. (Decoding, skimage's LAB both ways and encoding: 2.7.)
Of the first, the table of Cb and Cr takes 46 %, upsampling 22 %, decoding 9 %, encoding 5 %. The 91 JPEGs of historical photographs grow
by 13 % at most, and most by 0 to 7; those that had chroma may shrink. Pillow, imagecodecs (libjpeg-turbo, JPEG XL's transcoder) and
Chromium open them, with the same pixels. With the colours of the model that ships, at vividness 0, 0.5 and 1, 0.3, 0.4 and 0.8 % of
the pixels lie more than 2 of 255 outside the gamut before they are clipped: at edges finer than the chroma, and by its quantization.
Of 12,000 damaged files none crashed or hung. A JPEG has no checksum: of damage inside entropy-coded data only what libjpeg refuses is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from colorize.errors import PictureError
from colorize.imaging.formats.jpeg_chroma import chroma_table, encode_plane
from colorize.imaging.formats.jpeg_luma import check_luma, luma_of
from colorize.imaging.formats.jpeg_stream import SOF_PROGRESSIVE, JpegStream, read_stream
from colorize.imaging.guard import damage
from colorize.imaging.metadata import Metadata, jpeg_metadata, orientation_of, stamp_jpeg
from colorize.imaging.note import Note
from colorize.imaging.scan import Page, Pixels, Scan
from colorize.imaging.space import RgbSpace
from colorize.imaging.upsample import ChromaUpsampler, Point

STRIP_PIXELS = 1 << 17
REPAINTED_QUALITY = 95

KEPT_PIXELS = 1 << 20
"""A luma this small is kept from one call to the next: the thumbnail, the network and the graft need one or two sizes of it, not three."""

OVERSIZE = 2
"""Lightness and chroma are decoded at this many times the size that is asked, at least, and shrunk in lightness, not in luma."""

_SCALES = (1, 2, 4, 8, 16, 32)
"""How many times smaller a decoded plane is: up to 8 by libjpeg, the rest by averaging."""


class JpegScan(Scan):
    """A JPEG file, opened."""

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where the header says that the file cannot be read."""
        self.name, self.format = name, "JPEG"
        self.data = data
        self._stream = read_stream(data, name)
        if not self._stream.is_rgb:
            check_luma(self._stream, name)
        self._bare = self._stream.bare().encoded()
        self._lumas: dict[tuple[int, ...], npt.NDArray[np.uint8]] = {}
        self._space = RgbSpace(self._stream.icc_profile, name)
        self._profile = _profile(self._stream.icc_profile, self._space, name)
        stream = self._stream
        self.pages = (Page(width=stream.width, height=stream.height, bits=8, orientation=orientation_of(stream.exif)),)

    @property
    def is_lossless(self) -> bool:
        """Whether `write` keeps the luma bit by bit. A JPEG of red, green and blue has none, and is encoded anew."""
        return not self._stream.is_rgb

    def lightness(self, page: int, height: int, width: int) -> npt.NDArray[np.float32]:
        assert page == 0, f"a JPEG has one page, not {page + 1}"
        if self._stream.is_rgb:
            L_hw = self._space.lab(self._decoded("RGB", OVERSIZE * height, OVERSIZE * width))[0]
        else:
            L_hw = self._space.lightness(self._decoded("L", OVERSIZE * height, OVERSIZE * width))
        return self._shrunk(L_hw, height, width).clip(0, 100)

    def chroma(self, page: int, height: int, width: int) -> npt.NDArray[np.float32] | None:
        assert page == 0, f"a JPEG has one page, not {page + 1}"
        if len(self._stream.components) == 1:
            return None
        lab_3hw = self._space.lab(self._seen_in_color(height, width))
        return np.stack([self._shrunk(plane_hw, height, width) for plane_hw in lab_3hw[1:]])

    @property
    def metadata(self) -> Metadata:
        """See `Scan`."""
        return jpeg_metadata(self.data, self.name)

    def bands(self, page: int) -> Iterator[tuple[Pixels, Pixels | None]]:
        """See `Scan`."""
        rgb_hwc = self._decoded("RGB", self._stream.height, self._stream.width)
        rows = max(1, STRIP_PIXELS // rgb_hwc.shape[1])
        yield from ((rgb_hwc[top : top + rows], None) for top in range(0, len(rgb_hwc), rows))

    def write(self, target: BinaryIO, ab_2hw: Sequence[npt.NDArray[np.float32]], note: Note | None, points: Sequence[Point] = ()) -> None:
        (ab_of_page,) = ab_2hw
        data = (self._grafted(ab_of_page, points) if self.is_lossless else self._repainted(ab_of_page, points)).encoded()
        transform = self._stream.adobe_transform or 0 if len(self._stream.components) == 1 else 0
        target.write(stamp_jpeg(data, note, self._profile, self.name, transform))

    def _grafted(self, ab_2hw: npt.NDArray[np.float32], points: Sequence[Point]) -> JpegStream:
        """The luma as it is, and new chroma."""
        luma_hw = self._half_luma()
        luma = luma_of(self._stream, self.name)
        restart = luma.scans[-1].restart_interval
        is_progressive = luma.frame == SOF_PROGRESSIVE
        planes = [
            encode_plane(plane, number, is_progressive, restart)
            for number, plane in enumerate(self._chroma_planes(luma_hw, ab_2hw, points), 2)
        ]
        return replace(
            luma,
            metadata=self._stream.metadata,
            components=(replace(luma.components[0], across=2, down=2), *(component for component, _ in planes)),
            scans=luma.scans + planes[0][1] + planes[1][1],
            has_end=True,
        ).with_transform(1)

    def _chroma_planes(
        self, luma_hw: npt.NDArray[np.uint8], ab_2hw: npt.NDArray[np.float32], points: Sequence[Point]
    ) -> npt.NDArray[np.uint8]:
        """CbCr (2, h, w) of the luma at half the resolution."""
        height, width = luma_hw.shape
        L_hw = self._space.lightness(luma_hw)
        upsampler = ChromaUpsampler(ab_2hw, L_hw, height, width, points)
        table = chroma_table(self._space.output_profile)
        cbcr_2hw = np.empty((2, height, width), np.uint8)
        rows = max(1, STRIP_PIXELS // width)
        for top in range(0, height, rows):
            ab_2nw = upsampler.rows(top, L_hw[top : top + rows])
            cbcr_2hw[:, top : top + rows] = table(luma_hw[top : top + rows], ab_2nw)
        return cbcr_2hw

    def _repainted(self, ab_2hw: npt.NDArray[np.float32], points: Sequence[Point]) -> JpegStream:
        """All pixels anew, at their lightness."""
        rgb_hwc = self._decoded("RGB", self._stream.height, self._stream.width)
        height, width = rgb_hwc.shape[:2]
        rows = max(1, STRIP_PIXELS // width)
        L_hw = np.concatenate([self._space.lab(rgb_hwc[top : top + rows])[0] for top in range(0, height, rows)])
        upsampler = ChromaUpsampler(ab_2hw, L_hw, height, width, points)
        colored_hwc = np.empty_like(rgb_hwc)
        for top in range(0, height, rows):
            L_nw = L_hw[top : top + rows]
            colored_hwc[top : top + rows] = self._space.compose(L_nw, upsampler.rows(top, L_nw), bits=8)
        buffer = BytesIO()
        Image.fromarray(colored_hwc).save(buffer, "JPEG", quality=REPAINTED_QUALITY, subsampling=0)
        return replace(read_stream(buffer.getvalue(), self.name), metadata=self._stream.metadata).with_transform(1)

    def _half_luma(self) -> npt.NDArray[np.uint8]:
        """The luma at half the resolution, as the planes of chroma have it."""
        height, width = self._stream.height, self._stream.width
        luma_hw = self._decoded("L", height // 2, width // 2)
        if luma_hw.shape == (height, width):  # of one row or column, which libjpeg does not halve
            even_hw = np.pad(luma_hw, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
            sums_hw = even_hw[::2, ::2] + even_hw[::2, 1::2] + even_hw[1::2, ::2] + even_hw[1::2, 1::2]
            luma_hw = ((sums_hw + 2) // 4).astype(np.uint8)
        return luma_hw

    def _seen_in_color(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """RGB at a power of two below the picture's size, and at least height×width.

        A luma is decoded on the way in the size that `lightness` wants, and kept: one decoding less for most pictures.
        """
        with damage(self.name, "JPEG"):
            image = self._draft("RGB" if self._stream.is_rgb else "YCbCr", OVERSIZE * height, OVERSIZE * width)
            if not self._stream.is_rgb:
                self._keep(np.array(image.getchannel(0)))
            # Chroma has no detail that averaging before the conversion would harm, and a quarter of the pixels take a quarter of its time.
            factor = next((factor for factor in (4, 2) if min(image.height // height, image.width // width) >= factor), 1)
            return np.array(image.reduce(factor).convert("RGB"))

    def _decoded(self, mode: str, height: int, width: int) -> npt.NDArray[np.uint8]:
        """Pixels in a mode of Pillow's at the smallest size that libjpeg makes of at least height×width."""
        with damage(self.name, "JPEG"):
            image = self._draft(mode, height, width)
            if mode == "L" and image.size[::-1] in self._lumas:
                return self._lumas[image.size[::-1]]
            pixels = np.array(image if image.mode == mode else image.convert(mode))
            if mode == "L":
                self._keep(pixels)
            return pixels

    def _keep(self, luma_hw: npt.NDArray[np.uint8]) -> None:
        if luma_hw.size <= KEPT_PIXELS:
            self._lumas[luma_hw.shape] = luma_hw

    def _draft(self, mode: str, height: int, width: int) -> JpegImageFile:
        """The picture, not decoded yet, at the smallest size that libjpeg makes of at least height×width."""
        image = JpegImageFile(BytesIO(self._bare))
        image.draft(mode, (max(1, width), max(1, height)))
        return image

    def _shrunk(self, plane_hw: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
        """A decoded plane, antialiased, at height×width. The last pixel of what libjpeg has reduced may lie in part outside the picture."""
        scale = next(scale for scale in _SCALES if -(-self._stream.height // scale) == plane_hw.shape[0])
        scale = max(scale, next(scale for scale in _SCALES if -(-self._stream.width // scale) == plane_hw.shape[1]))
        inside = (0, 0, self._stream.width / scale, self._stream.height / scale)
        image = Image.fromarray(np.ascontiguousarray(plane_hw))
        return np.array(image.resize((width, height), Image.Resampling.BILINEAR, box=inside))


def _profile(icc_profile: bytes | None, space: RgbSpace, name: str) -> bytes | None:
    """The ICC profile of the coloured file: one in which its luma, which stays, has the lightness that it had.

    A profile of look-up tables for RGB stays; the chroma, computed in sRGB, is then only near what was meant.
    """
    if icc_profile is None or not space.is_converted:
        return space.output_profile
    if icc_profile[16:20] == b"GRAY":
        raise PictureError(
            f"{name}: has a grey ICC profile of look-up tables, in which no colour file can keep its luma; remove the profile"
        )
    return icc_profile
