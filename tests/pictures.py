"""Small pictures for tests, made with numpy and Pillow: arrays, files in memory, and files that are broken on purpose."""

import struct
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image


def rgb_scene(height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """A colourful RGB picture (h, w, 3): smooth ramps, a saturated disc and some grain."""
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack([255 * x / max(1, width - 1), 255 * y / max(1, height - 1), 255 - 255 * x / max(1, width - 1)], axis=-1)
    disc = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 4) ** 2
    ramps[disc] = (230, 30, 40)
    grain = np.random.default_rng(7).normal(0, 6, (height, width, 1))
    return np.clip(ramps + grain, 0, 255).astype(np.uint8)


def grey_scene(height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """A grey picture (h, w) of the same scene."""
    return np.array(Image.fromarray(rgb_scene(height, width)).convert("L"))


def sepia_scene(height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """A toned RGB picture (h, w, 3) of the same scene: grey, in brown."""
    toned = grey_scene(height, width)[..., None] * np.array([1.0, 0.85, 0.65]) + np.array([20, 12, 0])
    return np.clip(toned, 0, 255).astype(np.uint8)


def encoded(pixels: npt.NDArray[np.uint8], kind: str, **options: object) -> bytes:
    """The bytes of a file with these pixels; `kind` is Pillow's name of the format."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its length and its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int = 8, color_type: int = 2) -> bytes:
    """A PNG's signature and header chunk, with nothing after it."""
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = encoded(grey_scene(16, 16), "JPEG")
    start = data.index(b"\xff\xc0")
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


def icc_profile(space: bytes = b"RGB ") -> bytes:
    """Bytes with the header fields of an ICC profile of this colour space; enough for what only carries profiles."""
    body = bytes(4) + b"lcms" + bytes(4) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(88)
    return struct.pack(">I", len(body)) + body[4:] + bytes(4)
