"""The loop that every worker runs: data-parallel epochs, exact validation, checkpoints.

Ray Train calls `train_worker` on each worker with a `Setup`. It knows nothing of where pictures come from: it sees shards of rows with
`L` and `ab`. Validation pictures are not split by Ray, whose equal split drops up to workers − 1 of them: every worker
sees all batches and scores every n-th, and the sums are added, so that each picture counts exactly once.

The workers may be started again at any time, and not as many as before: where a worker or a node has died, or one has come. They go on
from the newest whole checkpoint. What is drawn by chance depends on the seed, the epoch and the worker alone, so an epoch that is begun
again sees what it would have seen. A step's pictures are shared out among the workers that there are: the schedule stays the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import ray.train
import torch
import torch.distributed
from ray.data.collate_fn import NumpyBatchCollateFn
from ray.train import CheckpointUploadMode
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn

from colorize import log
from colorize.model.metrics import ColorScores
from colorize.model.palette import Palette
from colorize.train.checkpoint import PREFIX, load_state, publish, save_state, seal, whole
from colorize.train.config import TrainConfig
from colorize.train.directory import MODEL_FILE, RunDirectory
from colorize.train.learner import Learner
from colorize.train.meter import STAGE, WorkerMeter
from colorize.train.progress import EpochReport, Notice, StepReport

SHUFFLE_ROWS = 4096
"""Rows of each worker's shuffle buffer: 25 MB at 32 px. At least two batches, or data-parallel ranks fall out of step."""

VALIDATION_BATCH = 250
REPORT_SECONDS = 1.0

T = TypeVar("T")

Rows = dict[str, Tensor]
"""A batch by the names of its columns."""

NAME_BYTES = 64
"""More than the path of any checkpoint has, in its run's directory."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is given beside its shards."""

    config: TrainConfig
    json_log: bool
    bins_k2: np.ndarray
    prior_k: np.ndarray
    train_pictures: int
    validation_pictures: int
    training: dict[str, Any]
    """What the card will say of the training, known before it starts."""
    board: Any
    """The `board.Board` actor."""
    directory: RunDirectory
    """The run's; every node sees it."""
    base: Any = None
    """A reference to the `ColorModel` that is tuned; None: the network starts from scratch."""

    @property
    def run(self) -> str:
        """The run's name, which its measurements and logs carry."""
        return self.directory.name

    def steps_per_epoch(self, workers: int) -> int:
        """Steps of one epoch: what every one of so many workers has whole batches for."""
        return self.train_pictures // workers // self.config.batch_of_one(workers)


class TensorBatch(NumpyBatchCollateFn):
    """Float tensors of a batch of rows."""

    def __call__(self, batch: dict[str, np.ndarray]) -> Any:
        """`L` and `ab` as they are stored (float16); other columns too, where there are any."""
        # Ray hands out read-only views; torch wants arrays of its own.
        return {name: torch.from_numpy(np.array(column)) for name, column in batch.items()}


def train_worker(given: dict[str, Setup]) -> str | None:
    """One worker's whole training. Gives why it went wrong in a way that it would again; None where it did not.

    That is given and not raised: what a worker raises, Ray Train tries again.
    """
    setup = given["setup"]
    config = setup.config
    context = ray.train.get_context()
    if context.get_local_rank() == 0:
        for left in Path(tempfile.gettempdir()).glob(f"{_prefix(setup)}*"):  # by a worker that was killed
            shutil.rmtree(left, ignore_errors=True)
    rank, world = context.get_world_rank(), context.get_world_size()
    log.begin_worker(run=setup.run, stage=STAGE, as_json=setup.json_log)
    if not config.gpu:
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    palette = Palette(torch.from_numpy(setup.bins_k2), torch.from_numpy(setup.prior_k), config.palette_step)
    base = None if setup.base is None else ray.get(setup.base)
    steps_per_epoch = setup.steps_per_epoch(world)
    learner = Learner(config, palette, get_device(), steps_per_epoch * config.epochs, base)
    # On one worker this is the network itself, without DDP. Buffers stay local after its start: only the first worker's averages are kept.
    options = {"gradient_as_bucket_view": True, "forward_sync_buffers": False}
    learner.wrapped = prepare_model(learner.network, parallel_strategy_kwargs=options)
    counters = _resume(setup, learner, rank, world)
    first_epoch, history = counters["epoch"] + 1, counters["history"]
    learner.step = steps_per_epoch * (first_epoch - 1)
    if rank == 0:
        ray.get(setup.board.start.remote(world, first_epoch))

    log.event("worker begins", rank=rank, world=world, device=str(learner.device), first_epoch=first_epoch)
    meter = WorkerMeter(setup.run, rank)
    clock, grey = Clock(setup, learner, meter, world), None
    coming = _training_batches(setup, world, first_epoch)
    for epoch in range(first_epoch, config.epochs + 1):
        # Another seed for each worker: otherwise all of them would draw the same flips and hints.
        torch.manual_seed(config.seed + 1000 * rank + 1_000_000 * epoch)
        clock.start_epoch(epoch)
        for rows in coming:
            clock.tick(learner.learn(*(rows[name].to(learner.device).float() for name in ("L", "ab"))), post=rank == 0)
        pictures_per_second = clock.pictures_per_second()
        if epoch < config.epochs:
            coming = _training_batches(setup, world, epoch + 1)
        _share_from_first(learner.averaged.module, world)
        loss = clock.epoch_loss()
        if _has_diverged(learner, loss, world):
            return f"it diverged in epoch {epoch}, the loss is {loss:.3g}"
        scores = _validate(learner, rank, world)
        # Grey scores the same in every epoch: once is enough, in each sitting.
        grey = grey or _validate(learner, rank, world, grey=True)
        report = EpochReport(
            epoch=epoch, epochs=config.epochs, loss=loss, ssim=scores["ssim"], psnr=scores["psnr_mean"],
            ssim_gain=scores["ssim"] - grey["ssim"], psnr_gain=scores["psnr_mean"] - grey["psnr_mean"],
            pictures_per_second=pictures_per_second, seconds=clock.seconds(),
        )  # fmt: skip
        history.append(dataclasses.asdict(report))
        ray.train.report(dataclasses.asdict(report), **_saved(setup, learner, report, history) if rank == 0 else {})
    return None


def _has_diverged(learner: Learner, loss: float, world: int) -> bool:
    """Whether a worker's loss, or a weight, is no number any more; all workers get the same answer, and end together."""
    sound = torch.tensor(float(math.isfinite(loss) and learner.is_finite()), device=learner.device)
    if world > 1:
        torch.distributed.all_reduce(sound, op=torch.distributed.ReduceOp.MIN)
    return not bool(sound)


def _prefix(setup: Setup) -> str:
    """Of the names of folders on a node's own disk, in which this run's checkpoints are made."""
    return f"colorize-checkpoint-{hashlib.sha256(setup.directory.root.encode()).hexdigest()[:16]}-"


def _resume(setup: Setup, learner: Learner, rank: int, world: int) -> dict[str, Any]:
    """Puts the newest whole checkpoint into the learner, the same one on all workers; gives its counters, or those of a new run.

    Raises RunError for one of other settings.
    """
    name = torch.zeros(NAME_BYTES, dtype=torch.uint8)
    if rank == 0:
        newest = next(whole(setup.directory.place, lambda line: setup.board.post.remote(Notice(text=line))), None)
        if newest is not None:
            encoded = newest.path.encode()
            name[: len(encoded)] = torch.tensor(list(encoded), dtype=torch.uint8)
    if world > 1:
        name = name.to(learner.device)
        torch.distributed.broadcast(name, src=0)
    chosen = bytes(name.tolist()).rstrip(b"\0").decode()
    if not chosen:
        return {"epoch": 0, "history": []}
    with setup.directory.local(chosen) as folder:
        return load_state(folder, learner)


def _saved(setup: Setup, learner: Learner, report: EpochReport, history: list[dict[str, Any]]) -> dict[str, Any]:
    """What `ray.train.report` is given to keep the epoch. The copy to shared storage is made while the next epoch trains.

    An epoch is announced when its checkpoint is sure to be there, also after a crash.
    """
    staged = Path(tempfile.mkdtemp(prefix=_prefix(setup)))
    save_state(staged, learner, {"epoch": report.epoch, "history": history})
    learner.as_model(setup.training).save(staged / MODEL_FILE)
    seal(staged)

    def upload(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        folder = publish(Path(checkpoint.path), setup.directory.place, name)
        shutil.rmtree(checkpoint.path)
        ray.get(setup.board.post.remote(report))
        return ray.train.Checkpoint(f"{setup.directory.root}/{folder}", setup.directory.filesystem)

    return {
        "checkpoint": ray.train.Checkpoint.from_directory(staged), "checkpoint_upload_mode": CheckpointUploadMode.ASYNC,
        "checkpoint_upload_fn": upload, "checkpoint_dir_name": f"{PREFIX}{report.epoch:06}_{time.strftime('%Y%m%dT%H%M%S')}",
    }  # fmt: skip


class Clock:
    """Times a worker's training and tells the board, about once a second."""

    def __init__(self, setup: Setup, learner: Learner, meter: WorkerMeter, world: int) -> None:
        self._setup, self._learner, self._meter = setup, learner, meter
        self._batch_of_one = setup.config.batch_of_one(world)
        self._batch = world * self._batch_of_one
        self._began, self._first_step = time.monotonic(), learner.step

    def start_epoch(self, epoch: int) -> None:
        """A new epoch begins."""
        self._epoch, self._epoch_step = epoch, self._learner.step
        self._epoch_loss = torch.zeros((), device=self._learner.device)
        self._epoch_began = self._ticked = time.monotonic()
        self._mark()

    def tick(self, loss: Tensor, *, post: bool) -> None:
        """A step is done."""
        self._epoch_loss += loss
        now = time.monotonic()
        self._meter.step(self._batch_of_one, now - self._ticked)
        self._ticked = now
        if not post or now - self._reported < REPORT_SECONDS:
            return
        step = self._learner.step
        done = step - self._reported_step
        report = StepReport(
            epoch=self._epoch, step=step, steps=self._learner.steps, loss=float(self._epoch_loss - self._reported_loss) / done,
            pictures_per_second=done * self._batch / (now - self._reported),
            seconds_left=(now - self._began) / (step - self._first_step) * (self._learner.steps - step),
        )  # fmt: skip
        self._setup.board.post.remote(report)
        self._mark()

    def epoch_loss(self) -> float:
        """The epoch's mean cross-entropy so far, on this worker."""
        return float(self._epoch_loss) / max(1, self._learner.step - self._epoch_step)

    def pictures_per_second(self) -> float:
        """The epoch's throughput so far, all workers together."""
        done = self._learner.step - self._epoch_step
        return done * self._batch / (time.monotonic() - self._epoch_began)

    def seconds(self) -> float:
        """Since this sitting of the run began."""
        return time.monotonic() - self._began

    def _mark(self) -> None:
        self._reported, self._reported_step = time.monotonic(), self._learner.step
        self._reported_loss = self._epoch_loss.clone()


def _training_batches(setup: Setup, world: int, epoch: int) -> Iterator[Rows]:
    """This worker's part of an epoch. The first batch is on its way at once: Ray Data takes a second to begin, while others are scored."""
    batch, steps = setup.config.batch_of_one(world), setup.steps_per_epoch(world)
    batches: Iterator[Rows] = iter(
        ray.train.get_dataset_shard("train").iter_torch_batches(
            batch_size=batch,
            drop_last=True,
            prefetch_batches=2,
            local_shuffle_buffer_size=max(SHUFFLE_ROWS, 2 * batch),
            local_shuffle_seed=setup.config.seed + epoch,
            collate_fn=TensorBatch(),
        )
    )
    first = begun(lambda: list(islice(batches, 1)), "epoch")

    def all_of() -> Iterator[Rows]:
        for index, rows in enumerate(chain(first.result(), batches)):
            # Every rank must take equally many steps, and a rank may have a batch more than the others.
            if index < steps:
                yield rows

    return all_of()


def begun(call: Callable[[], T], name: str) -> Future[T]:
    """What `call` gives, on a daemon thread of that name: one that waits for ever keeps no process."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is asked for, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome


def _validate(learner: Learner, rank: int, world: int, *, grey: bool = False) -> dict[str, float]:
    """The scores of the learner's averaged network, or of grey, over all validation pictures; each is scored by one worker."""
    scores = ColorScores(ciede2000=False).to(learner.device)
    shard = ray.train.get_dataset_shard("validation")
    with torch.inference_mode():
        for index, rows in enumerate(shard.iter_torch_batches(batch_size=VALIDATION_BATCH, collate_fn=TensorBatch())):
            if index % world == rank:
                L_b1hw, ab_b2hw, rgb_b3hw = (rows[name].to(learner.device) for name in ("L", "ab", "rgb"))
                predicted_b2hw = torch.zeros_like(ab_b2hw) if grey else learner.predict(L_b1hw.float())
                scores.update(L_b1hw, predicted_b2hw, ab_b2hw, rgb_b3hw)
        return scores.compute()  # torchmetrics adds the sums of all workers


def _share_from_first(module: nn.Module, world: int) -> None:
    """Gives every worker the first one's averaged weights: batch-norm statistics are local to a worker."""
    if world > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            torch.distributed.broadcast(tensor.data, src=0)
