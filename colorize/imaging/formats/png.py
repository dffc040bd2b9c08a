"""PNG of every kind but animated ones: read with all that stands beside the pixels, and written in colour at the same depth.

Palettes, 1, 2 and 4 bits become 8; a transparent colour becomes an alpha channel. Chunks are kept as they are, with these exceptions:
XMP gets the note; iCCP is that of the colour space's output; cHRM is left out where it is not sRGB's, bKGD becomes RGB, sBIT, hIST and
unknown chunks marked unsafe to copy (ISO 15948, section 5.4) are left out, since they describe the pixels that were.
A gAMA that stands alone and is not sRGB's 1/2.2 is obeyed as a profile would be, and stays.
IPTC, and in old files EXIF and XMP, stand in texts of hexadecimal digits, as ImageMagick writes them and ExifTool reads them.

All checksums are verified, libpng's own included; missing rows are an error of libpng's. Measured on one thread: reading 112 MP/s
(Pillow 90); writing RGB with the filter Paeth and run lengths only 40 MP/s, which is 15 % smaller than libpng's usual strategy at level 3
(17 MP/s) and flat borders stay small, as they do not with Huffman codes alone (60 MP/s); Pillow at level 6 3.9 MP/s.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError
from colorize.imaging.colorspace import SRGB
from colorize.imaging.guard import check_size, damage, hushed
from colorize.imaging.metadata import Metadata, exif_without_mark, iptc_among
from colorize.imaging.note import Note
from colorize.imaging.profile import MAX_PROFILE_BYTES, make_profile
from colorize.imaging.space import RgbSpace
from colorize.imaging.xmp import provenance_xmp
from colorize.imaging.xmp_packet import MAX_PACKET_BYTES

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
"""Of a file, and one more for each KiB of it: pixels come in chunks of 8 KiB, or one a row; empty ones take 24 times their bytes."""

_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # of each colour type
XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_PROFILE = b"Raw profile type "
_HIGH_RANGES = (b"\x10", b"\x12")
"""By cICP's second byte, the transfer of ITU-T H.273: taken for sRGB's, such numbers would give another lightness."""
_SRGB_GAMMA = 45_455  # of 100,000; what programs write for sRGB
_SRGB_CHROMATICITIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
_REPLACED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"sBIT", b"hIST", b"bKGD", b"iCCP", b"cHRM")


class PngFile:
    """A PNG, opened: its chunks are checked, its pixels not yet decoded."""

    format = "PNG"

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where the file is damaged, too large or animated."""
        if len(data) < 33 or data[12:16] != b"IHDR":
            raise PictureError(f"{name}: is a truncated or damaged PNG: its header is incomplete")
        self._data, self._name = data, name
        self.width, self.height, self._depth, self._color_type = struct.unpack(">IIBB", data[16:26])
        check_size(self.width, self.height, name)
        if self._depth not in _DEPTHS.get(self._color_type, ()):
            raise PictureError(f"{name}: is a damaged PNG: there is no colour type {self._color_type} of {self._depth} bits")
        self.bits = 16 if self._depth == 16 else 8
        self._chunks = png_chunks(data, name)
        kinds = [kind for kind, _ in self._chunks]
        if b"acTL" in kinds:
            raise PictureError(f"{name}: is an animated PNG; still pictures are read")
        if any(kind == b"cICP" and bytes(content[1:2]) in _HIGH_RANGES for kind, content in self._chunks):
            raise PictureError(f"{name}: is a PNG of high dynamic range (PQ or HLG), which is not read; convert it to sRGB first")
        with damage(name, "PNG"):
            self.metadata = self._read_metadata()
            self.space = self._read_space(kinds)

    def decode(self) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.uint16], npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None]:
        """Pixels, grey (h, w) or RGB (h, w, 3), and alpha (h, w) or None, uint8 or uint16. Raises PictureError where damaged."""
        with damage(self._name, "PNG"), hushed("imagecodecs"):
            pixels = imagecodecs.png_decode(self._data)
            if pixels.shape[:2] != (self.height, self.width) or pixels.dtype.itemsize * 8 != self.bits:
                raise ValueError(f"{pixels.shape} pixels of {pixels.dtype} for {self.height}×{self.width}")
        if pixels.ndim == 2:
            return pixels, None
        if pixels.shape[2] == 2:
            return pixels[..., 0], pixels[..., 1]
        return (pixels[..., :3], pixels[..., 3]) if pixels.shape[2] == 4 else (pixels, None)

    def encode(
        self,
        target: BinaryIO,
        rgb_hwc: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
        alpha_hw: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None,
        note: Note | None,
    ) -> None:
        """Writes the file with these pixels. Raises PictureError where the note finds no room."""
        xmp = self.metadata.xmp
        if note is not None:
            xmp = provenance_xmp(xmp, note, name=self._name)
        channels_hwc = rgb_hwc if alpha_hw is None else np.dstack([rgb_hwc, alpha_hw])
        encoded = imagecodecs.png_encode(channels_hwc, level=1, strategy=imagecodecs.PNG.STRATEGY.RLE, filter=imagecodecs.PNG.FILTER.PAETH)
        made = png_chunks(bytes(encoded), self._name)
        before: list[bytes] = [SIGNATURE, png_chunk(*made[0])]
        if self._embedded is not None:
            before.append(png_chunk(b"iCCP", self._embedded))
        after: list[bytes] = []
        part = before
        for kind, content in self._chunks:
            if kind == b"IDAT":
                part = after
            elif kind == b"cHRM" and self._has_chromaticities_of_srgb(content):
                part.append(png_chunk(kind, content))
            elif kind == b"bKGD":
                part.append(png_chunk(kind, self._background(content)))
            elif kind == b"iTXt" and bytes(content[: len(XMP_KEYWORD)]) == XMP_KEYWORD:
                continue
            elif kind not in _REPLACED and (kind in _KNOWN or kind[3:4].islower()):
                part.append(png_chunk(kind, content))
        if xmp is not None:
            before.append(png_chunk(b"iTXt", XMP_KEYWORD + bytes(4) + xmp))
        target.writelines(before)
        target.writelines(png_chunk(kind, content) for kind, content in made if kind == b"IDAT")
        target.writelines([*after, png_chunk(b"IEND", b"")])

    def _read_metadata(self) -> Metadata:
        exif = xmp = iptc = profile = None
        raw: dict[bytes, bytes] = {}
        dpi: tuple[float, float] | None = None
        for kind, content in self._chunks:
            if kind == b"eXIf":
                exif = exif_without_mark(bytes(content))
            elif kind == b"iTXt" and bytes(content[: len(XMP_KEYWORD)]) == XMP_KEYWORD:
                xmp = _international_text(bytes(content[len(XMP_KEYWORD) :]))
            elif kind == b"iCCP" and profile is None:
                profile = _inflated(_behind(1, content, "iCCP")[1:], MAX_PROFILE_BYTES)
            elif kind == b"pHYs" and len(content) == 9 and content[8] == 1:
                across, down = struct.unpack(">II", content[:8])
                dpi = (across * 0.0254, down * 0.0254) if across and down else None
            elif kind in (b"tEXt", b"zTXt") and bytes(content[: len(_RAW_PROFILE)]) == _RAW_PROFILE:
                keyword, _, text = bytes(content[len(_RAW_PROFILE) :]).partition(b"\0")
                raw.setdefault(keyword, _raw_profile(text, is_compressed=kind == b"zTXt"))
        block = exif_without_mark(raw.get(b"exif") or raw.get(b"APP1"))
        if exif is None and block is not None and block.startswith((b"II*\0", b"MM\0*")):
            exif = block
        xmp = xmp or raw.get(b"xmp") or None
        iptc = iptc_among(raw.get(b"iptc") or raw.get(b"8bim") or b"")
        return Metadata(exif=exif, xmp=xmp, iptc=iptc, icc_profile=profile, dpi=dpi)

    def _read_space(self, kinds: list[bytes]) -> RgbSpace:
        profile = self.metadata.icc_profile
        self._embedded: bytes | None = None
        if profile is None and b"gAMA" in kinds and b"sRGB" not in kinds:
            (gamma,) = struct.unpack(">I", dict(self._chunks)[b"gAMA"])
            if 10_000 <= gamma <= 1_000_000 and abs(gamma / _SRGB_GAMMA - 1) > 0.02:  # encoded = light^(gamma / 100,000)
                curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * 100_000 / gamma))
                made = make_profile(SRGB.xyz_from_rgb, curve, "gAMA")
                self.metadata = replace(self.metadata, icc_profile=made)  # for whoever takes the pixels elsewhere
                return RgbSpace(made, self._name)
        space = RgbSpace(profile, self._name)
        if space.output_profile is not None:
            self._embedded = b"ICC profile\0\0" + zlib.compress(space.output_profile)
            if space.output_profile == profile:
                self._embedded = bytes(dict(self._chunks)[b"iCCP"])
        return space

    def _background(self, content: memoryview) -> bytes:
        """bKGD of grey or of a palette as it is in RGB."""
        if self._color_type in (0, 4) and len(content) == 2:
            (level,) = struct.unpack(">H", content)
            level = level * 255 // (2**self._depth - 1) if self._depth < 8 else level
            return struct.pack(">3H", level, level, level)
        if self._color_type == 3 and len(content) == 1:
            palette = bytes(dict(self._chunks).get(b"PLTE", b""))
            return struct.pack(">3H", *(palette[3 * content[0] : 3 * content[0] + 3] or bytes(3)))
        return bytes(content)

    @staticmethod
    def _has_chromaticities_of_srgb(content: memoryview) -> bool:
        if len(content) != 32:
            return False
        pairs = zip(struct.unpack(">8I", content), _SRGB_CHROMATICITIES, strict=True)
        return all(abs(given - known) < 200 for given, known in pairs)


_KNOWN = (b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"sPLT", b"sCAL", b"sTER")
"""Chunks that hold for coloured pixels as well, safe to copy or not."""


def png_chunks(data: bytes, name: str) -> list[tuple[bytes, memoryview]]:
    """A PNG's chunks, kind and content; PictureError unless all are whole, have their checksum, end with IEND and are not too many."""
    chunks: list[tuple[bytes, memoryview]] = []
    kind, position, view = b"", len(SIGNATURE), memoryview(data)
    limit = MAX_CHUNKS + len(data) // 1024
    while kind != b"IEND":
        if position + 12 > len(data):
            raise PictureError(f"{name}: is a truncated PNG: it ends after {len(data)} bytes, before its last chunk")
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            raise PictureError(f"{name}: is a truncated PNG: it ends after {len(data)} bytes, inside a chunk of {length} bytes")
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise PictureError(f"{name}: is a damaged PNG: the checksum at byte {end} is wrong")
        if len(chunks) == limit:
            raise PictureError(f"{name}: is a PNG of more than {limit} chunks; save it anew with a picture editor")
        chunks.append((kind, view[position + 8 : end]))
        position = end + 4
    return chunks


def png_chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    """A chunk with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _international_text(content: bytes) -> bytes:
    """The text of an iTXt chunk after its keyword: flag, method, language, translated keyword, text."""
    compressed, text = content[:1], _behind(2, content[2:], "iTXt")
    return _inflated(text, MAX_PACKET_BYTES) if compressed != b"\0" else text


def _raw_profile(text: bytes, *, is_compressed: bool) -> bytes:
    """What the text of a raw profile says: a line with its name, one with its length, hexadecimal digits. Nothing where it is damaged."""
    try:
        _, _, size, digits = (_inflated(text[1:], MAX_PROFILE_BYTES) if is_compressed else text).split(b"\n", 3)
        profile = bytes.fromhex(digits.decode("ascii"))
        return profile[: int(size)] if len(profile) >= int(size) else b""
    except (ValueError, zlib.error):
        return b""


def _behind(count: int, content: bytes | memoryview, kind: str) -> bytes:
    """What follows `count` texts, each of which ends with a zero."""
    parts = bytes(content).split(b"\0", count)
    if len(parts) <= count:
        raise ValueError(f"its {kind} chunk is cut off")
    return parts[count]


def _inflated(compressed: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(compressed, limit + 1)
    if len(inflated) > limit:
        raise ValueError(f"a compressed chunk holds more than {limit} bytes")
    if not inflater.eof:
        raise ValueError("a compressed chunk is cut off")
    return inflated
