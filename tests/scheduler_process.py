"""`python -m tests.scheduler_process STORE FOLDER BEGAN SPEED`: the scheduler, with jobs in a folder and a clock that runs fast.

The clock shows BEGAN when the store's file was made, and goes on at that speed whether a process runs or not.
"""

import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from colorize.schedule.process import keep
from tests.schedules import FolderJobs


class SlowFolderJobs(FolderJobs):
    """Takes its time after it has taken a job, so that a kill falls between a submission and its record."""

    def start(self, arguments: Sequence[str], *, id: str) -> str:
        super().start(arguments, id=id)
        time.sleep(random.uniform(0, 0.2))
        return id


def fast_clock(began_real: float, began: float, speed: float) -> float:
    return began + (time.time() - began_real) * speed


def main(store: str, folder: str, began: str, speed: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began_real = float((Path(folder) / "began").read_text())

    def clock() -> float:
        return fast_clock(began_real, float(began), float(speed))

    jobs = SlowFolderJobs(Path(folder), clock)
    keep(Path(store), lambda: jobs, clock=clock, poll_seconds=0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
