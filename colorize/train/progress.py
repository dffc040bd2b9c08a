"""How a run tells its driver where it is: workers post reports to an actor, the driver drains it.

Ray Train's own `report` is a barrier that needs a checkpoint; a live display wants a word every second and none of that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

DRAIN_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Where the run is, about once a second."""

    epoch: int
    """The epoch under way, from 1."""
    step: int
    """Steps done, over all epochs."""
    steps: int
    """Steps of the whole run."""
    loss: float
    """Cross-entropy in nats, averaged since the last report."""
    pictures_per_second: float
    """Training throughput of all workers together since the last report."""
    seconds_left: float
    """Estimated from the throughput so far, validation included."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished and validated epoch."""

    epoch: int
    epochs: int
    loss: float
    """Mean cross-entropy of the epoch, in nats."""
    ssim: float
    psnr: float
    """Mean over pictures, dB."""
    ssim_gain: float
    """SSIM less that of the grey pictures."""
    psnr_gain: float
    """PSNR less that of the grey pictures, dB."""
    pictures_per_second: float
    """Training pictures a second over the epoch, validation left out."""
    seconds: float
    """Since the run (or this sitting of it) began."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that happened to the run and that people should know."""

    text: str
    """One line."""


Report = StepReport | EpochReport | Notice


class Board:
    """Holds reports until the driver fetches them."""

    def __init__(self, watch: Callable[[], Callable[[Report], None]]) -> None:
        """`watch` is called here, in the actor; what it gives sees every report as it comes."""
        self._watch = watch()
        self._reports: list[Any] = []
        self._starts = 0

    def start(self, workers: int, epoch: int) -> None:
        """The workers have started; any time but the first is told."""
        self._starts += 1
        if self._starts > 1:
            count = f"{workers} worker{'' if workers == 1 else 's'}"
            self._reports.append(Notice(text=f"started again with {count}, from epoch {epoch}"))

    def post(self, report: Any) -> None:
        """Adds a report."""
        self._watch(report)
        self._reports.append(report)

    def drain(self) -> list[Any]:
        """Hands out what has come since the last call."""
        reports, self._reports = self._reports, []
        return reports


@contextmanager
def board(on_report: Callable[[Report], None], watch: Callable[[], Callable[[Report], None]]) -> Iterator[Any]:
    """A `Board` actor whose reports reach `on_report`, in order, on a thread of the driver, until the block ends. watch: `Board`'s own."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # elsewhere it would go with its node
    actor: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote(watch)
    done = threading.Event()

    def drain() -> None:
        while True:
            last = done.is_set()
            try:
                reports = ray.get(actor.drain.remote())
            except (RayError, ValueError):
                return  # Ray is going down: an interrupt, or a cluster that was lost; the run's own error says which
            for report in reports:
                on_report(report)
            if last:
                return
            done.wait(DRAIN_SECONDS)

    thread = threading.Thread(target=drain, name="training-progress", daemon=True)
    thread.start()
    try:
        yield actor
        # The workers do not wait for their last words to arrive.
        time.sleep(DRAIN_SECONDS)
    finally:
        done.set()
        thread.join(timeout=5)
        ray.kill(actor)
