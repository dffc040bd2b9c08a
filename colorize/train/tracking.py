"""The curves of a run: TensorBoard always, MLflow where it is installed."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard.writer import SummaryWriter

from colorize.errors import RunError
from colorize.storage.place import cause
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.progress import EpochReport, Notice, Report

EXPERIMENT = "colorize"

FOLDER = "tensorboard"
"""In the run's directory."""

_log = logging.getLogger(__name__)


class Tracker:
    """Logs reports, from any thread, under RUN/tensorboard, and to MLflow's tracking URI (MLFLOW_TRACKING_URI, or MLflow's own default).

    TensorBoard writes to a disk: where the run's directory is in a bucket, to a folder of this machine, copied there after every epoch.
    """

    def __init__(self, directory: RunDirectory, config: TrainConfig) -> None:
        """Raises RunError where no curves can be begun."""
        self._directory = directory
        self._local = None if directory.filesystem is None else tempfile.TemporaryDirectory(prefix="colorize-curves-")
        self._hook, threading.excepthook = threading.excepthook, self._hush
        try:
            self._writer: Any = SummaryWriter(f"{directory.root}/{FOLDER}" if self._local is None else self._local.name)
        except OSError as error:
            threading.excepthook = self._hook
            raise RunError(f"{directory.at(FOLDER)}: cannot be written ({cause(error)})") from error
        self._is_lost = False
        try:
            self._mlflow = MlflowRun(directory.name, config) if find_spec("mlflow") is not None else None
        except RunError:
            self._writer.close()
            threading.excepthook = self._hook
            raise

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Writes what is still in memory."""
        self._draw(self._writer.close)
        threading.excepthook = self._hook
        self._copy()
        if self._local is not None:
            self._local.cleanup()
        if self._mlflow is not None:
            self._mlflow.end(failed=kind is not None)

    def log(self, report: Report) -> None:
        """Adds one point to the curves."""
        if isinstance(report, Notice):
            return
        if isinstance(report, EpochReport):
            step, prefix = report.epoch, "epoch"
            values = {"loss": report.loss, "ssim": report.ssim, "ssim_gain": report.ssim_gain, "psnr": report.psnr}
            values |= {"psnr_gain": report.psnr_gain, "pictures_per_second": report.pictures_per_second}
        else:
            step, prefix = report.step, "step"
            values = {"loss": report.loss, "pictures_per_second": report.pictures_per_second}

        def draw() -> None:
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}/{name}", value, step)
            if isinstance(report, EpochReport):
                self._writer.flush()

        self._draw(draw)
        if self._mlflow is not None:
            for name, value in values.items():
                self._mlflow.log(f"{prefix}_{name}", value, step)
        if isinstance(report, EpochReport):
            self._copy()

    def _draw(self, act: Callable[[], None]) -> None:
        """Does something to the curves. A disk that takes no more, a full one say, is told once, and does not end the training."""
        if self._is_lost:
            return
        try:
            act()
        except OSError as error:
            self._is_lost = True
            _log.warning("%s: the curves end here (%s)", self._directory.at(FOLDER), cause(error))

    def _hush(self, lost: threading.ExceptHookArgs) -> None:
        """Leaves out what TensorBoard's thread prints when it ends of such an error: it raises the same again in `_draw`."""
        if not (isinstance(lost.exc_value, OSError) and type(lost.thread).__module__ == EventFileWriter.__module__):
            self._hook(lost)

    def _copy(self) -> None:
        """Brings the curves to where the run's directory is. A bucket that is lost on the way is told, and does not end the training."""
        if self._local is None:
            return
        try:
            for path in Path(self._local.name).iterdir():
                self._directory.write(f"{FOLDER}/{path.name}", path.read_bytes())
        except RunError as error:
            _log.warning("%s: the curves go on with the next epoch", error)


class MlflowRun:
    """A run on MLflow's tracking server, by its id: the fluent interface would start another one on the thread that reports come on."""

    def __init__(self, name: str, config: TrainConfig) -> None:
        """Raises RunError when the server cannot be reached: a run that was to be tracked is not started untracked."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._error: type[Exception] = MlflowException
        try:
            self._client: Any = MlflowClient()
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            identity = experiment.experiment_id if experiment is not None else self._client.create_experiment(EXPERIMENT)
            self._run: str | None = self._client.create_run(identity, run_name=name).info.run_id
            for key, value in dataclasses.asdict(config).items():
                self._client.log_param(self._run, key, value)
        except (MlflowException, ImportError) as error:  # an import fails where the server's kind needs more than the client package
            raise RunError(
                f"MLflow cannot be used ({_first_line(error)}): set MLFLOW_TRACKING_URI to a server that answers, or uninstall MLflow"
            ) from error

    def log(self, name: str, value: float, step: int) -> None:
        """Adds one point to a curve. A server that is lost later is told once, and does not end the training."""
        if self._run is None:
            return
        try:
            self._client.log_metric(self._run, name, value, step=step)
        except self._error as error:
            self._run = None
            _log.warning("MLflow's curves end here: %s", _first_line(error))

    def end(self, *, failed: bool) -> None:
        """Says how the run ended."""
        if self._run is None:
            return
        try:
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
        except self._error as error:
            _log.warning("MLflow was not told that the run has ended: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    """The first sentence: MLflow goes on with advice."""
    return str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
