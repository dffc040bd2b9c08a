"""Augmentation: crops and mirror images keep lightness and colour together; hints tell the truth."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from colorize.train.augment import BRIGHTNESS, CONTRAST, MOST_HINTS, SHIFT, crop_and_flip, random_hints, reframe, vary


def numbered(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pictures whose every pixel is told apart by L (row) and ab (column, picture)."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    L_b1hw = row.expand(count, 1, height, width).float()
    picture = torch.arange(count).view(count, 1, 1).expand(count, height, width)
    return L_b1hw, torch.stack([column.expand(count, height, width), picture], dim=1).float()


@settings(max_examples=40)
@given(
    count=st.integers(1, 8), height=st.integers(8, 20), width=st.integers(8, 20), size=st.sampled_from([2, 6, 8]), seed=st.integers(0, 99)
)
def test_crop_and_flip_keep_lightness_and_colour_aligned(count: int, height: int, width: int, size: int, seed: int) -> None:
    L_b1hw, ab_b2hw = crop_and_flip(*numbered(count, height, width), size, torch.Generator().manual_seed(seed))
    assert L_b1hw.shape == (count, 1, size, size)
    assert ab_b2hw.shape == (count, 2, size, size)
    top = L_b1hw[0, 0, 0, 0]
    lefts = set()
    for index in range(count):
        assert torch.equal(L_b1hw[index, 0], (top + torch.arange(size)).view(size, 1).expand(size, size))
        columns = ab_b2hw[index, 0]
        assert torch.equal(columns, columns[:1].expand(size, size))
        straight = columns[0] if columns[0, 0] < columns[0, -1] else columns[0].flip(0)
        assert torch.equal(straight, straight[0] + torch.arange(size))
        lefts.add(straight[0].item())
        assert torch.equal(ab_b2hw[index, 1], torch.full((size, size), float(index)))
    assert len(lefts) == 1, "one crop for the whole batch"


def test_half_of_the_pictures_are_mirrored_each_by_its_own_chance() -> None:
    _, ab_b2hw = crop_and_flip(*numbered(1000, 8, 8), 8, torch.Generator().manual_seed(0))
    mirrored = (ab_b2hw[:, 0, 0, 0] == 7).float().mean().item()
    assert 0.45 < mirrored < 0.55


def test_every_crop_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    tops = {crop_and_flip(*numbered(1, 10, 10), 8, generator)[0][0, 0, 0, 0].item() for _ in range(100)}
    assert tops == {0, 1, 2}


def smooth_lightness(count: int, side: int = 16) -> Tensor:
    """Ramps within 30…70, which no change of light takes out of 0…100."""
    ramp = torch.linspace(30, 70, side)
    return (ramp.view(side, 1) + ramp.flip(0)).div(2).add(torch.linspace(-5, 5, side)).expand(count, 1, side, side).clone()


def test_variation_keeps_lightness_and_colour_aligned_but_for_the_light() -> None:
    """ab goes in as L − 50 and 50 − L; what comes out differs from it by one contrast and one brightness a picture."""
    L_b1hw = smooth_lightness(400)
    varied_b1hw, ab_b2hw = vary(L_b1hw, torch.cat([L_b1hw - 50, 50 - L_b1hw], 1), torch.Generator().manual_seed(0))
    assert varied_b1hw.shape == L_b1hw.shape
    assert ab_b2hw.shape == (400, 2, 16, 16)
    torch.testing.assert_close(ab_b2hw[:, 0], -ab_b2hw[:, 1], atol=1e-4, rtol=0)
    geometry_bn, light_bn = ab_b2hw[:, 0].flatten(1).double(), (varied_b1hw - 50).flatten(1).double()
    centred_bn = geometry_bn - geometry_bn.mean(1, keepdim=True)
    contrast_b = (centred_bn * light_bn).sum(1) / centred_bn.square().sum(1)
    brightness_b = light_bn.mean(1) - contrast_b * geometry_bn.mean(1)
    rest_bn = light_bn - contrast_b[:, None] * geometry_bn - brightness_b[:, None]
    assert rest_bn.abs().max() < 1e-3
    assert (contrast_b - 1).abs().max() <= CONTRAST + 1e-4
    assert brightness_b.abs().max() <= BRIGHTNESS + 1e-3
    unlit = ((contrast_b - 1).abs() < 1e-5) & (brightness_b.abs() < 1e-4)
    assert 0.4 < unlit.double().mean() < 0.6


def test_half_of_the_pictures_are_only_moved_and_stay_sharp() -> None:
    L_b1hw, ab_b2hw = torch.full((400, 1, 16, 16), 50.0), some_ab(1).expand(400, 2, 16, 16)
    _, varied_b2hw = vary(L_b1hw, ab_b2hw, torch.Generator().manual_seed(0))
    middle, places = ab_b2hw[0, 0, 6:10, 6:10], range(6 - SHIFT, 6 + SHIFT + 1)
    moved = [
        any((picture[top : top + 4, left : left + 4] - middle).abs().max() < 1e-2 for top in places for left in places)
        for picture in varied_b2hw[:, 0]
    ]
    assert 0.4 < sum(moved) / 400 < 0.6


def test_lightness_stays_in_its_range() -> None:
    L_b1hw = torch.rand(50, 1, 16, 16) * 100
    varied_b1hw, _ = vary(L_b1hw, torch.zeros(50, 2, 16, 16))
    assert 0 <= varied_b1hw.min() <= varied_b1hw.max() <= 100


def some_ab(count: int = 500, side: int = 16) -> Tensor:
    return torch.rand(count, 2, side, side, generator=torch.Generator().manual_seed(1)) * 100 - 50


@settings(max_examples=20)
@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_hints_show_the_true_colours_and_nothing_else(share: float, seed: int) -> None:
    ab_b2hw = some_ab(20)
    hints_b3hw = random_hints(ab_b2hw, share, torch.Generator().manual_seed(seed))
    mask_b1hw = hints_b3hw[:, 2:]
    assert hints_b3hw.shape == (20, 3, 16, 16)
    assert set(mask_b1hw.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(hints_b3hw[:, :2], torch.where(mask_b1hw == 1, ab_b2hw, 0.0))


def test_no_hints_at_share_zero() -> None:
    assert not random_hints(some_ab(), 0.0).any()


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_about_the_asked_share_of_pictures_gets_hints(share: float) -> None:
    """Some of those drawn for few places come out with none: the mean of 1 − exp(−32^u) over u in 0…1 is 0.87."""
    hints_b3hw = random_hints(some_ab(4000), share, torch.Generator().manual_seed(0))
    hinted = hints_b3hw[:, 2].flatten(1).any(1).float().mean().item()
    expected = share * sum(1 - math.exp(-(MOST_HINTS ** (n / 1000))) for n in range(1000)) / 1000
    assert hinted == pytest.approx(expected, abs=0.03)


def test_hints_are_points_or_small_squares_and_few() -> None:
    sides = set()
    for seed in range(20):
        mask_b1hw = random_hints(some_ab(50, 32), 1.0, torch.Generator().manual_seed(seed))[:, 2:]
        places = mask_b1hw.flatten(1).sum(1)
        assert places.max() < 9 * 3 * MOST_HINTS
        smallest = places[places > 0].min().item()
        sides.add(1 if smallest == 1 else 3)
    assert sides == {1, 3}


def test_the_same_seed_draws_the_same() -> None:
    parts = numbered(8, 12, 12)
    one, other = (crop_and_flip(*parts, 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
    hints = [random_hints(some_ab(), 0.5, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*hints)


def test_reframed_pictures_keep_lightness_and_colour_aligned() -> None:
    L_b1hw = smooth_lightness(64, 32)
    seen, ab_b2hw = reframe(L_b1hw, torch.cat([L_b1hw, -L_b1hw], 1), 24, torch.Generator().manual_seed(0))
    assert seen.shape == (64, 1, 24, 24)
    torch.testing.assert_close(ab_b2hw, torch.cat([seen, -seen], 1))
    assert L_b1hw.min() <= seen.min() <= seen.max() <= L_b1hw.max()


def test_reframing_crops_mirrors_and_never_leaves_the_picture_far() -> None:
    column = torch.linspace(0, 1, 33)[:32].view(1, 1, 1, 32).expand(1000, 1, 32, 32).contiguous()
    seen, _ = reframe(column, column.expand(-1, 2, -1, -1), 32, torch.Generator().manual_seed(0))
    middle = seen[:, 0, 16]
    assert 0.45 < (middle[:, 0] > middle[:, -1]).float().mean() < 0.55
    width = (middle[:, -1] - middle[:, 0]).abs()
    assert 0.35 < width.min() < 0.55
    assert width.median() > 0.7
