"""Ray Train, started again until a run is done: what dies on the way costs what was done since the last finished epoch.

Ray Train starts its workers again, on the nodes that there are; when it gives up, it is started again here as long as the run gets further.
Where it goes on from is what lies in RUN/ray and is whole; Ray's own notes are not asked.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.data
import ray.train
from ray.exceptions import RayError
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from colorize import cluster, log
from colorize.errors import RunError
from colorize.storage.place import Place, cause
from colorize.train.checkpoint import FOLDER, clear, reached
from colorize.train.loop import Setup, begun, train_worker
from colorize.train.progress import Notice, Report

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's notes on its checkpoints, in their folder."""

KEPT = 2
"""Of the best checkpoints, beside the latest: if that is damaged there is one before it."""

MOST_FAILURES = 3
"""Failures in a row, without a finished epoch between them, that end a run: what always fails is not tried for ever."""

RESIZE_SECONDS = 60.0
"""How often it is looked whether nodes have joined. Each that does begins the epoch under way again."""

ROOM_SECONDS = "20"
"""How long Ray Train waits for workers that it believes to have room, after a node has died of which it does not know yet."""


def train_until_done(setup: Setup, datasets: dict[str, ray.data.Dataset], on_report: Callable[[Report], None]) -> None:
    """Trains to the last epoch, again after each failure as long as the run gets further. Raises RunError.

    datasets: `train`, which is shared out among the workers, and `validation`, which all of them see.
    """
    run = setup.directory
    failures, done = 0, reached(run.place)
    held = _hold(datasets, on_report)
    with _impatient():
        while done < setup.config.epochs:
            before = done
            trainer = _trainer(setup, datasets, done)
            try:
                result = _interruptibly(trainer.fit)
            except (ray.train.TrainingFailedError, RayError) as error:
                done = reached(run.place)
                # What came from the workers Ray has tried often enough; what came from its controller, or was its death, it tries once.
                is_once = isinstance(error, ray.train.ControllerError | RayError)
                failures = (failures if done == before else 0) + (1 if is_once else MOST_FAILURES)
                if failures >= MOST_FAILURES and done == before:
                    log.event("run breaks off", level=logging.ERROR, reason=_cause(error))
                    raise RunError(f"{run}: training failed: {_cause(error)}; go on with --resume {run}") from error
            else:
                if result.return_value is not None:  # the first worker's
                    log.event("run breaks off", level=logging.ERROR, reason=result.return_value)
                    raise RunError(f"{run}: training failed: {result.return_value}; begin another run with a lower learning rate")
                done = reached(run.place)
                if done == before:
                    break
            del trainer
            gc.collect()  # the controller, which the error's frames hold, keeps the CPUs of its workers until it is gone
    del held


def _trainer(setup: Setup, datasets: dict[str, ray.data.Dataset], done: int) -> TorchTrainer:
    """For one attempt, when so many epochs are done."""
    config = setup.config
    # Of a cluster of one node no part can go.
    least = 1 if cluster.current().nodes > 1 and config.min_workers is None else config.least_workers(done)
    # Where there is room for all they are just started: an elastic group waits for what Ray reserves, for a killed one for 3 minutes.
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    is_full = least == config.workers or free.get("GPU" if config.gpu else "CPU", 0) >= config.workers
    run = setup.directory
    _clear(run.place)
    return TorchTrainer(
        train_worker,  # type: ignore[arg-type]
        train_loop_config={"setup": setup},
        scaling_config=ScalingConfig(  # type: ignore[call-arg]
            num_workers=config.workers if is_full else (least, config.workers),  # type: ignore[arg-type]
            use_gpu=config.gpu,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        datasets=dict(datasets),
        dataset_config=DataConfig(datasets_to_split=["train"]),
        run_config=RunConfig(
            name=FOLDER,
            storage_path=run.root,
            storage_filesystem=run.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT, checkpoint_score_attribute="psnr"),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=MOST_FAILURES,
                # A group of all that finds no room any more is given up at once, and started above with those that have some.
                controller_failure_limit=0 if is_full and least < config.workers else -1,
            ),
        ),
    )  # fmt: skip


def _clear(run: Place) -> None:
    """Removes checkpoints that were not finished, and Ray's notes where it would stumble over them: cut, or on what is gone."""
    notes = f"{FOLDER}/{SNAPSHOT}"
    try:
        clear(run)
        if run.look(notes) is None:
            return
        with contextlib.suppress(ValueError, KeyError, TypeError):
            named = json.loads(run.read(notes))["checkpoint_results"]
            if {one["checkpoint_dir_name"] for one in named} <= set(run.names(FOLDER)):
                return
        run.remove(notes)
    except OSError as error:
        raise RunError(f"{run.shown}/{FOLDER}: cannot be cleared ({cause(error)})") from error


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
    return begun(call, "ray-train").result()


def _cause(error: BaseException) -> str:
    """The last line of what went wrong on the workers."""
    failures = getattr(error, "worker_failures", None) or {}
    inner = next(iter(failures.values()), error)
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return lines[-1] if lines else type(inner).__name__
