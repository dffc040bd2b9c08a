"""BMP: read by Pillow, of any depth and compression that it knows, and written with 24 bits a pixel, or 32 with alpha.

Resolution and an embedded profile stay, the latter in the header's fifth version. There is no place for XMP, so none for the note.
A profile that is only named as a file beside the picture is not looked for: the numbers count as sRGB.
Source: Microsoft, BITMAPINFOHEADER, BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL.BmpImagePlugin import BmpImageFile

from colorize.errors import PictureError
from colorize.imaging.guard import check_size, damage
from colorize.imaging.metadata import Metadata
from colorize.imaging.note import Note
from colorize.imaging.space import RgbSpace

_MAX_FILE = 0xFFFFFFFF


class BmpFile:
    """A BMP file, opened."""

    format = "BMP"
    bits = 8

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where the header is damaged or the picture too large."""
        self._data, self._name = data, name
        if len(data) < 26:
            raise PictureError(f"{name}: is a truncated BMP: it ends after {len(data)} bytes")
        (header,) = struct.unpack_from("<I", data, 14)
        self._resolution, profile = (0, 0), None
        if header == 12:
            self.width, self.height = struct.unpack_from("<HH", data, 18)
        elif header >= 40 and len(data) >= 54:
            self.width, height = struct.unpack_from("<ii", data, 18)
            self.height = abs(height)
            across, down = struct.unpack_from("<ii", data, 38)
            self._resolution = (across, down) if across > 0 and down > 0 else (0, 0)
            if header >= 124 and len(data) >= 138 and data[70:74] == b"DEBM":
                start, size = struct.unpack_from("<II", data, 126)
                profile = data[14 + start : 14 + start + size]
        else:
            raise PictureError(f"{name}: is a truncated or damaged BMP: its header is incomplete")
        check_size(self.width, self.height, name)
        across, down = self._resolution
        self.metadata = Metadata(icc_profile=profile, dpi=(across * 0.0254, down * 0.0254) if across else None)
        self.space = RgbSpace(profile, name)

    def decode(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        """Pixels grey (h, w) or RGB (h, w, 3), and alpha (h, w) or None. Raises PictureError where they are damaged."""
        with damage(self._name, "BMP"):
            image = BmpImageFile(BytesIO(self._data))
            if image.size != (self.width, self.height):
                raise ValueError(f"{image.size} pixels for {self.width}×{self.height}")
            if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
                raise ValueError(f"pixels of the kind {image.mode}")
            pixels = np.array(image.convert({"1": "L", "P": "RGB"}.get(image.mode, image.mode)))
        return (pixels[..., :3], pixels[..., 3]) if pixels.ndim == 3 and pixels.shape[2] == 4 else (pixels, None)

    def encode(self, target: BinaryIO, rgb_hwc: npt.NDArray[Any], alpha_hw: npt.NDArray[Any] | None, note: Note | None) -> None:
        """Writes the file with these pixels; there is no place for the note. Raises PictureError above 4 GB."""
        profile = self.space.output_profile
        depth = 24 if alpha_hw is None else 32
        row = -(-self.width * depth // 32) * 4
        size, is_fifth = row * self.height, alpha_hw is not None or profile is not None
        header_size = 124 if is_fifth else 40
        start = 14 + header_size
        total = start + size + len(profile or b"")
        if total > _MAX_FILE:
            raise PictureError(f"{self._name}: has more pixels than a BMP holds in colour")
        compression = 0 if alpha_hw is None else 3
        header = struct.pack("<IiiHHII", header_size, self.width, self.height, 1, depth, compression, size)
        header += struct.pack("<iiII", *self._resolution, 0, 0)
        if is_fifth:
            masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if alpha_hw is not None else (0, 0, 0, 0)
            header += struct.pack("<4I4s48xIIII", *masks, b"DEBM" if profile else b"BGRs", 4, header_size + size, len(profile or b""), 0)
        target.write(struct.pack("<2sIHHI", b"BM", total, 0, 0, start) + header)
        for top in range(self.height - 1, -1, -256):  # rows stand bottom up
            rows = slice(max(0, top - 255), top + 1)
            padded = np.zeros((rows.stop - rows.start, row), np.uint8)
            channels = padded[:, : self.width * depth // 8].reshape(-1, self.width, depth // 8)
            channels[..., :3] = rgb_hwc[rows, :, ::-1]
            if alpha_hw is not None:
                channels[..., 3] = alpha_hw[rows]
            target.write(padded[::-1].tobytes())
        target.write(profile or b"")
