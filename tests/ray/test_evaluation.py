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
from colorize.data.cifar10 import CLASS_NAMES
from colorize.data.dataset import LabDataset, load_dataset
from colorize.errors import ClusterError, ConfigError
from colorize.evaluation import BASELINES, Evaluation, Extras, evaluate, examples, predict_full_size, sheet_png
from colorize.evaluation.classifier import Classifier, load_classifier
from colorize.evaluation.job import by_class
from colorize.evaluation.measures import confidence_counts, confidence_ratio, random_hints, size_differences
from colorize.imaging.colorspace import compose
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import SCORES, ColorScores, psnr, score_pictures, scores_from_sums
from colorize.model.settings import DecodeSettings
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


def test_a_card_keeps_the_scores(accurate: Evaluation) -> None:
    told = accurate.for_card()
    assert (told["data"], told["pictures"]) == ("cifar10-sample", accurate.pictures)
    assert (told["metrics"], told["baselines"].keys()) == (accurate.metrics, {"grey", "mean_color"})
    assert set(told) == {"data", "pictures", "metrics", "baselines"}


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


@pytest.mark.slow
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


def test_the_scores_on_standard_output_have_it_for_themselves(
    ray_cluster: ClusterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.safetensors"
    MODEL.save(model)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(model), "--limit", "8", "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["pictures"] == 8
    assert "8 pictures in" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"], "no file named -"


@pytest.mark.slow
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
    (tmp_path / "scores.json").write_text(accurate.to_json())
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == accurate.metrics
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


# What is asked for beside the scores


def rows_of(dataset: LabDataset) -> dict[str, torch.Tensor]:
    rows = dataset.dataset.take_all()
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in ("L", "ab", "rgb", "label")}


@pytest.mark.slow
def test_everything_asked_for_is_that_of_a_direct_computation(accurate: Evaluation, sample: LabDataset) -> None:
    torch.manual_seed(0)
    classifier = Classifier(10).eval()
    settings, extras = DecodeSettings(), Extras(hints=10, confidence=True, sizes=True, classifier=classifier)
    found = evaluate(MODEL, sample.dataset, data="cifar10-sample", settings=settings, extras=extras)
    assert found.metrics == pytest.approx(accurate.metrics), "nothing else changes"
    rows, colorizer = rows_of(sample), Colorizer(MODEL)
    L_b1hw, ab_b2hw = rows["L"].float(), rows["ab"].float()
    predicted_b2hw = predict_full_size(colorizer, L_b1hw, settings)
    hinted_b2hw = predict_full_size(colorizer, L_b1hw, settings, random_hints(rows["rgb"], ab_b2hw, 10))
    gain = psnr(compose(L_b1hw, hinted_b2hw), rows["rgb"]).mean() - psnr(compose(L_b1hw, predicted_b2hw), rows["rgb"]).mean()
    assert found.hints == {"n": 10, "psnr_gain": pytest.approx(float(gain), abs=1e-3)}
    assert found.size_stability == pytest.approx(float(size_differences(colorizer, L_b1hw, settings).mean()), rel=1e-3)
    predictions = colorizer.predict_batch(L_b1hw, settings)
    confidence_b1hw = torch.stack([prediction.confidence_hw for prediction in predictions])[:, None]
    confidence_bhw = torch.nn.functional.interpolate(confidence_b1hw, size=L_b1hw.shape[-2:], mode="bilinear")[:, 0]
    expected = confidence_ratio(confidence_counts(confidence_bhw, predicted_b2hw, ab_b2hw).sum(0))
    assert found.confidence_ratio == pytest.approx(expected, rel=1e-3)
    grey_b3hw, colored_b3hw = compose(L_b1hw, torch.zeros_like(predicted_b2hw)), compose(L_b1hw, predicted_b2hw)
    grey, colored, true = (
        float((classifier.recognize(each_b3hw) == rows["label"]).float().mean()) for each_b3hw in (grey_b3hw, colored_b3hw, rows["rgb"])
    )
    assert found.recognition == pytest.approx(
        {"grey": grey, "colored": colored, "true": true, "share": (colored - grey) / (true - grey)}, abs=2.5 / COUNT
    )


@pytest.mark.slow
def test_what_is_asked_for_does_not_depend_on_blocks_and_workers(sample: LabDataset) -> None:
    extras = Extras(hints=3, confidence=True)
    results = [
        evaluate(MODEL, sample.dataset.repartition(blocks).materialize(), data="x", settings=DecodeSettings(), extras=extras)
        for blocks in (1, 3)
    ]
    assert results[0].hints == {"n": 3, "psnr_gain": pytest.approx(results[1].hints["psnr_gain"], abs=1e-3)}  # type: ignore[index]
    assert results[0].confidence_ratio == pytest.approx(results[1].confidence_ratio, rel=1e-3)


def test_pictures_without_a_label_and_with_one_that_has_no_name() -> None:
    figures = score_pictures(*(torch.rand(3, channels, 16, 16) for channels in (1, 2, 2)), torch.randint(255, (3, 3, 16, 16)).byte())
    sums = dict(zip((7, -1, 0), figures, strict=True))
    found = by_class(sums, ("cat", "dog"))
    assert list(found) == ["cat", "7"]
    assert found == {"cat": scores_from_sums(figures[2]), "7": scores_from_sums(figures[0])}


def test_stability_over_sizes_of_too_many_pictures_is_refused(sample: LabDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorize.evaluation.job.MOST_PICTURES_OF_SIZES", 319)
    with pytest.raises(ConfigError, match="--sizes: 320 pictures would be coloured three times more: use --limit 319 or fewer"):
        evaluate(MODEL, sample.dataset, data="x", settings=DecodeSettings(), extras=Extras(sizes=True))


@pytest.mark.slow
def test_the_command_with_all_its_options(ray_cluster: ClusterInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The classifier is trained into its file and, the second time, read from it and left as it is."""
    model, scores, kept = tmp_path / "m.safetensors", tmp_path / "scores.json", tmp_path / "classifier.safetensors"
    MODEL.save(model)
    arguments = ["evaluate", model, "--limit", 40, "--json", scores, "--hints", 10, "--confidence", "--sizes"]
    arguments += ["--recognition", "--classifier", kept]
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    assert printed.err == ""
    for told in (
        "classifier  learns from",
        "10 random hints a picture:",
        "least confident tenth",
        "half, one and twice",
        "of true pictures:",
    ):
        assert told in printed.out
    found = json.loads(scores.read_text())
    assert list(found)[-4:] == ["hints", "confidence_ratio", "size_stability", "recognition"]
    assert list(found["hints"]) == ["n", "psnr_gain"]
    assert list(found["recognition"]) == ["grey", "colored", "true", "share"]
    load_classifier(kept, {"data": "cifar10-sample", "seed": 0})
    before = kept.read_bytes()
    assert main([str(argument) for argument in arguments]) == 0
    assert "classifier  learns" not in capsys.readouterr().out
    assert kept.read_bytes() == before
    assert json.loads(scores.read_text())["recognition"] == found["recognition"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--classifier", "c.safetensors"], "--classifier c.safetensors: is only used with --recognition"),
        (["--recognition", "--data", "folder:scans"], "--recognition: folder:scans: needs pictures with CIFAR-10's labels"),
        (["--recognition", "--classifier", "missing/c.safetensors"], "missing/c.safetensors: its folder does not exist"),
        (["--hints", "0"], "hints 0: must lie in 1…1000"),
    ],
)
def test_options_that_cannot_be_met(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "cifar10", *options]) == 1
    assert told in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_a_cluster_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(address: str | None) -> None:
        raise ClusterError("a cluster is asked")

    monkeypatch.setattr("colorize.cluster.connect", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    for options in (["--json"], ["--sheet"], ["--recognition", "--classifier"]):
        file = tmp_path / f"new-{len(options)}"
        assert main(["evaluate", "cifar10", *options, str(file)]) == 1
        assert capsys.readouterr().err == f"colorize: {file}: its folder cannot be written; give a file in another one\n"
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"")  # what is there is read, from wherever it lies
    assert main(["evaluate", "cifar10", "--recognition", "--classifier", str(kept)]) == 1
    assert capsys.readouterr().err == "colorize: a cluster is asked\n"
