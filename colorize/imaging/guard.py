"""What stands between a decoder and the rest: size limits by the header, and a decoder's exceptions as PictureError."""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from colorize.errors import PictureError, printable

MAX_PIXELS = 200_000_000
HEAD_BYTES = 512
"""What the format of a file is told by, and what else it is where it is no picture."""
MAX_PARTS = 10_000
"""Segments, chunks or boxes of a file besides those of its pixels; empty ones take many times their bytes of memory."""


class TooManyPixelsError(PictureError):
    """More than MAX_PIXELS by the header: for whoever answers that in another way than damage."""


_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # of imagecodecs
    struct.error,
    zlib.error,
)


def check_size(width: int, height: int, name: str) -> None:
    """TooManyPixelsError where the header promises more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise TooManyPixelsError(f"{name}: has {width}×{height} pixels by its header; pictures of up to {limit} megapixels are read")


@contextmanager
def damage(name: str, kind: str) -> Iterator[None]:
    """Whatever a decoder makes of a damaged file, told as PictureError; what is one already passes."""
    try:
        yield
    except PictureError:
        raise
    except _DAMAGE as error:
        raise PictureError(f"{name}: is a truncated or damaged {kind}: {printable(str(error))}") from error
    except MemoryError as error:
        raise PictureError(f"{name}: does not fit into memory") from error


@contextmanager
def hushed(logger_name: str) -> Iterator[None]:
    """A library's log is left out meanwhile, as far as this thread causes it: libpng warns of every interlaced file."""
    logger, thread = logging.getLogger(logger_name), threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)
