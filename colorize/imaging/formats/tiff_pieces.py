"""Compressed strips of a TIFF page, piece by piece: from their bytes, in parts, to their rows, some at a time.

Knows nothing of pixels and of places. However little of a file is needed to claim much, no more is held than a part of the input, a piece
of the output and the rows that are asked for.

- Deflate: stdlib's zlib, which alone can stop in the middle, inflates 400 MB/s.
- LZW: nothing that decodes it fast can stop in the middle, but every Clear code starts the dictionary anew. Between two of them the widths
  of the codes depend on how many there were, so all codes up to the next Clear are looked at in one step of numpy. A piece from Clear to
  Clear is 2,000 to 4,000 codes and goes to imagecodecs, at 190 MB/s of smooth and 70 of noisy 16-bit RGB (whole: 360 and 250).
  Small strips go the same way: imagecodecs reads beyond its table, and the process dies, where the first code after a Clear is no byte's.
- PackBits: a regular expression walks over its runs and stops at the last whole one of a part.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import imagecodecs
import numpy as np
import numpy.typing as npt

_CLEAR, _END = 256, 257
_MOST_CODES = 4863
"""After a Clear: with more entries than a dictionary of 12 bits can name, imagecodecs gives up. Of a piece, 12 MB at the most come out."""

_FREE_PIECES, _FEWEST_BYTES = 10_000, 256
"""Encoders clear when the dictionary is full, or every 10,000 bytes; codes that clear all the time would be a file made to waste hours."""

_FAILURES = (RuntimeError, ValueError, TypeError, NotImplementedError, zlib.error, struct.error)

_RUNS = re.compile(
    b"(?:[\x81-\xff].|\x80|%b)*+" % b"|".join(re.escape(bytes([count])) + b".{%d}" % (count + 1) for count in range(128)), re.DOTALL
)
"""The runs of PackBits that are whole: a byte repeated, nothing, or so many bytes as they are."""


class CodecError(Exception):
    """A strip or tile cannot be decoded; the text says why."""


@contextmanager
def failures() -> Iterator[None]:
    """Whatever a decoder makes of damaged bytes, told as CodecError."""
    try:
        yield
    except _FAILURES as error:
        raise CodecError(str(error) or type(error).__name__) from error
    except MemoryError as error:
        raise CodecError("it does not fit into memory") from error


def inflate(parts: Iterator[bytes], row_bytes: int, rows: int, rows_at_once: int) -> Iterator[bytes]:
    """The rows of a deflated strip; its end and its checksum are looked at too. Raises CodecError."""
    inflater = zlib.decompressobj()
    wanted = b""
    try:
        for top in range(0, rows, rows_at_once):
            size = min(rows_at_once, rows - top) * row_bytes
            chunks, missing = [], size
            while missing:
                chunk = inflater.decompress(wanted, missing)
                wanted = inflater.unconsumed_tail
                missing -= len(chunk)
                chunks.append(chunk)
                if missing and not wanted:
                    wanted = b"" if inflater.eof else next(parts, b"")
                    if not wanted:
                        raise CodecError(f"{missing + (rows - top) * row_bytes - size} bytes of pixels are missing")
            yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
        while not inflater.eof:
            wanted = wanted or next(parts, b"")
            if inflater.decompress(wanted, 1):
                raise CodecError("there are more pixels than promised")
            if not wanted:
                raise CodecError("its checksum is missing")
            wanted = inflater.unconsumed_tail
    except zlib.error as error:
        raise CodecError(str(error)) from error


def regrouped(pieces: Iterator[bytes], row_bytes: int, rows: int, rows_at_once: int) -> Iterator[bytes]:
    """The rows that decoded pieces are made of. What is more than promised is left. Raises CodecError where they are too few."""
    held, length = [b""], 0
    for top in range(0, rows, rows_at_once):
        size = min(rows_at_once, rows - top) * row_bytes
        while length < size:
            piece = next(pieces, b"")
            if not piece:
                raise CodecError(f"{(rows - top) * row_bytes - length} of {rows * row_bytes} bytes of pixels are missing")
            held.append(piece)
            length += len(piece)
        whole = b"".join(held)
        held, length = [whole[size:]], length - size
        yield whole[:size]


def unlzw(parts: Iterator[bytes]) -> Iterator[bytes]:
    """What the bytes of an LZW strip say, a piece from Clear to Clear at a time, none of them empty. Raises CodecError."""
    held, place = b"", 0  # place: a bit of what is held
    windows = np.zeros(0, np.uint32)
    pieces = decoded = 0
    is_first, has_ended = True, False
    while True:
        if len(held) * 8 - place < _STARTS[-1] and not has_ended:
            part = next(parts, b"")
            has_ended = not part
            held, place = held[place >> 3 :] + part, place & 7
            windows = _windows(held)
            continue
        if is_first:
            if held[:1] == b"\0" and held[1:2] and held[1] & 1:
                raise CodecError("it is of the LZW that was before TIFF 5")
            if len(held) < 2 or held[0] << 1 | held[1] >> 7 != _CLEAR:
                raise CodecError("it does not begin as LZW does" if held else "it is empty")
            place, is_first = 9, False
        there = int(np.searchsorted(_STARTS[1:], len(held) * 8 - place, side="right"))  # codes, as far as they are held
        codes = windows[_BYTES[place & 7, :there] + (place >> 3)] >> _SHIFTS[place & 7, :there] & _MASKS[:there]
        stops = np.flatnonzero(codes >> 1 == _CLEAR >> 1)
        count = int(stops[0]) if len(stops) else there
        if count > _MOST_CODES:
            raise CodecError("its dictionary overflows")
        if (codes[:count] > _LARGEST[:count]).any():  # which imagecodecs must not see
            raise CodecError("it has a code that is not in its dictionary")
        if count:
            piece = _decoded(held, place, count)
            pieces, decoded = pieces + 1, decoded + len(piece)
            yield piece
        else:
            pieces += 1
        if not len(stops) or codes[count] == _END:
            return
        if pieces > _FREE_PIECES and decoded < pieces * _FEWEST_BYTES:
            raise CodecError("its dictionary is cleared all the time")
        place += int(_STARTS[count + 1])


def unpackbits(parts: Iterator[bytes]) -> Iterator[bytes]:
    """What the bytes of a PackBits strip say, a piece for each part of them. Raises CodecError."""
    held = b""
    for part in parts:
        held += part
        runs = _RUNS.match(held)
        assert runs is not None, "no run at all is a match too"
        with failures():
            piece = bytes(imagecodecs.packbits_decode(held[: runs.end()]))
        held = held[runs.end() :]
        if piece:
            yield piece


def _decoded(held: bytes, place: int, count: int) -> bytes:
    """So many codes that begin at a bit of what is held, decoded by themselves: behind a Clear and before an end."""
    bits, width = int(_STARTS[count]), int(_STARTS[count + 1] - _STARTS[count])
    end = place + bits
    codes = (int.from_bytes(held[place >> 3 : (end + 7) >> 3]) >> (-end & 7)) & ((1 << bits) - 1)
    stream = (_CLEAR << bits | codes) << width | _END
    length = 9 + bits + width
    with failures():
        return bytes(imagecodecs.lzw_decode((stream << (-length & 7)).to_bytes((length + 7) >> 3)))


def _windows(held: bytes) -> npt.NDArray[np.uint32]:
    """For each byte, itself and the two that follow it."""
    padded = np.frombuffer(held + b"\0\0", np.uint8).astype(np.uint32)
    return (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).astype(np.uint32, copy=False)


def _tables() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Of the codes after a Clear: where they begin, in bits; by the bit of a byte, their bytes and their shifts in a window; masks."""
    entries = 257 + np.maximum(1, np.arange(_MOST_CODES + 1))  # of the dictionary when a code is read: the first adds none
    widths = 9 + (entries >= 511).astype(np.int64) + (entries >= 1023) + (entries >= 2047)  # one code early, as TIFF has it
    starts = np.concatenate([[0], np.cumsum(widths)])
    bits = np.arange(8)[:, None] + starts[None, :-1]
    return starts, bits >> 3, (24 - (bits & 7) - widths).astype(np.uint32), (1 << widths).astype(np.uint32) - 1


_STARTS, _BYTES, _SHIFTS, _MASKS = _tables()
_LARGEST = np.arange(257, 257 + _MOST_CODES + 1)
_LARGEST[0] = 255  # the first one after a Clear is a byte
