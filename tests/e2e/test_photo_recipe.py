"""The photo model's recipe, small: it trains in processes of its own, goes on where it was, and leaves a model that colours."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from colorize.errors import DataError
from colorize.model.colormodel import ColorModel
from colorize.train.config import TrainConfig
from jobs.recipes.photo import batches, main, pictures
from tests.imagenet import make_package
from tests.pictures import encoded, rgb_scene
from tests.processes import environment, left_behind

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_batches_go_on_where_they_were() -> None:
    config = TrainConfig(data="x", workers=1, batch_size=8)
    through = batches(30, config, 0)
    first = [next(through) for _ in range(9)]
    assert len(torch.cat(first[:3]).unique()) == 24, "no picture twice in a pass"
    assert not torch.equal(first[0], first[3]), "another order in every pass"
    resumed = batches(30, config, 4)
    for batch in first[4:]:
        assert torch.equal(next(resumed), batch)


def test_folders_within_one_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more: lies within parquet:"):
        main(data=[tmp_path, tmp_path / "more"], run=tmp_path / "run", minutes=None)
    assert not (tmp_path / "run").exists()


def test_pictures_that_cannot_be_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"bytes": data, "path": None} for data in (encoded(rgb_scene(32, 40), "PNG"), b"text", None)]
    pq.write_table(pa.table({"image": images}), tmp_path / "test-0.parquet")
    assert pictures(tmp_path, "test", 16).shape == (1, 3, 16, 16)
    assert capsys.readouterr().out == (
        f"{tmp_path}: 2 unreadable pictures left out (the first: test-0.parquet#1: is text, not a picture)\n"
    )


@pytest.mark.slow
def test_a_small_run_and_its_continuation(tmp_path: Path) -> None:
    make_package(tmp_path / "packages", "efficientnet-lite2")
    photos = tmp_path / "small-photos"
    photos.mkdir()
    for split, count in (("train", 24), ("validation", 6)):
        images = [{"bytes": encoded(rgb_scene(32 + index, 40), "PNG"), "path": f"{index}.png"} for index in range(count)]
        pq.write_table(pa.table({"image": images}), photos / f"{split}-00000-of-00001.parquet")
    mark = uuid.uuid4().hex
    variables = environment(mark) | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "packages")])}
    run = tmp_path / "run"
    common = [sys.executable, "-m", "jobs.recipes.photo", "--data", str(photos), "--run", str(run), "--size", "32", "--batch-size", "4"]

    def train(*options: str) -> str:
        done = subprocess.run([*common, *options], env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "24 pictures" in train("--steps", "3")
    [row] = json.loads((run / "history.json").read_text())
    assert row["step"] == 3
    (run / "checkpoint.partial").mkdir()  # as a run leaves it that was killed while it wrote
    (run / "checkpoint.partial" / "state.json").write_text("{")
    train("--steps", "5", "--resume")
    assert [path.name[:17] for path in run.glob("checkpoint*")] == ["checkpoint-000005"]
    assert [row["step"] for row in json.loads((run / "history.json").read_text())] == [3, 5]
    model = ColorModel.load(run / "model.safetensors")
    assert model.card.name == "run"
    assert model.card.network["kind"] == "photonet"
    assert model.card.metrics["metrics"]["psnr_mean"] > 5
    assert model.card.training["config"]["data"] == "parquet:small-photos", "no path of this machine"
    common[common.index(str(run))] = str(tmp_path / "further")
    train("--steps", "1", "--start", str(run / "model.safetensors"))
    tuned = ColorModel.load(tmp_path / "further" / "model.safetensors")
    assert torch.equal(tuned.palette.bins_k2, model.palette.bins_k2)
    assert tuned.card.training["base"]["sha256"] == model.card.weights_sha256
    assert left_behind(mark) == []
