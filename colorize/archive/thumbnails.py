"""Thumbnails for the report: pictures before and after, at most 160 pixels wide and high, on sheets of a group of pictures each.

A sheet is one JPEG file: a column a picture, its original above its coloured self. 50,000 pictures make some 4,000 files, not 100,000, and
in a bucket as many requests. Knows nothing of files or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.imaging.scan import Scan
from colorize.imaging.tint import is_colored

SIDE = 160
QUALITY = 78

MOST_OF_A_SHEET = 400
"""A JPEG is at most 65,500 pixels wide."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """One page of a scan before and after, upright, of one size."""

    before_3hw: npt.NDArray[np.float32]
    """LAB; ab is 0 where the file has no colour channels."""
    after_hwc: npt.NDArray[np.uint8] | None = None
    """RGB, once it is coloured."""

    @classmethod
    def of(cls, scan: Scan, index: int) -> Thumbnail:
        """A page as it is. Raises PictureError where it is damaged."""
        page = scan.pages[index]
        height, width = fitting(page.height, page.width)
        before_3hw = np.zeros((3, height, width), np.float32)
        ab_2hw = scan.chroma(index, height, width)
        if ab_2hw is not None:
            before_3hw[1:] = ab_2hw
        before_3hw[0] = scan.lightness(index, height, width)
        return cls(before_3hw=np.ascontiguousarray(page.upright(before_3hw)))

    def in_color(self, ab_2hw: Tensor) -> Thumbnail:
        """The same with its coloured self. ab_2hw: chroma of the whole page, upright, at any resolution."""
        height, width = self.before_3hw.shape[1:]
        small_ab = F.interpolate(ab_2hw[None].float(), size=(height, width), mode="bilinear")
        return replace(self, after_hwc=_rgb(self.before_3hw[0], small_ab[0].numpy()))

    @property
    def is_colored(self) -> bool:
        """Whether the page has colours of its own already."""
        return bool(self.before_3hw[1:].any()) and is_colored(self.before_3hw)

    @property
    def before_hwc(self) -> npt.NDArray[np.uint8]:
        """RGB, as it is."""
        return _rgb(self.before_3hw[0], self.before_3hw[1:])

    @property
    def height(self) -> int:
        return int(self.before_3hw.shape[1])

    @property
    def width(self) -> int:
        return int(self.before_3hw.shape[2])

    @property
    def colorfulness(self) -> float:
        """Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", eq. M3, of the coloured thumbnail: 0 for grey."""
        assert self.after_hwc is not None, "it is not coloured yet"
        red, green, blue = self.after_hwc.reshape(-1, 3).astype(np.float64).T
        rg, yb = red - green, (red + green) / 2 - blue
        return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def fitting(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """(height, width) of a picture that is at most `side` wide and high; pictures are never enlarged."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _rgb(L_hw: npt.NDArray[np.float32], ab_2hw: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    rgb_3hw = compose(torch.from_numpy(L_hw)[None, None], torch.from_numpy(ab_2hw)[None])[0]
    return np.ascontiguousarray(rgb_3hw.movedim(0, -1).numpy())


def sheet(thumbnails: Sequence[Thumbnail]) -> bytes:
    """The JPEG sheet of some thumbnails, in columns of SIDE pixels."""
    canvas = np.full((2 * SIDE, SIDE * len(thumbnails), 3), 128, np.uint8)
    for index, one in enumerate(thumbnails):
        left = index * SIDE
        canvas[: one.height, left : left + one.width] = one.before_hwc
        assert one.after_hwc is not None, "a sheet is made of what is coloured"
        canvas[SIDE : SIDE + one.height, left : left + one.width] = one.after_hwc
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
