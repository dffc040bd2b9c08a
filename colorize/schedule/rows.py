"""A row of the store as a schedule, a run or an attempt, and what is said of a damaged one. Knows no file, only columns."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from colorize.errors import ScheduleError, one_line
from colorize.schedule.plan import WRITTEN, Attempt, Run, Schedule

_KINDS: dict[str, Any] = {
    **dict.fromkeys(("retries", "paused", "due", "by_hand", "attempt", "withdrawn", "number"), int),
    **dict.fromkeys(("retry_seconds", "planned_until", "next_try"), float),
    **dict.fromkeys(("started", "ended"), float | None),
}
"""What the tables' columns hold where it is not text. SQLite itself keeps anything in any."""

_LAST = datetime.max.replace(tzinfo=UTC).timestamp()

_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, OSError)
"""What Python raises for a value of the wrong kind, a column too many or too few, and a time that no calendar has."""

_Read = TypeVar("_Read", Schedule, Run)


def readable(read: Callable[[sqlite3.Row], _Read], rows: Iterable[sqlite3.Row]) -> list[_Read]:
    """Those of the rows that can be read."""
    found: list[_Read] = []
    for row in rows:
        with contextlib.suppress(ScheduleError):
            found.append(read(row))
    return found


def as_schedule(row: sqlite3.Row) -> Schedule:
    """Raises ScheduleError where the row was damaged, or its time zone is none of this machine's."""
    try:
        values = _values(row)
        if not WRITTEN <= (until := values.pop("planned_until")) <= _LAST:
            raise ValueError(f"planned_until {until:g}: is no time from 2026 to 9999")
        return Schedule(**values | {"paused": bool(row["paused"])})
    except _DAMAGE as error:
        raise ScheduleError(f"schedule {one_line(row['name'])}: cannot be read, only removed: {one_line(error)}") from error


def as_run(row: sqlite3.Row) -> Run:
    """Raises ScheduleError where the row was damaged."""
    flags = {column: bool(row[column]) for column in ("by_hand", "withdrawn")}
    try:
        run = Run(**_values(row) | flags)
        _ = run.stamp
    except _DAMAGE as error:
        raise ScheduleError(
            f"schedule {one_line(row['name'])}: its run due {one_line(row['due'])} cannot be read: {one_line(error)}"
        ) from error
    return run


def as_attempt(row: sqlite3.Row) -> Attempt:
    """Raises ScheduleError where the row was damaged."""
    try:
        values = _checked(row)
        del values["name"], values["due"]
        return Attempt(**values)
    except _DAMAGE as error:
        raise ScheduleError(
            f"schedule {one_line(row['name'])}: attempt {one_line(row['number'])} of its run due {one_line(row['due'])} cannot be read: "
            f"{one_line(error)}"
        ) from error


def _checked(row: sqlite3.Row) -> dict[str, Any]:
    """A row's values. Raises ValueError naming the column that holds something else than it should."""
    values = dict(row)
    for column, value in values.items():
        if not isinstance(value, _KINDS.get(column, str)):
            raise ValueError(f"{column} {value!r}: is of the wrong kind")
        if column in ("started", "ended") and value is not None and not 0 <= value <= _LAST:
            raise ValueError(f"{column} {value:g}: is no time from 1970 to 9999")
    return values


def _values(row: sqlite3.Row) -> dict[str, Any]:
    """The same, with the command as words."""
    values = _checked(row)
    try:
        words = json.loads(values["command"])
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"command {values['command']!r}: is no list of words")
    return values | {"command": tuple(words)}
