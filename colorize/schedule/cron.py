"""When a cron line is due, in a time zone: cron's own rules, and what becomes of them where clocks are put forward or back.

APScheduler 3.11's `CronTrigger` is not used: it counts weekdays from Monday, takes a day that is in both day fields for due where cron
takes one that is in either, and fires 02:30 twice in the night in which 02:30 comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

from colorize.errors import ScheduleError, one_line

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_NICKNAMES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip

_SEARCH_DAYS = 41 * 366
"""How far a due time is looked for: 29 February on a given weekday comes every 28 years, around 2100 after 40."""


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()

    def parse(self, text: str, line: str) -> frozenset[int]:
        """The values that a field allows. Raises ScheduleError."""
        allowed: set[int] = set()
        for part in text.split(","):
            # So many characters and no more: Python makes no number of more than 4300 digits.
            found = re.fullmatch(r"(\*|(\w{1,9})(?:-(\w{1,9}))?)(?:/(\d{1,9}))?", part, re.ASCII)
            if not found:
                raise ScheduleError(f"cron {one_line(repr(line))}: {one_line(repr(part), 60)} is no {self.name}")
            whole, first, last, step = found.groups()
            if step is not None and whole != "*" and last is None:
                raise ScheduleError(f"cron {line!r}: {part!r}: a step needs a range, as in {first}-{self.high}/{step}")
            low, high = (self.low, self.high) if whole == "*" else (self._value(first, line), self._value(last or first, line))
            if whole == "*" and self.words == _DAYS:
                high = 6  # 7 is Sunday once more
            if low > high:
                raise ScheduleError(f"cron {line!r}: {part!r}: the range ends before it begins")
            if step is not None and int(step) == 0:
                raise ScheduleError(f"cron {line!r}: {part!r}: a step of 0")
            allowed.update(range(low, high + 1, int(step or 1)))
        return frozenset(allowed)

    def _value(self, text: str, line: str) -> int:
        if text.lower() in self.words:
            return self.words.index(text.lower()) + (self.low if self.words == _MONTHS else 0)
        if not text.isdecimal() or not self.low <= int(text) <= self.high:
            raise ScheduleError(f"cron {line!r}: {text!r} is no {self.name}: {self.low} to {self.high}")
        return int(text)


_FIELDS = (
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day of the month", low=1, high=31),
    _Field(name="month", low=1, high=12, words=_MONTHS),
    _Field(name="day of the week", low=0, high=7, words=_DAYS),
)


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A cron line of five fields in a time zone. Raises ScheduleError where it is none, or is never due.

    A time that the clocks leave out is due as long after midnight as on any other day: 02:30, with the clocks put forward at 02:00, at
    03:30. One that comes twice is due the first time; only an hour field that begins with `*` has both.
    """

    line: str
    zone: ZoneInfo

    def __post_init__(self) -> None:
        if self.following(datetime.now(UTC).timestamp()) is None:
            raise ScheduleError(f"cron {self.line!r}: is never due: no month has such a day")

    @cached_property
    def _allowed(self) -> tuple[frozenset[int], ...]:
        words = self._words
        minutes, hours, days, months, weekdays = (field.parse(word, self.line) for field, word in zip(_FIELDS, words, strict=True))
        return minutes, hours, days, months, frozenset(day % 7 for day in weekdays)

    @cached_property
    def _words(self) -> list[str]:
        words = _NICKNAMES.get(self.line.strip().lower(), self.line).split()
        if len(words) != len(_FIELDS):
            raise ScheduleError(
                f"cron {self.line!r}: {len(_FIELDS)} fields are needed, minute hour day-of-month month day-of-week, as in '0 2 * * *'; "
                f"or one of {', '.join(sorted(_NICKNAMES))}"
            )
        return words

    def following(self, after: float) -> int | None:
        """The first due time later than `after`, both in seconds since 1970; None where there is none within 41 years."""
        first = self._local_day(after) - timedelta(days=1)  # a day that was left out whole is due on the next
        best: int | None = None
        for number in range(_SEARCH_DAYS):
            found = [at for at in self._on(first + timedelta(days=number)) if at > after]
            if best is not None:  # a day later than the one before: clocks never jump by more
                return min([best, *found])
            best = min(found, default=None)
        return best

    def between(self, after: float, until: float) -> list[int]:
        """All due times in (after, until], ascending, in seconds since 1970."""
        first, last = self._local_day(after) - timedelta(days=1), self._local_day(until) + timedelta(days=1)
        days = (first + timedelta(days=number) for number in range((last - first).days + 1))
        return sorted({at for day in days for at in self._on(day) if after < at <= until})

    def _local_day(self, at: float) -> date:
        return datetime.fromtimestamp(at, self.zone).date()

    def _is_due_on(self, day: date) -> bool:
        _, _, days, months, weekdays = self._allowed
        if day.month not in months:
            return False
        by_day, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        if self._words[2].startswith("*") or self._words[4].startswith("*"):
            return by_day and by_weekday
        return by_day or by_weekday  # cron's rule where both are given

    def _on(self, day: date) -> tuple[int, ...]:
        """The due times of a day of the calendar, in no order, some of them perhaps twice."""
        return _due_times(self, day) if self._is_due_on(day) else ()

    def due_times(self, day: date) -> Iterator[int]:
        """The same for a day that is known to have some."""
        minutes, hours, *_ = self._allowed
        both = self._words[1].startswith("*")
        for hour in hours:
            for minute in minutes:
                at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                first = int(at.timestamp())
                yield first
                if both and (second := int(at.replace(fold=1).timestamp())) > first:  # in a gap it would be less
                    yield second


@lru_cache(maxsize=1024)
def _due_times(cron: Cron, day: date) -> tuple[int, ...]:
    """The scheduler asks for the same few days every few seconds."""
    return tuple(cron.due_times(day))
