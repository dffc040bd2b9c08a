"""JPEG 2000, in its JP2 container or as a bare codestream: read and written by OpenJPEG at the same depth, 8 to 16 bits.

Whether a file is lossless is not written in it; its transform is. The reversible one (5-3) is written reversibly and without loss, the
irreversible one (9-7) irreversibly at 75 dB. Boxes are kept: resolution, EXIF, IPTC, XML and whatever else; XMP gets the note, the colour
specification becomes sRGB or the space's profile. A bare codestream has no place for them.
Fewer than 8 bits become 8. Refused with a reason: palettes, YCC, CMYK and LAB, subsampled or signed channels, several codestreams.
Measured on one thread: reading 16 MP/s grey and 5 RGB, writing RGB 10 MP/s, lossy 18. Sources: ITU-T T.800, annexes A and I.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError
from colorize.imaging.colorspace import rescaled
from colorize.imaging.guard import MAX_PARTS, check_size, damage
from colorize.imaging.metadata import Metadata, exif_without_mark
from colorize.imaging.note import Note
from colorize.imaging.space import RgbSpace
from colorize.imaging.xmp import provenance_xmp

LOSSY_DECIBELS = 75
"""Below about 70, OpenJPEG saves its error up for a few blocks, whose lightness is then 12 off; at 75, none is more than 0.9 off."""

_START = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = b"JpgTiffExif->JP2"
_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_SRGB, _GREY = 16, 17
_SPACES = {12: "CMYK", 14: "LAB", 18: "YCC"}


class Jpeg2000File:
    """A JPEG 2000 file, opened: boxes and the codestream's main header are read, the pixels not yet decoded."""

    format = "JPEG2000"
    depth: int
    """8 to 16: bits of a channel in the coloured file."""

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where the file is damaged, too large, or of a kind that is not read."""
        self._name = name
        self._is_bare = data.startswith(b"\xff\x4f")
        self._boxes: list[tuple[bytes, bytes]] = []
        codestreams: list[memoryview] = [memoryview(data)] if self._is_bare else []
        exif = xmp = iptc = profile = None
        self._resolution = b""
        dpi: tuple[float, float] | None = None
        alphas: set[int] | None = None
        with damage(name, "JPEG 2000"):
            for kind, content in [] if self._is_bare else _boxes(memoryview(data)):
                if kind == b"jp2c":
                    codestreams.append(content)
                elif kind == b"uuid" and bytes(content[:16]) == _XMP:
                    xmp = bytes(content[16:])
                elif kind == b"jp2h":
                    for inner, value in _boxes(content):
                        if inner == b"colr" and profile is None:
                            profile = self._color(bytes(value))
                        elif inner in (b"pclr", b"cmap"):
                            raise PictureError(f"{name}: is a JPEG 2000 with a palette, which is not read; convert it first")
                        elif inner == b"cdef":
                            alphas = {index for index, meaning, _ in struct.iter_unpack(">3H", value[2:]) if meaning == 1}
                        elif inner == b"res ":
                            self._resolution, dpi = _box(b"res ", bytes(value)), _resolution(value)
                elif kind not in (b"jP  ", b"ftyp"):
                    self._boxes.append((kind, bytes(content)))
                    if kind == b"uuid" and bytes(content[:16]) == _EXIF:
                        exif = exif_without_mark(bytes(content[16:]))
                    elif kind == b"uuid" and bytes(content[:16]) == _IPTC:
                        iptc = bytes(content[16:]) or None
            if len(codestreams) != 1:
                raise PictureError(f"{name}: is a JPEG 2000 of {len(codestreams)} codestreams; files of one picture are read")
            self._codestream = codestreams[0]
            self._read_codestream(self._codestream)
        self._has_alpha = self._channels in (2, 4)
        if self._has_alpha and alphas is not None and alphas != {self._channels - 1}:
            raise PictureError(f"{name}: is a JPEG 2000 whose channels mean something unusual, which is not read; convert it first")
        self.metadata = Metadata(exif=exif, xmp=xmp, iptc=iptc, icc_profile=profile, dpi=dpi)
        self.space = RgbSpace(profile, name)

    def decode(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Pixels grey (h, w) or RGB (h, w, 3), and alpha (h, w) or None, full range. Raises PictureError where damaged."""
        with damage(self._name, "JPEG 2000"):
            # In a container of its own: by the colour specification, imagecodecs would convert the channels.
            space = _SRGB if self._channels > 2 else _GREY
            color = b"\x01\0\0" + struct.pack(">I", space)
            header = _header(self.width, self.height, self._channels, self._stored_depth) + _box(b"colr", color)
            pixels = imagecodecs.jpeg2k_decode(_START + _box(b"jp2h", header) + _box(b"jp2c", bytes(self._codestream)), numthreads=1)
            shape = (self.height, self.width) if self._channels == 1 else (self.height, self.width, self._channels)
            if pixels.shape != shape or pixels.dtype.itemsize * 8 != self.bits:
                raise ValueError(f"{pixels.shape} pixels of {pixels.dtype} for {shape}")
        pixels = rescaled(pixels, 2**self._stored_depth - 1, 2**self.bits - 1)
        if not self._has_alpha:
            return pixels, None
        return (pixels[..., 0], pixels[..., 1]) if self._channels == 2 else (pixels[..., :3], pixels[..., 3])

    def encode(self, target: BinaryIO, rgb_hwc: npt.NDArray[Any], alpha_hw: npt.NDArray[Any] | None, note: Note | None) -> None:
        """Writes the file with these pixels. Raises PictureError where the note finds no room."""
        if alpha_hw is not None:
            rgb_hwc = np.dstack([rgb_hwc, alpha_hw])
        encoded = imagecodecs.jpeg2k_encode(
            rescaled(rgb_hwc, 2**self.bits - 1, 2**self.depth - 1),
            level=0 if self._is_reversible else LOSSY_DECIBELS,
            codecformat="j2k" if self._is_bare else "jp2",
            colorspace=imagecodecs.JPEG2K.CLRSPC.SRGB,
            reversible=self._is_reversible,
            bitspersample=self.depth,
            numthreads=1,
        )
        if self._is_bare:
            target.write(encoded)
            return
        xmp = provenance_xmp(self.metadata.xmp, note, name=self._name) if note is not None else self.metadata.xmp
        profile = self.space.output_profile
        color = b"\x01\0\0" + struct.pack(">I", _SRGB) if profile is None else b"\x02\0\0" + profile
        channels = 3 if alpha_hw is None else 4
        header = _header(self.width, self.height, channels, self.depth) + _box(b"colr", color)
        if alpha_hw is not None:
            meanings = [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)]  # of each channel: colour or alpha, and of what
            header += _box(b"cdef", struct.pack(">H", 4) + b"".join(struct.pack(">3H", *meaning) for meaning in meanings))
        target.write(_START + _box(b"jp2h", header + self._resolution))
        target.writelines(_box(kind, content) for kind, content in self._boxes)
        if xmp is not None:
            target.write(_box(b"uuid", _XMP + xmp))
        target.write(next(_box(kind, bytes(content)) for kind, content in _boxes(memoryview(encoded)) if kind == b"jp2c"))

    def _color(self, value: bytes) -> bytes | None:
        """The profile of a colour specification; None for sRGB and grey."""
        method = value[0]
        if method == 1:
            (space,) = struct.unpack_from(">I", value, 3)
            if space not in (_SRGB, _GREY):
                what = _SPACES.get(space, f"colour space {space}")
                raise PictureError(f"{self._name}: is a JPEG 2000 in {what}; grey and RGB are read")
            return None
        return value[3:] if method in (2, 3) else None

    def _read_codestream(self, stream: memoryview) -> None:
        """Size, channels, depth and transform, by the main header."""
        marker, _, _, right, bottom, left, top = struct.unpack_from(">IHHIIII", stream, 0)
        if marker != 0xFF4FFF51:
            raise ValueError("its codestream does not begin with its size")
        (self._channels,) = struct.unpack_from(">H", stream, 40)
        self.width, self.height = right - left, bottom - top
        check_size(self.width, self.height, self._name)
        if not 1 <= self._channels <= 4:
            raise PictureError(f"{self._name}: is a JPEG 2000 of {self._channels} channels; grey and RGB are read")
        components = {bytes(stream[42 + 3 * index : 45 + 3 * index]) for index in range(self._channels)}
        depth, *sampling = next(iter(components))
        if len(components) > 1 or sampling != [1, 1] or depth > 15:
            raise PictureError(
                f"{self._name}: is a JPEG 2000 with signed, subsampled or unequal channels, which is not read; convert it first"
            )
        self._stored_depth = depth + 1
        self.depth = max(8, self._stored_depth)
        self.bits = 8 if self.depth == 8 else 16
        place = 4 + struct.unpack_from(">H", stream, 4)[0]
        while True:
            marker, length = struct.unpack_from(">HH", stream, place)
            if marker == 0xFF52:  # COD: the default coding style
                self._is_reversible = stream[place + 13] == 1
                return
            if marker in (0xFF90, 0xFF93) or length < 2:
                raise ValueError("its codestream does not say how it is coded")
            place += 2 + length


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    place = count = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if length == 0 else place + length
        if end < start or end > len(data):
            raise ValueError(f"the box at byte {place} is longer than the file")
        count += 1
        if count > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS} boxes")
        yield kind, data[start:end]
        place = end


def _header(width: int, height: int, channels: int, depth: int) -> bytes:
    return _box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, depth - 1, 7, 0, 0))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _resolution(content: memoryview) -> tuple[float, float] | None:
    """Pixels an inch, by a resolution box: as captured, or else as to be displayed."""
    for kind, value in sorted(_boxes(content), key=lambda box: box[0]):
        if kind in (b"resc", b"resd") and len(value) == 10:
            down, down_by, across, across_by, down_ten, across_ten = struct.unpack(">4H2b", value)
            if down and down_by and across and across_by:
                return (across / across_by * 10.0**across_ten * 0.0254, down / down_by * 10.0**down_ten * 0.0254)
    return None
