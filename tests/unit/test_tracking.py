"""The curves of a run: written by TensorBoard always, sent to MLflow where its client is installed, from whatever thread."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

from colorize.errors import RunError
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.progress import EpochReport, StepReport
from colorize.train.tracking import Tracker

CONFIG = TrainConfig(data="cifar10-sample", epochs=2)


def epoch(number: int) -> EpochReport:
    return EpochReport(
        epoch=number, epochs=2, loss=3.0, ssim=0.9, psnr=20.0 + number, ssim_gain=0.1, psnr_gain=0.2, pictures_per_second=5.0, seconds=1.0
    )


def on_a_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def track(directory: Path) -> None:
    """As a run does: the reports come on a thread of their own."""
    with Tracker(RunDirectory(directory), CONFIG) as tracker:
        on_a_thread(lambda: tracker.log(StepReport(epoch=1, step=7, steps=9, loss=4.0, pictures_per_second=6.0, seconds_left=1.0)))
        for number in (1, 2):
            on_a_thread(lambda number=number: tracker.log(epoch(number)))


def full(*_: Any, **__: Any) -> None:
    """A disk that takes no more."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def file_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking server that is a folder; MLflow's own default would be a database where the tests run."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())


def test_tensorboard_has_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_store(tmp_path / "store", monkeypatch)
    track(tmp_path / "run")
    curves: Any = EventAccumulator(str(tmp_path / "run/tensorboard"))
    curves.Reload()
    assert [(point.step, point.value) for point in curves.Scalars("epoch/psnr")] == [(1, 21.0), (2, 22.0)]
    assert [(point.step, point.value) for point in curves.Scalars("step/loss")] == [(7, 4.0)]


def test_a_disk_that_is_full_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorBoard writes on a thread of its own, which ends of such an error."""
    hook = threading.excepthook
    file_store(tmp_path / "store", monkeypatch)
    with Tracker(RunDirectory(tmp_path / "run"), CONFIG) as tracker:
        monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
        for number in (1, 2):
            tracker.log(epoch(number))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/run/tensorboard: the curves end here (No space left on device)"
    ]
    with pytest.raises(RunError, match=rf"^{tmp_path}/another/tensorboard: cannot be written \(No space left on device\)$"):
        Tracker(RunDirectory(tmp_path / "another"), CONFIG)
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is hook


def test_a_disk_that_takes_no_curves_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    file_store(tmp_path / "store", monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(SummaryWriter, "add_scalar", full)
        track(tmp_path / "run")
    assert [record.getMessage() for record in caplog.records if "curves" in record.getMessage()] == [
        f"{tmp_path}/run/tensorboard: the curves end here (No space left on device)"
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tensorboard").write_text("mine")
    with pytest.raises(RunError, match=r"^.*/other/tensorboard: cannot be written \(File exists\)$"):
        Tracker(RunDirectory(tmp_path / "other"), CONFIG)


def test_mlflow_has_every_point_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow's client is not installed: pip install -e '.[tracking]'")
    file_store(tmp_path / "store", monkeypatch)
    track(tmp_path / "the-run")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("colorize").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["epochs"]) == ("the-run", "FINISHED", "2")
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "epoch_psnr")] == [(1, 21.0), (2, 22.0)]


def test_a_run_that_mlflow_cannot_track_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="MLflow's client is not installed: pip install -e '.[tracking]'")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(RunError, match=r"^MLflow cannot be used \(.*127\.0\.0\.1.*\): set MLFLOW_TRACKING_URI "):
        Tracker(RunDirectory(tmp_path / "run"), CONFIG)
