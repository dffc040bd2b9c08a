"""When a cron line is due: cron's rules against a clock that is looked at every minute, and the nights in which clocks change."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize import ScheduleError
from colorize.schedule.cron import Cron
from colorize.schedule.plan import zone_of
from tests.schedules import due_minute_by_minute

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia",
    "Africa/Casablanca", "America/Sao_Paulo", "Asia/Gaza",
)  # fmt: skip


def due(line: str, zone: str, first: str, last: str) -> list[str]:
    """The due times in a zone from one wall time to another, as wall times with their offsets."""
    cron = Cron(line=line, zone=ZoneInfo(zone))
    after, until = (datetime.fromisoformat(text).replace(tzinfo=cron.zone).timestamp() for text in (first, last))
    return [f"{datetime.fromtimestamp(at, cron.zone):%d %H:%M %z}" for at in cron.between(after, until)]


# The rules of cron


@pytest.mark.parametrize("sunday", ["0", "7", "sun", "SUN", "0-0", "7-7"])
def test_sunday_is_0_and_7(sunday: str) -> None:
    assert due(f"0 2 * * {sunday}", "UTC", "2026-03-01T03:00", "2026-03-16T00:00") == ["08 02:00 +0000", "15 02:00 +0000"]


def test_monday_is_1_and_a_range_may_end_on_sunday() -> None:
    assert due("0 2 * * 1", "UTC", "2026-03-01T03:00", "2026-03-09T00:00") == ["02 02:00 +0000"]
    assert [day[:2] for day in due("0 2 * * 5-7", "UTC", "2026-03-02T03:00", "2026-03-09T00:00")] == ["06", "07", "08"]
    assert [day[:2] for day in due("0 2 * * mon-fri/2", "UTC", "2026-03-02T00:00", "2026-03-09T00:00")] == ["02", "04", "06"]


def test_either_day_is_enough_where_both_are_given() -> None:
    assert [day[:2] for day in due("0 0 13 * 5", "UTC", "2026-10-01T00:00", "2026-10-31T00:00")] == ["02", "09", "13", "16", "23", "30"]


def test_both_days_are_needed_where_one_begins_with_a_star() -> None:
    assert [day[:2] for day in due("0 0 */2 * 5", "UTC", "2026-10-01T00:00", "2026-10-31T00:00")] == ["09", "23"]


def test_nicknames() -> None:
    assert due("@daily", "UTC", "2026-10-01T00:00", "2026-10-02T12:00") == ["02 00:00 +0000"]
    assert due("@Weekly", "UTC", "2026-10-01T00:00", "2026-10-10T00:00") == ["04 00:00 +0000"]


def test_29_february_is_found_over_a_century_without_it() -> None:
    cron = Cron(line="0 0 29 2 *", zone=ZoneInfo("UTC"))
    assert cron.following(datetime(2096, 3, 1, tzinfo=UTC).timestamp()) == datetime(2104, 2, 29, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 2 * *", "5 fields are needed"),
        ("0 2 * * * *", "5 fields are needed"),
        ("60 2 * * *", "'60' is no minute: 0 to 59"),
        ("0 24 * * *", "'24' is no hour: 0 to 23"),
        ("0 2 0 * *", "'0' is no day of the month: 1 to 31"),
        ("0 2 * 13 *", "'13' is no month: 1 to 12"),
        ("0 2 * * 8", "'8' is no day of the week: 0 to 7"),
        ("0 2 * * funday", "'funday' is no day of the week"),
        ("0 2 * jan-foo *", "'foo' is no month"),
        ("5-2 2 * * *", "the range ends before it begins"),
        ("*/0 2 * * *", "a step of 0"),
        ("3/5 2 * * *", "a step needs a range, as in 3-59/5"),
        ("1,,2 2 * * *", "'' is no minute"),
        ("-1 2 * * *", "'-1' is no minute"),
        ("٣ 2 * * *", "is no minute"),
        ("@reboot", "5 fields are needed"),
        ("0 0 30 2 *", "is never due"),
        ("0 0 31 4,6,9,11 *", "is never due"),
        (f"{'0' * 5000} 2 * * *", "000… is no minute"),
        (f"0 0-{'1' * 5000} * * *", "111… is no hour"),
        (f"*/{'1' * 5000} 2 * * *", "111… is no minute"),
    ],
)
def test_what_is_no_cron_line_is_said_in_one_line(line: str, told: str) -> None:
    with pytest.raises(ScheduleError, match=r"^cron ") as error:
        Cron(line=line, zone=ZoneInfo("UTC"))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "Europe", "x\0y"])
def test_what_is_no_time_zone_is_said(name: str) -> None:
    with pytest.raises(ScheduleError, match=r"^timezone "):
        zone_of(name)


# The nights in which clocks change


def test_a_time_that_is_left_out_is_due_once_as_long_after_midnight_as_ever() -> None:
    found = due("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", "2026-03-31T00:00")
    assert found == ["28 02:30 +0100", "29 03:30 +0200", "30 02:30 +0200"]


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    found = due("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00", "2026-10-27T00:00")
    assert found == ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]


def test_what_is_due_every_hour_is_due_in_both() -> None:
    found = due("0 * * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T03:30")
    assert found == ["25 01:00 +0200", "25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"]


def test_every_other_hour_has_no_hour_more_where_one_is_left_out() -> None:
    found = due("30 */2 * * *", "Europe/Berlin", "2026-03-29T00:00", "2026-03-29T05:00")
    assert found == ["29 00:30 +0100", "29 03:30 +0200", "29 04:30 +0200"]


def test_two_times_that_become_one_are_due_once() -> None:
    assert due("30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00", "2026-03-30T00:00") == ["29 03:30 +0200"]


def test_a_day_that_was_left_out_is_due_with_the_next() -> None:
    """Samoa went from 29 to 31 December 2011."""
    assert due("0 5 30 12 *", "Pacific/Apia", "2011-12-28T00:00", "2012-01-02T00:00") == ["31 05:00 +1400"]


# Against the clock on the wall


@functools.cache
def changes(zone: str) -> tuple[datetime, ...]:
    """The days from 2005 to 2031 on which the clocks of a zone are put."""
    days = [datetime(2005, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(26 * 365)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    return tuple(day for day, offset, following in zip(days, offsets, offsets[1:], strict=False) if offset != following)


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    """A field as text and as the numbers that it allows."""
    parts: list[str] = []
    allowed: set[int] = set()
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 9))
        part, values = draw(
            st.sampled_from(
                [
                    (f"{first}", range(first, first + 1)),
                    (f"{first}-{last}", range(first, last + 1)),
                    (f"{first}-{last}/{step}", range(first, last + 1, step)),
                    (f"*/{step}", range(low, high + 1, step)),
                ]
            )
        )
        parts.append(part)
        allowed |= set(values)
    return draw(st.sampled_from([(",".join(parts), frozenset(allowed)), ("*", frozenset(range(low, high + 1)))]))


def rule(texts: tuple[str, ...], allowed: tuple[frozenset[int], ...]) -> Callable[[datetime], bool]:
    """Whether a wall time is one of a cron line's, in the words of crontab(5)."""

    def matches(wall: datetime) -> bool:
        by_day, by_weekday = wall.day in allowed[2], wall.isoweekday() % 7 in allowed[4]
        either = not texts[2].startswith("*") and not texts[4].startswith("*")
        days = by_day or by_weekday if either else by_day and by_weekday
        return wall.minute in allowed[0] and wall.hour in allowed[1] and wall.month in allowed[3] and days

    return matches


@settings(max_examples=60)
@given(st.data())
def test_due_times_are_those_of_a_clock_that_is_looked_at_every_minute(data: st.DataObject) -> None:
    fields_drawn = [data.draw(fields(low, high)) for low, high in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))]
    texts, allowed = tuple(text for text, _ in fields_drawn), tuple(values for _, values in fields_drawn)
    name = data.draw(st.sampled_from(ZONES))
    zone = ZoneInfo(name)
    anywhere = st.datetimes(datetime(2005, 1, 1), datetime(2031, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
    around = data.draw(st.one_of(st.sampled_from(changes(name)), anywhere) if changes(name) else anywhere)
    after = around.timestamp() - data.draw(st.integers(0, 36 * 3600))
    until = after + data.draw(st.integers(0, 60 * 3600))
    try:
        cron = Cron(line=" ".join(texts), zone=zone)
    except ScheduleError as error:
        assert "never due" in str(error)  # noqa: PT017
        return
    expected = due_minute_by_minute(rule(texts, allowed), texts[1].startswith("*"), zone, after, until)
    assert cron.between(after, until) == expected
    first = cron.following(after)
    assert first is not None
    assert (first if first <= until else None) == (expected[0] if expected else None)
