"""APScheduler's part: a timer a schedule, at its due times, as the store has them; a clock that is put; a fault that ends the process."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from colorize.errors import ScheduleError
from colorize.schedule import process
from colorize.schedule.cron import Cron
from colorize.schedule.plan import Schedule
from colorize.schedule.process import DueTrigger, _follow_changes, keep
from colorize.schedule.store import Store

NIGHTLY = Schedule(name="nightly", cron="30 2 * * *", timezone="Europe/Berlin", command=("archive", "/a", "/b"))


def test_a_trigger_fires_when_its_cron_line_is_due() -> None:
    trigger = DueTrigger(Cron(line="30 2 * * *", zone=ZoneInfo("Europe/Berlin")))
    now = datetime(2026, 10, 24, 12, tzinfo=UTC)
    first = trigger.get_next_fire_time(None, now)
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # the first of two half past two
    assert trigger.get_next_fire_time(first, first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_timers_follow_the_store(tmp_path: Path) -> None:
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start(paused=True)
    known: dict[str, tuple[str, str]] = {}
    with Store(tmp_path / "store.sqlite") as store:

        def timers() -> dict[str, str]:
            _follow_changes(scheduler, store, known, lambda: None)
            return {job.id: f"{job.next_run_time.astimezone(ZoneInfo('Europe/Berlin')):%H:%M}" for job in scheduler.get_jobs()}

        store.add(NIGHTLY, time.time())
        assert timers() == {"nightly": "02:30"}
        store.remove("nightly", time.time())
        store.add(Schedule(name="nightly", cron="45 3 * * *", timezone="Europe/Berlin", command=("archive", "/a", "/b")), time.time())
        assert timers() == {"nightly": "03:45"}
        store.pause("nightly", True, time.time())
        assert timers() == {}
        store.pause("nightly", False, time.time())
        assert timers() == {"nightly": "03:45"}
        for job in scheduler.get_jobs():  # as it is where the clock was two days ahead
            job.modify(next_run_time=job.next_run_time + timedelta(days=2))
        before = datetime.now(UTC)
        timers()
        assert scheduler.get_job("nightly").next_run_time <= before + timedelta(days=1, hours=1)
    scheduler.shutdown()


@pytest.mark.timeout(60)
def test_a_clock_that_is_put_back_or_forward_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = iter([0, 0, -1, -1, -400, -400, 4000, 4000, 0, 0])
    offset = timedelta()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + offset

    for module in ("schedulers.base", "triggers.date", "triggers.interval"):
        monkeypatch.setattr(f"apscheduler.{module}.datetime", Clock)
    monkeypatch.setattr(process, "datetime", Clock)

    def clock() -> float:
        """Asked once a step; the process is told to end when it has been as often as there are days."""
        nonlocal offset
        if (day := next(days, None)) is None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            offset = timedelta(days=day)
        return Clock.now(UTC).timestamp()

    keep(tmp_path / "store.sqlite", lambda: None, clock=clock, poll_seconds=0.01, tell=lambda *_, **__: None)  # type: ignore[arg-type,return-value]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("by", ["nothing", "another"])
def test_a_store_that_is_taken_away_ends_the_process_and_not_only_its_schedules(by: str, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"

    def clock() -> float:
        for file in tmp_path.glob("store.sqlite*"):
            if file.suffix != ".lock":
                file.rename(tmp_path / f"old{file.suffix}")
        if by == "another":
            Store(path).close()
        return time.time()

    with pytest.raises(ScheduleError, match=rf"^{path}: was moved, removed or replaced while the scheduler was running: start it again"):
        keep(path, lambda: None, clock=clock, poll_seconds=0.01, tell=lambda *_, **__: None)  # type: ignore[arg-type,return-value]


def test_a_fault_of_the_program_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        store.add(NIGHTLY, time.time() - 3 * 86400)

    def connect() -> None:
        raise ZeroDivisionError("a fault")

    events = []
    with pytest.raises(ZeroDivisionError, match="a fault"):
        keep(path, connect, tell=lambda event, **_: events.append(event))  # type: ignore[arg-type,return-value]
    assert events[0] == "started"
    with Store(path) as store:  # and loses nothing
        assert [run.state for run in store.open_runs()] == ["planned"]
