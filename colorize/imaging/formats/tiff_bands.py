"""A page's pixels in bands of rows, read from its strips or tiles and written into strips or tiles, never all at once.

Knows nothing of colour. A band has about a million pixels. What must be held besides is a row of tiles, or a strip that only can be decoded
whole (JPEG, CCITT, 8 bits at most); plain, deflated, LZW and PackBits strips of any size are read bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from colorize.imaging.formats.tiff_codec import Pixels, decode, decompress, encode, in_order, unpack
from colorize.imaging.formats.tiff_directory import Order, Source
from colorize.imaging.formats.tiff_pieces import CodecError, inflate, regrouped, unlzw, unpackbits
from colorize.imaging.formats.tiff_raster import CCITT, DEFLATE, JPEG, LZW, NONE, OLD_DEFLATE, RGB, WHITE_IS_ZERO, Raster
from colorize.imaging.formats.tiff_target import NewTag, Target

BAND_PIXELS = 1 << 20
LARGE_STRIP = 8 << 20
"""Bytes of a strip, decoded or not, from which on it is decoded bit by bit."""
MAX_STRIP = 16 << 20
"""Bytes of a compressed strip that is written; the source's larger ones are divided."""

_INPUT_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Band:
    """Rows of a page, without WhiteIsZero and palette."""

    top: int
    pixels: Pixels
    """Grey (h, w) or RGB (h, w, 3), 8 or 16 bits."""
    extras: Pixels | None
    """The other channels (h, w, n), as they are."""


def read_bands(source: Source, raster: Raster) -> Iterator[Band]:
    """All rows of a page of an opened source, from the top. Raises PictureError where they are damaged, when it comes to them."""
    blocks = _tiles(source, raster) if raster.tile else _gathered(_strips(source, raster))
    top = 0
    rows = max(1, BAND_PIXELS // raster.width)
    for block in blocks:
        for start in range(0, len(block), rows):
            stored = block[start : start + rows]
            yield Band(top, _meaning(stored[..., : raster.colors], raster), stored[..., raster.colors :] if raster.extras else None)
            top += len(stored)
        del block, stored
    assert top == raster.height, f"{top} of {raster.height} rows"


def _meaning(stored: Pixels, raster: Raster) -> Pixels:
    pixels: Pixels = stored if raster.colors == 3 else stored[..., 0]
    if raster.palette is not None:
        return np.take(raster.palette, pixels, axis=0)
    return ~pixels if raster.photometric == WHITE_IS_ZERO else pixels


def _gathered(blocks: Iterator[Pixels]) -> Iterator[Pixels]:
    """Small blocks put together."""
    held: list[Pixels] = []
    pixels = 0
    for block in blocks:
        held.append(block)
        pixels += block.shape[0] * block.shape[1]
        del block  # or it would be held while the next is decoded
        if pixels >= BAND_PIXELS:
            yield held[0] if len(held) == 1 else np.concatenate(held)
            held, pixels = [], 0
    if held:
        yield held[0] if len(held) == 1 else np.concatenate(held)


def _strips(source: Source, raster: Raster) -> Iterator[Pixels]:
    """Rows (h, w, channels) of all strips in their order, a strip or a part of one at a time."""
    for index in range(raster.down):
        rows = min(raster.rows, raster.height - index * raster.rows)
        if not raster.separate:
            yield from _strip(source, raster, index, rows)
            continue
        planes = [_strip(source, raster, plane * raster.down + index, rows) for plane in range(raster.samples)]
        for parts in zip(*planes, strict=True):
            yield np.concatenate(parts, axis=2)


def _strip(source: Source, raster: Raster, index: int, rows: int) -> Iterator[Pixels]:
    row_bytes = raster.row_bytes(raster.width)
    at_once = max(1, BAND_PIXELS // raster.width)
    offset, count = int(raster.offsets[index]), int(raster.counts[index])
    try:
        if raster.compression == NONE:
            if count < rows * row_bytes:
                raise CodecError(f"{rows * row_bytes - count} of {rows * row_bytes} bytes of pixels are missing")
            for top in range(0, rows, at_once):
                part = min(at_once, rows - top)
                data = in_order(source.read(offset + top * row_bytes, part * row_bytes), raster)
                yield unpack(data, raster, source.order, part, raster.width)
        elif raster.compression not in (JPEG, *CCITT) and max(rows * row_bytes, count) > LARGE_STRIP:
            inputs = _inputs(source, raster, offset, offset + count)
            if raster.compression in (DEFLATE, OLD_DEFLATE):
                parts = inflate(inputs, row_bytes, rows, at_once)
            elif raster.compression == LZW:
                parts = regrouped(unlzw(inputs), row_bytes, rows, at_once)
            else:
                parts = regrouped(unpackbits(inputs), row_bytes, rows, at_once)
            for data in parts:
                yield unpack(data, raster, source.order, len(data) // row_bytes, raster.width)
        elif raster.compression == JPEG or raster.compression in CCITT:
            yield decode(source.read(offset, count), raster, source.order, rows, raster.width)
        else:
            whole = memoryview(decompress(source.read(offset, count), raster, rows, raster.width))
            for top in range(0, rows, at_once):
                part = min(at_once, rows - top)
                yield unpack(whole[top * row_bytes :], raster, source.order, part, raster.width)
    except CodecError as error:
        raise source.damaged(f"strip {index + 1} of {len(raster.offsets)}: {error}", raster.where) from error


def _inputs(source: Source, raster: Raster, start: int, end: int) -> Iterator[bytes]:
    """The bytes from start to end, in parts."""
    for place in range(start, end, _INPUT_BYTES):
        yield in_order(source.read(place, min(_INPUT_BYTES, end - place)), raster)


def _tiles(source: Source, raster: Raster) -> Iterator[Pixels]:
    """Rows (h, w, channels), a row of tiles at a time."""
    assert raster.tile is not None, "there are strips"
    height, width = raster.tile
    dtype = np.uint16 if raster.bits == 16 else np.uint8
    for row in range(raster.down):
        rows = min(height, raster.height - row * height)
        block: Pixels = np.empty((rows, raster.width, raster.samples), dtype)
        for plane in range(raster.samples if raster.separate else 1):
            channels = slice(plane, plane + 1) if raster.separate else slice(None)
            for column in range(raster.across):
                index = (plane * raster.down + row) * raster.across + column
                offset, count = int(raster.offsets[index]), int(raster.counts[index])
                left, columns = column * width, min(width, raster.width - column * width)
                try:
                    tile = decode(source.read(offset, count), raster, source.order, height, width)
                except CodecError as error:
                    raise source.damaged(f"tile {index + 1} of {len(raster.offsets)}: {error}", raster.where) from error
                block[:, left : left + columns, channels] = tile[:rows, :columns]
        yield block


class BandWriter:
    """RGB rows of a page, into strips or tiles as its source has them.

    The compression is the source's, except that what JPEG or CCITT compressed is deflated: JPEG would change the lightness again, by up
    to several levels of 255 at quality 95, and CCITT has two colours.
    """

    def __init__(self, target: Target, raster: Raster, order: Order) -> None:
        self._target = target
        self._raster = raster
        self._order = order
        self._channels = 3 + len(raster.extras)
        self._compression, self._predictor = raster.compression, raster.predictor
        if raster.compression == JPEG or raster.compression in CCITT:
            self._compression, self._predictor = DEFLATE, 2 if raster.compression == JPEG else 1
        row_bytes = raster.width * self._channels * raster.bits // 8
        self._rows = raster.rows
        if raster.tile is None and self._compression != NONE and raster.rows * row_bytes > MAX_STRIP:
            self._rows = max(1, MAX_STRIP // row_bytes)
        self._held: list[Pixels] = []
        self._held_rows = 0
        self._offsets: list[int] = []
        self._counts: list[int] = []
        self._plain_count = 0  # bytes of the plain strip that is being written

    def write(self, pixels: Pixels) -> None:
        """The next rows (h, w, channels)."""
        while len(pixels):
            part = pixels[: self._rows - self._held_rows]
            pixels = pixels[len(part) :]
            self._held_rows += len(part)
            if self._raster.tile is None and self._compression == NONE:
                self._append_plain(part)
            else:
                self._held.append(part)
            if self._held_rows == self._rows:
                self._flush()

    def finish(self) -> list[NewTag]:
        """Writes what is left; the tags that say how the pixels are stored and where."""
        if self._held_rows:
            self._flush()
        raster = self._raster
        offsets, counts = np.array(self._offsets, np.uint64), np.array(self._counts, np.uint64)
        tags = [
            self._shorts(258, *[raster.bits] * self._channels),
            self._shorts(259, self._compression),
            self._shorts(262, RGB),
            self._shorts(277, self._channels),
            self._shorts(284, 1),
        ]
        if raster.extras:
            tags.append(self._shorts(338, *raster.extras))
        if self._predictor != 1:
            tags.append(self._shorts(317, self._predictor))
        if raster.tile:
            sides = [NewTag(code, 4, np.array([side], np.uint64)) for code, side in ((322, raster.tile[1]), (323, raster.tile[0]))]
            return [*tags, *sides, NewTag(324, 4, offsets), NewTag(325, 4, counts)]
        return [*tags, NewTag(278, 4, np.array([self._rows], np.uint64)), NewTag(273, 4, offsets), NewTag(279, 4, counts)]

    def _shorts(self, code: int, *values: int) -> NewTag:
        return NewTag(code, 3, np.array(values, self._order + "u2").tobytes())

    def _append_plain(self, part: Pixels) -> None:
        data = encode(part, NONE, 1, self._order)
        place = self._target.append(data, align=self._plain_count == 0)
        if self._plain_count == 0:
            self._offsets.append(place)
        self._plain_count += len(data)

    def _flush(self) -> None:
        if self._raster.tile is None and self._compression == NONE:
            self._counts.append(self._plain_count)
            self._plain_count = 0
        else:
            block = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
            self._held = []  # or both would be held while the block is encoded
            for segment in self._cut(block) if self._raster.tile else (block,):
                data = encode(segment, self._compression, self._predictor, self._order)
                self._offsets.append(self._target.append(data))
                self._counts.append(len(data))
        self._held, self._held_rows = [], 0

    def _cut(self, block: Pixels) -> Iterator[Pixels]:
        """The tiles of a row of them, filled up with zeros."""
        assert self._raster.tile is not None, "there are strips"
        height, width = self._raster.tile
        for left in range(0, self._raster.width, width):
            part = block[:, left : left + width]
            if part.shape[:2] != (height, width):
                tile = np.zeros((height, width, part.shape[2]), part.dtype)
                tile[: part.shape[0], : part.shape[1]] = part
                part = tile
            yield part
