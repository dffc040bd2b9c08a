"""A training run as a whole: its directory, its start or its resumption, and what is left when it is done.

A run's directory is never silently overwritten or resumed:

    RUN/config.json          the settings
    RUN/history.json         one row an epoch
    RUN/model.safetensors    the best model, calibrated; written when the run is done
    RUN/tensorboard/         the curves
    RUN/ray/                 Ray Train's checkpoints: the latest one and the best one
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
import torch
import torch.nn.functional as F
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from colorize import cluster, log
from colorize.errors import DataError, RunError
from colorize.model.calibrate import calibrate
from colorize.model.colormodel import ColorModel
from colorize.model.palette import Palette
from colorize.train.checkpoint import COUNTERS
from colorize.train.config import TrainConfig
from colorize.train.loop import MODEL_FILE, Setup, train_worker
from colorize.train.meter import STAGE, DriverMeter
from colorize.train.progress import EpochReport, Report, board
from colorize.train.tracking import Tracker

CALIBRATION_PICTURES = 1000
"""Validation pictures on which the ends of the vividness dial are found: on pictures that it knows, a network is too sure of itself."""

COLUMNS = ("L", "ab")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run gives."""

    directory: Path
    model: ColorModel
    history: list[dict[str, Any]]
    seconds: float
    """Wall-clock seconds of this sitting."""


def check_new(directory: Path) -> None:
    """Raises RunError when there is something in the way of a new run."""
    if directory.exists():
        raise RunError(f"{directory}: is there already; resume it with --resume {directory}, or name another one with --run")


def create_run(directory: Path, config: TrainConfig) -> None:
    """Makes the directory of a new run. Raises RunError when there is one already, or it cannot be made."""
    try:
        check_new(directory)
        directory.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{directory}: cannot be made ({error.strerror})") from error
    config.write(directory / "config.json")


def open_run(directory: Path) -> TrainConfig:
    """The settings of a run that is to be resumed. Raises RunError when there is none, or it is finished."""
    if not (directory / "config.json").is_file():
        raise RunError(f"{directory}: not a training run (it has no config.json)")
    if (directory / MODEL_FILE).exists():
        raise RunError(f"{directory}: this run is finished; its model is {directory / MODEL_FILE}")
    return TrainConfig.read(directory / "config.json")


def check_workers(workers: int, gpu: bool) -> None:
    """Raises ClusterError when the cluster is too small: Ray Train itself would wait for ever."""
    cluster.require(
        cpus=workers, gpus=workers if gpu else 0,
        what=f"{workers} worker{'s' if workers > 1 else ''}", option="--workers", count=workers,
    )  # fmt: skip


def check_pictures(config: TrainConfig, pictures: int) -> None:
    """Raises DataError when there are not enough for a single step."""
    if pictures < config.batch_size:
        raise DataError(f"{config.data}: {pictures} training pictures are fewer than one batch of {config.batch_size}")


def fit(
    config: TrainConfig,
    directory: Path,
    *,
    train: ray.data.Dataset,
    validation: ray.data.Dataset,
    on_report: Callable[[Report], None],
    base: ColorModel | None = None,
) -> TrainResult:
    """Trains, or goes on training, the run in `directory` on the Ray that is connected.

    train, validation: materialized rows of `L` (1, h, w) and `ab` (2, h, w); validation also `rgb` (3, h, w) uint8. `base`: the model that
    is tuned, with its palette extended by the colours of `train`; None: a network from scratch.
    `on_report` is called on a thread of this process. Raises ClusterError (too few resources), DataError (too few
    pictures) and RunError (training failed; the run can be resumed).
    """
    check_workers(config.workers, config.gpu)
    began = time.monotonic()
    directory = directory.resolve()
    log.bind(run=directory.name, stage=STAGE)
    train_rows = train.select_columns(list(COLUMNS)).materialize()
    pictures, validated = train_rows.count(), validation.count()
    check_pictures(config, pictures)
    log.event("run begins", directory=str(directory), pictures=pictures, workers=config.workers)
    if base is None:
        palette = build_palette(train_rows, config.palette_step, config.network(bins=2).output_stride)
    else:
        histogram = count_colors(train_rows, base.palette.step, base.network.config.output_stride)
        palette = base.palette.extended(histogram)
    facts = {
        "data": config.data, "pictures": pictures, "epochs": config.epochs, "validation_pictures": validated,
        "config": dataclasses.asdict(config), **environment(),
    }  # fmt: skip
    if base is not None:
        facts["base"] = {"name": base.card.name, "sha256": base.card.weights_sha256, "data": base.card.training.get("data")}
        facts["bins"] = {"before": len(base.palette), "after": len(palette)}
    tracker, meter = Tracker(directory, config), DriverMeter(directory.name)

    def follow(report: Report) -> None:
        tracker.log(report)
        meter.show(report)
        if isinstance(report, EpochReport):
            log.event("epoch ends", **dataclasses.asdict(report))
        on_report(report)

    # The board hands out its last reports on its way out, before the tracker is closed.
    with tracker, board(follow) as actor:
        setup = Setup(
            config=config, run=directory.name, json_log=log.is_json(), bins_k2=palette.bins_k2.numpy(), prior_k=palette.prior_k.numpy(),
            train_pictures=pictures, validation_pictures=validated, training=facts, board=actor,
            base=None if base is None else ray.put(base),
        )  # fmt: skip
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"setup": setup},
            scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=config.gpu),
            datasets={"train": train_rows, "validation": validation.select_columns([*COLUMNS, "rgb"]).materialize()},
            dataset_config=DataConfig(datasets_to_split=["train"]),
            run_config=RunConfig(
                name="ray",
                storage_path=str(directory),
                checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="psnr"),
                failure_config=FailureConfig(max_failures=2),
            ),
        )
        try:
            result = _interruptibly(trainer.fit)
        except ray.train.TrainingFailedError as error:
            log.event("run breaks off", level=logging.ERROR, reason=_cause(error))
            raise RunError(f"{directory}: training failed: {_cause(error)}; go on with --resume {directory}") from error
        finally:
            meter.ended()
    best = result.get_best_checkpoint("psnr", "max")
    if best is None:
        raise RunError(f"{directory}: training ended without a checkpoint")
    assert result.checkpoint is not None
    history = _history(result.checkpoint)
    (directory / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    with best.as_directory() as folder:
        model = ColorModel.load(Path(folder) / MODEL_FILE)
    sample = validation.limit(CALIBRATION_PICTURES).take_batch(CALIBRATION_PICTURES)
    dial = calibrate(model, torch.from_numpy(np.array(sample["L"])), torch.from_numpy(np.array(sample["ab"])))
    chosen = max(history, key=lambda row: row["psnr"])
    training = model.card.training | {"seconds": round(training_seconds(history)), "best_epoch": chosen["epoch"]}
    card = dataclasses.replace(model.card, name=directory.name, dial=dataclasses.asdict(dial), training=training)
    model = dataclasses.replace(model, card=card)
    model.save(directory / MODEL_FILE)
    log.event("run ends", model=str(directory / MODEL_FILE), seconds=round(time.monotonic() - began, 3))
    return TrainResult(directory=directory, model=model, history=history, seconds=time.monotonic() - began)


def _interruptibly(call: Callable[[], Any]) -> Any:
    """Runs `call` on a thread of its own, so that Ctrl-C reaches this one as a KeyboardInterrupt.

    On the main thread Ray Train takes the signal for itself, ends the process with exit code 0, and keeps it after the run. The
    thread is a daemon: after an interrupt it waits for actors that go down with the connection to Ray.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    return outcome.result()


def build_palette(rows: ray.data.Dataset, step: float, output_stride: int) -> Palette:
    """The palette of a training set, counted in parallel at the network's output resolution, 1/`output_stride` of the pictures'.

    Raises DataError when all is grey.
    """
    palette = Palette.from_histogram(count_colors(rows, step, output_stride), step)
    if len(palette) < 2:
        raise DataError("the training pictures have one colour only: nothing can be learnt from them")
    return palette


def count_colors(rows: ray.data.Dataset, step: float, output_stride: int) -> Tensor:
    """The histogram of all colours (`Palette.count`) of rows with `ab`, at 1/`output_stride` of their size."""

    def count(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ab_b2hw = F.avg_pool2d(torch.from_numpy(np.array(batch["ab"])).float(), output_stride)
        return {"histogram": Palette.count(ab_b2hw.movedim(1, -1).reshape(-1, 2), step).numpy()[None]}

    total: Any = 0
    for row in rows.map_batches(count, batch_size=1024, zero_copy_batch=True).iter_rows():
        total = total + row["histogram"]
    return torch.from_numpy(np.array(total))


def training_seconds(history: list[dict[str, Any]]) -> float:
    """Seconds of all sittings of a run: each sitting's clock starts at zero."""
    rows = zip(history, [*history[1:], None], strict=True)
    return float(sum(row["seconds"] for row, after in rows if after is None or after["seconds"] < row["seconds"]))


def environment() -> dict[str, Any]:
    """Hardware, versions and commit, for the card."""
    return {
        "hardware": hardware(),
        "versions": {name: version(name) for name in ("colorize", "ray", "torch")},
        "commit": commit(),
    }


def hardware() -> str:
    """The cluster in words, with this machine's processor."""
    info = cluster.current()
    return f"{info.cpus} CPUs ({processor()}), {info.gpus} GPUs"


def processor() -> str:
    """The GPU, or else the processor, of this machine in words."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    names = [line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def commit() -> str:
    """The commit of the checkout that this package runs from; "" for an installed package."""
    git = shutil.which("git")
    root = Path(__file__).parents[2]
    if git is None or not (root / ".git").exists():
        return ""
    described = subprocess.run([git, "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return described.stdout.strip()


def _history(checkpoint: ray.train.Checkpoint) -> list[dict[str, Any]]:
    with checkpoint.as_directory() as folder:
        history: list[dict[str, Any]] = json.loads((Path(folder) / COUNTERS).read_text())["history"]
    return history


def _cause(error: BaseException) -> str:
    """The last line of what went wrong on the workers."""
    failures = getattr(error, "worker_failures", None) or {}
    inner = next(iter(failures.values()), error)
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return lines[-1] if lines else type(inner).__name__
