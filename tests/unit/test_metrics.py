"""Every metric against another implementation or the written formula; sums of shards against the whole."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from colorize.imaging.colorspace import compose, rgb_to_lab
from colorize.model.metrics import LARGEST_PSNR, SCORES, SUMS, ColorScores, colorfulness, score_pictures, scores_from_sums
from tests.pictures import rgb_scene


def some_pictures(count: int = 5, height: int = 24, width: int = 32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(L, predicted ab, true ab, true RGB) of pictures that differ, with a guess that is half right."""
    rgb_bhwc = np.stack([np.roll(rgb_scene(height, width), 3 * shift, axis=(0, 1)) // (shift + 1) for shift in range(count)])
    rgb_b3hw = torch.from_numpy(np.ascontiguousarray(rgb_bhwc.transpose(0, 3, 1, 2)))
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    noise = torch.randn(count, 2, height, width, generator=torch.Generator().manual_seed(0))
    return lab_b3hw[:, :1], 0.5 * lab_b3hw[:, 1:] + 4 * noise, lab_b3hw[:, 1:], rgb_b3hw


def scored(*parts: Tensor) -> dict[str, Tensor]:
    return dict(zip(SUMS, score_pictures(*parts).unbind(1), strict=True))


def as_rgb(L_b1hw: Tensor, ab_b2hw: Tensor) -> list[np.ndarray]:
    return list(compose(L_b1hw, ab_b2hw).movedim(1, -1).numpy())


def test_psnr_rgb_error_and_mse_are_those_of_the_eight_bit_picture() -> None:
    L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw = some_pictures()
    scores = scored(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    for index, (predicted, true) in enumerate(zip(as_rgb(L_b1hw, guess_b2hw), rgb_b3hw.movedim(1, -1).numpy(), strict=True)):
        assert scores["psnr_mean"][index].item() == pytest.approx(peak_signal_noise_ratio(true, predicted, data_range=255), abs=1e-4)
        error = (predicted.astype(float) - true) / 255
        assert scores["mse"][index].item() == pytest.approx((error**2).mean(), rel=1e-5)
        assert scores["rgb_mae"][index].item() == pytest.approx(np.abs(error).mean(), rel=1e-5)


def reference_ssim(predicted: np.ndarray, true: np.ndarray) -> float:
    """skimage's, over a window around every pixel: it leaves out a border of 5, which the reflection puts outside the picture."""
    predicted, true = (np.pad(picture, [(5, 5), (5, 5), (0, 0)], mode="reflect") for picture in (predicted, true))
    return structural_similarity(
        true, predicted, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


@pytest.mark.parametrize("size", [(24, 32), (32, 32), (11, 11), (11, 40)])
def test_ssim_is_the_gaussian_one(size: tuple[int, int]) -> None:
    L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw = some_pictures(3, *size)
    scores = scored(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    for index, (predicted, true) in enumerate(zip(as_rgb(L_b1hw, guess_b2hw), rgb_b3hw.movedim(1, -1).numpy(), strict=True)):
        assert scores["ssim"][index].item() == pytest.approx(reference_ssim(predicted, true), abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (5, 7), (10, 12), (30, 3)])
def test_ssim_of_pictures_smaller_than_its_window(size: tuple[int, int]) -> None:
    """They are continued by their last row and column, up to one whole window."""
    L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw = some_pictures(2, *size)
    scores = scored(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    margin = [(0, max(0, 11 - size[0])), (0, max(0, 11 - size[1])), (0, 0)]
    for index, (predicted, true) in enumerate(zip(as_rgb(L_b1hw, guess_b2hw), rgb_b3hw.movedim(1, -1).numpy(), strict=True)):
        expected = reference_ssim(np.pad(predicted, margin, mode="edge"), np.pad(true, margin, mode="edge"))
        assert scores["ssim"][index].item() == pytest.approx(expected, abs=1e-4)
        assert all(math.isfinite(column[index].item()) for column in scores.values())


def test_chroma_errors() -> None:
    L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw = some_pictures()
    scores = scored(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    error = np.abs((guess_b2hw - ab_b2hw).numpy())
    np.testing.assert_allclose(scores["ab_mae"], error.mean((1, 2, 3)), rtol=1e-5)
    within = (error[:, 0] <= 5) & (error[:, 1] <= 5)
    assert 0 < within.mean() < 1
    np.testing.assert_allclose(scores["within_5"], within.mean((1, 2)), rtol=1e-5)


# Of Sharma, Wu and Dalal 2005, table 1: the pairs 1, 2, 3, 7 and 11, which have one lightness.
@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((2.6772, -79.7751), (0.0, -82.7485), 2.0425),
        ((3.1571, -77.2803), (0.0, -82.7485), 2.8615),
        ((2.8361, -74.0200), (0.0, -82.7485), 3.4412),
        ((0.0, 0.0), (-1.0, 2.0), 2.3669),
        ((2.4900, -0.0010), (-2.4900, 0.0011), 7.2195),
    ],
)
def test_ciede2000_of_published_pairs(one: tuple[float, float], other: tuple[float, float], difference: float) -> None:
    L_b1hw = torch.full((1, 1, 2, 2), 50.0)
    ab_b2hw, guess_b2hw = (torch.tensor(ab).view(1, 2, 1, 1).expand(1, 2, 2, 2) for ab in (one, other))
    scores = scored(L_b1hw, guess_b2hw, ab_b2hw, compose(L_b1hw, ab_b2hw))
    assert scores["ciede2000"].item() == pytest.approx(difference, abs=2e-4)


def test_colourfulness_is_the_written_formula() -> None:
    *_, rgb_b3hw = some_pictures()
    found = colorfulness(rgb_b3hw)
    for index, (red, green, blue) in enumerate(rgb_b3hw.numpy().astype(float)):
        rg, yb = red - green, (red + green) / 2 - blue
        expected = math.sqrt(rg.std() ** 2 + yb.std() ** 2) + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
        assert found[index].item() == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(colorfulness(rgb_b3hw.float()), found)


def test_a_perfect_prediction() -> None:
    L_b1hw, _, ab_b2hw, rgb_b3hw = some_pictures()
    metric = ColorScores()
    metric.update(L_b1hw, ab_b2hw, ab_b2hw, rgb_b3hw)
    perfect = {
        "ssim": 1.0, "psnr_mean": LARGEST_PSNR, "psnr_pooled": LARGEST_PSNR, "rgb_mae": 0.0, "ab_mae": 0.0, "ciede2000": 0.0,
        "colorfulness_ratio": 1.0, "within_5": 1.0,
    }  # fmt: skip
    scores = metric.compute()
    assert tuple(scores) == SCORES
    assert {name: scores[name] for name in perfect} == pytest.approx(perfect, abs=1e-5)


def test_grey() -> None:
    L_b1hw, _, ab_b2hw, rgb_b3hw = some_pictures()
    metric = ColorScores()
    metric.update(L_b1hw, torch.zeros_like(ab_b2hw), ab_b2hw, rgb_b3hw)
    scores = metric.compute()
    assert scores["colorfulness"] == pytest.approx(0, abs=1e-4)
    assert scores["colorfulness_ratio"] == pytest.approx(0, abs=1e-5)
    assert scores["ab_mae"] == pytest.approx(float(ab_b2hw.abs().mean()), rel=1e-5)
    assert scores["psnr_mean"] < 25


def test_the_ratio_to_no_colour_at_all_is_undefined() -> None:
    L_b1hw = torch.full((2, 1, 16, 16), 40.0)
    none_b2hw = torch.zeros(2, 2, 16, 16)
    metric = ColorScores()
    metric.update(L_b1hw, none_b2hw + 30, none_b2hw, compose(L_b1hw, none_b2hw))
    scores = metric.compute()
    assert math.isnan(scores["colorfulness_ratio"])
    assert scores["colorfulness"] > 10


def test_ciede2000_can_be_left_out() -> None:
    parts = some_pictures(2)
    with_it, without = ColorScores(), ColorScores(ciede2000=False)
    with_it.update(*parts)
    without.update(*parts)
    full, short = with_it.compute(), without.compute()
    assert math.isnan(short.pop("ciede2000"))
    assert short == {name: value for name, value in full.items() if name != "ciede2000"}


def test_means_are_over_pictures_and_the_pooled_psnr_is_over_pixels() -> None:
    L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw = some_pictures()
    metric = ColorScores()
    metric.update(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    scores, rows = metric.compute(), scored(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
    for name in ("ssim", "psnr_mean", "rgb_mae", "ab_mae", "ciede2000", "colorfulness", "within_5"):
        assert scores[name] == pytest.approx(rows[name].mean().item()), name
    assert scores["psnr_pooled"] == pytest.approx(-10 * math.log10(rows["mse"].mean().item()))
    assert scores["psnr_pooled"] < scores["psnr_mean"]
    assert scores["colorfulness_ratio"] == pytest.approx(rows["colorfulness"].sum().item() / rows["true_colorfulness"].sum().item())


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_shards_add_up(cuts: list[int]) -> None:
    """However the pictures are dealt to workers, the sums are those of all of them in one batch, but for the order of addition."""
    parts = some_pictures(6, 12, 14)
    whole = ColorScores()
    whole.update(*parts)
    sums = torch.zeros(len(SUMS), dtype=torch.float64)
    bounds = [0, *sorted(cuts), 6]
    for first, last in itertools.pairwise(bounds):
        shard = ColorScores()
        if last > first:
            shard.update(*(part[first:last] for part in parts))
            assert shard.sums[0].item() == last - first
        sums += shard.sums
    assert sums[0].item() == 6
    assert scores_from_sums(sums) == pytest.approx(whole.compute(), rel=1e-5)


def test_half_precision_input_is_scored_in_full_precision() -> None:
    L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw = some_pictures()
    half = score_pictures(L_b1hw.half(), guess_b2hw.half(), ab_b2hw.half(), rgb_b3hw)
    torch.testing.assert_close(half, score_pictures(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw), atol=0.1, rtol=1e-2)
    assert half.dtype == torch.float64
