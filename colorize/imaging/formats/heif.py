"""HEIF (HEIC): read and written by `pillow-heif`, an extra, `colorize[heif]`, because its wheel bundles libheif (LGPL) and x265 (GPL).

Always lossy: written at quality 95 without chroma subsampling, 8 bits as 8 and 10 or 12 as 12. EXIF, XMP and the profile are kept and the
note is added. The container's rotation is applied by libheif when it decodes, so pixels come upright and are stored so. Files of several
pictures are refused.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError
from colorize.imaging.guard import check_size, damage
from colorize.imaging.metadata import Metadata, exif_without_mark, orientation_of
from colorize.imaging.note import Note
from colorize.imaging.space import RgbSpace
from colorize.imaging.xmp import provenance_xmp

QUALITY = 95
PRESET = "ultrafast"  # of x265: 3.4 MP/s on one thread, 7 % larger than the usual preset, which takes seven times as long


class HeifFile:
    """A HEIF file, opened: its header is read, its pixels not yet decoded."""

    format = "HEIF"

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where `pillow-heif` is missing, and where the file is damaged, too large, or of several pictures."""
        try:
            import pillow_heif
        except ImportError as error:
            raise PictureError(f"{name}: is a HEIF file, which needs an extra: pip install 'colorize[heif]'") from error
        self._library, self._data, self._name = pillow_heif, data, name
        with damage(name, "HEIF"):
            file = self._library.open_heif(BytesIO(data), convert_hdr_to_8bit=False)
            if len(file) != 1:
                raise PictureError(f"{name}: is a HEIF file of {len(file)} pictures; files of one are read")
            self.width, self.height = file.size
            check_size(self.width, self.height, name)
            self._mode = file.mode
            info = file.info
            self._library.set_orientation(info)  # EXIF's own becomes 1: the pixels come upright
            profile = info.get("icc_profile") or None
        if self._mode.split(";")[0] not in ("L", "I", "LA", "RGB", "RGBA"):
            raise PictureError(f"{name}: is a HEIF file of the kind {self._mode}; grey and RGB are read")
        self.bits = 16 if ";" in self._mode else 8
        self._exif = exif_without_mark(info.get("exif"))
        upright = self._exif if orientation_of(self._exif) == 1 else None  # as the pixels are, whatever its EXIF says
        self.metadata = Metadata(exif=upright, xmp=info.get("xmp") or None, icc_profile=profile)
        self.space = RgbSpace(profile, name)

    def decode(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Pixels grey (h, w) or RGB (h, w, 3), and alpha (h, w) or None, full range. Raises PictureError where damaged."""
        with damage(self._name, "HEIF"):
            file = self._library.open_heif(BytesIO(self._data), convert_hdr_to_8bit=False)
            pixels = np.array(np.asarray(file))
            if pixels.shape[:2] != (self.height, self.width) or pixels.dtype.itemsize * 8 != self.bits:
                raise ValueError(f"{pixels.shape} pixels of {pixels.dtype} for {self.height}×{self.width}")
        if pixels.ndim == 2:
            return pixels, None
        if pixels.shape[2] in (1, 2):
            return pixels[..., 0], pixels[..., 1] if pixels.shape[2] == 2 else None
        return (pixels[..., :3], pixels[..., 3]) if pixels.shape[2] == 4 else (pixels, None)

    def encode(self, target: BinaryIO, rgb_hwc: npt.NDArray[Any], alpha_hw: npt.NDArray[Any] | None, note: Note | None) -> None:
        """Writes the file with these pixels. Raises PictureError where the note finds no room."""
        xmp = provenance_xmp(self.metadata.xmp, note, name=self._name) if note is not None else self.metadata.xmp
        options = {"exif": self._exif, "xmp": xmp, "icc_profile": self.space.output_profile}
        mode = "RGB" if alpha_hw is None else "RGBA"
        if alpha_hw is not None:
            rgb_hwc = np.dstack([rgb_hwc, alpha_hw])
        made = self._library.from_bytes(
            mode if self.bits == 8 else f"{mode};16", (self.width, self.height), np.ascontiguousarray(rgb_hwc).tobytes()
        )
        made.save(
            target,
            quality=QUALITY,
            chroma=444,
            bit_depth=8 if self.bits == 8 else 12,
            enc_params={"preset": PRESET},
            **{key: value for key, value in options.items() if value is not None},
        )
