"""The scheduler process: APScheduler's timers around `Runner.step`, until it is stopped.

APScheduler holds nothing that must last: its jobs are made from the store when the process starts and whenever a schedule changes, in
its memory. When a step comes late, or not at all, the next one finds in the store what was due.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from colorize import log
from colorize.errors import ScheduleError
from colorize.schedule.cron import Cron
from colorize.schedule.runner import Jobs, Log, Runner
from colorize.schedule.store import Store, only_scheduler

POLL_SECONDS = 10.0
"""How often the store is looked at for new schedules, and Ray is asked for what is under way."""

WAIT_SECONDS = 1.0

STAGE = "schedule"
"""What the lines of its log call it."""

_LEVELS = {
    "failed": logging.ERROR, "store": logging.ERROR, "unreadable": logging.ERROR,
    "attempt_failed": logging.WARNING, "refused": logging.WARNING, "ray_away": logging.WARNING,
    "clock_was_ahead": logging.WARNING,
}  # fmt: skip
"""Of the events that somebody should look at; all others are told as they come."""

_POLL = "."
"""The id of APScheduler's job for that; no schedule can have this name."""


class DueTrigger(BaseTrigger):  # type: ignore[misc]
    """APScheduler's view of a `Cron`."""

    def __init__(self, cron: Cron) -> None:
        self._cron = cron

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        after = now if previous_fire_time is None else max(previous_fire_time, now)
        due = self._cron.following(after.timestamp())
        return None if due is None else datetime.fromtimestamp(due, UTC)


def log_line(event: str, **particulars: object) -> None:
    """One event, one line: on standard output as `2026-03-29T01:30:04Z submitted schedule=nightly due="2026-03-29 01:30 UTC"`.

    Where COLORIZE_LOG asks for JSON it is a line of the log instead, on standard error. A log whose disk is full ends no scheduler: the
    store has what happened, and the last lines come when there is room again.
    """
    if log.wants_lines():
        log.event(event, level=_LEVELS.get(event, logging.INFO), **particulars)
        return
    try:
        print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {event} {log.words(particulars)}".rstrip(), flush=True)
    except BrokenPipeError:  # who reads it is gone for good
        raise
    except OSError:
        return


def keep(
    path: Path,
    connect: Callable[[], Jobs],
    *,
    clock: Callable[[], float] = time.time,
    poll_seconds: float = POLL_SECONDS,
    tell: Log = log_line,
) -> None:
    """Runs the schedules of a store until SIGINT or SIGTERM, which it answers by returning; jobs go on without it. On the main thread only.

    `connect` and `clock` as `Runner` has them. Raises ScheduleError where the store cannot be used at the start, another scheduler is
    running on it, or its file is taken away.
    """
    log.bind(stage=STAGE)
    with only_scheduler(path), Store(path) as store:
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL + 1)  # every event has its line here
        runner = Runner(store, connect, tell)
        # One worker: steps never run beside each other. A step that is due meanwhile is made up for by the next one.
        scheduler = BackgroundScheduler(
            timezone=UTC, jobstores={"default": MemoryJobStore()}, executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )  # fmt: skip
        known: dict[str, tuple[str, str]] = {}
        faults: list[BaseException] = []
        over: SimpleQueue[None] = SimpleQueue()  # whose put may interrupt its get

        def step() -> None:
            if store.is_gone():
                told = "was moved, removed or replaced while the scheduler was running: start it again; jobs go on meanwhile"
                faults.append(ScheduleError(f"{path}: {told}"))
                over.put(None)
                return
            try:
                _follow_changes(scheduler, store, known, step)
                runner.step(clock())
            except ScheduleError as error:  # a full disk, say: the next step tries again
                tell("store", reason=str(error))

        def fault(event: JobExecutionEvent) -> None:
            faults.append(event.exception)
            over.put(None)

        def poll() -> None:
            scheduler.add_job(step, id=_POLL, replace_existing=True)  # now, once; in place of one that has not begun

        scheduler.add_listener(fault, EVENT_JOB_ERROR)
        # APScheduler works in threads of its own, and signals raise nothing: it takes an interrupt for one job's error, and loses it.
        handlers = {number: signal.signal(number, lambda *_: over.put(None)) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            tell("started", store=path)
            scheduler.start()
            _wait(over, poll, poll_seconds)
            scheduler.shutdown(wait=True)  # the step under way comes to its end, and writes down what it has done
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if faults:
            raise faults[0]
        tell("ended")


def _wait(over: SimpleQueue[None], poll: Callable[[], None], seconds: float) -> None:
    """Calls `poll` every so many seconds until something is in the queue.

    By the clock that nobody puts: APScheduler goes by the other one, and would stand still for as long as that is put back. A signal
    that comes just before a wait does not end it, so none is long.
    """
    due = time.monotonic()
    while True:
        if time.monotonic() >= due:
            poll()
            due = time.monotonic() + seconds
        with suppress(Empty):
            return over.get(timeout=min(WAIT_SECONDS, seconds))


def _follow_changes(scheduler: BackgroundScheduler, store: Store, known: dict[str, tuple[str, str]], step: Callable[[], None]) -> None:
    """Gives APScheduler a job for each schedule that is not paused, so that due times are met to the second."""
    wanted = {one.name: one for one in store.schedules() if not one.paused}
    now = datetime.now(UTC)

    def is_stale(name: str) -> bool:
        """Whether it has changed, was paused or removed, or the clock was put back since it got its job."""
        if name not in wanted or known[name] != (wanted[name].cron, wanted[name].timezone):
            return True
        job, due = scheduler.get_job(name), wanted[name].due.following(now.timestamp())
        return due is not None and job.next_run_time.timestamp() > due

    for name in [name for name in known if is_stale(name)]:
        scheduler.remove_job(name)
        del known[name]
    for name, schedule in wanted.items():
        if name not in known:
            scheduler.add_job(step, DueTrigger(schedule.due), id=name)
            known[name] = (schedule.cron, schedule.timezone)
