"""The palette: encoding loses nothing, decoding means what it says."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize.errors import ConfigError
from colorize.model.palette import LEAST_ERROR_AB, MOST_LOST, Palette, confidence, lifted
from colorize.model.settings import DecodeSettings, VividnessDial
from colorize.model.swatches import load_swatches


def full_palette(step: float = 10.0, reach: float = 60.0) -> Palette:
    """Every node of the grid within ±reach, with a prior that favours grey."""
    axis = torch.arange(-reach, reach + 1, step)
    bins_k2 = torch.cartesian_prod(axis, axis)
    prior_k = torch.exp(-bins_k2.norm(dim=1) / 20)
    return Palette(bins_k2, prior_k / prior_k.sum(), step)


def logits_of(palette: Palette, share_k: torch.Tensor) -> torch.Tensor:
    return share_k.log().view(1, len(palette), 1, 1)


@given(a=st.floats(-59, 59), b=st.floats(-59, 59), step=st.sampled_from([5.0, 10.0, 20.0]))
def test_the_expectation_of_a_target_is_the_colour_it_encodes(a: float, b: float, step: float) -> None:
    palette = full_palette(step)
    index_b4hw, weight_b4hw = palette.encode(torch.tensor([a, b]).view(1, 2, 1, 1))
    assert weight_b4hw.sum().item() == pytest.approx(1, abs=1e-5)
    assert (weight_b4hw >= 0).all()
    mean = (palette.bins_k2[index_b4hw[0, :, 0, 0]] * weight_b4hw[0, :, 0, 0, None]).sum(0)
    assert mean.tolist() == pytest.approx([a, b], abs=1e-3)


def test_colours_outside_the_kept_bins_go_to_the_nearest_one() -> None:
    palette = full_palette(reach=20)
    index_b4hw, weight_b4hw = palette.encode(torch.tensor([100.0, 0.0]).view(1, 2, 1, 1))
    # Corners without weight may be any bin.
    mean = weight_b4hw.flatten() @ palette.bins_k2[index_b4hw.flatten()]
    assert mean.tolist() == pytest.approx([20.0, 0.0], abs=1e-3)


def test_histograms_of_parts_add_up_and_make_the_prior() -> None:
    ab_n2 = torch.randn(5000, 2, generator=torch.Generator().manual_seed(1)) * 20
    whole = Palette.count(ab_n2, 10.0)
    torch.testing.assert_close(Palette.count(ab_n2[:2000], 10.0) + Palette.count(ab_n2[2000:], 10.0), whole)
    assert whole.sum().item() == pytest.approx(5000)
    palette = Palette.from_histogram(whole, 10.0)
    assert palette.prior_k.sum().item() == pytest.approx(1, abs=1e-5)
    assert (palette.prior_k > 0).all()
    assert palette.mean_ab_2.tolist() == pytest.approx(ab_n2.mean(0).tolist(), abs=0.2)


def test_rare_bins_are_left_out_and_their_share_is_kept() -> None:
    ab_n2 = torch.cat([torch.zeros(100_000, 2), torch.tensor([[80.0, 80.0]])])
    palette = Palette.from_histogram(Palette.count(ab_n2, 10.0), 10.0, smallest_share=1e-4)
    assert palette.bins_k2.tolist() == [[0.0, 0.0]]
    assert palette.prior_k.tolist() == pytest.approx([1.0])


def test_cross_entropy_is_the_one_of_a_dense_target() -> None:
    palette = full_palette()
    generator = torch.Generator().manual_seed(0)
    logits_bkhw = torch.randn(2, len(palette), 3, 5, generator=generator)
    ab_b2hw = torch.randn(2, 2, 3, 5, generator=generator) * 20
    index_b4hw, weight_b4hw = palette.encode(ab_b2hw)
    target_bkhw = torch.zeros_like(logits_bkhw).scatter_add_(1, index_b4hw, weight_b4hw)
    dense = -(target_bkhw * logits_bkhw.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(palette.losses(logits_bkhw, ab_b2hw)[0], dense)


def test_the_logarithm_of_the_error_is_each_pictures_own() -> None:
    palette = Palette(torch.tensor([[0.0, 0.0], [40.0, 0.0]]), torch.tensor([0.5, 0.5]), 10.0)
    logits = logits_of(palette, torch.tensor([0.4, 0.6])).expand(2, -1, 3, 5)
    true_b2hw = torch.zeros(2, 2, 3, 5)
    true_b2hw[:, 0] = torch.tensor([24.0, 10.0])[:, None, None]  # 24 is the expectation: the first picture is right
    _, found = palette.losses(logits, true_b2hw)
    off = 14**2 / 2  # of a and b
    assert found.item() == pytest.approx((math.log(LEAST_ERROR_AB**2) + math.log(off + LEAST_ERROR_AB**2)) / 2, abs=1e-4)


def test_temperature_goes_from_the_mean_to_the_mode() -> None:
    palette = Palette(torch.tensor([[0.0, 0.0], [40.0, 0.0]]), torch.tensor([0.5, 0.5]), 10.0)
    logits = logits_of(palette, torch.tensor([0.4, 0.6]))
    assert palette.decode(logits).flatten().tolist() == pytest.approx([24.0, 0.0], abs=1e-4)
    assert palette.decode(logits, temperature=0.01).flatten().tolist() == pytest.approx([40.0, 0.0], abs=1e-3)


def test_rebalancing_divides_by_the_prior() -> None:
    prior_k = torch.tensor([0.9, 0.1])
    palette = Palette(torch.tensor([[0.0, 0.0], [40.0, 0.0]]), prior_k, 10.0)
    # A network that says no more than the prior, fully rebalanced, is undecided.
    assert palette.decode(logits_of(palette, prior_k), rebalance=1.0).flatten().tolist() == pytest.approx([20.0, 0.0], abs=1e-4)


def test_confidence_is_one_for_a_certain_pixel_and_falls_with_the_spread() -> None:
    palette = full_palette()
    certain = torch.full((1, len(palette), 1, 1), -1e4)
    certain[0, 7] = 1e4
    near, far = (torch.full((1, len(palette), 1, 1), -1e4) for _ in range(2))
    middle = int((palette.bins_k2 == 0).all(1).nonzero())
    beside, away = (int((palette.bins_k2 == torch.tensor([a, 0.0])).all(1).nonzero()) for a in (10.0, 60.0))
    near[0, [middle, beside]] = far[0, [middle, away]] = 0.0
    confidences = [confidence(palette.spread(logits)).item() for logits in (certain, near, far)]
    assert confidences[0] == pytest.approx(1)
    assert confidences[1] == pytest.approx(math.exp(-5 / 20), abs=1e-4)
    assert confidences[2] == pytest.approx(math.exp(-30 / 20), abs=1e-4)


def test_candidates_leave_certain_pixels_and_move_ambiguous_ones_together() -> None:
    palette = full_palette()
    certain = torch.full((len(palette),), 1e-9)
    certain[3] = 1.0
    logits = torch.stack([(certain / certain.sum()).log(), torch.zeros(len(palette))], dim=1).view(1, len(palette), 1, 2)
    ab_bn2hw = palette.candidates(logits, 4, temperature=1.0, rebalance=0.0)
    assert ab_bn2hw.shape == (1, 4, 2, 1, 2)
    sure, unsure = ab_bn2hw[0, :, :, 0, 0], ab_bn2hw[0, :, :, 0, 1]
    assert (sure - sure[0]).norm(dim=1).max() < 0.1
    assert torch.cdist(unsure, unsure)[~torch.eye(4, dtype=torch.bool)].min() > 15
    torch.testing.assert_close(ab_bn2hw[:, 0], palette.decode(logits))


def test_the_dial_is_linear_and_the_temperature_can_be_overridden() -> None:
    dial = VividnessDial(accurate_temperature=0.8, vivid_temperature=0.4, vivid_rebalance=0.2, vivid_lift=0.6)
    for vividness, expected in ((0, (0.8, 0.0)), (0.5, (0.6, 0.1)), (1, (0.4, 0.2))):
        assert dial.at(DecodeSettings(vividness=vividness)) == pytest.approx(expected)
        assert dial.lift(DecodeSettings(vividness=vividness)) == pytest.approx(0.6 * vividness)
    assert dial.at(DecodeSettings(vividness=1, temperature=0.9)) == pytest.approx((0.9, 0.2))


def test_chroma_is_raised_by_a_share_of_the_spread() -> None:
    ab_bn2hw = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]).view(3, 1, 2, 1, 1).expand(3, 2, 2, 2, 2)
    spread_bhw = torch.tensor([10.0, 10.0, 10.0]).view(3, 1, 1).expand(3, 2, 2)
    assert torch.equal(lifted(ab_bn2hw, spread_bhw, 0.0), ab_bn2hw)
    chroma_b = lifted(ab_bn2hw, spread_bhw, 0.5).norm(dim=2).amax((1, 2, 3))
    expected = [5 + 0.5 * 10, 0.5 * (1 + 0.5 * MOST_LOST), 0.0]
    torch.testing.assert_close(chroma_b, torch.tensor(expected))


def test_a_picture_is_lifted_as_a_whole_and_by_itself() -> None:
    generator = torch.Generator().manual_seed(4)
    ab_bn2hw, spread_bhw = 20 * torch.randn(2, 2, 2, 3, 3, generator=generator), 20 * torch.rand(2, 3, 3, generator=generator)
    raised = lifted(ab_bn2hw, spread_bhw, 0.5)
    factor = (raised / ab_bn2hw).flatten(2)
    torch.testing.assert_close(factor, factor[:, :, :1].expand_as(factor))
    torch.testing.assert_close(raised[1:], lifted(ab_bn2hw[1:], spread_bhw[1:], 0.5))
    assert not torch.allclose(factor[0, 0, 0], factor[1, 0, 0])


def test_the_colours_of_a_palette_are_taken_as_they_are() -> None:
    dial = VividnessDial(vivid_lift=0.5)
    assert dial.lift(DecodeSettings(vividness=1)) == 0.5
    assert dial.lift(DecodeSettings(vividness=1, palette=load_swatches("kodachrome"))) == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"vividness": 1.5}, "vividness 1.5"),
        ({"vividness": float("nan")}, "vividness nan"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": 1e-45}, "temperature 1e-45: must lie in 0.01…1"),
        ({"candidates": 0}, "candidates 0"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        DecodeSettings(**wrong)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(scale=st.floats(0.1, 20), temperature=st.floats(0.05, 1), rebalance=st.floats(0, 1))
def test_decoded_colours_stay_inside_the_bins(scale: float, temperature: float, rebalance: float) -> None:
    palette = full_palette()
    logits = torch.randn(1, len(palette), 4, 4, generator=torch.Generator().manual_seed(3)) * scale
    ab_b2hw = palette.decode(logits, temperature, rebalance)
    assert ab_b2hw.isfinite().all()
    assert ab_b2hw.abs().max() <= 60 + 1e-3
