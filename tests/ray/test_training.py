"""A training run on a real Ray: killed, gone on with, ended; what it leaves; what it refuses. Its numbers are checked from outside."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import torch
import torch.nn.functional as F
from ray._private import worker as ray_worker
from safetensors.torch import load_file

from colorize.cli.main import main
from colorize.cluster import ClusterInfo
from colorize.data.dataset import LabDataset, load_dataset
from colorize.errors import ClusterError, DataError, RunError
from colorize.model.calibrate import TEMPERATURES
from colorize.model.colormodel import ColorModel, load_model
from colorize.model.metrics import ColorScores
from colorize.train.checkpoint import publish, save_state, seal
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.learner import Learner
from colorize.train.loop import Setup
from colorize.train.progress import EpochReport, Report, StepReport
from colorize.train.run import TrainResult, build_palette, fit, training_seconds
from tests.models import small_model, small_palette
from tests.pictures import encoded, grey_scene, rgb_scene, sepia_scene
from tests.processes import environment, marked

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PROGRAM = Path(sys.executable).with_name("colorize")
PICTURES = 251
"""Of the first 256 of the sample, the others are grey."""
SMALL = {"data": "cifar10-sample", "width": 8, "depth": 2, "size": 32, "limit": 256}


def train_workers() -> set[int]:
    """The training workers that this session's Ray runs: children of its raylet, and of no other Ray on this machine."""
    node = ray_worker._global_node
    assert node is not None
    raylet = node.all_processes["raylet"][0].process.pid
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) if folder.name.isdecimal() else 0
            title = (folder / "cmdline").read_bytes() if parent == raylet else b""
        except OSError:
            continue  # it ended meanwhile
        if b"RayTrainWorker" in title:
            found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def train_set(ray_cluster: ClusterInfo) -> LabDataset:
    return load_dataset("cifar10-sample", split="train", limit=256)


@pytest.fixture(scope="module")
def validation_set(ray_cluster: ClusterInfo) -> LabDataset:
    """500 pictures: two validation batches, one for each of two workers."""
    return load_dataset("cifar10-sample", split="test")


def run_here(
    directory: Path, train_set: LabDataset, validation_set: LabDataset, on_report: Callable[[Report], None] = lambda report: None
) -> TrainResult:
    run = RunDirectory(directory)
    return fit(run.settings(), run, train=train_set.dataset, validation=validation_set.dataset, on_report=on_report)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed (-9) when its first of two epochs was announced: the program, and the Ray that it had started.

    Left to themselves, workers notice in seconds that their driver is gone, and have trained such a small second epoch by then.
    """
    mark = uuid.uuid4().hex
    directory = tmp_path_factory.mktemp("runs") / "sample"
    arguments = [
        "train", "--data", SMALL["data"], "--limit", SMALL["limit"], "--width", SMALL["width"], "--depth", SMALL["depth"],
        "--epochs", 2, "--workers", 2, "--run", directory, "--address", "local",
    ]  # fmt: skip
    program = subprocess.Popen(
        [PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(mark)
    )
    assert program.stdout is not None
    lines = list(itertools.takewhile(lambda line: not line.startswith("epoch 1/2"), program.stdout))
    while found := marked(mark):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _, errors = program.communicate()
    assert program.returncode == -signal.SIGKILL, (lines, errors)
    assert any(line.startswith("training    251 pictures of 32×32, 5 grey ones left out") for line in lines), lines
    return directory


@pytest.fixture(scope="module")
def resumed(killed: Path, train_set: LabDataset, validation_set: LabDataset) -> tuple[TrainResult, list[Report]]:
    assert RunDirectory(killed).open() == TrainConfig(workers=2, epochs=2, **SMALL)
    reports: list[Report] = []
    return run_here(killed, train_set, validation_set, reports.append), reports


@pytest.fixture(scope="module")
def straight(
    train_set: LabDataset, validation_set: LabDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, list[Report]]:
    """A run of one worker, in float32."""
    directory = tmp_path_factory.mktemp("runs") / "one-worker"
    RunDirectory(directory).create(TrainConfig(workers=1, epochs=1, precision="fp32", **SMALL))
    reports: list[Report] = []
    return run_here(directory, train_set, validation_set, reports.append), reports


def checkpoints(directory: Path) -> list[Path]:
    return sorted(path.parent for path in (directory / "ray").glob("checkpoint_*/SHA256SUMS"))


def validated(model: ColorModel, dataset: LabDataset) -> dict[str, float]:
    """The scores of the network's plain expectation, computed here, in one batch."""
    rows = dataset.dataset.take_all()
    L_b1hw, ab_b2hw, rgb_b3hw = (torch.from_numpy(np.stack([row[name] for row in rows])) for name in ("L", "ab", "rgb"))
    with torch.inference_mode():
        half_b2hw = model.palette.decode(model.network(L_b1hw.float()))
    metric = ColorScores(ciede2000=False)
    metric.update(L_b1hw, F.interpolate(half_b2hw, size=(32, 32), mode="bilinear"), ab_b2hw, rgb_b3hw)
    assert metric.sums[0] == 500
    return metric.compute()


def test_a_run_that_cannot_begin_leaves_no_curves(train_set: LabDataset, validation_set: LabDataset, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(TrainConfig(workers=1, epochs=1, **SMALL))
    lacking = validation_set.dataset.select_columns(["L", "ab"])
    with pytest.raises(Exception, match="rgb"):
        fit(run.open(), run, train=train_set.dataset, validation=lacking, on_report=lambda report: None)
    assert not run.place.names("tensorboard")


@pytest.mark.slow
def test_a_training_that_diverges_ends_at_once_and_leaves_no_model(
    train_set: LabDataset, validation_set: LabDataset, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(TrainConfig(workers=2, epochs=2, learning_rate=1e20, **SMALL))
    reports: list[Report] = []
    told = rf"^{run}: training failed: it diverged in epoch 1, the loss is \S+; begin another run with a lower learning rate$"
    with pytest.raises(RunError, match=told):
        run_here(tmp_path / "run", train_set, validation_set, reports.append)
    assert not [report for report in reports if not isinstance(report, StepReport)], "no epoch, and no second attempt"
    assert not run.has("model.safetensors")
    assert not checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_keeps_the_epoch_that_it_announced(killed: Path) -> None:
    assert not (killed / "model.safetensors").exists()
    (checkpoint,) = checkpoints(killed)
    assert sorted(path.name for path in checkpoint.iterdir()) == ["SHA256SUMS", "model.safetensors", "state.json", "state.safetensors"]
    assert json.loads((checkpoint / "state.json").read_text())["epoch"] == 1
    ColorModel.load(checkpoint / "model.safetensors")


@pytest.mark.slow
def test_it_goes_on_with_the_next_epoch_and_ends(resumed: tuple[TrainResult, list[Report]]) -> None:
    result, reports = resumed
    assert [report.epoch for report in reports if isinstance(report, EpochReport)] == [2]
    steps = [report for report in reports if isinstance(report, StepReport)]  # one a second: so few steps may have none
    assert all(report.epoch == 2 and report.steps == 2 * (PICTURES // 64) for report in steps)
    assert [row["epoch"] for row in result.history] == [1, 2]
    first, second = result.history
    assert second["loss"] < first["loss"]
    for row in result.history:
        assert row["epochs"] == 2
        assert 0 < row["ssim"] < 1
        assert row["pictures_per_second"] > 0
        grey = (row["ssim"] - row["ssim_gain"], row["psnr"] - row["psnr_gain"])
        assert grey == pytest.approx((first["ssim"] - first["ssim_gain"], first["psnr"] - first["psnr_gain"]), abs=1e-6)


@pytest.mark.slow
def test_what_a_run_leaves(resumed: tuple[TrainResult, list[Report]]) -> None:
    result, _ = resumed
    directory = Path(result.directory.root)
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "history.json", "model.safetensors", "ray", "tensorboard"]
    assert json.loads((directory / "history.json").read_text()) == result.history
    kept = {json.loads((checkpoint / "state.json").read_text())["epoch"] for checkpoint in checkpoints(directory)}
    assert 2 in kept
    assert kept <= {1, 2}
    kinds = {path.suffix for path in (directory / "ray").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ""}, "nothing is pickled"


@pytest.mark.slow
def test_the_model_is_the_best_epoch_s_calibrated_with_its_card(resumed: tuple[TrainResult, list[Report]]) -> None:
    result, _ = resumed
    model = load_model(result.directory.root)
    assert dataclasses.replace(model.card, weights_sha256="") == dataclasses.replace(result.model.card, weights_sha256="")
    best = max(result.history, key=lambda row: row["psnr"])
    card = model.card
    assert card.name == "sample"
    assert card.network["width"] == 8
    assert card.parameters == sum(parameter.numel() for parameter in model.network.parameters())
    assert card.training["best_epoch"] == best["epoch"]
    assert (card.training["pictures"], card.training["validation_pictures"]) == (PICTURES, 500)
    assert card.training["versions"]["ray"] == ray.__version__
    assert model.dial.accurate_temperature in TEMPERATURES
    checkpoint = next(
        path for path in checkpoints(Path(result.directory.root)) if json.loads((path / "state.json").read_text())["epoch"] == best["epoch"]
    )
    weights = load_file(checkpoint / "state.safetensors")
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, weights[f"averaged.module.{name}"], atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["straight", "resumed"])
def test_validation_counts_every_picture_once_with_one_worker_and_with_two(
    run: str, request: pytest.FixtureRequest, validation_set: LabDataset
) -> None:
    result, _ = request.getfixturevalue(run)
    best = max(result.history, key=lambda row: row["psnr"])
    scores = validated(result.model, validation_set)
    # The weights are stored as float16; two workers compute in bfloat16 where the processor does.
    tolerance = 1e-4 if run == "straight" else 1e-3
    assert scores["ssim"] == pytest.approx(best["ssim"], abs=tolerance)
    assert scores["psnr_mean"] == pytest.approx(best["psnr"], abs=30 * tolerance)


@pytest.mark.slow
def test_grey_s_score_does_not_depend_on_the_number_of_workers(
    straight: tuple[TrainResult, list[Report]], resumed: tuple[TrainResult, list[Report]]
) -> None:
    """Grey has no weights: its score is that of the pictures alone, so one that is left out or counted twice shows."""
    grey = [(row["ssim"] - row["ssim_gain"], row["psnr"] - row["psnr_gain"]) for result, _ in (straight, resumed) for row in result.history]
    for other in grey[1:]:
        assert other == pytest.approx(grey[0], abs=1e-6)


def test_reports_come_in_order(straight: tuple[TrainResult, list[Report]]) -> None:
    result, reports = straight
    assert isinstance(reports[-1], EpochReport)
    assert dataclasses.asdict(reports[-1]) == result.history[0]
    steps = [report for report in reports if isinstance(report, StepReport)]
    assert [report.step for report in steps] == sorted(report.step for report in steps)
    assert all(report.steps == PICTURES // 64 and report.loss > 0 and report.seconds_left >= 0 for report in steps)


@pytest.mark.slow
def test_tensorboard_has_the_curves(resumed: tuple[TrainResult, list[Report]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, _ = resumed
    points: dict[str, dict[int, float]] = {}
    for path in (Path(result.directory.root) / "tensorboard").iterdir():
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            points.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    # The killed program wrote its first epoch to a file that it never closed.
    for name in ("loss", "ssim", "ssim_gain", "psnr", "psnr_gain", "pictures_per_second"):
        assert points[f"epoch/{name}"][2] == pytest.approx(result.history[1][name], rel=1e-5)


@pytest.mark.slow
def test_a_run_that_ended_before_its_model_was_written_is_ended(
    straight: tuple[TrainResult, list[Report]], train_set: LabDataset, validation_set: LabDataset
) -> None:
    result, _ = straight
    path = Path(result.directory.root) / "model.safetensors"
    model = path.read_bytes()
    path.unlink()
    again = run_here(path.parent, train_set, validation_set)
    assert again.history == result.history
    found, expected = ColorModel.load(path), result.model
    assert found.card.dial == expected.card.dial
    assert len(path.read_bytes()) == pytest.approx(len(model), abs=200)


@pytest.mark.slow
def test_directories_that_are_in_the_way_or_are_no_run(resumed: tuple[TrainResult, list[Report]], tmp_path: Path) -> None:
    directory = Path(resumed[0].directory.root)
    before = sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*"))
    with pytest.raises(RunError, match=rf"^{directory}: is there already; resume it with --resume {directory}, or name another one"):
        RunDirectory(directory).create(TrainConfig(**SMALL))
    assert sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*")) == before
    for nothing in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match=rf"^{nothing}: not a training run \(it has no config.json\)$"):
            RunDirectory(nothing).open()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"file: is a file: name a directory"):
        RunDirectory(tmp_path / "file").create(TrainConfig(**SMALL))
    with pytest.raises(RunError, match=r"file/run: cannot be made \(Not a directory\)"):
        RunDirectory(tmp_path / "file/run").create(TrainConfig(**SMALL))


def test_more_workers_than_there_is_room_for(tmp_path: Path, train_set: LabDataset, validation_set: LabDataset) -> None:
    RunDirectory(tmp_path / "run").create(TrainConfig(workers=64, **SMALL))
    with pytest.raises(ClusterError, match=r"^64 workers need 64 CPUs, the cluster has 2: use --workers 2 or fewer$"):
        run_here(tmp_path / "run", train_set, validation_set)
    RunDirectory(tmp_path / "gpu").create(TrainConfig(workers=1, gpu=True, **SMALL))
    with pytest.raises(ClusterError, match=r"^1 worker needs 1 GPU, the cluster has 0: join a larger one$"):
        run_here(tmp_path / "gpu", train_set, validation_set)


def test_fewer_pictures_than_one_batch(tmp_path: Path, train_set: LabDataset, validation_set: LabDataset) -> None:
    RunDirectory(tmp_path / "run").create(TrainConfig(workers=2, batch_size=512, **SMALL))
    told = "cifar10-sample: 251 training pictures are fewer than one batch of 512: give more, or a smaller --batch-size"
    with pytest.raises(DataError, match=f"^{told}$"):
        run_here(tmp_path / "run", train_set, validation_set)


def test_validation_pictures_that_are_all_grey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training is refused before it leaves anything, by the command and by the library."""
    for part, pictures in (("train", [rgb_scene(48, 64 + number) for number in range(8)]), ("test", [grey_scene(), sepia_scene()])):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for number, rgb_hwc in enumerate(pictures):
            (tmp_path / "photos" / part / f"{number}.png").write_bytes(encoded(rgb_hwc, "PNG"))
    data = f"folder:{tmp_path / 'photos'}"
    told = f"{data}: all of its 2 test pictures are grey, so no training can be judged: add some in colour"
    options = f"--data {data} --size 32 --batch-size 4 --workers 1 --width 8 --depth 1 --run {tmp_path / 'command'}"
    assert main(["train", *options.split()]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "command").exists()
    RunDirectory(tmp_path / "run").create(TrainConfig(data=data, size=32, batch_size=4, workers=1, width=8, depth=1))
    sets = [load_dataset(data, split=split, size=32) for split in ("train", "test")]
    with pytest.raises(DataError, match=re.escape(told)):
        run_here(tmp_path / "run", *sets)


def with_checkpoint(run: RunDirectory, config: TrainConfig, training: dict[str, Any]) -> ColorModel:
    """A run with a checkpoint of its first epoch, of a small palette; gives the checkpoint's model."""
    run.create(config)
    learner = Learner(config, small_palette(), torch.device("cpu"), 6)
    torch.set_flush_denormal(False)  # which is a worker's, and not this thread's
    staged = Path(run.root) / "staged"
    staged.mkdir()
    save_state(staged, learner, {"epoch": 1, "history": []})
    model = learner.as_model(training)
    model.save(staged / "model.safetensors")
    seal(staged)
    publish(staged, run.place, "checkpoint_000001_20260801T120001")
    return model


def test_a_run_whose_data_has_changed_does_not_go_on(train_set: LabDataset, validation_set: LabDataset, tmp_path: Path) -> None:
    run, config = RunDirectory(tmp_path / "run"), TrainConfig(workers=1, epochs=2, **SMALL)
    with_checkpoint(run, config, {"pictures": 131, "validation_pictures": 500})
    told = rf"^{run}: the data has changed since \(pictures: 251, it began with 131\): bring back what it was, or begin another run$"
    with pytest.raises(RunError, match=told):
        run_here(tmp_path / "run", train_set, validation_set)


def test_a_run_goes_on_with_the_palette_of_its_checkpoint(
    train_set: LabDataset, validation_set: LabDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with one that is counted anew: a bin more or less, and no weight would fit."""
    run, config = RunDirectory(tmp_path / "run"), TrainConfig(workers=1, epochs=2, **SMALL)
    model = with_checkpoint(run, config, {"pictures": PICTURES, "validation_pictures": 500})
    begun: list[Setup] = []
    monkeypatch.setattr("colorize.train.run.train_until_done", lambda setup, datasets, on_report: begun.append(setup))
    with pytest.raises(RunError, match="training ended without a whole checkpoint of its last epoch"):
        run_here(tmp_path / "run", train_set, validation_set)
    assert np.array_equal(begun[0].bins_k2, model.palette.bins_k2.numpy())
    assert np.array_equal(begun[0].prior_k, model.palette.prior_k.numpy())


def test_a_run_that_was_interrupted_while_it_was_scored_is_only_scored(
    ray_cluster: ClusterInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos/test").mkdir(parents=True)
    for number in range(2):
        (tmp_path / f"photos/test/{number}.png").write_bytes(encoded(rgb_scene(48, 64 + number), "PNG"))
    run, model = RunDirectory(tmp_path / "run"), small_model(working_size=32)
    run.create(TrainConfig(data=f"folder:{tmp_path / 'photos'}", size=32, workers=1))
    run.save_model(dataclasses.replace(model, card=dataclasses.replace(model.card, metrics={}, training={"best_epoch": 3})))
    assert main(["train", "--resume", str(run)]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "epoch " not in out
    assert f"{run}/model.safetensors: the best of 24 epochs, number 3" in out
    assert run.load_model().card.metrics["pictures"] == 2
    assert main(["train", "--resume", str(run)]) == 1
    assert f"{run}: this run is finished; its model is {run}/model.safetensors" in capsys.readouterr().err


def test_the_palette_is_that_of_all_training_pictures(train_set: LabDataset) -> None:
    palette = build_palette(train_set.dataset, 10.0, 2)
    ab_b2hw = np.stack([row["ab"] for row in train_set.dataset.take_all()]).astype(np.float64)
    assert palette.mean_ab_2.tolist() == pytest.approx(ab_b2hw.mean((0, 2, 3)).tolist(), abs=0.3)
    assert palette.prior_k.sum().item() == pytest.approx(1, abs=1e-5)


def test_pictures_of_one_colour_teach_nothing(ray_cluster: ClusterInfo) -> None:
    rows = ray.data.from_items([{"ab": np.zeros((2, 8, 8), np.float16)}] * 40)
    with pytest.raises(DataError, match="one colour only"):
        build_palette(rows, 10.0, 2)


def test_the_seconds_of_several_sittings_add_up() -> None:
    assert training_seconds([{"seconds": 5.0}, {"seconds": 9.0}]) == 9
    assert training_seconds([{"seconds": 5.0}, {"seconds": 9.0}, {"seconds": 4.0}, {"seconds": 8.0}]) == 17


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_finished_epoch(tmp_path: Path, train_set: LabDataset, validation_set: LabDataset) -> None:
    RunDirectory(tmp_path / "run").create(TrainConfig(workers=2, epochs=3, **SMALL))
    reports: list[Any] = []
    killed: list[int] = []

    def kill_one(report: Report) -> None:
        reports.append(report)
        if isinstance(report, EpochReport) and report.epoch == 1 and not killed:
            killed.append(min(train_workers()))
            os.kill(killed[0], signal.SIGKILL)

    result = run_here(tmp_path / "run", train_set, validation_set, kill_one)
    assert len(killed) == 1
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    announced = [dataclasses.asdict(report) for report in reports if isinstance(report, EpochReport)]
    assert announced[0] == result.history[0], "the epoch before was not trained again"
    load_model(tmp_path / "run")
