"""Colours that hold together: one colour for what is plain, two where there is an edge, and the formula as it is written down."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from colorize.model.coherence import EDGE_L, LEAST, coherent

STIFFNESS = 100.0
SIDES = st.integers(1, 9)


def halves(left: float, right: float, height: int = 12, width: int = 20) -> Tensor:
    """A map whose left half has one value and whose right half has the other."""
    return torch.where(torch.arange(width) < width // 2, left, right).float().expand(height, width)


def test_a_plain_area_becomes_one_colour_that_of_its_surest_places() -> None:
    ab_12hw = torch.stack([halves(40, -40), halves(-20, 20)])[None]
    out_12hw = coherent(ab_12hw, torch.full((1, 48, 80), 60.0), halves(0.9, 0.3), STIFFNESS)
    assert float(out_12hw[0].amax((1, 2)).sub(out_12hw[0].amin((1, 2))).max()) < 20, "they were 80 and 40 apart"
    assert float(out_12hw[0, 0].min()) > 20, "the left half is nine times as sure"
    assert float(out_12hw[0, 1].max()) < -10


def test_without_stiffness_nothing_changes() -> None:
    ab_12hw = torch.stack([halves(40, -40), halves(-20, 20)])[None]
    assert torch.equal(coherent(ab_12hw, torch.full((1, 48, 80), 60.0), halves(0.9, 0.3), 0.0), ab_12hw)


def test_an_edge_of_lightness_keeps_colours_apart() -> None:
    ab_12hw = torch.stack([halves(40, -40), halves(-20, 20)])[None]
    L_1hw = F.interpolate(halves(30, 70)[None, None], scale_factor=4.0)[0]
    torch.testing.assert_close(coherent(ab_12hw, L_1hw, torch.full((12, 20), 0.5), STIFFNESS), ab_12hw, atol=0.5, rtol=0)


def test_texture_keeps_the_colours_of_cells_too() -> None:
    ab_12hw = torch.stack([halves(40, -40), halves(-20, 20)])[None]
    L_1hw = 50 + 30 * (torch.arange(80) % 2 - 0.5).expand(1, 48, 80)
    torch.testing.assert_close(coherent(ab_12hw, L_1hw, torch.full((12, 20), 0.5), STIFFNESS), ab_12hw, atol=2.0, rtol=0)


@given(height=SIDES, width=SIDES, seed=st.integers(0, 1000))
def test_no_colour_is_made_that_was_not_there(height: int, width: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    ab_n2hw = 60 * torch.randn(3, 2, height, width, generator=drawn)
    L_1hw = 100 * torch.rand(1, 4 * height, 4 * width, generator=drawn).pow(4)
    confidence_hw = 0.01 + 0.99 * torch.rand(height, width, generator=drawn)
    out_n2hw = coherent(ab_n2hw, L_1hw, confidence_hw, STIFFNESS)
    assert out_n2hw.shape == ab_n2hw.shape
    assert out_n2hw.dtype == torch.float32
    assert bool((out_n2hw <= ab_n2hw.amax((2, 3), keepdim=True) + 1e-2).all())
    assert bool((out_n2hw >= ab_n2hw.amin((2, 3), keepdim=True) - 1e-2).all())
    turned_n2wh = coherent(ab_n2hw.mT, L_1hw.mT, confidence_hw.mT, STIFFNESS)
    torch.testing.assert_close(turned_n2wh.mT, out_n2hw, atol=2e-2, rtol=1e-3)
    torch.testing.assert_close(coherent(ab_n2hw[1:2], L_1hw, confidence_hw, STIFFNESS), out_n2hw[1:2], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(5, 4), (4, 5), (1, 6), (6, 1), (1, 1)])
def test_it_is_the_minimum_of_what_is_written_down(height: int, width: int) -> None:
    drawn = torch.Generator().manual_seed(7)
    ab_12hw = 60 * torch.randn(1, 2, height, width, generator=drawn)
    L_1hw = 50 + 3 * torch.randn(1, height, width, generator=drawn)  # at the same resolution a cell has no texture
    confidence_hw = 0.1 + 0.8 * torch.rand(height, width, generator=drawn)
    own = confidence_hw.numpy().astype(np.float64).ravel() ** 2
    matrix, L = np.diag(own / own.mean()), L_1hw.numpy().astype(np.float64).ravel()
    for one, other in itertools.combinations(range(height * width), 2):
        if abs(one // width - other // width) + abs(one % width - other % width) == 1:
            weight = STIFFNESS * np.exp(-(((L[one] - L[other]) / EDGE_L) ** 2)) + LEAST
            matrix[[one, other], [one, other]] += weight
            matrix[[one, other], [other, one]] -= weight
    expected = np.linalg.solve(matrix, (own / own.mean())[:, None] * ab_12hw.numpy().reshape(2, -1).T.astype(np.float64))
    np.testing.assert_allclose(coherent(ab_12hw, L_1hw, confidence_hw, STIFFNESS).numpy().reshape(2, -1).T, expected, atol=0.02)
