"""A hundred days of four schedules, with crashes in every place, restarts, missed due times, and a Ray that goes away.

Time is a number here, and moves from one event to the next. What was due is known from a clock that is looked at every minute; what Ray was
asked for, from the fake that took it. Run with `-s` it prints its figures.
"""

import bisect
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from colorize.errors import ClusterError, ScheduleError
from colorize.schedule.plan import GRACE_SECONDS, Schedule
from colorize.schedule.runner import Runner
from colorize.schedule.store import Store
from tests.schedules import MemoryJobs, due_minute_by_minute, fortune

DAYS = 100
BEGIN = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
END = BEGIN + DAYS * 86400
HOUR = 3600.0


@dataclass(frozen=True)
class Case:
    schedule: Schedule
    matches: Callable[[datetime], bool]
    every_hour: bool = False


CASES = (
    Case(  # the night of 25 October has two half past two
        Schedule(name="nightly", cron="30 2 * * *", timezone="Europe/Berlin", command=("archive", "/a", "/b"), retries=2),
        lambda wall: (wall.hour, wall.minute) == (2, 30),
    ),
    Case(
        Schedule(name="allday", cron="5 */3 * * *", timezone="America/New_York", command=("archive", "/c", "/d"), missed="skip",
                 overlap="wait", retries=1, retry_seconds=600),
        lambda wall: wall.minute == 5 and wall.hour % 3 == 0,
        every_hour=True,
    ),
    Case(
        Schedule(name="office", cron="40 9-16 * * mon-fri", timezone="Asia/Tokyo", command=("evaluate", "m"), missed="skip"),
        lambda wall: wall.minute == 40 and 9 <= wall.hour <= 16 and wall.isoweekday() <= 5,
    ),
    Case(
        Schedule(name="weekly", cron="0 4 13 * 0", timezone="UTC", command=("train",), overlap="wait", retries=3),
        lambda wall: (wall.hour, wall.minute) == (4, 0) and (wall.day == 13 or wall.isoweekday() == 7),
    ),
)  # fmt: skip


class Crash(BaseException):
    """The process is gone, here and now."""


@dataclass
class World:
    """The time, the job server, and what goes wrong."""

    chance: random.Random
    now: float = BEGIN
    crashes: Counter[str] = field(default_factory=Counter)
    calm: bool = False

    def __post_init__(self) -> None:
        self.jobs = UnsafeJobs(self)

    def perhaps(self, place: str, often: float) -> None:
        if not self.calm and self.chance.random() < often:
            self.crashes[place] += 1
            raise Crash(place)

    def fate(self, job: str) -> tuple[float, str]:
        luck = fortune(job)
        status = "FAILED" if luck < 0.15 else "STOPPED" if luck < 0.17 else "SUCCEEDED"
        longest = 9 * HOUR if "nightly" in job else 7 * HOUR if "allday" in job else 2 * HOUR
        return 60 + longest * fortune(f"how long {job}") ** 3, status


class UnsafeJobs(MemoryJobs):
    """The process dies before and after it is asked; answers get lost on their way. It takes note of what it was asked for."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: world.now, world.fate)
        self.world = world
        self.accepted: Counter[str] = Counter()
        self.overlaps: list[str] = []

    def start(self, arguments: Sequence[str], *, id: str) -> str:
        self.world.perhaps("before the submission", 0.01)
        super().start(arguments, id=id)
        self.accepted[id] += 1
        of_one = [job for job in list(self.jobs)[-40:] if job != id and job.split("-")[1] == id.split("-")[1]]
        self.overlaps += [f"{id} beside {job}" for job in of_one if self.jobs[job][2] > self.world.now]
        self.world.perhaps("between submission and record", 0.03)
        if not self.world.calm and self.world.chance.random() < 0.02:
            raise ClusterError("the answer got lost")
        return id


class UnsafeStore(Store):
    """The process dies at the end of a transaction, before it counts and after."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path)
        self._database.execute("PRAGMA synchronous = OFF")  # processes die here, no power fails
        self.world = world

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        world = getattr(self, "world", None)
        with super()._transaction():
            yield
            if world:
                world.perhaps("before a commit", 0.003)
        if world:
            world.perhaps("after a commit", 0.003)


@dataclass
class Life:
    """What happened, beside what the store says."""

    steps: list[float] = field(default_factory=list)
    down: float = 0.0
    away: list[tuple[float, float]] = field(default_factory=list)
    restarts: int = 0


def live(path: Path, seed: int) -> tuple[World, Life, dict[str, list[int]]]:
    """The hundred days, then a calm end until nothing is under way. Gives what was due, by name."""
    world, life = World(chance=random.Random(seed)), Life()
    expected = {
        case.schedule.name: due_minute_by_minute(case.matches, case.every_hour, ZoneInfo(case.schedule.timezone), BEGIN, END, minutes=5)
        for case in CASES
    }
    calendar = sorted({at for dues in expected.values() for at in dues})
    with Store(path) as store:
        for case in CASES:
            store.add(case.schedule, BEGIN)
    back = BEGIN
    while True:
        store = UnsafeStore(path, world)
        life.restarts += 1
        try:
            with store:
                runner = Runner(store, world.jobs.connect, lambda *_, **__: world.perhaps("after a line of the log", 0.003))
                while True:
                    world.calm = world.now >= END
                    if world.calm:
                        for case in CASES:
                            store.pause(case.schedule.name, True, END)
                        if not store.open_runs():
                            return world, life, expected
                    if world.jobs.away and world.now >= back:
                        world.jobs.away = False
                    if not world.calm and not world.jobs.away and world.chance.random() < 0.002:
                        world.jobs.away, back = True, world.now + world.chance.expovariate(1 / (6 * HOUR))
                        life.away.append((world.now, back))
                    runner.step(world.now)
                    life.steps.append(world.now)
                    if not world.calm and world.chance.random() < 0.002:
                        with contextlib.suppress(ScheduleError):
                            store.begin("nightly", world.now)
                    if not world.calm and world.chance.random() < 0.0005:
                        raise Crash("a restart")
                    world.now = min(
                        next_event(world, runner, store, calendar, back) + world.chance.uniform(0, 12), max(END, world.now + 60)
                    )
        except Crash:
            pause = world.chance.choice([20, 20, 90, 15 * 60, 5 * HOUR, 30 * HOUR]) * world.chance.random()
            world.now, life.down = world.now + pause, life.down + pause


def next_event(world: World, runner: Runner, store: Store, calendar: list[int], back: float) -> float:
    """When something happens next that a process that looks every few seconds would see."""
    index = bisect.bisect_right(calendar, world.now)
    coming = [calendar[index]] if index < len(calendar) else []
    for run in store.open_runs():
        job = world.jobs.jobs.get(store.job_id(run))
        coming.append(run.next_try if job is None else job[1] + 3 if run.state == "submitted" else job[2])
    coming += [back, runner._not_before, *runner._later.values()]
    return min((at for at in coming if at > world.now), default=world.now + 60)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 7))])
def test_every_due_time_of_a_hundred_days_has_one_fate_and_no_run_is_started_twice(seed: int, tmp_path: Path) -> None:
    world, life, expected = live(tmp_path / "store.sqlite", seed)
    with Store(tmp_path / "store.sqlite") as store:
        history = {case.schedule.name: store.history(case.schedule.name)[::-1] for case in CASES}
        attempts = {(run.name, run.due): store.attempts(run) for runs in history.values() for run in runs}
    everything = [run for runs in history.values() for run in runs]

    for name, dues in expected.items():  # one row each, and no other
        assert [run.due for run in history[name] if not run.by_hand or run.due in dues] == dues

    known = Counter(attempt.job for jobs in attempts.values() for attempt in jobs)
    assert world.jobs.accepted == known  # every job is in the history, once, and was submitted once
    assert set(known.values()) == {1}
    assert world.jobs.overlaps == []

    for run in everything:
        jobs = attempts[run.name, run.due]
        assert run.is_over
        assert bool(jobs) == (run.state != "skipped")
        assert len(jobs) <= run.retries + 1
        truth = [world.fate(job.job)[1] for job in jobs]
        assert [job.status for job in jobs] == truth
        if jobs:
            assert run.state == truth[-1].lower()
            assert run.state != "failed" or len(jobs) == run.retries + 1  # no retry was forgotten

    steps = life.steps
    for name, runs in history.items():  # what was skipped was skipped for its reason
        for index, run in enumerate(runs):
            if run.state != "skipped":
                continue
            if run.message.startswith("missed"):
                seen = bisect.bisect_left(steps, run.due)
                following = next(due for due in [*expected[name][bisect.bisect_right(expected[name], run.due) :], END * 2])
                was_down = seen == len(steps) or steps[seen] > min(run.due + GRACE_SECONDS, following)
                assert was_down or any(since <= run.due + 60 and run.due - 300 <= until for since, until in life.away)
            else:
                assert run.message.startswith(("the run of", "overtaken")), run.message
                assert any(other.ended is None or other.ended > run.due for other in runs[:index] if other.state != "skipped")

    count = Counter("skipped: missed" if run.message.startswith("missed") and run.state == "skipped" else run.state for run in everything)
    away = sum(until - since for since, until in life.away)
    print(
        f"\n{DAYS} days, seed {seed}: {len(everything)} runs, {dict(count)}; {len(world.jobs.accepted)} jobs; {life.restarts} starts; "
        f"{world.crashes.total()} crashes {dict(world.crashes)}; down {life.down / HOUR:.0f} h, Ray away {away / HOUR:.0f} h"
    )
    assert all(world.crashes[place] for place in ("before the submission", "between submission and record", "before a commit"))
    assert count["skipped: missed"] > 50
    assert count["succeeded"] > 800
