"""How a hint spreads from its point: over what looks alike, near it, where the network is in doubt.

Knows nothing of networks and files. What the hints say beyond the prediction, the residual r at their points, is carried to every pixel
x by Gaussian-process regression (kriging; Rasmussen and Williams 2006, eq. 2.25):

    ab(x) = predicted(x) + k(x, points) · (k(points, points) + jitter)⁻¹ · r

Hints side by side therefore share what they say, instead of counting twice, and each is obeyed at its point. The kernel has a wide part,
which falls with distance, with the difference of lightness and with that of the predicted distributions (Hellinger's distance), so that
it ends where things end, and a narrow one, which takes up what a single pixel has for itself. Both are scaled by the spread of the
predicted distribution at both ends: what the network is sure of, a grey road beside the hinted car, moves little.

The map has the resolution at which the picture is shown to the network, not that of its output, so that a point is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.imaging.upsample import ChromaUpsampler
from colorize.model.hints import Hint

JITTER = 0.01
"""Of the kernel at a point with itself: two hints in one place that contradict each other are averaged."""

HINTS_AT_ONCE = 32
"""Bounds the memory of what is computed on the way."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """How far a hint carries."""

    distance: float = 0.35
    """Of the wide part, in shares of the longer side."""
    lightness: float = 15.0
    """Of the wide part, in units of L."""
    likeness: float = 0.2
    """Of the wide part: Hellinger's squared distance, 0…1."""
    narrow_pixels: float = 1.5
    """Of the narrow part."""
    narrow_lightness: float = 10.0
    """Of the narrow part, in units of L."""
    narrow_share: float = 0.25
    """What of the variance is the narrow part's."""
    certain: float = 4.0
    """ab units that are added to the spread of the predicted distribution."""


def spread(
    ab_n2hw: Tensor, share_khw: Tensor, spread_hw: Tensor, L_hw: Tensor, hints: Sequence[Hint], kernel: Kernel | None = None
) -> Tensor:
    """The colours with the hints in them: (n, 2, H, W) ab units, at the resolution of L_hw.

    ab_n2hw: n predicted colourings, ab units; share_khw: the predicted distribution, and spread_hw its standard deviation in ab units,
    of the same (h, w). L_hw: (H, W) lightness 0…100. All on the CPU, float32. `hints`: at least one.
    """
    kernel = kernel or Kernel()
    height, width = L_hw.shape
    L_np = L_hw.numpy()
    ab_n2hw = torch.stack([torch.from_numpy(ChromaUpsampler(ab_2hw.numpy(), L_np, height, width).rows(0, L_np)) for ab_2hw in ab_n2hw])
    place_m2 = torch.tensor([(hint.across, hint.down) for hint in hints])
    given_m2 = torch.tensor([hint.ab for hint in hints])
    maps_mhw = torch.cat([_kernel_maps(part_m2, share_khw, spread_hw, L_hw, kernel) for part_m2 in torch.split(place_m2, HINTS_AT_ONCE)])
    between_mm = sampled(maps_mhw, place_m2).T
    diagonal_m = between_mm.diagonal().clamp_min(1e-6)
    residual_mc = given_m2.repeat(1, len(ab_n2hw)) - sampled(ab_n2hw.flatten(0, 1), place_m2).T
    weight_mc = torch.linalg.solve(between_mm + torch.diag(JITTER * diagonal_m), residual_mc)
    moved_chw: Tensor = torch.einsum("mc,mhw->chw", weight_mc, maps_mhw)
    return ab_n2hw + moved_chw.view_as(ab_n2hw)


def sampled(planes_chw: Tensor, place_m2: Tensor) -> Tensor:
    """The planes at points (across, down; 0…1), bilinear: (c, m)."""
    return F.grid_sample(planes_chw[None], (2 * place_m2 - 1)[None, None], padding_mode="border", align_corners=False)[0, :, 0]


def _kernel_maps(place_m2: Tensor, share_khw: Tensor, spread_hw: Tensor, L_hw: Tensor, kernel: Kernel) -> Tensor:
    """k(x, point) of every pixel x and some points: (m, H, W)."""
    height, width = L_hw.shape
    pixels_2 = torch.tensor([width, height], dtype=torch.float32)
    columns_w, rows_h = (torch.arange(size) + 0.5 for size in (width, height))
    column_m, row_m = (place_m2 * pixels_2).T
    square_mhw = (columns_w - column_m[:, None]).square()[:, None] + (rows_h - row_m[:, None]).square()[:, :, None]
    lighter_mhw = (L_hw - sampled(L_hw[None], place_m2)[0, :, None, None]).square()
    root_khw = share_khw.sqrt()
    alike_mhw = torch.einsum("km,khw->mhw", sampled(root_khw, place_m2), root_khw)
    unlike_mhw = 1 - F.interpolate(alike_mhw[None], size=(height, width), mode="bilinear")[0]
    wide_mhw = (
        square_mhw / (-2 * (kernel.distance * max(height, width)) ** 2)
        - lighter_mhw / (2 * kernel.lightness**2)
        - unlike_mhw / kernel.likeness
    ).exp()
    narrow_mhw = (square_mhw / (-2 * kernel.narrow_pixels**2) - lighter_mhw / (2 * kernel.narrow_lightness**2)).exp()
    doubt_hw = F.interpolate(spread_hw[None, None], size=(height, width), mode="bilinear")[0, 0] + kernel.certain
    doubt_m = sampled(doubt_hw[None], place_m2)[0]
    return torch.lerp(wide_mhw, narrow_mhw, kernel.narrow_share) * doubt_hw * doubt_m[:, None, None] / 400
