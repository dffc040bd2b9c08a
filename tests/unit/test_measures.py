"""What is measured beside the scores, against answers that are known: constructed confidences, sizes and hints."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from colorize.errors import ConfigError
from colorize.evaluation.classifier import Classifier
from colorize.evaluation.job import Evaluation, figures
from colorize.evaluation.measures import BINS, confidence_counts, confidence_ratio, random_hints, size_differences
from colorize.evaluation.scorer import Extras, predict_full_size
from colorize.imaging.colorspace import rgb_to_lab
from colorize.model.colorizer import Colorizer
from colorize.model.settings import DecodeSettings
from tests.models import constant_model, small_model
from tests.pictures import rgb_scene


def scenes(count: int = 4, height: int = 32, width: int = 40) -> torch.Tensor:
    """RGB uint8 (count, 3, height, width), all different."""
    return torch.from_numpy(np.stack([np.roll(rgb_scene(height, width), 5 * shift, axis=1).transpose(2, 0, 1) for shift in range(count)]))


# Hints


def test_hints_are_true_colours_at_different_pixels() -> None:
    rgb_b3hw = scenes()
    ab_b2hw = rgb_to_lab(rgb_b3hw)[:, 1:]
    for hints, ab_2hw in zip(random_hints(rgb_b3hw, ab_b2hw, 10), ab_b2hw, strict=True):
        places = {(int(hint.down * 32), int(hint.across * 40)) for hint in hints}
        assert len(places) == len(hints) == 10
        for hint in hints:
            assert hint.ab == pytest.approx(ab_2hw[:, int(hint.down * 32), int(hint.across * 40)].tolist())
            assert (hint.down * 32) % 1 == pytest.approx(0.5), "the middle of a pixel"


def test_hints_depend_on_the_picture_and_not_on_its_place_in_the_batch() -> None:
    rgb_b3hw = scenes()
    ab_b2hw = rgb_to_lab(rgb_b3hw)[:, 1:]
    forward = random_hints(rgb_b3hw, ab_b2hw, 10)
    backward = random_hints(rgb_b3hw.flip(0), ab_b2hw.flip(0), 10)
    assert forward == backward[::-1]
    assert forward[2:3] == random_hints(rgb_b3hw[2:3], ab_b2hw[2:3], 10)
    assert len({hints[0] for hints in forward}) == len(forward)


def test_a_picture_with_fewer_pixels_gives_all_of_them() -> None:
    rgb_b3hw = scenes(1, 4, 5)
    (hints,) = random_hints(rgb_b3hw, rgb_to_lab(rgb_b3hw)[:, 1:], 100)
    assert len({(hint.across, hint.down) for hint in hints}) == 20


@pytest.mark.parametrize("number", [0, -1, 1001])
def test_a_number_of_hints_out_of_range(number: int) -> None:
    with pytest.raises(ConfigError, match=f"hints {number}: must lie in 1…1000"):
        Extras(hints=number)


def test_hints_reach_the_prediction() -> None:
    colorizer, rgb_b3hw = Colorizer(constant_model(0, 0)), scenes(2)
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    hints = random_hints(rgb_b3hw, lab_b3hw[:, 1:], 30)
    without_b2hw = predict_full_size(colorizer, lab_b3hw[:, :1], DecodeSettings())
    with_b2hw = predict_full_size(colorizer, lab_b3hw[:, :1], DecodeSettings(), hints)
    assert without_b2hw.abs().max() < 1e-3
    assert with_b2hw.shape == lab_b3hw[:, 1:].shape
    assert (with_b2hw - lab_b3hw[:, 1:]).abs().mean() < 0.9 * lab_b3hw[:, 1:].abs().mean()


# Confidence


def counts(confidence_n: np.ndarray, error_n: np.ndarray) -> torch.Tensor:
    """Of one picture, one pixel high, whose predictions are off by `error_n`, in some direction."""
    angle_n = np.linspace(0, 20, len(error_n))
    predicted_12hw = torch.from_numpy(np.stack([error_n * np.cos(angle_n), error_n * np.sin(angle_n)])[None, :, None])
    return confidence_counts(torch.from_numpy(confidence_n)[None, None], predicted_12hw, torch.zeros(1, 2, 1, len(error_n)))


def test_least_confident_error_over_most_confident_error() -> None:
    """100 pixels: the ten least confident are off by 12 each, the ten most confident by 3, the others by what must not count."""
    confidence_n = np.concatenate([np.full(10, 0.05), np.full(80, 0.5), np.full(10, 0.95)])
    error_n = np.concatenate([np.full(10, 12.0), np.full(80, 1000.0), np.full(10, 3.0)])
    assert confidence_ratio(counts(confidence_n, error_n).sum(0)) == pytest.approx(4)


def test_a_tenth_that_ends_within_a_bin_takes_a_share_of_it() -> None:
    """The least confident tenth is 5 pixels off by 20 and 5 of the 95 that are off by 2."""
    confidence_n = np.concatenate([np.full(5, 0.1), np.full(95, 0.9)])
    error_n = np.concatenate([np.full(5, 20.0), np.full(95, 2.0)])
    assert confidence_ratio(counts(confidence_n, error_n).sum(0)) == pytest.approx((5 * 20 + 5 * 2) / 10 / 2)


def test_counted_confidence_is_as_good_as_sorted() -> None:
    rng = np.random.default_rng(0)
    confidence_n = rng.beta(4, 5, 300_000)
    error_n = -20 * np.log(confidence_n) * rng.gamma(2, 0.5, confidence_n.size)
    by_confidence = error_n[np.argsort(confidence_n)]
    exact = by_confidence[:30_000].mean() / by_confidence[-30_000:].mean()
    assert confidence_ratio(counts(confidence_n, error_n).sum(0)) == pytest.approx(exact, rel=1e-3)


def test_counts_of_parts_add_up() -> None:
    rng = np.random.default_rng(1)
    confidence_n, error_n = rng.random(1000), rng.random(1000)
    whole = counts(confidence_n, error_n)
    parts = counts(confidence_n[:300], error_n[:300]) + counts(confidence_n[300:], error_n[300:])
    assert torch.allclose(whole, parts)
    assert whole[0, :BINS].sum() == 1000
    assert float(whole[0, BINS:].sum()) == pytest.approx(error_n.sum())


def test_full_confidence_and_none_are_counted_too() -> None:
    assert counts(np.array([0.0, 1.0]), np.array([1.0, 1.0]))[0, :BINS].sum() == 2


def test_a_model_without_any_error_has_no_ratio() -> None:
    assert math.isnan(confidence_ratio(counts(np.linspace(0, 1, 50), np.zeros(50)).sum(0)))


# Sizes


def test_one_colour_is_the_same_at_every_size() -> None:
    L_b1hw = rgb_to_lab(scenes())[:, :1]
    assert size_differences(Colorizer(constant_model(30, -20)), L_b1hw, DecodeSettings()).tolist() == pytest.approx([0] * 4, abs=1e-3)


def test_what_the_network_sees_differently_differs() -> None:
    """Half the size loses detail that the random network hangs its colours on."""
    L_b1hw = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 100
    colorizer = Colorizer(small_model(working_size=32))
    smooth_b1hw = torch.full_like(L_b1hw, 50)
    rough, smooth = (size_differences(colorizer, each_b1hw, DecodeSettings()) for each_b1hw in (L_b1hw, smooth_b1hw))
    assert rough.shape == (2,)
    assert rough.min() > 1
    assert smooth.max() < 1e-2


# The JSON


def an_evaluation(**asked: Any) -> dict[str, Any]:
    """As it is read from its JSON."""
    plain = {"model": "m", "data": "d", "vividness": 0.0, "pictures": 1, "metrics": {}, "baselines": {}, "classes": {}, "seconds": 1.0}
    found: dict[str, Any] = json.loads(Evaluation(**plain, **asked).to_json())
    return {key: value for key, value in found.items() if key not in plain}


def test_only_what_was_asked_for_is_in_the_json() -> None:
    assert an_evaluation() == {}
    asked = {"hints": {"n": 10, "psnr_gain": 4.0}, "confidence_ratio": 3.5, "size_stability": 0.0}
    assert an_evaluation(**asked) == asked


def test_what_is_undefined_is_null_and_there() -> None:
    assert an_evaluation(confidence_ratio=math.nan) == {"confidence_ratio": None}
    recognition = {"grey": 0.5, "colored": 0.6, "true": 0.5, "share": math.nan}
    assert an_evaluation(recognition=recognition) == {"recognition": recognition | {"share": None}}


def test_share_is_the_part_of_the_way_from_grey_to_true() -> None:
    """Of 200 pictures 100, 120 and 150 are recognised in grey, coloured and true."""
    totals = {"model": torch.tensor([200.0]), "recognition": torch.tensor([100.0, 120.0, 150.0], dtype=torch.float64)}
    found = figures(Extras(classifier=Classifier(10)), totals, {})
    assert found == {"recognition": pytest.approx({"grey": 0.5, "colored": 0.6, "true": 0.75, "share": 0.4})}


def test_gain_of_hints_is_the_mean_with_them_minus_the_mean_without() -> None:
    totals = {"model": torch.tensor([4.0]), "hints": torch.tensor([104.0])}
    assert figures(Extras(hints=5), totals, {"psnr_mean": 24.5}) == {"hints": {"n": 5, "psnr_gain": pytest.approx(1.5)}}
