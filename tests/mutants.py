"""Damaged picture files, made from whole ones by a seeded generator: bits flipped, ends cut off, headers that lie, parts moved."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import tifffile

from tests.pictures import encoded, grey_scene, rgb_scene, sepia_scene


def whole_files() -> dict[str, bytes]:
    """One small file of every kind, by name."""
    deep = grey_scene(40, 56).astype(np.uint16) * 257
    tiled = BytesIO()
    tifffile.imwrite(tiled, np.pad(deep, 8), tile=(16, 16), compression="zlib", predictor=True, metadata=None)
    pages = BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        for page in (grey_scene(30, 40), sepia_scene(20, 20)):
            writer.write(page, compression="lzw", metadata=None)
    return {
        "grey.jpg": encoded(grey_scene(40, 56), "JPEG"),
        "sepia.jpg": encoded(sepia_scene(41, 57), "JPEG", subsampling=2),
        "progressive.jpg": encoded(grey_scene(40, 56), "JPEG", progressive=True),
        "grey.png": encoded(grey_scene(40, 56), "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "tiled.tif": tiled.getvalue(),
        "pages.tif": pages.getvalue(),
        "lossless.webp": encoded(sepia_scene(40, 56), "WEBP", lossless=True),
        "lossy.webp": encoded(sepia_scene(40, 56), "WEBP"),
        "grey.jp2": encoded(grey_scene(40, 56), "JPEG2000"),
        "grey.bmp": encoded(grey_scene(40, 56), "BMP"),
        "grey.pgm": encoded(grey_scene(40, 56), "PPM"),
        "color.png": encoded(rgb_scene(40, 56), "PNG"),
    }


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, (name, bytes), the same for the same seed."""
    random = np.random.default_rng(seed)
    originals = list(whole_files().items())
    for number in range(count):
        name, data = originals[number % len(originals)]
        yield f"{number:05}-{name}", _damaged(data, random)


def _damaged(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    kind = random.integers(5)
    if kind == 0:  # an end that is missing
        return bytes(changed[: random.integers(len(changed))])
    if kind == 1:  # bits anywhere
        for place in random.integers(len(changed), size=random.integers(1, 20)):
            changed[place] ^= 1 << random.integers(8)
    elif kind == 2:  # a header that lies
        for place in random.integers(min(200, len(changed)), size=random.integers(1, 4)):
            changed[place] = random.choice([0, 1, 127, 128, 255, int(random.integers(256))])
    elif kind == 3:  # a part that is gone or twice there
        first, last = sorted(random.integers(len(changed), size=2))
        changed[first:last] = changed[first:last] * int(random.choice([0, 2]))
    else:  # large numbers in the header
        place = int(random.integers(min(200, len(changed))))
        changed[place : place + 4] = random.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0"])
    return bytes(changed)
