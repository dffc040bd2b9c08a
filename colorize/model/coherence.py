"""Colours that hold together: what lies in one plain area of a picture gets one colour, that of its surest places.

Where the network is unsure it chooses between places: a studio's backdrop is blue on the left and red on the right, the paper around a
flower glows yellow. So the decoded chroma x of every cell is the minimum of

    Σ_i c_i² (x_i − ab_i)² / mean(c²)  +  Σ_ij w_ij (x_i − x_j)²        w_ij = stiffness · exp(−(d_ij / EDGE_L)²) + LEAST

over neighbouring cells i, j, where c is the network's confidence and d what the lightness says of an edge: the step from one cell to
the next and the texture within both. It is weighted least squares (Farbman, Fattal, Lischinski and Szeliski 2008, "Edge-preserving
decompositions") with a confidence, as in the fast bilateral solver (Barron and Poole 2016). The matrix is banded and is solved as it is:
Cholesky, 2 ms for 40×56 cells. How stiff is a matter of the model
(`calibrate`); what it is worth: docs/results.md.

Knows nothing of networks and palettes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_L = 3.0
"""In L: cells so different, or so textured, keep a third of their pair's weight."""

LEAST = 0.02
"""The weight of a pair across the strongest edge."""

Map = npt.NDArray[np.float32]


def coherent(ab_n2hw: Tensor, L_1hw: Tensor, confidence_hw: Tensor, stiffness: float) -> Tensor:
    """The chroma of one picture, levelled where the picture is plain.

    ab_n2hw: n colourings of the same picture, ab units. L_1hw: its lightness, 0…100, at that resolution or a finer one. confidence_hw:
    0…1 at the resolution of ab_n2hw, positive. All on the CPU. stiffness: the weight of a pair of cells without an edge, against a cell's
    own colour; a plain area is levelled over about its square root in cells, and more where the network is unsure; 0 changes nothing.
    Returns (n, 2, h, w) float32.
    """
    if not stiffness:
        return ab_n2hw
    n, _, height, width = ab_n2hw.shape
    planes_hwc = ab_n2hw.reshape(2 * n, height, width).permute(1, 2, 0)
    if height < width:  # the band is as wide as a row: the short side costs less
        planes_hwc, L_1hw, confidence_hw = planes_hwc.transpose(0, 1), L_1hw.mT, confidence_hw.mT
    rows, row = planes_hwc.shape[:2]
    L_1hw = L_1hw.float()[None]
    mean_hw, square_hw = (F.adaptive_avg_pool2d(of, (rows, row))[0, 0].numpy() for of in (L_1hw, L_1hw.square()))
    texture_hw = np.sqrt(np.maximum(square_hw - mean_hw * mean_hw, 0))
    across_hw, along_hw = (_weights(mean_hw, texture_hw, axis, stiffness) for axis in (0, 1))
    own_hw = confidence_hw.float().numpy() ** 2
    own_hw = own_hw / own_hw.mean()
    # The upper band by diagonals: entry [row − d, j] couples the cells j − d and j.
    band = np.zeros((row + 1, rows * row), np.float32)
    diagonal_hw = own_hw.copy()
    for weights_hw, axis, distance in ((across_hw, 0, row), (along_hw, 1, 1)):
        before, after = _pairs(diagonal_hw, axis)
        before += weights_hw
        after += weights_hw
        coupled_hw = np.zeros_like(diagonal_hw)
        _pairs(coupled_hw, axis)[1][...] = weights_hw
        band[row - distance] -= coupled_hw.reshape(-1)
    band[row] += diagonal_hw.reshape(-1)
    wanted_hwc = own_hw[..., None] * planes_hwc.float().numpy()
    solve, blas = _solver()
    with blas.limit(limits=1):
        _, solved, info = solve(band, wanted_hwc.reshape(rows * row, -1))
    assert info == 0, f"spbsv: {info}"  # a sum of squares, each cell's own among them, has a minimum
    solved_hwc = torch.from_numpy(np.ascontiguousarray(solved)).reshape(rows, row, 2 * n)
    if height < width:
        solved_hwc = solved_hwc.transpose(0, 1)
    return solved_hwc.permute(2, 0, 1).reshape(n, 2, height, width)


@cache
def _solver() -> tuple[Callable[..., Any], Any]:
    """LAPACK's `spbsv`, loaded when it is first used (0.8 s), and what limits its threads.

    OpenBLAS gives such a band to all cores, a few rows at a time: on busy cores 0.7 s of them instead of 1.3 ms, and 6 s to wait.
    """
    from scipy.linalg.lapack import spbsv
    from threadpoolctl import ThreadpoolController

    return spbsv, ThreadpoolController().select(user_api="blas")  # it knows the libraries that are loaded by now, SciPy's own among them


def _pairs(map_hw: Map, axis: int) -> tuple[Map, Map]:
    """Views of the first and the second cells of all pairs of neighbours along an axis."""
    return (map_hw[:-1], map_hw[1:]) if axis == 0 else (map_hw[:, :-1], map_hw[:, 1:])


def _weights(mean_hw: Map, texture_hw: Map, axis: int, stiffness: float) -> Map:
    """The weight of every pair of neighbours along an axis."""
    (mean, next_mean), (texture, next_texture) = _pairs(mean_hw, axis), _pairs(texture_hw, axis)
    distance = np.abs(next_mean - mean) + (texture + next_texture) / 2
    weights: Map = stiffness * np.exp(-np.square(distance / EDGE_L)) + LEAST
    return weights
