"""Thumbnails for the report: pictures before and after, at most 160 pixels wide and high, on sheets of a group of pictures each.

A sheet is one JPEG file: a column a picture, its original above its coloured self. 50,000 pictures make some 4,000 files, not 100,000, and
in a bucket as many requests. Knows nothing of files or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from colorize.imaging.colorspace import compose

SIDE = 160
QUALITY = 78

MOST_OF_A_SHEET = 400
"""A JPEG is at most 65,500 pixels wide."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One picture before and after, of one size."""

    before_hwc: npt.NDArray[np.uint8]
    after_hwc: npt.NDArray[np.uint8]

    @property
    def height(self) -> int:
        return int(self.after_hwc.shape[0])

    @property
    def width(self) -> int:
        return int(self.after_hwc.shape[1])

    @property
    def colorfulness(self) -> float:
        """Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", eq. M3, of the coloured thumbnail: 0 for grey."""
        red, green, blue = self.after_hwc.reshape(-1, 3).astype(np.float64).T
        rg, yb = red - green, (red + green) / 2 - blue
        return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def fitting(height: int, width: int) -> tuple[int, int]:
    """(height, width) of a thumbnail; pictures are never enlarged."""
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def in_color(before_hwc: npt.NDArray[np.uint8], L_hw: npt.NDArray[np.float32], ab_2hw: Tensor) -> Thumbnail:
    """A thumbnail in colour. before_hwc: (h, w, 3); L_hw: its lightness; ab_2hw: chroma of the whole picture at any resolution."""
    height, width = L_hw.shape
    small_ab = F.interpolate(ab_2hw[None].float(), size=(height, width), mode="bilinear")
    after_3hw = compose(torch.from_numpy(L_hw)[None, None], small_ab)[0]
    return Thumbnail(before_hwc=before_hwc, after_hwc=np.ascontiguousarray(after_3hw.movedim(0, -1).numpy()))


def sheet(thumbnails: Sequence[Thumbnail]) -> bytes:
    """The JPEG sheet of some thumbnails, in columns of SIDE pixels."""
    canvas = np.full((2 * SIDE, SIDE * len(thumbnails), 3), 128, np.uint8)
    for index, one in enumerate(thumbnails):
        left = index * SIDE
        canvas[: one.height, left : left + one.width] = one.before_hwc
        canvas[SIDE : SIDE + one.height, left : left + one.width] = one.after_hwc
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
