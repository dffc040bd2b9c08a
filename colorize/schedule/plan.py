"""A schedule, its runs, and what becomes of a due time: started, kept waiting, or skipped with a reason. Knows no store and no clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from colorize.errors import ScheduleError
from colorize.schedule.cron import Cron
from colorize.storage.url import has_secret

Missed = Literal["run", "skip"]
Overlap = Literal["skip", "wait"]
State = Literal["planned", "submitted", "running", "waiting", "succeeded", "failed", "stopped", "skipped"]

OVER: frozenset[State] = frozenset({"succeeded", "failed", "stopped", "skipped"})

DUE = "{due}"
"""In a command: the time of the run and the number of the attempt."""

GRACE_SECONDS = 120.0
"""A due time that is planned later than this was missed: the scheduler looks every few seconds, but may wait for Ray meanwhile."""

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No right clock stands before this program was written. That of a machine that has just started may, and then it is the wrong one."""

LONGEST_DELAY_SECONDS = 6 * 3600.0

MAXIMUM_RETRIES = 20

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A command and when it is due. Raises ScheduleError naming the value that cannot be."""

    name: str
    """Small letters, digits, - and _: it becomes part of the jobs' ids."""
    cron: str
    """A cron line of five fields, or @daily and the like."""
    timezone: str
    """A name of the IANA's, as Europe/Berlin."""
    command: tuple[str, ...]
    """The arguments of `colorize`, without it."""
    missed: Missed = "run"
    """What becomes of due times at which no scheduler was running, or Ray did not answer it: the last of them is run, or none."""
    overlap: Overlap = "skip"
    """What becomes of a due time while the run before is not over: it is skipped, or the last of them waits."""
    retries: int = 0
    """How often a failed run is tried again."""
    retry_seconds: float = 60.0
    """How long after the first failure; after each further one twice as long, six hours at most."""
    paused: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ScheduleError(f"name {self.name!r}: small letters, digits, - and _, at most 60, and a letter or digit first")
        if self.missed not in ("run", "skip"):
            raise ScheduleError(f"missed {self.missed!r}: must be run or skip")
        if self.overlap not in ("skip", "wait"):
            raise ScheduleError(f"overlap {self.overlap!r}: must be skip or wait")
        if not 0 <= self.retries <= MAXIMUM_RETRIES:
            raise ScheduleError(f"retries {self.retries}: must lie in 0…{MAXIMUM_RETRIES}")
        if not 1 <= self.retry_seconds <= LONGEST_DELAY_SECONDS:
            raise ScheduleError(f"retry delay {self.retry_seconds:g}: must lie in 1…{LONGEST_DELAY_SECONDS:g} seconds")
        if not self.command:
            raise ScheduleError(f"schedule {self.name}: has no command: give one after --, as in -- archive SOURCE TARGET")
        for number, word in enumerate(self.command):
            if has_secret(word):
                raise ScheduleError(
                    f"schedule {self.name}: word {number + 1} of the command holds a secret, which would be stored and shown: let the "
                    "cluster's nodes have it, by their role, profile or environment"
                )
        _ = self.due

    @property
    def due(self) -> Cron:
        """When it is due. Raises ScheduleError."""
        return _cron(self.cron, self.timezone)


@lru_cache(maxsize=256)
def _cron(line: str, timezone: str) -> Cron:
    return Cron(line=line, zone=zone_of(timezone))


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name. Raises ScheduleError."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError where the name is a good one
        raise ScheduleError(f"timezone {name!r}: is none; give a name such as Europe/Berlin or UTC") from error
    except KeyError as error:
        raise ScheduleError(f"timezone {name!r}: there is none of this name; give one such as Europe/Berlin or UTC") from error


@dataclass(frozen=True, kw_only=True)
class Run:
    """One due time of a schedule, or one start by hand: a row of the history."""

    name: str
    due: int
    """Seconds since 1970."""
    by_hand: bool
    state: State
    attempt: int
    """The one that is planned, under way or was the last; 1 is the first."""
    next_try: float
    """`waiting`: when the next attempt is due."""
    command: tuple[str, ...]
    retries: int
    retry_seconds: float
    withdrawn: bool
    """Its schedule was removed: nothing more is submitted for it."""
    started: float | None
    """When its first attempt was submitted."""
    ended: float | None
    message: str
    """Why it was skipped, waits or failed."""

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def is_in_doubt(self) -> bool:
        """Whether only Ray knows if it was begun before its schedule was removed; if not, it never is."""
        return self.withdrawn and self.state == "planned"

    @property
    def stamp(self) -> str:
        """When it was due, and the attempt: `20260329T013000Z-1`."""
        return f"{datetime.fromtimestamp(self.due, UTC):%Y%m%dT%H%M%SZ}-{self.attempt}"

    def arguments(self) -> list[str]:
        """The command of the present attempt."""
        return [word.replace(DUE, self.stamp) for word in self.command]

    def delay(self) -> float:
        """Seconds between the failure of this attempt and the next one."""
        return float(min(LONGEST_DELAY_SECONDS, self.retry_seconds * 2 ** (self.attempt - 1)))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One job of a run."""

    number: int
    job: str
    """The job's id; it follows from store, schedule, due time and number, so that no attempt can be submitted twice."""
    started: float
    ended: float | None
    status: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A row of the history that cannot be read."""

    name: str
    due: str
    """As it stands there."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of a due time."""

    due: int
    state: Literal["planned", "skipped"]
    message: str = ""


def fates(schedule: Schedule, dues: Sequence[int], now: float, before: Run | None) -> list[Fate]:
    """What becomes of the due times (ascending) that have come since the schedule was looked at last; one each.

    `before`: the run of the schedule that is not over, if there is one; nothing is skipped for one that may never begin. At most the last
    of the due times is started: a run that makes up for a missed one does all there is to do.
    """
    if not dues:
        return []
    *earlier, last = dues
    missed = "missed: no scheduler was running, or Ray did not answer it"
    late = now - last > GRACE_SECONDS
    if late and schedule.missed == "skip":
        fate = Fate(due=last, state="skipped", message=missed)
    elif before is not None and schedule.overlap == "skip" and not before.is_in_doubt:
        reason = f"the run of {shown(before.due, schedule.timezone)} was not over ({before.state})"
        fate = Fate(due=last, state="skipped", message=reason)
    else:
        fate = Fate(due=last, state="planned", message=f"{missed}; run late" if late else "")
    if fate.state == "planned" and schedule.missed == "run":
        missed = f"{missed}; the run of {shown(last, schedule.timezone)} stands for it"
    return [*(Fate(due=due, state="skipped", message=missed) for due in earlier), fate]


def shown(at: float, timezone: str) -> str:
    """A time as people read it, in a time zone: `2026-03-29 03:30 CEST`, with seconds where it has some."""
    moment = datetime.fromtimestamp(at, ZoneInfo(timezone))
    return f"{moment:%Y-%m-%d %H:%M}{f':{moment.second:02}' if moment.second else ''} {moment:%Z}"
