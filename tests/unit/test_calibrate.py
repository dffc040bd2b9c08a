"""Calibration: the ends of the vividness dial are the best that the network can do at their ends."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.model.calibrate import (
    LARGEST_LIFT,
    TEMPERATURES,
    VIVID_REBALANCES,
    VIVID_TEMPERATURES,
    _as_colorful,
    calibrate,
)
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import ColorScores
from colorize.model.settings import DecodeSettings, VividnessDial
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
    assert vivid["colorfulness_ratio"] == pytest.approx(1, abs=0.01)
    assert dial.vivid_temperature in VIVID_TEMPERATURES
    assert dial.vivid_rebalance in VIVID_REBALANCES


def test_a_network_that_cannot_be_vivid_goes_as_far_as_it_can() -> None:
    model = constant_model(10.0, 0.0)
    L_b1hw = some_lightness()
    truth_b2hw = torch.randn(len(L_b1hw), 2, 16, 16, generator=torch.Generator().manual_seed(2)) * 40
    dial = calibrate(model, L_b1hw, truth_b2hw)
    assert dial.vivid_lift == LARGEST_LIFT


def test_grey_pictures_say_nothing_of_the_dial() -> None:
    L_b1hw = some_lightness()
    assert calibrate(small_model(), L_b1hw, torch.zeros(len(L_b1hw), 2, 16, 16)) == VividnessDial()


def test_half_precision_pictures_are_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a data set are stored in float16; and how pictures are batched changes nothing."""
    model = small_model()
    L_b1hw = some_lightness()
    truth_b2hw = 1.4 * answer(model, L_b1hw, DecodeSettings(temperature=0.7))
    dial = calibrate(model, L_b1hw, truth_b2hw)
    monkeypatch.setattr("colorize.model.calibrate.BATCH", 4)
    half = calibrate(model, L_b1hw.half(), truth_b2hw.half())
    assert dataclasses.asdict(half) == pytest.approx(dataclasses.asdict(dial), abs=0.05)


def test_of_many_pictures_some_will_do_but_for_the_lift(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    L_b1hw = some_lightness()
    factor_b111 = torch.tensor([1.6, 1.2, 1.2, 1.6, 1.2, 1.2]).view(-1, 1, 1, 1)
    truth_b2hw = factor_b111 * answer(model, L_b1hw, DecodeSettings(temperature=0.7))
    some = calibrate(model, L_b1hw[::3], truth_b2hw[::3])
    monkeypatch.setattr("colorize.model.calibrate.MOST_PIXELS", 2 * 16 * 16)
    monkeypatch.setattr("colorize.model.calibrate.BATCH", 4)
    dial = calibrate(model, L_b1hw, truth_b2hw)
    assert dial.vivid_lift < some.vivid_lift
    assert dataclasses.replace(dial, vivid_lift=some.vivid_lift) == some
    found = dataclasses.replace(model, card=dataclasses.replace(model.card, dial=dataclasses.asdict(dial)))
    vivid = scores_of(found, L_b1hw, truth_b2hw, DecodeSettings(vividness=1))
    assert vivid["colorfulness_ratio"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("without", "power"), [(0.6, 1.0), (0.3, 0.8), (0.95, 0.9), (0.1, 1.2)])
def test_the_lift_that_is_as_colourful_as_the_truth(without: float, power: float) -> None:
    def ratio(lift: float) -> float:
        return without + 0.9 * lift**power

    (reached, psnr), lift = _as_colorful(lambda lift: (20 - lift, ratio(lift)))
    assert reached
    assert psnr == 20 - lift
    assert ratio(lift) == pytest.approx(1, abs=0.005)


def test_what_is_more_colourful_than_the_truth_is_not_lifted() -> None:
    assert _as_colorful(lambda lift: (21.0 - lift, 1.3 + lift)) == ((True, 21.0), 0.0)


def test_never_colourful_enough() -> None:
    assert _as_colorful(lambda lift: (21.0, 0.3 + 0.1 * lift)) == ((False, 0.5), LARGEST_LIFT)


def test_a_network_without_any_colour() -> None:
    assert _as_colorful(lambda lift: (21.0, 0.0)) == ((False, 0.0), LARGEST_LIFT)


def test_among_nearly_equals_the_smoothest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(seed=1)
    L_b1hw = some_lightness()
    truth_b2hw = answer(model, L_b1hw, DecodeSettings(temperature=0.3))
    dials = []
    for within in (0.0, 100.0):
        monkeypatch.setattr("colorize.model.calibrate.SMOOTHER_WITHIN", within)
        dials.append(calibrate(model, L_b1hw, truth_b2hw))
    best, smoothest = dials
    assert best.vivid_temperature < smoothest.vivid_temperature


@pytest.mark.parametrize("stiffness", [0.0, 10.0, 100.0])
def test_plain_areas_hold_together_as_firmly_as_is_most_accurate(stiffness: float) -> None:
    model = small_model(seed=1)
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, dial=dataclasses.asdict(VividnessDial(stiffness=stiffness))))
    L_b1hw = some_lightness()
    truth_b2hw = answer(model, L_b1hw, DecodeSettings(temperature=1))  # levelled so firmly
    assert calibrate(model, L_b1hw, truth_b2hw).stiffness == stiffness
