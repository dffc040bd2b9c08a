"""For the tests of schedules: cron by brute force, and job servers that are in memory or in a folder."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from colorize.errors import ClusterError

MINUTE = 60


def due_minute_by_minute(
    matches: Callable[[datetime], bool], every_hour: bool, zone: ZoneInfo, after: float, until: float, *, minutes: int = 1
) -> list[int]:
    """All due times in (after, until], by looking at the clock on the wall every minute, as a person would.

    A wall time that was there before is the second of two, and counts only where `every_hour`. A wall time that was left out counts as
    many minutes after the jump as it lies after the first one that was left out. `minutes`: how often the clock is looked at.
    """
    found: set[int] = set()
    step, seconds = timedelta(minutes=minutes), minutes * MINUTE
    start = int(after // seconds - 3 * 24 * 3600 // seconds) * seconds
    before = latest = datetime.fromtimestamp(start - seconds, zone).replace(tzinfo=None)
    for at in range(start, int(until) + 1, seconds):
        wall = datetime.fromtimestamp(at, zone).replace(tzinfo=None)
        left_out = before + step
        for count in range((wall - left_out) // step if wall > left_out else 0):
            if matches(left_out + count * step):
                found.add(at + count * seconds)
        if matches(wall) and (every_hour or wall > latest):
            found.add(at)
        before, latest = wall, max(latest, wall)
    return sorted(at for at in found if after < at <= until)


@dataclass(frozen=True, kw_only=True)
class FakeState:
    id: str
    command: str
    status: str
    message: str
    started: float | None
    ended: float | None


def fortune(job: str) -> float:
    """A number from 0 to 1 that follows from a job's id, but for the word of its store at the end."""
    return int.from_bytes(hashlib.sha256(job.rpartition("-")[0].encode()).digest()[:4]) / 2**32


class MemoryJobs:
    """A job server in memory, whose jobs take as long, and end as, `plan` says: (seconds, status) of an id."""

    def __init__(self, clock: Callable[[], float], plan: Callable[[str], tuple[float, str]] = lambda job: (60.0, "SUCCEEDED")) -> None:
        self.clock = clock
        self.plan = plan
        self.away = False
        self.refusing = False
        self.jobs: dict[str, tuple[Sequence[str], float, float, str]] = {}
        self.stopped: dict[str, float] = {}

    def connect(self) -> "MemoryJobs":
        self._asked()
        return self

    def start(self, arguments: Sequence[str], *, id: str) -> str:
        self._asked()
        if self.refusing:
            raise ClusterError("no agent is there yet")
        if id in self.jobs:
            raise ClusterError(f"job {id} exists")
        seconds, status = self.plan(id)
        self.jobs[id] = (tuple(arguments), self.clock(), self.clock() + seconds, status)
        return id

    def state(self, id: str) -> FakeState:
        self._asked()
        if id not in self.jobs:
            raise ClusterError(f"{id}: there is no such job")
        arguments, started, ends, status = self.jobs[id]
        if id in self.stopped and self.stopped[id] < ends:
            ends, status = self.stopped[id], "STOPPED"
        is_over = self.clock() >= ends
        now = status if is_over else "RUNNING" if self.clock() > started + 2 else "PENDING"
        message = "it could not be" if now == "FAILED" else ""
        return FakeState(id=id, command=" ".join(arguments), status=now, message=message, started=started, ended=ends if is_over else None)

    def follow(self, id: str) -> Iterator[str]:
        yield f"the log of {self.state(id).id}"

    def stop(self, id: str) -> None:
        self._asked()
        self.stopped.setdefault(id, self.clock())

    def list(self) -> list[FakeState]:
        self._asked()
        return [self.state(id) for id in self.jobs]

    def _asked(self) -> None:
        if self.away:
            raise ClusterError("no Ray job server answers there")


class FolderJobs:
    """A job server whose jobs are files, so that it outlives the process that asks it. Writes down every submission that it takes."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.clock = clock

    def start(self, arguments: Sequence[str], *, id: str) -> str:
        (self.folder / "asked").open("a").write(f"{id}\n")
        try:
            file = os.open(self.folder / f"{id}.json", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError as error:
            raise ClusterError(f"job {id} exists") from error
        with os.fdopen(file, "w") as text:
            ends = self.clock() + 30 + 600 * fortune(id)
            text.write(json.dumps({"started": self.clock(), "ends": ends, "status": "FAILED" if fortune(id) < 0.3 else "SUCCEEDED"}))
        return id

    def state(self, id: str) -> FakeState:
        try:
            job = json.loads((self.folder / f"{id}.json").read_text())
        except FileNotFoundError as error:
            raise ClusterError(f"{id}: there is no such job") from error
        is_over = self.clock() >= job["ends"]
        return FakeState(
            id=id, command="", status=job["status"] if is_over else "RUNNING", message="", started=job["started"],
            ended=job["ends"] if is_over else None,
        )  # fmt: skip

    def follow(self, id: str) -> Iterator[str]:
        yield from ()

    def stop(self, id: str) -> None:
        raise NotImplementedError

    def list(self) -> list[FakeState]:
        return [self.state(path.stem) for path in self.folder.glob("*.json")]
