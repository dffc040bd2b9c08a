"""From a due time to the end of its job: plans, submits, watches, tries again. Knows Ray only as `Jobs`, and the time as a number.

A step may be cut off anywhere. A job's id follows from its run and attempt, and a cluster takes an id once: what was submitted but not
written down is found again under its id, and adopted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from colorize.errors import ColorizeError, ScheduleError
from colorize.schedule.plan import LONGEST_DELAY_SECONDS, Run, shown
from colorize.schedule.store import UNBEGUN, UNTRIED, Store

AWAY_SECONDS = (5.0, 300.0)
"""How soon Ray is asked again when it does not answer: at first, and at most; in between twice as long each time."""

REFUSALS = 6
"""How often a submission is tried that Ray answers with a refusal. It keeps its id: an answer that got lost starts no second job."""


class JobState(Protocol):
    """What a job is, as `colorize.submit.jobs.JobState` has it."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def started(self) -> float | None: ...
    @property
    def ended(self) -> float | None: ...


class Jobs(Protocol):
    """What is needed of `colorize.submit.jobs.JobClient`. Every method raises ColorizeError where it fails, for whatever reason."""

    def start(self, arguments: Sequence[str], *, id: str) -> str: ...
    def state(self, id: str) -> JobState: ...
    def follow(self, id: str) -> Iterator[str]: ...
    def stop(self, id: str) -> None: ...
    def list(self) -> Sequence[JobState]: ...


Log = Callable[..., None]
"""Takes an event's name and its particulars by keyword."""


class Away(Exception):  # noqa: N818
    """Ray does not answer; nothing is lost by it."""


class Runner:
    """Takes the runs of a store further."""

    def __init__(self, store: Store, connect: Callable[[], Jobs], log: Log) -> None:
        """`connect`: raises ColorizeError while nothing answers."""
        self._store = store
        self._connect = connect
        self._log = log
        self._jobs: Jobs | None = None
        self._unanswered = 0
        self._not_before = 0.0
        self._refused: dict[str, int] = {}
        self._later: dict[str, float] = {}
        self._unreadable: dict[str, str] = {}

    def step(self, now: float) -> None:
        """One look at everything: what is under way, what has fallen due, and what is to be started. `now`: seconds since 1970.

        Raises ScheduleError where the store cannot be used. A Ray that does not answer is logged, and asked again later; a schedule
        that cannot be read is logged once, and left out.
        """
        self.advance(now)  # first, so that no due time is skipped for a run that has ended meanwhile
        # While Ray does not answer nobody knows whether a job goes on: its schedule's due times are settled when it does.
        unknown = {run.name for run in self._store.open_runs() if run.state in ("submitted", "running")} if self._unanswered else set()
        unreadable = self._store.unreadable()
        for name in unreadable:
            if unreadable[name] != self._unreadable.get(name):
                self._log("unreadable", schedule=name, reason=unreadable[name])
        self._unreadable = unreadable
        for schedule in self._store.schedules():
            if schedule.name in unknown or schedule.name in unreadable:
                continue
            if ahead := self._store.take_back(schedule.name, now):
                until, skipped = ahead
                self._log("clock_was_ahead", schedule=schedule.name, until=shown(until, "UTC"), due_again=skipped)
            for run in self._store.plan(schedule.name, now):
                self._log(run.state, **_particulars(run), **({"reason": run.message} if run.message else {}))
        self.advance(now, only_new=True)

    def advance(self, now: float, name: str | None = None, *, only_new: bool = False) -> None:
        """Takes the first open run of every schedule, or of one, as far as it goes now; later ones wait for its end."""
        seen: set[str] = set()
        for run in self._store.open_runs(name):
            if _is_before(now, self._not_before, AWAY_SECONDS[1]):
                return
            if run.name in seen or (only_new and run.state != "planned"):
                seen.add(run.name)
                continue
            seen.add(run.name)
            try:
                if run.state in ("planned", "waiting"):
                    self._start(run, now)
                else:
                    self._watch(run, now)
            except Away as away:
                self._wait_for_ray(str(away), now)
                self._store.change(run, message=f"waits for Ray: {away}")
            else:
                continue
            return

    def stop(self, run: Run) -> None:
        """Asks the job of a run to end. Raises ScheduleError where Ray does not answer."""
        try:
            if self._look(self._store.job_id(run)) is not None:
                self._server().stop(self._store.job_id(run))
        except (Away, ColorizeError) as error:
            raise ScheduleError(f"schedule {run.name}: its job {self._store.job_id(run)} cannot be ended: {error}") from error

    def _start(self, run: Run, now: float) -> None:
        job = self._store.job_id(run)
        if run.withdrawn:  # it may have been submitted before its scheduler died
            if run.state == "planned" and (found := self._look(job)) is not None:
                self._adopt(run, now, found)
            elif run.state == "planned":
                self._over(run, now, "skipped", UNBEGUN)
            else:
                self._over(run, now, "failed", run.message + UNTRIED)
            return
        if _is_before(now, run.next_try, LONGEST_DELAY_SECONDS) or _is_before(now, self._later.get(job, 0.0), AWAY_SECONDS[1]):
            return
        jobs = self._server()
        try:
            jobs.start(run.arguments(), id=job)
        except ColorizeError as error:
            if (found := self._look(job)) is not None:
                self._adopt(run, now, found)
            else:
                self._was_refused(run, now, str(error))
        else:
            self._submitted(run, now, "submitted")

    def _adopt(self, run: Run, now: float, found: JobState) -> None:
        """Takes a job for the run's that was submitted but not written down; it may be over since long ago."""
        self._submitted(run, found.started or now, "adopted")
        run = self._store.run(run.name, run.due)
        if run.state == "submitted":
            self._watch(run, now)

    def _submitted(self, run: Run, started: float, event: str) -> None:
        self._answered()
        self._refused.pop(self._store.job_id(run), None)
        self._later.pop(self._store.job_id(run), None)
        if self._store.submitted(run, started):
            self._log(event, **_particulars(run), job=self._store.job_id(run))
        elif (other := self._store.run(run.name, run.due)).state == "skipped":
            # Its schedule was removed while Ray was taking the job, and another process, which ends it, had found none.
            if self._store.submitted(other, started):
                self._log(event, **_particulars(run), job=self._store.job_id(run))
            try:
                self._server().stop(self._store.job_id(run))
            except ColorizeError as error:
                raise Away(str(error)) from error

    def _was_refused(self, run: Run, now: float, reason: str) -> None:
        self._answered()
        job = self._store.job_id(run)
        times = self._refused[job] = self._refused.get(job, 0) + 1
        if times >= REFUSALS:
            del self._refused[job], self._later[job]
            self._over(run, now, "failed", f"Ray did not take it: {reason}")
            return
        delay = min(AWAY_SECONDS[1], AWAY_SECONDS[0] * 2 ** (times - 1))
        self._later[job] = now + delay
        if self._store.change(run, message=f"Ray did not take it yet: {reason}"):
            self._log("refused", **_particulars(run), reason=reason, again_in=f"{delay:g}s")

    def _watch(self, run: Run, now: float) -> None:
        found = self._look(self._store.job_id(run))
        self._answered()
        if found is None:
            self._failed(run, now, now, "LOST", "Ray no longer knows the job: its cluster has ended")
        elif found.status == "RUNNING":
            if run.state != "running" and self._store.change(run, state="running"):
                self._log("running", **_particulars(run))
        elif found.status == "FAILED":
            self._failed(run, now, found.ended or now, found.status, found.message)
        elif found.status in ("SUCCEEDED", "STOPPED"):
            ended, state = found.ended or now, found.status.lower()
            message = "somebody stopped the job" if state == "stopped" else ""
            if self._store.attempt_over(run, now, ended=ended, status=found.status, message=message, state=state):
                self._log(state, **_particulars(run))
        else:
            assert found.status == "PENDING", found.status

    def _failed(self, run: Run, now: float, ended: float, status: str, message: str) -> None:
        if run.attempt > run.retries or run.withdrawn:
            if self._store.attempt_over(run, now, ended=ended, status=status, message=message, state="failed"):
                self._log("failed", **_particulars(run), reason=message)
            return
        values = {"state": "waiting", "attempt": run.attempt + 1, "next_try": now + run.delay()}
        if self._store.attempt_over(run, now, ended=ended, status=status, message=message, **values):
            self._log("attempt_failed", **_particulars(run), reason=message, again_in=f"{run.delay():g}s")

    def _over(self, run: Run, now: float, state: str, message: str) -> None:
        if self._store.change(run, state=state, ended=now, message=message):
            self._log(state, **_particulars(run), reason=message)

    def _server(self) -> Jobs:
        if self._jobs is None:
            try:
                self._jobs = self._connect()
            except ColorizeError as error:
                raise Away(str(error)) from error
        return self._jobs

    def _look(self, job: str) -> JobState | None:
        """A job as it is, or None where the cluster knows none of that id. Raises Away where nothing answers."""
        jobs = self._server()
        try:
            return jobs.state(job)
        except ColorizeError:
            try:  # the same error stands for a job that is not there and a cluster that is not: only the second cannot list its jobs
                return next((one for one in jobs.list() if one.id == job), None)
            except ColorizeError as error:
                raise Away(str(error)) from error

    def _wait_for_ray(self, reason: str, now: float) -> None:
        self._jobs = None  # it may come back elsewhere
        delay = min(AWAY_SECONDS[1], AWAY_SECONDS[0] * 2 ** min(self._unanswered, 16))
        self._unanswered += 1
        self._not_before = now + delay
        self._log("ray_away", reason=reason, again_in=f"{delay:g}s")

    def _answered(self) -> None:
        if self._unanswered:
            self._log("ray_back")
        self._unanswered = 0


def _is_before(now: float, then: float, longest: float) -> bool:
    """Whether a wait of at most `longest` seconds goes on; not where its end is further off, since the clock was put back meanwhile."""
    return now < then <= now + longest


def _particulars(run: Run) -> dict[str, object]:
    return {"schedule": run.name, "due": shown(run.due, "UTC"), **({} if run.state == "skipped" else {"attempt": run.attempt})}
