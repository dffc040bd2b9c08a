"""Predicted chroma onto an original picture: every pixel keeps its lightness.

The chroma comes at the network's low resolution and is upsampled bilinearly, a strip of rows at a time, so that a 17 MP scan
needs its own bytes, its result's, and 60 MB.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.imaging.picture import Picture

STRIP_PIXELS = 1 << 20


def graft(picture: Picture, ab_2hw: Tensor) -> npt.NDArray[np.uint8]:
    """The picture in colour, (height, width, 3) uint8, at its own size.

    ab_2hw: (2, h', w') ab units, covering the whole picture at any resolution.
    """
    L_hw = torch.from_numpy(picture.lightness_hw())
    rgb_hwc = np.empty((*L_hw.shape, 3), np.uint8)
    height, width = L_hw.shape
    rows = max(1, STRIP_PIXELS // width)
    wide_2hw = F.interpolate(ab_2hw[None].float(), size=(ab_2hw.shape[1], width), mode="bilinear")[0]
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        rgb_3hw = compose(L_hw[None, None, top:bottom], _rows(wide_2hw, height, top, bottom)[None])[0]
        rgb_hwc[top:bottom] = rgb_3hw.movedim(0, -1).numpy()
    return rgb_hwc


def stretch(plane_hw: Tensor, height: int, width: int) -> npt.NDArray[np.float32]:
    """A low-resolution map (h', w'), bilinear, at height×width."""
    return F.interpolate(plane_hw[None, None].float(), size=(height, width), mode="bilinear")[0, 0].numpy()


def _rows(plane_chw: Tensor, height: int, top: int, bottom: int) -> Tensor:
    """Rows top…bottom of the plane as if it were interpolated to `height` rows (pixel centres, as torch's align_corners=False)."""
    low = plane_chw.shape[1]
    place = ((torch.arange(top, bottom) + 0.5) * (low / height) - 0.5).clamp(0, low - 1)
    above = place.long()
    below = (above + 1).clamp_max(low - 1)
    part = (place - above)[None, :, None]
    return torch.lerp(plane_chw[:, above], plane_chw[:, below], part)
