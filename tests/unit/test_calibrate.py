"""Calibration: the ends of the vividness dial are the best that the network can do at their ends."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.model.calibrate import BISECTIONS, TEMPERATURES, VIVID_TEMPERATURES, _as_colorful, calibrate
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import ColorScores
from colorize.model.palette import DecodeSettings
from tests.models import constant_model, small_model


def some_lightness(count: int = 6) -> Tensor:
    waves = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(5)) * 60 + 20
    return F.interpolate(waves, size=(16, 16), mode="bilinear")


def answer(model: ColorModel, L_b1hw: Tensor, settings: DecodeSettings) -> Tensor:
    predictions = Colorizer(model, device="cpu", precision="fp32").predict_batch(L_b1hw, settings)
    half_b2hw = torch.stack([prediction.ab_n2hw[0] for prediction in predictions])
    return F.interpolate(half_b2hw, size=L_b1hw.shape[-2:], mode="bilinear")


def scores_of(model: ColorModel, L_b1hw: Tensor, ab_b2hw: Tensor, settings: DecodeSettings) -> dict[str, float]:
    metric = ColorScores(ciede2000=False)
    metric.update(L_b1hw, answer(model, L_b1hw, settings), ab_b2hw, compose(L_b1hw, ab_b2hw))
    return metric.compute()


def test_the_dial_is_found_again_from_pictures_that_the_network_itself_painted() -> None:
    model = small_model()
    L_b1hw = some_lightness()
    truth_b2hw = answer(model, L_b1hw, DecodeSettings(temperature=0.7))
    dial = calibrate(model, L_b1hw, truth_b2hw)
    assert dial.accurate_temperature == 0.7
    found = dataclasses.replace(model, card=dataclasses.replace(model.card, dial=dataclasses.asdict(dial)))
    assert scores_of(found, L_b1hw, truth_b2hw, DecodeSettings())["psnr_mean"] > 50


def test_both_ends_keep_their_word() -> None:
    model = small_model(seed=1)
    L_b1hw = some_lightness()
    noise_b2hw = torch.randn(len(L_b1hw), 2, 16, 16, generator=torch.Generator().manual_seed(2))
    truth_b2hw = answer(model, L_b1hw, DecodeSettings(temperature=0.3)) + 3 * noise_b2hw
    dial = calibrate(model, L_b1hw, truth_b2hw)
    found = dataclasses.replace(model, card=dataclasses.replace(model.card, dial=dataclasses.asdict(dial)))
    accurate = scores_of(found, L_b1hw, truth_b2hw, DecodeSettings(vividness=0))
    for temperature in TEMPERATURES:
        other = scores_of(found, L_b1hw, truth_b2hw, DecodeSettings(temperature=temperature))
        assert accurate["psnr_mean"] >= other["psnr_mean"] - 1e-6
    vivid = scores_of(found, L_b1hw, truth_b2hw, DecodeSettings(vividness=1))
    assert 1 <= vivid["colorfulness_ratio"] < 1.1
    assert dial.vivid_temperature in VIVID_TEMPERATURES
    assert 0 <= dial.vivid_rebalance <= 1


def test_a_network_that_cannot_be_vivid_goes_as_far_as_it_can() -> None:
    model = constant_model(10.0, 0.0)
    L_b1hw = some_lightness()
    truth_b2hw = torch.randn(len(L_b1hw), 2, 16, 16, generator=torch.Generator().manual_seed(2)) * 40
    dial = calibrate(model, L_b1hw, truth_b2hw)
    assert dial.vivid_rebalance == 1


def test_half_precision_pictures_are_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a data set are stored in float16; and how pictures are batched changes nothing."""
    model = small_model()
    L_b1hw = some_lightness()
    truth_b2hw = 1.4 * answer(model, L_b1hw, DecodeSettings(temperature=0.7))
    dial = calibrate(model, L_b1hw, truth_b2hw)
    monkeypatch.setattr("colorize.model.calibrate.BATCH", 4)
    half = calibrate(model, L_b1hw.half(), truth_b2hw.half())
    assert dataclasses.asdict(half) == pytest.approx(dataclasses.asdict(dial), abs=0.05)


@pytest.mark.parametrize("enough", [0.01, 0.15, 0.5, 0.583, 0.999])
def test_the_least_rebalancing_that_is_colourful_enough(enough: float) -> None:
    def measure(temperature: float, rebalance: float) -> tuple[float, float]:
        assert temperature == 0.3
        return 20 - rebalance, rebalance / enough

    (reached, psnr), temperature, found = _as_colorful(measure, 0.3)
    assert reached
    assert temperature == 0.3
    assert psnr == 20 - found
    assert enough <= found <= enough + 1 / 2**BISECTIONS


def test_more_colourful_than_the_truth_with_the_prior_as_it_is() -> None:
    assert _as_colorful(lambda temperature, tried: (21.0, 1.5), 0.2) == ((True, 21.0), 0.2, 0.0)


def test_never_colourful_enough() -> None:
    assert _as_colorful(lambda temperature, tried: (21.0, 0.5), 0.2) == ((False, 0.5), 0.2, 1.0)
