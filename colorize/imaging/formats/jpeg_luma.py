"""The luma of a JPEG: taken out of a file without a change to a coefficient, compared, and given back as a grey JPEG.

Knows nothing of chroma. A luma that has scans of its own (grey files, and what `jpeg` writes) is copied as entropy-coded
bytes, which nothing parses. A luma interleaved with chroma is decoded to coefficients and encoded anew by libjpeg-turbo, through
jpeglib: 8 ns a pixel to read, 12 to write with optimised Huffman tables, always sequential.

What jpeglib 1.0.2 is, and how it is kept from harm (all seen in experiments with damaged files):
- It reads and writes files by path; a memfd has one and touches no disk.
- It writes beyond its buffers where block counts do not match the header: they are computed here, from the header that is passed on.
- Its list of markers holds 50, and the 51st is written behind it: what it is given has no metadata.
- Coefficients that no JPEG may hold stop its writing half way: they are looked for first.
- libjpeg's errors are caught (a C++ exception, status 0); of damaged data it complains on the standard error stream.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from jpeglib._bind import CJpegLib  # type: ignore[import-untyped]

from colorize.errors import PictureError
from colorize.imaging.formats.jpeg_stream import JpegStream, read_stream
from colorize.imaging.metadata import restored_segments

_LIBRARY = "turbo210"  # twice as fast as jpeglib's default, 6b
_OPTIMIZE_CODING = 1 << 6
_GREY = 1  # JCS_GRAYSCALE
_LARGEST_AC = 1023
_LARGEST_DC_STEP = 2047


def check_luma(stream: JpegStream, name: str) -> None:
    """PictureError unless the luma is stored at the picture's full resolution."""
    luma = stream.components[0]
    if any(luma.across < other.across or luma.down < other.down for other in stream.components):
        raise PictureError(f"{name}: is a JPEG whose luma is stored smaller than its chroma; save it anew with a picture editor")


def luma_of(stream: JpegStream, name: str) -> JpegStream:
    """A grey JPEG of the luma of a grey or YCbCr one, with its coefficients and its quantization table, without metadata.

    Raises PictureError where the coefficients cannot be read.
    """
    assert not stream.is_rgb, "a JPEG of red, green and blue has no luma"
    check_luma(stream, name)
    stream = stream.bare()
    luma = stream.components[0]
    scans = [scan for scan in stream.scans if any(number == luma.id for number, _ in scan.components)]
    if all(len(scan.components) == 1 for scan in scans):
        return replace(stream, components=(replace(luma, across=1, down=1),), scans=tuple(scans))
    return _encoded_luma(stream, _coefficients(stream, name), name)


def luma_identical(original: bytes, colored: bytes) -> bool:
    """Whether two JPEG files have the same luma: size, quantization table and every DCT coefficient.

    False where one has no luma (red, green and blue). Raises PictureError where one cannot be read.
    """
    streams = read_stream(original, "the original"), read_stream(colored, "the coloured file")
    if any(stream.is_rgb for stream in streams):
        return False
    first, second = streams
    if (first.height, first.width) != (second.height, second.width):
        return False
    if first.components[0].steps != second.components[0].steps:
        return False
    if all(len(scan.components) == 1 for stream in streams for scan in stream.scans):
        lumas = luma_of(first, "the original"), luma_of(second, "the coloured file")
        if lumas[0].frame == lumas[1].frame and lumas[0].scans == lumas[1].scans:
            return True
    return np.array_equal(_coefficients(first, "the original"), _coefficients(second, "the coloured file"))


def restore_jpeg(data: bytes, name: str) -> bytes:
    """The grey JPEG of a coloured one's luma: of what was grey before, pixel by pixel the original. Metadata are the original's too.

    The note on its colours is taken out. An ICC profile of RGB is left out, for no grey file may carry one; a grey one comes back.
    Raises PictureError for what is no YCbCr JPEG.
    """
    stream = read_stream(data, name)
    if len(stream.components) == 1:
        raise PictureError(f"{name}: is grey already")
    if stream.is_rgb:
        raise PictureError(f"{name}: is a JPEG of red, green and blue, which holds no grey picture to restore")
    metadata, transform = restored_segments(stream.metadata, name)
    return replace(luma_of(stream, name), metadata=tuple(metadata)).with_transform(transform).encoded()


def _coefficients(stream: JpegStream, name: str) -> npt.NDArray[np.int16]:
    """The luma's quantized coefficients (rows, columns, 64) of blocks, in the order of a row-by-row 8×8 matrix."""
    rows, columns = _blocks(stream)
    coefficients = np.zeros((rows, columns, 64), np.int16)
    quantizations, numbers = np.zeros((4, 64), np.uint16), np.zeros(4, np.int16)
    with _memory_file(stream.bare().encoded()) as source:
        done = _library().read_jpeg_dct(source, _pointer(coefficients), None, None, None, _pointer(quantizations), _pointer(numbers))
    if not done:
        raise PictureError(f"{name}: is a truncated or damaged JPEG: its coefficients cannot be read")
    return coefficients


def _encoded_luma(stream: JpegStream, coefficients: npt.NDArray[np.int16], name: str) -> JpegStream:
    """The coefficients as a grey JPEG."""
    steps = np.diff(coefficients[..., 0].ravel().astype(np.int32), prepend=0)
    if np.abs(steps).max() > _LARGEST_DC_STEP or max(coefficients[..., 1:].max(), -int(coefficients[..., 1:].min())) > _LARGEST_AC:
        raise PictureError(f"{name}: is a damaged JPEG: it has coefficients that no JPEG may hold")
    quantization = np.zeros((4, 64), np.uint16)
    quantization[0, _ZIGZAG] = stream.components[0].steps
    numbers = np.zeros(4, np.int16)
    with _memory_file(b"") as target:
        done = _library().write_jpeg_dct(
            None, target, _pointer(coefficients), None, None, None,
            _ints(stream.height, stream.width), _ints(*coefficients.shape[:2]), _ints(1, 1), _GREY, 1,
            _pointer(quantization), ctypes.c_short(-1), _pointer(numbers), 0, None, None, None,
            ctypes.c_uint(_OPTIMIZE_CODING), ctypes.c_uint(0xFFFFFFFF),
        )  # fmt: skip
        if not done:
            raise PictureError(f"{name}: is a damaged JPEG: its coefficients cannot be written again")
        with open(target, "rb") as file:  # noqa: PTH123
            luma = read_stream(file.read(), name).bare()
    assert luma.components[0].steps == stream.components[0].steps  # which libjpeg writes in 8 bits where they have room
    return luma


def _blocks(stream: JpegStream) -> tuple[int, int]:
    """Rows and columns of the luma's blocks, without those that only fill up an interleaved scan."""
    luma = stream.components[0]
    most_across, most_down = (max(getattr(other, axis) for other in stream.components) for axis in ("across", "down"))
    return -(-stream.height * luma.down // (8 * most_down)), -(-stream.width * luma.across // (8 * most_across))


@contextmanager
def _memory_file(data: bytes) -> Iterator[bytes]:
    """The path of a file in memory."""
    descriptor = os.memfd_create("jpeg")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)


def _zigzag() -> npt.NDArray[np.intp]:
    """The places in a row-by-row 8×8 matrix of the 64 values as a JPEG has them (T.81, figure A.6)."""
    places = sorted(((row, column) for row in range(8) for column in range(8)), key=lambda place: _diagonal(*place))
    return np.array([8 * row + column for row, column in places])


def _diagonal(row: int, column: int) -> tuple[int, int]:
    return row + column, row if (row + column) % 2 else column


_ZIGZAG = _zigzag()


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library: ctypes.CDLL = CJpegLib._bind_lib(version=_LIBRARY)
    return library


def _pointer(array: npt.NDArray[np.int16] | npt.NDArray[np.uint16]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def _ints(*values: int) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * len(values))(*values)
