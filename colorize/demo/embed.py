"""Pictures as data URIs: what a page holds inside itself instead of linking to it.

Knows nothing of pages. A browser turns a picture as its EXIF says and shows its colour profile; the URI carries the picture turned
already, and the profile. Photographs become JPEG, scaled down together until they fit; small pictures stay PNG, exact to the pixel.
Base64 costs a third on top: nine pairs of one megapixel are 3 MB at quality 87.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from colorize.imaging.metadata import orientation_of
from colorize.imaging.picture import Picture, read_picture

LONGEST_SIDE = 1600
"""Pixels of a picture's longer side at most."""
SHORTEST_LONG_SIDE = 200
"""The longer side is not scaled below this, however many pictures there are."""
JPEG_QUALITY = 87

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def jpeg_uris(pairs: Sequence[tuple[str, Path | bytes, Path | bytes]], room: int) -> list[tuple[str, str, int, int]]:
    """For every pair of pictures (name, before, after): both as JPEG URIs of one size, and their width and height.

    All together take at most `room` bytes, unless that needs a longer side of less than `SHORTEST_LONG_SIDE`.
    Raises PictureError for a picture that cannot be read; bytes are named by the pair's name.
    """
    side = LONGEST_SIDE
    while True:
        images: list[tuple[str, str, int, int]] = []
        longest = 0
        for name, *sources in pairs:
            before, after = (_upright(_read(source, name)) for source in sources)
            size = _fitted(before.size, side)
            longest = max(longest, *size)
            images.append((_jpeg_uri(before, size), _jpeg_uri(after, size), *size))
        used = sum(len(before) + len(after) for before, after, _, _ in images)
        if used <= room or side <= SHORTEST_LONG_SIDE:
            return images
        # A JPEG's size goes with its area, a little slower.
        side = max(SHORTEST_LONG_SIDE, int(0.93 * longest * math.sqrt(max(room, 1) / used)))


def png_uri(rgb_hwc: npt.NDArray[np.uint8]) -> str:
    """An RGB picture (h, w, 3) uint8 as a PNG, pixel by pixel."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb_hwc)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _read(source: Path | bytes, name: str) -> Picture:
    return read_picture(source) if isinstance(source, Path) else read_picture(source, name=name)


def _upright(picture: Picture) -> Image.Image:
    """The picture as a browser shows it: on white where it is transparent, turned as its EXIF says, with its colour profile."""
    image = Image.fromarray(picture.pixels)
    if picture.alpha is not None:
        paper = Image.new(image.mode, image.size, "white")
        paper.paste(image, mask=Image.fromarray(picture.alpha))
        image = paper
    transposition = _TRANSPOSITIONS.get(orientation_of(picture.exif))
    if transposition is not None:
        image = image.transpose(transposition)
    image.info["icc_profile"] = picture.icc_profile
    return image


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _jpeg_uri(image: Image.Image, size: tuple[int, int]) -> str:
    scaled = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
    buffer = BytesIO()
    scaled.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True, icc_profile=image.info["icc_profile"])
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
