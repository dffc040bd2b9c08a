"""A training run whose directory is in a bucket (moto's S3 server on loopback): as on a disk, its checkpoints and resumption included."""

from collections.abc import Callable

import pytest

from colorize.cluster import ClusterInfo
from colorize.data.dataset import load_dataset
from colorize.model.colormodel import load_model
from colorize.train.checkpoint import whole
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.progress import Report
from colorize.train.run import TrainResult, fit

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG = TrainConfig(data="cifar10-sample", width=8, depth=2, size=32, limit=256, epochs=2, workers=2)


def run_here(run: RunDirectory) -> tuple[TrainResult, list[Report]]:
    train, validation = load_dataset("cifar10-sample", split="train", limit=256), load_dataset("cifar10-sample", split="test", limit=100)
    reports: list[Report] = []
    return fit(run.open(), run, train=train.dataset, validation=validation.dataset, on_report=reports.append), reports


def test_a_run_in_a_bucket_is_made_and_goes_on_from_its_checkpoint(ray_cluster: ClusterInfo, bucket: Callable[[str], str]) -> None:
    url = bucket("runs/one")
    run = RunDirectory(url)
    run.create(CONFIG)
    result, _ = run_here(run)
    assert run.place.names("") == ["config.json", "history.json", "model.safetensors", "ray", "tensorboard"]
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert load_model(url).card.name == "one"
    newest, before = whole(run.place)
    assert (newest.epoch, before.epoch) == (2, 1)

    run.place.remove("model.safetensors")
    run.place.remove(newest.path)
    again, _ = run_here(run)
    assert [row["epoch"] for row in again.history] == [1, 2]
    assert again.history[0] == result.history[0], "the first epoch is not trained again"
    assert again.history[1]["psnr"] == pytest.approx(result.history[1]["psnr"], abs=0.05)
    assert run.has("model.safetensors")
    assert {saved.epoch for saved in whole(run.place)} == {1, 2}
