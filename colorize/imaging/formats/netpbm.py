"""PBM, PGM and PPM, plain and raw, of 8 and 16 bits: read, and written as raw PPM of all 8 or 16 bits with the same comments.

They hold no profile (values are taken for sRGB, as programs show them), no resolution and no metadata, so no note either.
A maximal value below 255 becomes 255 and one above it 65535: a colour needs finer steps than its grey to have the same lightness. A file of
several pictures is refused. Source: netpbm's ppm(5), pgm(5), pbm(5).
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError
from colorize.imaging.colorspace import rescaled
from colorize.imaging.guard import check_size, damage
from colorize.imaging.metadata import Metadata
from colorize.imaging.note import Note
from colorize.imaging.space import RgbSpace

_MAX_HEADER = 100_000
_COMMENT = re.compile(rb"#[^\n\r]*[\n\r]?")
_TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,10})(?=[\s#]|$)")


class NetpbmFile:
    """A PBM, PGM or PPM file, opened."""

    format = "PPM"

    def __init__(self, data: bytes, name: str) -> None:
        """Raises PictureError where the header is damaged or the picture too large."""
        self._data, self._name, self._kind = data, name, data[1] - ord("0")
        is_bitmap = self._kind in (1, 4)
        values, place = [], 2
        for _ in range(2 if is_bitmap else 3):
            found = _TOKEN.match(data, place, min(len(data), place + _MAX_HEADER))
            if found is None:
                raise PictureError(f"{name}: is a truncated or damaged Netpbm file: its header is incomplete")
            values.append(int(found.group(1)))
            place = found.end()
        self.width, self.height = values[:2]
        check_size(self.width, self.height, name)
        self._maximum = 1 if is_bitmap else values[2]
        if not 1 <= self._maximum <= 65535:
            raise PictureError(f"{name}: is a damaged Netpbm file: its maximal value is {self._maximum}")
        self._comments = [comment.strip() for comment in _COMMENT.findall(data[2:place])]
        self._start = place + 1 if self._kind > 3 else place  # one white space character before raw pixels
        self.bits = 8 if self._maximum < 256 else 16
        self.metadata = Metadata()
        self.space = RgbSpace(None, name)

    def decode(self) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.uint16], None]:
        """Pixels grey (h, w) or RGB (h, w, 3), scaled to full range. Raises PictureError where there are too few or too many."""
        shape = (self.height, self.width, 3) if self._kind in (3, 6) else (self.height, self.width)
        with damage(self._name, "Netpbm file"):
            levels = self._plain(shape) if self._kind < 4 else self._raw(shape)
        if self._kind in (1, 4):
            levels = 1 - levels  # in a bitmap 1 is black
        if levels.size and int(levels.max()) > self._maximum:
            raise PictureError(f"{self._name}: is a damaged Netpbm file: a value exceeds {self._maximum}")
        return rescaled(levels, self._maximum, 2**self.bits - 1), None

    def encode(self, target: BinaryIO, rgb_hwc: npt.NDArray[Any], alpha_hw: npt.NDArray[Any] | None, note: Note | None) -> None:
        """Writes a raw PPM with these pixels; there is no place for the note."""
        assert alpha_hw is None, "Netpbm files have no alpha"
        target.write(b"\n".join([b"P6", *self._comments, b"%d %d" % (self.width, self.height), b"%d\n" % (2**self.bits - 1)]))
        target.write(rgb_hwc.astype(rgb_hwc.dtype.newbyteorder(">")).data)

    def _raw(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        rest = memoryview(self._data)[self._start :]
        if self._kind == 4:
            row = -(-self.width // 8)
            self._expect(len(rest), row * self.height)
            packed = np.frombuffer(rest, np.uint8, row * self.height).reshape(self.height, row)
            return np.unpackbits(packed, axis=1, count=self.width)
        stored = np.dtype(np.uint8) if self.bits == 8 else np.dtype(">u2")
        count = int(np.prod(shape))
        self._expect(len(rest), count * stored.itemsize)
        levels = np.frombuffer(rest, stored, count).reshape(shape)
        return levels if self.bits == 8 else levels.astype(np.uint16)

    def _plain(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        text = _COMMENT.sub(b" ", self._data[self._start :])
        count = int(np.prod(shape))
        if len(text) > 16 * count + _MAX_HEADER:
            raise ValueError(f"{len(text)} characters for {count} values")
        if self._kind == 1:  # its digits need no space between them
            digits = np.frombuffer(text.translate(None, b" \t\n\r\v\f"), np.uint8) - ord("0")
            self._expect(len(digits), count)
            if (digits > 1).any():
                raise ValueError("a bitmap of other digits than 0 and 1")
            return digits.reshape(shape)
        if not re.fullmatch(rb"[\d\s]*", text):
            raise ValueError("other characters than digits")
        levels = np.fromstring(text, np.int64, sep=" ")  # this mode of it is not deprecated; its text has been checked
        self._expect(len(levels), count)
        if not 0 <= int(levels.min()) <= int(levels.max()) <= self._maximum:
            raise ValueError(f"a value exceeds {self._maximum}")
        return levels.astype(np.uint8 if self.bits == 8 else np.uint16).reshape(shape)

    @staticmethod
    def _expect(present: int, expected: int) -> None:
        if present < expected:
            raise ValueError(f"{expected - present} of {expected} bytes or values of pixels are missing")
        if present > expected + 2:  # a line break at the end does no harm
            raise ValueError(f"{present - expected} bytes or values follow its pixels; files of several pictures are not read")
