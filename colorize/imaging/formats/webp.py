"""WebP: lossless files stay lossless, lossy ones are written at quality 95; animations are refused.

The container (RIFF: a chunk of pixels, and with VP8X chunks of profile, EXIF and XMP) is read here, the pixels by libwebp; chunks of other
kinds are kept, behind all the rest. Lossy WebP
keeps chroma at half resolution in both directions and limited range, so its lightness is kept as well as that quality allows, 3 of L
at the worst pixels of a photograph. Measured on one thread: reading 81 MP/s, writing lossy 26 MP/s, lossless 20 MP/s by libwebp's
fastest method, whose files are 29 % larger than those of the next one (7.5 MP/s).
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from colorize.errors import PictureError
from colorize.imaging.guard import MAX_PARTS, check_size, damage
from colorize.imaging.metadata import Metadata, exif_without_mark
from colorize.imaging.note import Note
from colorize.imaging.space import RgbSpace
from colorize.imaging.xmp import provenance_xmp

QUALITY = 95

_KNOWN = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF", b"XMP ")


class WebpFile:
    """A WebP file, opened: its chunks are checked, its pixels not yet decoded."""

    format = "WEBP"
    bits = 8

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where the file is damaged, too large or animated."""
        self._data, self._name = data, name
        all_chunks = _chunks(data, name)
        chunks = dict(reversed(all_chunks))  # of each kind the first counts
        if b"ANIM" in chunks or b"ANMF" in chunks or (chunks.get(b"VP8X", b"\0")[:1] or b"\0")[0] & 2:
            raise PictureError(f"{name}: is an animated WebP; still pictures are read")
        self._is_lossless = b"VP8L" in chunks
        self._others = [(kind, content) for kind, content in all_chunks if kind not in _KNOWN]
        self.width, self.height = _size(chunks, name)
        check_size(self.width, self.height, name)
        profile, exif = chunks.get(b"ICCP"), exif_without_mark(chunks.get(b"EXIF"))
        self.metadata = Metadata(exif=exif, xmp=chunks.get(b"XMP ") or None, icc_profile=profile or None)
        self.space = RgbSpace(self.metadata.icc_profile, name)

    def decode(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        """Pixels RGB (h, w, 3) and alpha (h, w) or None. Raises PictureError where they are damaged."""
        with damage(self._name, "WebP"):
            pixels = imagecodecs.webp_decode(self._data)
            if pixels.shape[:2] != (self.height, self.width):
                raise ValueError(f"{pixels.shape[1]}×{pixels.shape[0]} pixels for {self.width}×{self.height}")
        return (pixels[..., :3], pixels[..., 3]) if pixels.shape[2] == 4 else (pixels, None)

    def encode(self, target: BinaryIO, rgb_hwc: npt.NDArray[Any], alpha_hw: npt.NDArray[Any] | None, note: Note | None) -> None:
        """Writes the file with these pixels. Raises PictureError where the note finds no room."""
        options: dict[str, Any] = {"lossless": True, "quality": 0, "method": 0, "exact": True}
        if not self._is_lossless:
            options = {"quality": QUALITY, "method": 2, "exact": True}
        xmp = provenance_xmp(self.metadata.xmp, note, name=self._name) if note is not None else self.metadata.xmp
        options |= {key: value for key, value in (("exif", self.metadata.exif), ("xmp", xmp)) if value is not None}
        options["icc_profile"] = self.space.output_profile or ""
        if alpha_hw is not None:
            rgb_hwc = np.dstack([rgb_hwc, alpha_hw])
        buffer = BytesIO()
        Image.fromarray(rgb_hwc).save(buffer, "WEBP", **options)
        others = b"".join(struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2) for kind, content in self._others)
        made = buffer.getbuffer()
        target.writelines([b"RIFF", struct.pack("<I", len(made) - 8 + len(others)), made[8:], others])


def _chunks(data: bytes, name: str) -> list[tuple[bytes, bytes]]:
    """All chunks, kind and content. PictureError where one is cut off, or where there are more than `MAX_PARTS`."""
    if data[:4] != b"RIFF":
        raise PictureError(f"{name}: is a damaged WebP: it is no RIFF file")
    chunks: list[tuple[bytes, bytes]] = []
    stop, place = 8 + int(struct.unpack_from("<I", data, 4)[0]), 12
    if stop > len(data):
        raise PictureError(f"{name}: is a truncated WebP: it has {len(data)} bytes of {stop}")
    while place + 8 <= stop:
        kind, size = struct.unpack_from("<4sI", data, place)
        if place + 8 + size > stop:
            raise PictureError(f"{name}: is a truncated or damaged WebP: the chunk at byte {place} is longer than the file")
        if len(chunks) == MAX_PARTS:
            raise PictureError(f"{name}: is a WebP of more than {MAX_PARTS} chunks; save it anew with a picture editor")
        chunks.append((kind, data[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    return chunks


def _size(chunks: dict[bytes, bytes], name: str) -> tuple[int, int]:
    """Width and height by the chunk of pixels."""
    lossy, lossless = chunks.get(b"VP8 ", b""), chunks.get(b"VP8L", b"")
    if len(lossy) >= 10 and lossy[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", lossy, 6)
        return width & 0x3FFF, height & 0x3FFF
    if len(lossless) >= 5 and lossless[0] == 0x2F:
        (both,) = struct.unpack_from("<I", lossless, 1)
        return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    raise PictureError(f"{name}: is a truncated or damaged WebP: there are no pixels in it")
