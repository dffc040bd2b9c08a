"""A training run as a whole: its directory, its start or its resumption, and what is left when it is done.

A run's directory is never silently overwritten or resumed:

    RUN/config.json          the settings
    RUN/history.json         one row an epoch
    RUN/model.safetensors    the best model, calibrated; written when the run is done
    RUN/tensorboard/         the curves
    RUN/ray/                 Ray Train's checkpoints: the latest one and the best two

What dies on the way costs what was done since the last finished epoch. Ray Train starts its workers again, on the nodes that there are;
when it gives up, it is started again here as long as the run gets further. Where it goes on from is what lies in RUN/ray and is whole;
Ray's own notes are not asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import logging
import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
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
from ray.exceptions import RayError
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from colorize import cluster, log
from colorize.errors import DataError, RunError
from colorize.model.calibrate import calibrate
from colorize.model.colormodel import ColorModel
from colorize.model.palette import Palette
from colorize.train.checkpoint import PARTIAL, PREFIX, Saved, whole
from colorize.train.config import TrainConfig
from colorize.train.loop import MODEL_FILE, Setup, train_worker
from colorize.train.meter import STAGE, BoardMeter
from colorize.train.progress import EpochReport, Notice, Report, board
from colorize.train.tracking import Tracker

CALIBRATION_PICTURES = 1000
"""Validation pictures on which the ends of the vividness dial are found: on pictures that it knows, a network is too sure of itself."""

COLUMNS = ("L", "ab")

NAME = "ray"
"""Ray Train's folder in the run's."""

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's notes on its checkpoints, in that folder."""

KEPT = 2
"""Of the best checkpoints, beside the latest: if that is damaged there is one before it."""

MOST_FAILURES = 3
"""Failures in a row, without a finished epoch between them, that end a run: what always fails is not tried for ever."""

RESIZE_SECONDS = 60.0
"""How often it is looked whether nodes have joined. Each that does begins the epoch under way again."""

ROOM_SECONDS = "20"
"""How long Ray Train waits for workers that it believes to have room, after a node has died of which it does not know yet."""


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
    """Raises ClusterError when the cluster has no room for so many: Ray Train itself would wait for ever."""
    cluster.require(
        cpus=workers, gpus=workers if gpu else 0,
        what=f"{workers} worker{'s' if workers > 1 else ''}", option="--workers", count=workers,
    )  # fmt: skip


def needed(config: TrainConfig, directory: Path) -> int:
    """The workers that there must be room for: a run that has come some way goes on with what there is."""
    if config.min_workers is not None:
        return config.min_workers
    return 1 if _reached(directory) else config.workers


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
    directory = directory.resolve()
    log.bind(run=directory.name, stage=STAGE)
    check_workers(needed(config, directory), config.gpu)
    began = time.monotonic()
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
    tracker = Tracker(directory, config)

    def follow(report: Report) -> None:
        tracker.log(report)
        if isinstance(report, EpochReport):
            log.event("epoch ends", **dataclasses.asdict(report))
        on_report(report)

    datasets = {"train": train_rows, "validation": validation.select_columns([*COLUMNS, "rgb"]).materialize()}
    held = _hold(datasets, follow)
    # The board hands out its last reports on its way out, before the tracker is closed.
    with tracker, board(follow, functools.partial(_watch, directory.name)) as actor, _impatient():
        setup = Setup(
            config=config, run=directory.name, json_log=log.is_json(), bins_k2=palette.bins_k2.numpy(), prior_k=palette.prior_k.numpy(),
            train_pictures=pictures, validation_pictures=validated, training=facts, board=actor, checkpoints=directory / NAME,
            base=None if base is None else ray.put(base),
        )  # fmt: skip
        _train(config, directory, setup, datasets)
    del held
    kept = list(whole(directory / NAME, lambda line: on_report(Notice(text=line))))
    if not kept or kept[0].epoch < config.epochs:
        raise RunError(f"{directory}: training ended without a whole checkpoint of its last epoch; go on with --resume {directory}")
    history = kept[0].history
    (directory / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    chosen = max(kept, key=_psnr)
    model = ColorModel.load(chosen.path / MODEL_FILE)
    sample = validation.limit(CALIBRATION_PICTURES).take_batch(CALIBRATION_PICTURES)
    dial = calibrate(model, torch.from_numpy(np.array(sample["L"])), torch.from_numpy(np.array(sample["ab"])))
    training = model.card.training | {"seconds": round(training_seconds(history)), "best_epoch": chosen.epoch}
    card = dataclasses.replace(model.card, name=directory.name, dial=dataclasses.asdict(dial), training=training)
    model = dataclasses.replace(model, card=card)
    model.save(directory / MODEL_FILE)
    log.event("run ends", model=str(directory / MODEL_FILE), seconds=round(time.monotonic() - began, 3))
    return TrainResult(directory=directory, model=model, history=history, seconds=time.monotonic() - began)


def _watch(run: str) -> Callable[[Report], None]:
    return BoardMeter(run).show


def _psnr(saved: Saved) -> float:
    """Of the last epoch that is in it."""
    return float(saved.history[-1]["psnr"])


def _train(config: TrainConfig, directory: Path, setup: Setup, datasets: dict[str, ray.data.Dataset]) -> None:
    """Trains to the end, again after each failure as long as the run gets further. Raises RunError."""
    failures = 0
    while (done := _reached(directory)) < config.epochs:
        # Of a cluster of one node no part can go.
        least = 1 if cluster.current().nodes > 1 and config.min_workers is None else needed(config, directory)
        # Where there is room for all they are just started: an elastic group waits for what Ray reserves, for a killed one for 3 minutes.
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        is_full = least == config.workers or free.get("GPU" if config.gpu else "CPU", 0) >= config.workers
        _clear(setup.checkpoints)
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"setup": setup},
            scaling_config=ScalingConfig(  # type: ignore[call-arg]
                num_workers=config.workers if is_full else (least, config.workers),  # type: ignore[arg-type]
                use_gpu=config.gpu,
                elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            ),
            datasets=dict(datasets),
            dataset_config=DataConfig(datasets_to_split=["train"]),
            run_config=RunConfig(
                name=NAME,
                storage_path=str(directory),
                checkpoint_config=CheckpointConfig(num_to_keep=KEPT, checkpoint_score_attribute="psnr"),
                failure_config=FailureConfig(  # type: ignore[call-arg]
                    max_failures=MOST_FAILURES,
                    # A group of all that finds no room any more is given up at once, and started above with those that have some.
                    controller_failure_limit=0 if is_full and least < config.workers else -1,
                ),
            ),
        )  # fmt: skip
        try:
            _interruptibly(trainer.fit)
        except (ray.train.TrainingFailedError, RayError) as error:
            # What came from the workers Ray has tried often enough; what came from its controller, or was its death, it tries once.
            is_once = isinstance(error, ray.train.ControllerError | RayError)
            failures = (failures if _reached(directory) == done else 0) + (1 if is_once else MOST_FAILURES)
            if failures >= MOST_FAILURES and _reached(directory) == done:
                log.event("run breaks off", level=logging.ERROR, reason=_cause(error))
                raise RunError(f"{directory}: training failed: {_cause(error)}; go on with --resume {directory}") from error
        else:
            if _reached(directory) == done:
                return
        del trainer
        gc.collect()  # the controller, which the error's frames hold, keeps the CPUs of its workers until it is gone


def _reached(directory: Path) -> int:
    """The last epoch of the newest whole checkpoint; 0 where there is none."""
    return next((saved.epoch for saved in whole(directory / NAME)), 0)


def _clear(checkpoints: Path) -> None:
    """Removes what a killed worker had not copied yet, and Ray's notes where it would stumble over them: cut, or on what is gone."""
    for partial in checkpoints.glob(f"{PREFIX}*{PARTIAL}"):
        shutil.rmtree(partial, ignore_errors=True)
    notes = checkpoints / SNAPSHOT
    try:
        named = json.loads(notes.read_text())["checkpoint_results"]
        if all((checkpoints / one["checkpoint_dir_name"]).is_dir() for one in named):
            return
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    notes.unlink()


def _hold(datasets: dict[str, ray.data.Dataset], on_report: Callable[[Report], None]) -> list[Any]:
    """A copy of all blocks on this node, for as long as the list is kept: what lies on a node that dies is then still there.

    Without it Ray would make a lost block again, by a task that waits for ever for a CPU where training workers have them all.
    """
    if cluster.current().nodes == 1:
        return []
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    room = next(node["Resources"].get("object_store_memory", 0) for node in nodes if node["NodeID"] == here)
    size = sum(dataset.size_bytes() for dataset in datasets.values())
    if size > room / 2:
        text = f"the pictures ({size / 1e9:.1f} GB) do not fit into half of this node's object store: leave a CPU free"
        on_report(Notice(text=f"{text}, to load again what is on a node that dies"))
        return []
    bundles = (bundle for dataset in datasets.values() for bundle in dataset.iter_internal_ref_bundles())
    return ray.get([ref for bundle in bundles for ref in bundle.block_refs])


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Ray Train waits ROOM_SECONDS for room inside."""
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    before = os.environ.get(name)
    os.environ.setdefault(name, ROOM_SECONDS)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


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


def _cause(error: BaseException) -> str:
    """The last line of what went wrong on the workers."""
    failures = getattr(error, "worker_failures", None) or {}
    inner = next(iter(failures.values()), error)
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return lines[-1] if lines else type(inner).__name__
