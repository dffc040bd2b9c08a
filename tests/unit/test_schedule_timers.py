"""APScheduler's part: a timer a schedule, at its due times, as the store has them; and a fault that ends the process."""

import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

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
        store.remove("nightly")
        store.add(Schedule(name="nightly", cron="45 3 * * *", timezone="Europe/Berlin", command=("archive", "/a", "/b")), time.time())
        assert timers() == {"nightly": "03:45"}
        store.pause("nightly", True, time.time())
        assert timers() == {}
        store.pause("nightly", False, time.time())
        assert timers() == {"nightly": "03:45"}
    scheduler.shutdown()


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
