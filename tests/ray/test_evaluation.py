"""Evaluation on a real Ray: the same numbers as a direct computation, in the form that others read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colorize.cli.main import main
from colorize.cluster import ClusterInfo
from colorize.data import LabDataset, load_dataset
from colorize.data.cifar10 import CLASS_NAMES
from colorize.evaluation import BASELINES, Evaluation, evaluate, examples, predict_full_size, sheet_png
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import SCORES, ColorScores
from colorize.model.palette import DecodeSettings
from tests.models import small_model
from tests.pictures import encoded, grey_scene

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

MODEL = small_model(working_size=32)
COUNT = 320
"""More than one batch, so that both actors have one."""


@pytest.fixture(scope="module")
def sample(ray_cluster: ClusterInfo) -> LabDataset:
    return load_dataset("cifar10-sample", split="test", limit=COUNT)


@pytest.fixture(scope="module")
def accurate(sample: LabDataset) -> Evaluation:
    return evaluate(MODEL, sample.dataset, data="cifar10-sample", settings=DecodeSettings(), class_names=sample.class_names)


def direct(model: ColorModel, dataset: LabDataset, settings: DecodeSettings, label: int | None = None) -> dict[str, dict[str, float]]:
    """The scores of the model and of its baselines, computed here in one batch; `label`: of one class."""
    rows = [row for row in dataset.dataset.take_all() if label in (None, row["label"])]
    L_b1hw, ab_b2hw, rgb_b3hw = (torch.from_numpy(np.stack([row[name] for row in rows])) for name in ("L", "ab", "rgb"))
    predicted_b2hw = predict_full_size(Colorizer(model), L_b1hw.float(), settings)
    mean_ab_2 = (model.palette.bins_k2 * model.palette.prior_k[:, None]).sum(0)
    guesses = {
        "model": predicted_b2hw,
        "grey": torch.zeros_like(predicted_b2hw),
        "mean_color": mean_ab_2.view(1, 2, 1, 1).expand_as(predicted_b2hw),
    }
    scores = {}
    for name, guess_b2hw in guesses.items():
        metric = ColorScores()
        metric.update(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
        scores[name] = metric.compute()
    return scores


def test_the_numbers_are_those_of_a_direct_computation(accurate: Evaluation, sample: LabDataset) -> None:
    expected = direct(MODEL, sample, DecodeSettings())
    assert (accurate.model, accurate.data, accurate.vividness, accurate.pictures) == ("small", "cifar10-sample", 0.0, COUNT)
    assert accurate.metrics == pytest.approx(expected["model"], rel=1e-3)
    assert tuple(accurate.baselines) == BASELINES
    for name in BASELINES:
        assert accurate.baselines[name] == pytest.approx(
            expected[name], rel=1e-4, abs=1e-4
        )  # a pixel at the limit of 5 may fall to either side
    assert accurate.seconds > 0


def test_classes(accurate: Evaluation, sample: LabDataset) -> None:
    assert tuple(accurate.classes) == CLASS_NAMES
    assert accurate.classes["cat"] == pytest.approx(direct(MODEL, sample, DecodeSettings(), label=3)["model"], rel=1e-3)
    # Every class has as many pictures: the whole is the mean of its parts.
    assert accurate.metrics["ssim"] == pytest.approx(np.mean([scores["ssim"] for scores in accurate.classes.values()]))


def test_grey_on_the_sample(accurate: Evaluation) -> None:
    """Near what it scores on all 10,000 test pictures: 24.81 dB and 0.9336."""
    grey = accurate.baselines["grey"]
    assert grey["psnr_mean"] == pytest.approx(24.8, abs=1.5)
    assert grey["ssim"] == pytest.approx(0.934, abs=0.01)
    assert grey["colorfulness"] == pytest.approx(0, abs=1e-3)


def test_vividness_makes_pictures_more_colourful(accurate: Evaluation, sample: LabDataset) -> None:
    vivid = evaluate(MODEL, sample.dataset, data="cifar10-sample", settings=DecodeSettings(vividness=1))
    assert vivid.vividness == 1
    assert vivid.classes == {}, "none were named"
    assert vivid.metrics["colorfulness"] > 1.1 * accurate.metrics["colorfulness"]
    assert vivid.baselines == {name: pytest.approx(scores) for name, scores in accurate.baselines.items()}


def test_the_command_writes_the_agreed_json_and_a_sheet(
    ray_cluster: ClusterInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, scores, sheet = tmp_path / "m.safetensors", tmp_path / "scores.json", tmp_path / "sheet.png"
    MODEL.save(model)
    arguments = ["evaluate", model, "--limit", 40, "--vividness", 0.5, "--json", scores, "--sheet", sheet]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert "test  40 pictures of 32×32" in printed.out
    assert "40 pictures in" in printed.out
    assert "vividness 0.5" in printed.out
    assert printed.err == ""
    found = json.loads(scores.read_text())
    assert list(found) == ["model", "data", "vividness", "pictures", "metrics", "baselines", "classes", "seconds"]
    assert (found["model"], found["data"], found["vividness"], found["pictures"]) == ("small", "cifar10-sample", 0.5, 40)
    keys = ["ssim", "psnr_mean", "psnr_pooled", "rgb_mae", "ab_mae", "ciede2000", "colorfulness", "colorfulness_ratio", "within_5"]
    assert keys == list(SCORES)
    assert list(found["baselines"]) == ["grey", "mean_color"]
    assert list(found["classes"]) == list(CLASS_NAMES)
    for part in (found["metrics"], *found["baselines"].values(), *found["classes"].values()):
        assert list(part) == keys
        assert all(isinstance(value, float) for value in part.values())
    with Image.open(sheet) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 6 * 32
        assert picture.height > 12 * 32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "scores.json", "sheet.png"]


def test_pictures_without_classes_and_without_colour(ray_cluster: ClusterInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ratio to no colour at all is null, and the numbers beside it are whole."""
    (tmp_path / "pictures").mkdir()
    for index in range(60):
        (tmp_path / f"pictures/{index:02}.png").write_bytes(encoded(np.roll(grey_scene(40, 40), index, axis=1), "PNG"))
    MODEL.save(tmp_path / "m.safetensors")
    arguments = ["evaluate", tmp_path / "m.safetensors", "--data", f"folder:{tmp_path / 'pictures'}", "--json", tmp_path / "scores.json"]
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["classes"] == {}
    assert found["pictures"] >= 1
    assert found["metrics"]["colorfulness_ratio"] is None
    assert found["metrics"]["colorfulness"] > 1
    assert found["baselines"]["grey"]["psnr_mean"] > 60


def test_a_sheet_shows_grey_predicted_and_true(sample: LabDataset) -> None:
    rows = examples(MODEL, sample.dataset, settings=DecodeSettings(), count=5)
    assert len(rows) == 5
    first = sample.dataset.take(1)[0]
    for grey, predicted, true in rows:
        assert grey.shape == predicted.shape == true.shape == (32, 32, 3)
        assert np.abs(grey.astype(int) - grey[..., :1]).max() <= 1
    assert np.array_equal(rows[0][2], first["rgb"].transpose(1, 2, 0))
    with Image.open(io.BytesIO(sheet_png(rows))) as sheet:
        sheet.load()
    with Image.open(io.BytesIO(sheet_png(rows[:1]))) as sheet:
        sheet.load()


def test_scores_are_written_whole_or_not_at_all(accurate: Evaluation, tmp_path: Path) -> None:
    accurate.write(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == accurate.metrics
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
