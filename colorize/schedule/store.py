"""The schedules and what became of each of their due times: an SQLite file with plain columns.

APScheduler's own stores keep pickles; this one keeps text and numbers, so reading a file runs nothing. A due time is one row, by the
table's key, whatever reads and writes at the same time; every change of a run says from which state and attempt it starts, and is void
where another process was first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colorize.errors import ScheduleError, one_line
from colorize.schedule.database import Database
from colorize.schedule.plan import OVER, WRITTEN, Attempt, Damaged, Fate, Run, Schedule, fates, shown
from colorize.schedule.rows import as_attempt, as_run, as_schedule, readable
from colorize.storage.place import local_path

AHEAD_SECONDS = 24 * 3600.0
"""How much later than now all may be settled until before the clock that did so counts as one that was ahead."""

_MOST = 2**63 - 1
"""What SQLite takes for a number."""

UNBEGUN = "its schedule was removed before it began"
DOUBTED = "its schedule was removed; colorize schedule start asks Ray whether it had begun"
UNTRIED = "; not tried again: its schedule was removed"

_OPEN = "state IN ('planned', 'submitted', 'running', 'waiting')"


def default_path() -> Path:
    """Where the store is when nobody says: below XDG_STATE_HOME, or ~/.local/state. Raises StorageError."""
    base = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if Path(base).is_absolute() else local_path("~/.local/state")) / "colorize" / "schedule.sqlite"


class Store(Database):
    """An open store. A context manager.

    Every method raises ScheduleError where the file cannot be read or written, or what it is asked for was damaged.
    """

    # Schedules

    def add(self, schedule: Schedule, now: float) -> None:
        """Keeps a schedule, due from `now` on. Raises ScheduleError where there is one of its name, or `now` is no right clock's."""
        _check_clock(now)
        row = dataclasses.asdict(schedule) | {"command": json.dumps(schedule.command), "planned_until": now}
        with self._told(), self._transaction():
            if self._database.execute("SELECT 1 FROM schedules WHERE name = ?", (schedule.name,)).fetchone():
                raise ScheduleError(f"schedule {schedule.name}: is there already: remove it first, or take another name")
            self._take_back(schedule.name, now)  # one of its name may have had a clock that was ahead
            self._database.execute(f"INSERT INTO schedules ({', '.join(row)}) VALUES ({', '.join(f':{column}' for column in row)})", row)

    def schedules(self) -> list[Schedule]:
        """All that can be read, by name."""
        with self._told():
            return readable(as_schedule, self._database.execute("SELECT * FROM schedules ORDER BY name"))

    def unreadable(self) -> dict[str, str]:
        """Why a schedule, or a run of it that is not over, cannot be read; by the schedule's name. Nothing is started for it."""
        why: dict[str, str] = {}
        with self._told():
            for read, query in ((as_run, f"SELECT * FROM runs WHERE {_OPEN}"), (as_schedule, "SELECT * FROM schedules ORDER BY name")):
                for row in self._database.execute(query):
                    try:
                        read(row)
                    except ScheduleError as error:
                        why[str(row["name"])] = str(error)
        return why

    def schedule(self, name: str) -> Schedule:
        """One by its name. Raises ScheduleError where there is none."""
        with self._told():
            return as_schedule(self._row(name))

    def pause(self, name: str, paused: bool, now: float) -> bool:
        """Pauses or resumes; says whether anything changed. Raises ScheduleError.

        What was due in a pause is not made up for; what was due before has its row. So neither is possible while the clock is wrong.
        """
        _check_clock(now)
        with self._told(), self._transaction():
            if bool(self._row(name)["paused"]) == paused:
                return False
            self._plan(name, now)
            self._database.execute(
                "UPDATE schedules SET paused = ?, planned_until = max(planned_until, ?) WHERE name = ?", (paused, now, name)
            )
            return True

    def remove(self, name: str, now: float) -> list[Run]:
        """Takes a schedule out; its history stays. Gives the runs that are not over, which get no more attempts. Raises ScheduleError.

        What waits, for its retry or for the run before it, is over with that. Of one that is planned and has none before it only Ray
        knows whether it was submitted, by a process that died before it wrote so.
        """
        with self._told(), self._transaction():
            self._row(name)
            self._database.execute("DELETE FROM schedules WHERE name = ?", (name,))
            self._database.execute(f"UPDATE runs SET withdrawn = 1 WHERE name = ? AND {_OPEN}", (name,))
            for number, row in enumerate(self._open_rows(name).fetchall()):
                values = ("skipped", now, UNBEGUN) if number else ("planned", None, DOUBTED)
                self._database.execute(
                    "UPDATE runs SET state = ?, ended = ?, message = ? WHERE name = ? AND due = ? AND state = 'planned'",
                    (*values, name, row["due"]),
                )
            self._database.execute(
                "UPDATE runs SET state = 'failed', ended = ?, message = message || ? WHERE name = ? AND state = 'waiting'",
                (now, UNTRIED, name),
            )
            return readable(as_run, self._open_rows(name))

    def _row(self, name: str) -> sqlite3.Row:
        row = self._database.execute("SELECT * FROM schedules WHERE name = ?", (name,)).fetchone()
        if row is None:
            known = [one_line(one) for (one,) in self._database.execute("SELECT name FROM schedules ORDER BY name")]
            raise ScheduleError(f"schedule {name}: there is none of this name; there are: {', '.join(known) or 'none'}")
        assert isinstance(row, sqlite3.Row)
        return row

    # Runs

    def plan(self, name: str, now: float) -> list[Run]:
        """Writes down what becomes of all due times since the last call, a row each, and gives these rows.

        One transaction: a process that dies in it has planned nothing. A clock that goes back plans nothing a second time.
        """
        with self._told():
            row = self._database.execute("SELECT * FROM schedules WHERE name = ?", (name,)).fetchone()
            if row is None or not as_schedule(row).due.between(row["planned_until"], now):
                return []  # as nearly always, and without a lock
            with self._transaction():
                return self._plan(name, now)

    def take_back(self, name: str, now: float) -> tuple[float, int] | None:
        """Undoes what a clock has done that was ahead: the due times after `now` that it skipped are due again, and so are all others.

        Gives until when all was settled and how many it had skipped; None, and nothing done, where that is no more than a day ahead. A
        due time that was run keeps its row: no clock has it run twice.
        """
        with self._told():
            row = self._database.execute("SELECT planned_until FROM schedules WHERE name = ?", (name,)).fetchone()
            if row is None or row["planned_until"] <= now + AHEAD_SECONDS or now < WRITTEN:
                return None
            with self._transaction():
                self._database.execute("UPDATE schedules SET planned_until = ? WHERE name = ?", (now, name))
                return row["planned_until"], self._take_back(name, now)

    def begin(self, name: str, now: float) -> Run:
        """A run by hand, planned for now. Raises ScheduleError where a run of the schedule is not over, or there is no such schedule."""
        with self._told(), self._transaction():
            schedule = as_schedule(self._row(name))
            for run in self._open_runs(name):
                raise ScheduleError(
                    f"schedule {name}: its run of {shown(run.due, schedule.timezone)} is not over ({run.state}); runs of one schedule do "
                    "not overlap"
                )
            due = int(now)
            while self._database.execute("SELECT 1 FROM runs WHERE name = ? AND due = ?", (name, due)).fetchone():
                due += 1
            self._insert(schedule, Fate(due=due, state="planned"), now, by_hand=True)
            return self._run(name, due)

    def run(self, name: str, due: int) -> Run:
        """One run as it is now."""
        with self._told():
            return self._run(name, due)

    def open_runs(self, name: str | None = None) -> list[Run]:
        """The runs that are not over and can be read, of one schedule or of all; of each what has begun, then the oldest, first."""
        with self._told():
            return readable(as_run, self._open_rows(name))

    def history(self, name: str | None = None, limit: int | None = None) -> list[Run]:
        """The runs of one schedule, also of one that was removed, or of all; the latest first. `told` has those that cannot be read too."""
        return [run for run, _ in self.told(name, limit) if isinstance(run, Run)]

    def told(self, name: str | None = None, limit: int | None = None) -> list[tuple[Run | Damaged, list[Attempt]]]:
        """The same, each with its attempts, and among them what is damaged."""
        where = "" if name is None else "WHERE name = ?"
        values = [*([] if name is None else [name]), -1 if limit is None else min(limit, _MOST)]
        found: list[tuple[Run | Damaged, list[Attempt]]] = []
        with self._told():
            for row in self._database.execute(f"SELECT * FROM runs {where} ORDER BY due DESC, name LIMIT ?", values).fetchall():
                try:
                    run = as_run(row)
                    found.append((run, self.attempts(run)))
                except ScheduleError as error:
                    found.append((Damaged(name=one_line(row["name"]), due=one_line(row["due"]), why=str(error)), []))
        return found

    def attempts(self, run: Run) -> list[Attempt]:
        """The jobs of a run, the first one first."""
        with self._told():
            rows = self._database.execute("SELECT * FROM attempts WHERE name = ? AND due = ? ORDER BY number", (run.name, run.due))
            return [as_attempt(row) for row in rows]

    def job_id(self, run: Run) -> str:
        """The id of the job of a run's present attempt: always the same, and no other attempt's, in this store or another."""
        return f"colorize-{run.name}-{run.stamp}-{self._word}"

    def change(self, run: Run, **values: Any) -> bool:
        """Changes columns of a run; False, and nothing done, where it is no longer in the state and attempt that `run` has."""
        with self._told(), self._transaction():
            return self._change(run, **values)

    def submitted(self, run: Run, started: float) -> bool:
        """The present attempt is with Ray, since `started`. False as `change`."""
        with self._told(), self._transaction():
            if not self._change(run, state="submitted", started=run.started or started, ended=None, message=""):
                return False
            self._attempt(run, started, "submitted", None, "")
            return True

    def attempt_over(self, run: Run, now: float, *, ended: float, status: str, message: str, **values: Any) -> bool:
        """The present attempt has come to its end, and `values` are what that makes of the run. False as `change`."""
        with self._told(), self._transaction():
            if not self._change(run, message=message, ended=ended if values["state"] in OVER else None, **values):
                return False
            self._attempt(run, now, status, ended, message)
            return True

    def _plan(self, name: str, now: float) -> list[Run]:
        row = self._database.execute("SELECT * FROM schedules WHERE name = ?", (name,)).fetchone()
        if row is None or row["paused"] or now <= row["planned_until"]:
            return []
        schedule = as_schedule(row)
        dues = schedule.due.between(row["planned_until"], now)
        if not dues:  # not written down: nothing is lost when the next call looks at these minutes again
            return []
        taken = {due for (due,) in self._database.execute("SELECT due FROM runs WHERE name = ? AND due >= ?", (name, dues[0]))}
        under_way = self._open_runs(name)
        # Of all: where the last one was run already, by a clock that was put back since, it stands for the earlier ones.
        made = [fate for fate in fates(schedule, dues, now, under_way[0] if under_way else None) if fate.due not in taken]
        if made and made[-1].state == "planned":
            for one in under_way[1:]:
                told = f"overtaken: the run of {shown(made[-1].due, schedule.timezone)} waits in its place"
                self._change(one, state="skipped", ended=now, message=told)
        for fate in made:
            self._insert(schedule, fate, now, by_hand=False)
        self._database.execute("UPDATE schedules SET planned_until = ? WHERE name = ?", (now, name))
        return [self._run(name, fate.due) for fate in made]

    def _take_back(self, name: str, now: float) -> int:
        done = self._database.execute("DELETE FROM runs WHERE name = ? AND due > ? AND state = 'skipped' AND NOT by_hand", (name, now))
        return done.rowcount

    def _attempt(self, run: Run, started: float, status: str, ended: float | None, message: str) -> None:
        self._database.execute(
            "INSERT INTO attempts (name, due, number, job, started, ended, status, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET ended = excluded.ended, status = excluded.status, message = excluded.message",
            (run.name, run.due, run.attempt, self.job_id(run), started, ended, status, message),
        )

    def _insert(self, schedule: Schedule, fate: Fate, now: float, *, by_hand: bool) -> None:
        self._database.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, 1, 0, ?, ?, ?, 0, NULL, ?, ?)",
            (schedule.name, fate.due, by_hand, fate.state, json.dumps(schedule.command), schedule.retries, schedule.retry_seconds,
             now if fate.state in OVER else None, fate.message),
        )  # fmt: skip

    def _change(self, run: Run, **values: Any) -> bool:
        columns = ", ".join(f"{column} = :{column}" for column in values)
        keys = {"_name": run.name, "_due": run.due, "_state": run.state, "_attempt": run.attempt}
        changed = self._database.execute(
            f"UPDATE runs SET {columns} WHERE name = :_name AND due = :_due AND state = :_state AND attempt = :_attempt", values | keys
        )
        return changed.rowcount == 1

    def _run(self, name: str, due: int) -> Run:
        return as_run(self._database.execute("SELECT * FROM runs WHERE name = ? AND due = ?", (name, due)).fetchone())

    def _open_runs(self, name: str) -> list[Run]:
        return [as_run(row) for row in self._open_rows(name)]

    def _open_rows(self, name: str | None) -> sqlite3.Cursor:
        where, values = ("", ()) if name is None else (" AND name = ?", (name,))
        order = "name, state = 'planned', due"  # a clock that was ahead may have begun one that is due long after those that are planned
        return self._database.execute(f"SELECT * FROM runs WHERE {_OPEN}{where} ORDER BY {order}", values)


def _check_clock(now: float) -> None:
    """Raises ScheduleError where `now` is a time at which no due time may be settled."""
    if now < WRITTEN:
        raise ScheduleError(f"this machine's clock stands at {shown(now, 'UTC')}, before this program was written: set it first")


@contextlib.contextmanager
def only_scheduler(path: Path) -> Iterator[None]:
    """Holds the lock that one scheduler of a store has while it runs; the kernel frees it however the process ends.

    It lies beside the file itself, whatever links lead there. Raises ScheduleError where another holds it.
    """
    lock = Path(f"{os.path.realpath(path)}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ScheduleError(f"{lock}: cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ScheduleError(f"{path}: another scheduler is running on this store: one is enough, or give another --store") from error
        yield
    finally:
        os.close(file)
