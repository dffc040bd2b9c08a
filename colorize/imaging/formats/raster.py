"""Scans of one page whose pixels are decoded whole: PNG, WebP, JPEG 2000, BMP, the Netpbm family, and HEIF behind its extra.

Knows how chroma meets lightness, and nothing of how a format is laid out: each has a module with a class that reads the header, decodes,
and encodes RGB with the file's own metadata. The pixels of a small picture are kept from one call to the next, which is a quarter of what
a PNG takes in a bulk run; a large picture's live as long as a call, so that it is decoded once for each size that is asked for (lightness
and chroma of one size come from one pass) and once to be written. Beside a file's bytes and its pixels, writing needs the result's pixels
and a few strips; reading needs strips of LAB and the small planes.

A small plane is averaged by whole pixels to at least twice its size, then resampled by Pillow's antialiased bilinear filter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from colorize.errors import PictureError, printable
from colorize.imaging.formats.bmp import BmpFile
from colorize.imaging.formats.heif import HeifFile
from colorize.imaging.formats.jpeg2000 import Jpeg2000File
from colorize.imaging.formats.netpbm import NetpbmFile
from colorize.imaging.formats.png import PngFile
from colorize.imaging.formats.webp import WebpFile
from colorize.imaging.guard import HEAD_BYTES, damage
from colorize.imaging.metadata import Metadata
from colorize.imaging.note import Note
from colorize.imaging.scan import Page, Pixels, Scan
from colorize.imaging.space import RgbSpace
from colorize.imaging.upsample import ChromaUpsampler, Point

STRIP_PIXELS = 1 << 18

KEPT_PIXELS = 1 << 20
"""A picture of so many pixels stays decoded as long as its scan: for the thumbnail, for the network, and to be written."""


class RasterFile(Protocol):
    """What a format's module offers: a file, its header judged, its pixels not yet decoded."""

    format: str
    width: int
    height: int
    bits: int
    """8 or 16: of the pixels that `decode` gives and `encode` takes, full range."""
    metadata: Metadata
    space: RgbSpace

    def decode(self) -> tuple[Pixels, Pixels | None]:
        """Grey (h, w) or RGB (h, w, 3), and alpha (h, w) or None. Raises PictureError where the pixels are damaged."""

    def encode(self, target: BinaryIO, rgb_hwc: Pixels, alpha_hw: Pixels | None, note: Note | None) -> None:
        """Writes the file in the same format with these pixels. Raises PictureError where that cannot be."""


_FORMATS: tuple[tuple[int, bytes, Callable[[bytes, str], RasterFile]], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", PngFile),
    (8, b"WEBP", WebpFile),
    (4, b"jP  \r\n\x87\n", Jpeg2000File),
    (0, b"\xff\x4f\xff\x51", Jpeg2000File),
    (0, b"BM", BmpFile),
    *((0, b"P" + digit, NetpbmFile) for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
    *((4, b"ftyp" + brand, HeifFile) for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
)
_REFUSED = (
    (0, b"GIF8", "a GIF file"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (4, b"ftypavif", "an AVIF file"),
    (4, b"ftypavis", "an AVIF file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"8BPB", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"P7\n", "a PAM file"),
    (0, b"PF\n", "a PFM file"),
    (0, b"Pf\n", "a PFM file"),
)


def is_raster(data: bytes) -> bool:
    """Whether the bytes begin as a file of one of the formats that `RasterScan` reads."""
    return any(data.startswith(signature, offset) for offset, signature, _ in _FORMATS)


class RasterScan(Scan):
    """A PNG, WebP, JPEG 2000, BMP, PBM, PGM, PPM or HEIF file."""

    def __init__(self, data: bytes, name: str) -> None:
        """`name` is what messages call the file, on one line.

        Raises PictureError where `data` is none of these formats, damaged as far as the header shows, animated, or has more than
        MAX_PIXELS; and for HEIF where `pillow-heif` is not installed.
        """
        self.name = printable(name)
        self._file = self._opened(data)
        self.format = self._file.format
        file = self._file
        bits = file.depth if isinstance(file, Jpeg2000File) else file.bits
        self.pages = (Page(width=file.width, height=file.height, bits=bits, orientation=file.metadata.orientation),)
        self._kept: tuple[Pixels, Pixels | None] | None = None
        self._small: tuple[tuple[int, int], npt.NDArray[np.float32]] | None = None

    def lightness(self, page: int, height: int, width: int) -> npt.NDArray[np.float32]:
        """See `Scan`."""
        assert page == 0, f"there is one page, not page {page}"
        if self._small is not None and self._small[0] == (height, width):
            lab = self._small[1].copy()
        else:
            lab = _shrunk(self._decoded()[0], self._file.space.lightness, height, width)
        L_hw: npt.NDArray[np.float32] = lab[0]
        return L_hw

    def chroma(self, page: int, height: int, width: int) -> npt.NDArray[np.float32] | None:
        """See `Scan`. The lightness of the same pass is kept: who wants both asks for this first."""
        assert page == 0, f"there is one page, not page {page}"
        pixels, _ = self._decoded()
        lab = _shrunk(pixels, self._file.space.lightness if pixels.ndim == 2 else self._file.space.lab, height, width)
        self._small = (height, width), lab
        return lab[1:].copy() if len(lab) == 3 else None

    @property
    def metadata(self) -> Metadata:
        """See `Scan`."""
        return self._file.metadata

    def bands(self, page: int) -> Iterator[tuple[Pixels, Pixels | None]]:
        """See `Scan`."""
        pixels, alpha_hw = self._decoded()
        for top, bottom in _strips(*pixels.shape[:2]):
            rows = pixels[top:bottom]
            yield np.repeat(rows[..., None], 3, axis=2) if rows.ndim == 2 else rows, None if alpha_hw is None else alpha_hw[top:bottom]

    def write(self, target: BinaryIO, ab_2hw: Sequence[npt.NDArray[np.float32]], note: Note | None, points: Sequence[Point] = ()) -> None:
        """See `Scan`. Lossless files stay so: L differs by at most 1/255 of full scale in 8 bits, by 2/65535 in 16.

        BMP and Netpbm files have no place for a note.
        """
        assert len(ab_2hw) == 1, f"one chroma a page: 1, not {len(ab_2hw)}"
        pixels, alpha_hw = self._decoded()
        rgb_hwc = _colored(pixels, ab_2hw[0], self._file.space, self._file.bits, points)
        del pixels
        try:
            self._file.encode(target, rgb_hwc, alpha_hw, note)
        except PictureError:
            raise
        except (OSError, ValueError, LookupError, RuntimeError, struct.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the target's own, such as a full disk
            raise PictureError(f"{self.name}: cannot be written as {self.format}: {printable(str(error))}") from error

    def _opened(self, data: bytes) -> RasterFile:
        if not data:
            raise PictureError(f"{self.name}: is empty (zero bytes)")
        for offset, signature, what in _REFUSED:
            if data.startswith(signature, offset):
                raise PictureError(f"{self.name}: is {what}, which is not read; convert it to TIFF or PNG first")
        for offset, signature, opened in _FORMATS:
            if data.startswith(signature, offset):
                with damage(self.name, "picture"):
                    file = opened(data, self.name)
                if file.width <= 0 or file.height <= 0:
                    raise PictureError(f"{self.name}: is a damaged picture: by its header it has {file.width}×{file.height} pixels")
                return file
        if all(byte >= 32 or byte in b"\t\n\r\f" for byte in data[:HEAD_BYTES]):
            raise PictureError(f"{self.name}: is text, not a picture")
        raise PictureError(f"{self.name}: is no picture of a known format")

    def _decoded(self) -> tuple[Pixels, Pixels | None]:
        """Pixels and alpha, for reading only: they may be kept."""
        if self._kept is not None:
            return self._kept
        decoded = self._file.decode()
        if self._file.width * self._file.height <= KEPT_PIXELS:
            self._kept = decoded
        return decoded


def _colored(pixels: Pixels, ab_2hw: npt.NDArray[np.float32], space: RgbSpace, bits: int, points: Sequence[Point]) -> Pixels:
    """RGB (h, w, 3): the pixels' lightness, the chroma upsampled along their edges, a strip at a time."""
    height, width = pixels.shape[:2]
    rgb_hwc = np.empty((height, width, 3), np.uint8 if bits == 8 else np.uint16)
    (small_L_hw,) = _shrunk(pixels, space.lightness, *ab_2hw.shape[1:])
    upsampler = ChromaUpsampler(ab_2hw, small_L_hw, height, width, points)
    for top, bottom in _strips(height, width):
        L_hw = space.lightness(pixels[top:bottom])
        rgb_hwc[top:bottom] = space.compose(L_hw, upsampler.rows(top, L_hw), bits)
    return rgb_hwc


def _shrunk(pixels: Pixels, measure: Callable[[Pixels], npt.NDArray[np.float32]], height: int, width: int) -> npt.NDArray[np.float32]:
    """What `measure` makes of the pixels, L (h, w) or LAB (3, h, w), as (1 or 3, height, width), antialiased."""
    full_height, full_width = pixels.shape[:2]
    down, across = max(1, full_height // (2 * height)), max(1, full_width // (2 * width))
    reduced: list[npt.NDArray[np.float32]] = []
    for top, bottom in _strips(full_height, full_width, down):
        strip = measure(pixels[top:bottom]).reshape(-1, bottom - top, full_width)
        reduced.append(_averaged(_averaged(strip, 1, down), 2, across))
    size, box = (width, height), (0, 0, full_width / across, full_height / down)
    planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR, box)) for plane in np.concatenate(reduced, axis=1)]
    return np.stack(planes)


def _averaged(planes: npt.NDArray[np.float32], axis: int, factor: int) -> npt.NDArray[np.float32]:
    """The means of `factor` neighbours along an axis; the last one is of what is left. np.add.reduceat takes four times as long."""
    if factor == 1:
        return planes
    planes = planes.swapaxes(0, axis)
    whole = len(planes) // factor * factor
    means: npt.NDArray[np.float32] = np.add.reduce([planes[first:whole:factor] for first in range(factor)]) / np.float32(factor)
    if whole < len(planes):
        means = np.concatenate([means, planes[whole:].mean(0, keepdims=True)])
    return means.swapaxes(0, axis)


def _strips(height: int, width: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of rows, each a multiple of `multiple` long but for the last."""
    rows = max(1, STRIP_PIXELS // (width * multiple)) * multiple
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
