"""The board: how a run tells its driver where it is. Workers post reports to an actor, the driver drains it.

Ray Train's own `report` is a barrier that needs a checkpoint; a live display wants a word every second and none of that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from colorize.train.meter import BoardMeter
from colorize.train.progress import Notice, Report

DRAIN_SECONDS = 0.5


class Board:
    """Holds reports until the driver fetches them."""

    def __init__(self, run: str) -> None:
        """run: its name, which its measurements carry."""
        self._meter = BoardMeter(run)
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
        self._meter.show(report)
        self._reports.append(report)

    def drain(self) -> list[Any]:
        """Hands out what has come since the last call."""
        reports, self._reports = self._reports, []
        return reports


@contextmanager
def board(run: str, on_report: Callable[[Report], None]) -> Iterator[Any]:
    """A `Board` actor whose reports reach `on_report`, in order, on a thread of the driver, until the block ends."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # elsewhere it would go with its node
    actor: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote(run)
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
