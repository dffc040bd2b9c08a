"""Chroma from the network's resolution to a picture's, guided by the picture's lightness, so that colour ends where things end.

Knows nothing of files, networks and colour spaces. A fast guided filter (He and Sun 2015, arXiv:1505.00996; He, Sun and Tang 2013) in
residual form: in each 3×3 window of low resolution a linear model of chroma by lightness is fitted with ridge regularisation, and at
full resolution

    ab = up(ab) + up(slope) · (clamp(L, up(lowest), up(highest)) − up(L of low resolution))

where `up` is bilinear and lowest, highest are those of the window. Compared with the usual form, up(mean slope) · L + up(mean offset),
it keeps the prediction itself where lightness has no more detail than the prediction, and the clamp forbids what the fit has never
seen: a lamp, a specular light, a crack in the plate are coloured as their surroundings, without a halo and without a false hue. The ridge
and the limit of the slope keep grain and paper texture from becoming colour.

Measured on 15 colour photographs, true ab shrunk to 64 pixels on the short side and upsampled: see `tests/unit/test_upsample.py` for
the synthetic edge, docs for the numbers. One thread takes 11 ns a pixel (bilinear alone: 2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 10.0
"""In squared units of L: a window whose lightness varies by less than its root, 3, gives colour little detail."""

STEEPEST = 1.0
"""Units of ab for one of L, at most."""

TILE_PIXELS = 1 << 15
"""Computed at a time: seven planes of them stay in a core's cache."""


class ChromaUpsampler:
    """A chroma of low resolution, ready to be read at `height`×`width` row by row."""

    def __init__(self, ab_2hw: npt.NDArray[np.float32], L_hw: npt.NDArray[np.float32], height: int, width: int) -> None:
        """ab_2hw: ab units at any resolution, covering the whole picture. L_hw: the picture's lightness, 0…100, at any resolution.

        `height` and `width` are those of the guide that `rows` is given. What is finer than it needs to be is shrunk with antialiasing.
        """
        shape = (min(ab_2hw.shape[1], height), min(ab_2hw.shape[2], width))
        ab_12hw, L_11hw = _resized(torch.from_numpy(ab_2hw)[None], shape), _resized(torch.from_numpy(L_hw)[None, None], shape)
        mean_ab, mean_L = _window(ab_12hw), _window(L_11hw)
        variance = _window(L_11hw * L_11hw) - mean_L * mean_L
        slope_12hw = (_window(L_11hw * ab_12hw) - mean_L * mean_ab) / (variance.clamp_min(0) + RIDGE)
        slope_12hw *= STEEPEST / slope_12hw.norm(dim=1, keepdim=True).clamp_min(STEEPEST)
        padded = F.pad(L_11hw, (1, 1, 1, 1), mode="replicate")
        highest, lowest = F.max_pool2d(padded, 3, 1), -F.max_pool2d(-padded, 3, 1)
        planes = torch.cat([ab_12hw, slope_12hw, L_11hw, lowest, highest], dim=1)
        self._height = height
        self._wide_7hw = F.interpolate(planes, size=(shape[0], width), mode="bilinear")[0]

    def rows(self, top: int, L_nw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The chroma (2, n, width) of n rows from `top` on, whose lightness is L_nw, 0…100."""
        count, width = L_nw.shape
        assert width == self._wide_7hw.shape[2], f"the guide is {width} wide, not {self._wide_7hw.shape[2]}"
        assert 0 <= top <= top + count <= self._height, f"rows {top}…{top + count} of {self._height}"
        guide = torch.from_numpy(np.ascontiguousarray(L_nw))
        ab_2nw = torch.empty(2, count, width)
        low = self._wide_7hw.shape[1]
        place = ((torch.arange(top, top + count) + 0.5) * (low / self._height) - 0.5).clamp(0, low - 1)  # of pixel centres
        above = place.long()
        part = (place - above)[:, None]
        most = max(1, TILE_PIXELS // width)
        first = 0
        while first < count:
            row = int(above[first])
            last = min(int(torch.searchsorted(above, row, right=True)), first + most)
            upper, lower = self._wide_7hw[:, row, None], self._wide_7hw[:, min(row + 1, low - 1), None]
            ab_a, ab_b, slope_a, slope_b, L, lowest, highest = torch.addcmul(upper, part[first:last], lower - upper)
            detail = torch.clamp(guide[first:last], lowest, highest).sub_(L)
            torch.addcmul(ab_a, slope_a, detail, out=ab_2nw[0, first:last])
            torch.addcmul(ab_b, slope_b, detail, out=ab_2nw[1, first:last])
            first = last
        return ab_2nw.numpy()


def _resized(planes_1chw: Tensor, shape: tuple[int, int]) -> Tensor:
    if planes_1chw.shape[2:] == shape:
        return planes_1chw.float()
    return F.interpolate(planes_1chw.float(), size=shape, mode="bilinear", antialias=True)


def _window(planes_1chw: Tensor) -> Tensor:
    """The mean of each 3×3 window; beyond the border its pixels are repeated."""
    return F.avg_pool2d(F.pad(planes_1chw, (1, 1, 1, 1), mode="replicate"), 3, 1)
