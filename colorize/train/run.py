"""A training run as a whole: what it needs, its start or its resumption, and what is left in its directory when it is done."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize import cluster, log
from colorize.errors import DataError, RunError
from colorize.imaging.tint import is_grey
from colorize.model.calibrate import calibrate
from colorize.model.colormodel import ColorModel
from colorize.model.palette import Palette
from colorize.train.attempts import train_until_done
from colorize.train.board import board
from colorize.train.checkpoint import Saved, reached, whole
from colorize.train.config import TrainConfig
from colorize.train.directory import MODEL_FILE, RunDirectory
from colorize.train.loop import VALIDATION_BATCH, Setup
from colorize.train.meter import STAGE
from colorize.train.progress import EpochReport, Notice, Report
from colorize.train.tracking import Tracker

CALIBRATION_PICTURES = 1000
"""Validation pictures on which the ends of the vividness dial are found: on pictures that it knows, a network is too sure of itself."""

COLUMNS = ("L", "ab")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run gives."""

    directory: RunDirectory
    model: ColorModel
    history: list[dict[str, Any]]
    seconds: float
    """Wall-clock seconds of this sitting."""


def check_workers(workers: int, gpu: bool) -> None:
    """Raises ClusterError when the cluster has no room for so many: Ray Train itself would wait for ever."""
    cluster.require(
        cpus=workers, gpus=workers if gpu else 0,
        what=f"{workers} worker{'s' if workers > 1 else ''}", option="--workers", count=workers,
    )  # fmt: skip


def needed(config: TrainConfig, directory: RunDirectory) -> int:
    """The workers that there must be room for, by how far the run in `directory` has come."""
    return config.least_workers(reached(directory.place))


def check_pictures(config: TrainConfig, pictures: int) -> None:
    """Raises DataError when there are not enough for a single step."""
    if pictures < config.batch_size:
        told = f"{config.data}: {pictures} training pictures are fewer than one batch of {config.batch_size}"
        raise DataError(f"{told}: give more, or a smaller --batch-size")


def check_validation(config: TrainConfig, validation: ray.data.Dataset) -> None:
    """Raises DataError when all of them are grey: by them no epoch could be chosen, nor the dial be set. The first in colour will do."""
    for batch in validation.select_columns(["L", "ab"]).iter_batches(batch_size=VALIDATION_BATCH):
        lab_b3hw = np.concatenate([batch["L"], batch["ab"]], axis=1).astype(np.float32)
        if not is_grey(torch.from_numpy(lab_b3hw)).all():
            return
    raise DataError(
        f"{config.data}: all of its {validation.count():,} test pictures are grey, so no training can be judged: add some in colour"
    )


def check_unchanged(directory: RunDirectory, now: dict[str, int], before: dict[str, Any]) -> None:
    """Raises RunError when a run is to go on with other numbers of pictures than its checkpoint's model says that it began with."""
    for name, count in now.items():
        if (began := before.get(name, count)) != count:
            told = f"{name.replace('_', ' ')}: {count:,}, it began with {began:,}"
            raise RunError(f"{directory}: the data has changed since ({told}): bring back what it was, or begin another run")


def fit(
    config: TrainConfig,
    directory: RunDirectory,
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
    pictures, or all of `validation` grey) and RunError (training failed, goes on with other data than it began with, or another process
    is at it).
    """
    log.bind(run=directory.name, stage=STAGE)
    check_workers(needed(config, directory), config.gpu)
    began = time.monotonic()
    train_rows = train.select_columns(list(COLUMNS)).materialize()
    pictures, validated = train_rows.count(), validation.count()
    newest = next(whole(directory.place), None)
    so_far = None if newest is None else directory.load_model(f"{newest.path}/{MODEL_FILE}")
    if so_far is not None:
        check_unchanged(directory, {"pictures": pictures, "validation_pictures": validated}, so_far.card.training)
    check_pictures(config, pictures)
    if so_far is None:
        check_validation(config, validation)
    log.event("run begins", directory=str(directory), pictures=pictures, workers=config.workers)
    if so_far is not None:
        palette = so_far.palette  # counted anew, on another processor, a bin at the edge may be there or not
    elif base is None:
        palette = build_palette(train_rows, config.palette_step, config.network(bins=2).output_stride)
    else:
        histogram = count_colors(train_rows, base.palette.step, base.network.config.output_stride)
        palette = base.palette.extended(histogram)
    facts = {
        "data": config.data, "pictures": pictures, "epochs": config.epochs, "validation_pictures": validated,
        "config": dataclasses.asdict(config), **environment(),
    }  # fmt: skip
    if base is not None:
        facts["base"] = base.card.as_base()
        facts["bins"] = {"before": len(base.palette), "after": len(palette)}
    datasets = {"train": train_rows, "validation": validation.select_columns([*COLUMNS, "rgb"]).materialize()}
    tracker = Tracker(directory, config)  # after all that can fail: it has begun a run elsewhere, which only its end closes

    def follow(report: Report) -> None:
        tracker.log(report)
        if isinstance(report, EpochReport):
            log.event("epoch ends", **dataclasses.asdict(report))
        on_report(report)

    # The board hands out its last reports on its way out, before the tracker is closed.
    with directory.held(), tracker, board(directory.name, follow) as actor:
        setup = Setup(
            config=config, directory=directory, json_log=log.is_json(), bins_k2=palette.bins_k2.numpy(), prior_k=palette.prior_k.numpy(),
            train_pictures=pictures, validation_pictures=validated, training=facts, board=actor,
            base=None if base is None else ray.put(base),
        )  # fmt: skip
        train_until_done(setup, datasets, follow)
    kept = list(whole(directory.place, lambda line: on_report(Notice(text=line))))
    if not kept or kept[0].epoch < config.epochs:
        raise RunError(f"{directory}: training ended without a whole checkpoint of its last epoch; go on with --resume {directory}")
    history = kept[0].history
    directory.save_history(history)
    chosen = max(kept, key=_psnr)
    model = directory.load_model(f"{chosen.path}/{MODEL_FILE}")
    sample = validation.limit(CALIBRATION_PICTURES).take_batch(CALIBRATION_PICTURES)
    dial = calibrate(model, torch.from_numpy(np.array(sample["L"])), torch.from_numpy(np.array(sample["ab"])))
    training = model.card.training | {"seconds": round(training_seconds(history)), "best_epoch": chosen.epoch}
    card = dataclasses.replace(model.card, name=directory.name, dial=dataclasses.asdict(dial), training=training)
    model = dataclasses.replace(model, card=card)
    directory.save_model(model)
    log.event("run ends", model=directory.at(MODEL_FILE), seconds=round(time.monotonic() - began, 3))
    return TrainResult(directory=directory, model=model, history=history, seconds=time.monotonic() - began)


def _psnr(saved: Saved) -> float:
    """Of the last epoch that is in it."""
    return float(saved.history[-1]["psnr"])


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
