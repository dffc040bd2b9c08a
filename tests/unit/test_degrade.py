"""Damage: it looks like a scan's, colours stay true, and what lies in a border is neutral."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.train import degrade as damage
from colorize.train.degrade import BLOCKY, BLURRED, BORDERED, CLEAN, GRAINY, SCRATCHED, SPOTTED, TONED, degrade


def pictures(count: int, side: int = 48) -> tuple[Tensor, Tensor]:
    """Smooth pictures in colour, no ab of which is 0."""
    generator = torch.Generator().manual_seed(1)
    waves = torch.rand(count, 3, 5, 5, generator=generator)
    lab_b3hw = F.interpolate(waves, size=(side, side), mode="bicubic").clamp(0, 1)
    return 20 + 60 * lab_b3hw[:, :1], 10 + 40 * lab_b3hw[:, 1:]


def test_lightness_stays_lightness_and_the_same_chance_damages_the_same() -> None:
    L_b1hw, ab_b2hw = pictures(200)
    seen, target = degrade(L_b1hw, ab_b2hw, torch.Generator().manual_seed(0))
    again, _ = degrade(L_b1hw, ab_b2hw, torch.Generator().manual_seed(0))
    assert torch.equal(seen, again)
    assert seen.shape == L_b1hw.shape
    assert seen.isfinite().all()
    assert 0 <= seen.min() <= seen.max() <= 100
    assert target.shape == ab_b2hw.shape


def test_the_given_pictures_are_left_alone() -> None:
    L_b1hw, ab_b2hw = pictures(50)
    before = L_b1hw.clone(), ab_b2hw.clone()
    degrade(L_b1hw, ab_b2hw)
    assert torch.equal(L_b1hw, before[0])
    assert torch.equal(ab_b2hw, before[1])


def test_only_borders_change_colours_and_they_are_neutral() -> None:
    L_b1hw, ab_b2hw = pictures(1000, side=32)
    _, target = degrade(L_b1hw, ab_b2hw, torch.Generator().manual_seed(0))
    neutral = target.abs().amax(1) == 0
    assert torch.equal(target.movedim(1, -1)[~neutral], ab_b2hw.movedim(1, -1)[~neutral])
    bordered = neutral.flatten(1).any(1)
    share = BORDERED * (1 - CLEAN)
    assert share * 0.7 < bordered.float().mean() < share * 1.3
    assert not neutral[:, 14:18, 14:18].any(), "the middle of a picture is never border"
    assert (neutral[bordered].flatten(1).float().mean(1) < 0.75).all()


def test_some_pictures_stay_clean() -> None:
    L_b1hw, ab_b2hw = pictures(2000, side=16)
    seen, _ = degrade(L_b1hw, ab_b2hw, torch.Generator().manual_seed(0))
    clean = ((seen - L_b1hw).abs().amax((1, 2, 3)) < 0.01).float().mean().item()
    untouched = math.prod(1 - share for share in (BORDERED, BLURRED, TONED, GRAINY, SPOTTED, SCRATCHED, BLOCKY))
    expected = CLEAN + (1 - CLEAN) * untouched
    assert expected * 0.9 < clean < expected * 1.1


def column(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_blur_is_each_pictures_own() -> None:
    dot = torch.zeros(2, 1, 17, 17)
    dot[:, :, 8, 8] = 100
    sharp, soft = damage._blurred(dot, column(0.05, 1.2))
    torch.testing.assert_close(sharp, dot[0])
    assert soft.sum().item() == pytest.approx(100, rel=1e-3)
    assert soft[0, 8, 8] < 20
    torch.testing.assert_close(soft[0], soft[0].T)


def test_tones_keep_their_order_and_come_closer() -> None:
    ramp = torch.linspace(0, 100, 64).view(1, 1, 1, 64).expand(2, 1, 8, 64)
    plain, flat = damage._toned(ramp, column(0.0, 1.0), column(0.0, 1.0), column(0.0, 1.0))
    torch.testing.assert_close(plain, ramp[0], atol=0.02, rtol=0)
    row = flat[0, 0]
    assert (row.diff() >= 0).all()
    assert row[0] == pytest.approx(damage.LIFTED_BLACK, abs=0.1)
    assert row[-1] == pytest.approx(100 - damage.LOWERED_WHITE, abs=0.1)


def test_grain_has_the_strength_that_is_asked_for() -> None:
    grain = damage._grain(torch.zeros(20, 1, 64, 64), torch.Generator().manual_seed(0))
    assert grain.std().item() == pytest.approx(1, abs=0.03)
    assert grain.mean().item() == pytest.approx(0, abs=0.05)


def test_blocks_are_rounded_in_their_own_8_by_8() -> None:
    L_b1hw = pictures(3, side=32)[0] + torch.rand(3, 1, 32, 32)
    struck = torch.tensor([True, True, False]).view(3, 1, 1, 1)
    fine, coarse, untouched = damage._blocky(L_b1hw, column(0.01, 7.0, 7.0), struck)
    torch.testing.assert_close(fine, L_b1hw[0], atol=0.2, rtol=0)
    assert (coarse - L_b1hw[1]).abs().mean() > 0.3
    assert torch.equal(untouched, L_b1hw[2])
    other = L_b1hw.clone()
    other[:, :, 8:, :] = 50
    assert torch.equal(damage._blocky(other, column(0.01, 7.0, 7.0), struck)[1, :, :8], coarse[:, :8])


def test_scratches_and_spots_are_small() -> None:
    L_b1hw = torch.zeros(50, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(50, 1, 1, 1, generator=generator)

    scratch = damage._scratch(L_b1hw, uniform)
    assert scratch.min() >= 0
    assert scratch.max() <= 1
    assert 0 < (scratch > 0).float().mean() < 0.06
    spots = damage._spots(L_b1hw, generator)
    assert 0 < (spots > 0.3).float().mean() < 0.03
