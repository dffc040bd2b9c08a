"""How a picture's file becomes a square of training pixels. Knows nothing of LAB.

A picture is decoded whole, cropped to its central square and scaled by Lanczos with antialiasing: a JPEG of 2 MP takes 23 ms,
of which decoding is 16. The EXIF orientation is left alone: sideways pictures do no harm to training.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from PIL import Image

from colorize.data.files import PictureFiles
from colorize.errors import PictureError, one_line
from colorize.imaging.guard import HEAD_BYTES, MAX_PIXELS
from colorize.imaging.picture import format_of, read_picture

LARGE_BYTES = 64_000_000
"""A larger file is read whole only where it begins as a picture."""
MOST_BYTES = 5 * MAX_PIXELS
"""A larger file is not read: no picture that is read takes as much, even where nothing in it could be compressed."""

RawPicture = tuple[str, bytes | PictureError, int]
"""(name, the picture file's bytes or why there are none, label or −1)."""


def open_pictures(place: PictureFiles, names: Iterable[str]) -> Iterator[RawPicture]:
    """The bytes of each file, or why it cannot be read; there are no labels."""
    for name in names:
        try:
            with place.filesystem.open_input_file(place.path(name)) as file:
                _check_bytes(file, name)
                data = file.read()
        except PictureError as error:
            yield name, error, -1
        except (OSError, MemoryError) as error:
            yield name, PictureError(f"{name}: cannot be read: {one_line(error)}"), -1
        else:
            yield name, data, -1


def _check_bytes(file: pa.NativeFile, name: str) -> None:
    """Raises PictureError for a file of more bytes than a picture has, or of so many that it is looked at first, and is none."""
    if (size := file.size()) > LARGE_BYTES:
        format_of(file.read(HEAD_BYTES), name)
        file.seek(0)
    if size > MOST_BYTES:
        raise PictureError(f"{name}: has {size:,} bytes; files of up to {MOST_BYTES:,} are read")


def square_of(data: bytes, name: str, side: int) -> np.ndarray:
    """The central square of a picture file as RGB uint8 (3, side, side), scaled up where it is smaller. Raises PictureError."""
    pixels = read_picture(data, name=name).pixels
    height, width = pixels.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + short, left : left + short]))
    if short != side:
        # A gap of 3 lets Pillow average large pictures down first: 20 ms for 10 MP, not 60, and at most 7 in 255 apart.
        square = square.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    rgb_hwc = np.asarray(square.convert("RGB"))
    return np.ascontiguousarray(rgb_hwc.transpose(2, 0, 1))


def read_squares(files: Iterable[RawPicture], side: int) -> tuple[np.ndarray, np.ndarray, list[str], dict[str, str]]:
    """RGB (b, 3, side, side), labels (b,) and names of the pictures that could be read, and name → reason of the others."""
    squares, labels, names, unreadable = [], [], [], {}
    for name, data, label in files:
        try:
            if isinstance(data, PictureError):
                raise data
            squares.append(square_of(data, name, side))
        except PictureError as error:
            unreadable[name] = str(error).removeprefix(f"{name}: ")
            continue
        labels.append(label)
        names.append(name)
    stacked = np.stack(squares) if squares else np.empty((0, 3, side, side), np.uint8)
    return stacked, np.array(labels, np.int64), names, unreadable
