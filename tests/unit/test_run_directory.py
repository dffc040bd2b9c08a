"""A training run's directory, on a disk and in a bucket (moto's S3 server on loopback): made once, read back, its checkpoints too."""

import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from colorize.errors import ModelError, RunError, StorageError
from colorize.model.card import resolve
from colorize.model.colormodel import load_model
from colorize.train.checkpoint import COUNTERS, TENSORS, clear, publish, reached, seal, whole
from colorize.train.config import TrainConfig
from colorize.train.directory import CONFIG_FILE, MODEL_FILE, RunDirectory
from colorize.train.progress import EpochReport
from colorize.train.tracking import Tracker
from tests.models import small_model

CONFIG = TrainConfig(data="cifar10-sample", epochs=3)


@pytest.fixture(params=["disk", "bucket"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "runs/one")
    return str(request.getfixturevalue("bucket")(f"{tmp_path.name}/runs/one"))


def test_a_run_is_made_once_and_read_back(spec: str) -> None:
    run = RunDirectory(spec)
    run.check_new()
    run.create(CONFIG)
    assert RunDirectory(spec).open() == CONFIG
    assert run.name == "one"
    with pytest.raises(RunError, match=rf"^{run}: is there already; resume it with --resume {run}, or name another one with --run$"):
        RunDirectory(spec).create(CONFIG)
    assert "word" not in str(run), "a key is not shown"


HOLD = """
import sys
from colorize.train.directory import RunDirectory
with RunDirectory(sys.argv[1]).held():
    print("held", flush=True)
    input()
"""


def test_of_two_processes_one_goes_on_with_a_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs/one")
    run.create(CONFIG)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for going_on in (run.open, run.held().__enter__):
            with pytest.raises(RunError, match=rf"^{run}: another process is training it: wait until that has ended$"):
                going_on()
        other.kill()  # which gives it free too
    assert run.open() == CONFIG
    with run.held():
        assert sorted(path.name for path in (tmp_path / "runs/one").iterdir()) == [CONFIG_FILE], "nothing is left"


def test_a_run_that_could_not_be_made_is_told_before_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ok.jpg").write_bytes(b"")
    (tmp_path / "gone").symlink_to("nowhere")
    for above in ("ok.jpg", "gone"):
        run = RunDirectory(tmp_path / above / "deep" / "one")
        with pytest.raises(RunError, match=rf"^{run}: cannot be made \(Not a directory\)$"):
            run.check_new()
    with pytest.raises(RunError, match=r"ok\.jpg: is a file: name a directory that is not there yet with --run$"):
        RunDirectory(tmp_path / "ok.jpg").check_new()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root, whom nothing stops, may run the tests
    run = RunDirectory(tmp_path / "runs" / "one")
    with pytest.raises(RunError, match=rf"^{run}: cannot be made \({tmp_path} cannot be written\)$"):
        run.check_new()
    assert not run.has("")


def test_a_finished_run_is_not_resumed(spec: str) -> None:
    run, model = RunDirectory(spec), small_model()
    run.create(CONFIG)
    run.save_history([{"epoch": 1}])
    run.save_model(model)
    assert json.loads(run.read("history.json")) == [{"epoch": 1}]
    assert run.load_model().card.name == model.card.name
    assert load_model(spec).card.name == model.card.name
    with pytest.raises(RunError, match=rf"^{run}: this run is finished; its model is {run}/{MODEL_FILE}$"):
        run.open()


def test_what_is_no_run_is_told(spec: str) -> None:
    run = RunDirectory(spec)
    with pytest.raises(RunError, match=rf"^{run}: not a training run \(it has no config.json\)$"):
        run.open()
    with pytest.raises(RunError, match=rf"^{run}/{CONFIG_FILE}: cannot be read \(No such file or directory\)$"):
        run.settings()
    with pytest.raises(ModelError, match=rf"^{run}: no such model"):
        resolve(spec)


def test_it_can_be_sent_to_a_worker(spec: str) -> None:
    RunDirectory(spec).create(CONFIG)
    assert pickle.loads(pickle.dumps(RunDirectory(spec))).open() == CONFIG


def test_checkpoints_come_back_and_what_was_cut_off_is_cleared(spec: str, tmp_path: Path) -> None:
    run = RunDirectory(spec)
    run.create(CONFIG)
    assert reached(run.place) == 0
    for epoch in (1, 2, 3):
        staged = tmp_path / f"staged-{epoch}"
        staged.mkdir()
        (staged / TENSORS).write_bytes(b"tensors" * epoch)
        (staged / COUNTERS).write_text(json.dumps({"epoch": epoch, "history": []}))
        seal(staged)
        publish(staged, run.place, f"checkpoint_{epoch:06}_x")
    run.place.write("ray/checkpoint_000004_x/state.json", b"{}")
    run.place.write(f"ray/checkpoint_000003_x/{TENSORS}", b"something else")
    said: list[str] = []
    assert [one.epoch for one in whole(run.place, said.append)] == [2, 1]
    assert said == [
        f"{run}/ray/checkpoint_000003_x: damaged ({TENSORS} has changed since it was written): the checkpoint before it is used"
    ]
    with run.local("ray/checkpoint_000002_x") as folder:
        assert (folder / TENSORS).read_bytes() == b"tensors" * 2
        assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", COUNTERS, TENSORS]
    clear(run.place)
    assert [name for name in run.place.names("ray") if name.startswith("checkpoint_000004")] == []
    assert reached(run.place) == 2


def test_the_curves_are_in_it_after_every_epoch(spec: str) -> None:
    run = RunDirectory(spec)
    run.create(CONFIG)
    report = EpochReport(
        epoch=1, epochs=3, loss=3.0, ssim=0.9, psnr=21.0, ssim_gain=0.1, psnr_gain=0.2, pictures_per_second=5.0, seconds=1.0
    )
    with Tracker(run, CONFIG) as tracker:
        tracker.log(report)
        (name,) = run.place.names("tensorboard")
        first = len(run.read(f"tensorboard/{name}"))
        tracker.log(report)
    assert len(run.read(f"tensorboard/{name}")) > first


def test_a_bucket_that_is_lost_is_told(bucket: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    run = RunDirectory(bucket("run").replace("pictures", "no-such-bucket"))
    with pytest.raises(RunError, match=r"^s3://no-such-bucket/run: cannot be made \("):
        run.create(CONFIG)
    with caplog.at_level(logging.WARNING), Tracker(run, CONFIG):
        pass
    assert "s3://no-such-bucket/run/tensorboard/" in caplog.text
    with pytest.raises(StorageError, match="names no folder"):
        RunDirectory("s3://")


def test_a_damaged_model_in_a_bucket_is_refused(bucket: Callable[[str], str]) -> None:
    run = RunDirectory(bucket("damaged"))
    run.write(MODEL_FILE, small_model().to_bytes()[:-100])
    with pytest.raises(ModelError, match="truncated"):
        load_model(bucket("damaged"))
    with pytest.raises(ModelError, match="truncated"):
        load_model(bucket(f"damaged/{MODEL_FILE}"))
