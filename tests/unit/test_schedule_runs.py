"""Schedules, their store and their runs: what is refused, what is kept, and what becomes of a run whatever Ray does."""

import dataclasses
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from colorize import ScheduleError
from colorize.schedule.plan import Run, Schedule
from colorize.schedule.runner import AWAY_SECONDS, REFUSALS, Runner
from colorize.schedule.store import DOUBTED, Store, default_path, only_scheduler
from tests.schedules import MemoryJobs

MIDNIGHT = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
HOUR = 3600
TWO = MIDNIGHT + 2 * HOUR

NIGHTLY = Schedule(name="nightly", cron="0 2 * * *", timezone="UTC", command=("archive", "/a", "/b"))


class Desk:
    """A store, a job server and the runner between them, at a time of the test's choosing."""

    def __init__(self, path: Path) -> None:
        self.now = MIDNIGHT
        self.store = Store(path)
        self.ends: dict[int, str] = {}
        self.seconds = 600.0
        self.jobs = MemoryJobs(lambda: self.now, self.plan)
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.restart()

    def plan(self, job: str) -> tuple[float, str]:
        return self.seconds, self.ends.get(int(job.split("-")[-2]), "SUCCEEDED")

    def restart(self) -> None:
        self.runner = Runner(self.store, self.jobs.connect, lambda event, **told: self.lines.append((event, told)))

    def at(self, now: float) -> None:
        self.now = now
        self.runner.step(now)

    def add(self, **settings: Any) -> None:
        self.store.add(dataclasses.replace(NIGHTLY, **settings), self.now)

    def history(self) -> list[tuple[str, str]]:
        """(when it was due, state), the first one first."""
        return [(f"{datetime.fromtimestamp(run.due, UTC):%d %H:%M}", run.state) for run in reversed(self.store.history())]

    def last(self) -> Run:
        return self.store.history()[0]

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "store.sqlite")
    yield made
    made.store.close()


# A schedule


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "Nightly"}, "name 'Nightly': small letters"),
        ({"name": ""}, "name ''"),
        ({"name": "a" * 61}, "at most 60"),
        ({"name": "../x"}, "small letters"),
        ({"cron": "never"}, "5 fields are needed"),
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus'"),
        ({"command": ()}, "has no command"),
        ({"missed": "all"}, "missed 'all': must be run or skip"),
        ({"overlap": "yes"}, "overlap 'yes': must be skip or wait"),
        ({"retries": -1}, "retries -1: must lie in 0…20"),
        ({"retries": 21}, "retries 21"),
        ({"retry_seconds": 0.5}, "retry delay 0.5"),
        ({"retry_seconds": float("nan")}, "retry delay nan"),
        ({"command": ("archive", "s3://KEY:WORD@bucket/a", "/b")}, "word 2 of the command holds a secret"),
        ({"command": ("archive", "/a", "abfs://c@x/b?account_key=abc")}, "word 3 of the command holds a secret"),
        ({"command": ("archive", "/a", "s3://b/c?region=x&secret_key=abc")}, "word 3 of the command holds a secret"),
    ],
)
def test_what_a_schedule_cannot_be_is_said_with_its_value(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ScheduleError) as error:
        dataclasses.replace(NIGHTLY, **settings)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "WORD" not in str(error.value)
    assert "abc" not in str(error.value)


def test_a_url_without_a_secret_is_no_secret() -> None:
    dataclasses.replace(NIGHTLY, command=("archive", "s3://bucket/a@2:3?region=eu&endpoint_override=minio:9000", "abfs://c@x/b"))


# The store


def test_a_store_keeps_what_it_is_given_and_shows_it_to_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sqlite"
    full = dataclasses.replace(NIGHTLY, missed="skip", overlap="wait", retries=3, retry_seconds=5.5, timezone="Europe/Berlin")
    with Store(path) as store:
        store.add(full, MIDNIGHT)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with Store(path) as store:
        assert store.schedules() == [full]
        with pytest.raises(ScheduleError, match="nightly: is there already"):
            store.add(full, MIDNIGHT)
        with pytest.raises(ScheduleError, match="weekly: there is none of this name; there are: nightly"):
            store.schedule("weekly")


def test_the_default_place_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "colorize" / "schedule.sqlite"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_path() == Path.home() / ".local" / "state" / "colorize" / "schedule.sqlite"


def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    text, other, newer = tmp_path / "text", tmp_path / "other", tmp_path / "newer"
    text.write_text("the diary of somebody\n" * 200)
    sqlite3.connect(other).executescript("CREATE TABLE diary (day TEXT)").connection.close()
    Store(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    before = {path: path.read_bytes() for path in (text, other, newer)}
    for path, told in ((text, "not a database"), (other, "of another program"), (newer, "of a newer colorize")):
        with pytest.raises(ScheduleError, match=told):
            Store(path)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(tmp_path.iterdir()) == sorted(before)
    with pytest.raises(ScheduleError, match="cannot be used as the store"):
        Store(tmp_path)
    with pytest.raises(ScheduleError, match="cannot be used as the store"):
        Store(text / "below")


def test_a_store_without_its_identity_says_so(desk: Desk) -> None:
    desk.store._database.execute("DELETE FROM identity")
    with pytest.raises(ScheduleError, match=r"store\.sqlite: is damaged: its table identity is empty"):
        Store(desk.store.path)


DAMAGES = [
    ("schedules", "timezone = 'Europe/Atlantis'", "timezone 'Europe/Atlantis': there is none of this name"),
    ("schedules", "command = 'nojson'", "command 'nojson': is no list of words"),
    ("schedules", "command = '5'", "command '5': is no list of words"),
    ("schedules", "command = '[1]'", "command '[1]': is no list of words"),
    ("schedules", "retries = 'abc'", "retries 'abc': is of the wrong kind"),
    ("schedules", "retries = 99", "retries 99: must lie in"),
    ("schedules", "retry_seconds = x'00'", "retry_seconds b'\\x00': is of the wrong kind"),
    ("schedules", "planned_until = -1e300", "planned_until -1e+300: is no time"),
    ("schedules", "planned_until = 9e999", "planned_until inf: is no time"),
    ("schedules", "planned_until = 0", "planned_until 0: is no time from 2026 to 9999"),
    ("schedules", "command = CAST(x'5b22ff225d' AS TEXT)", "command b'[\"\\xff\"]': is of the wrong kind"),
    ("schedules", "planned_until = 'soon'", "planned_until 'soon': is of the wrong kind"),
    ("schedules", "cron = x'00'", "cron b'\\x00': is of the wrong kind"),
    ("schedules", "cron = 'a' || char(10) || 'b'", r"cron 'a\nb': 5 fields are needed"),
    ("runs", "command = 'nojson'", "its run due 1780279200 cannot be read: command 'nojson': is no list of words"),
    ("runs", "next_try = 'soon'", "its run due 1780279200 cannot be read: next_try 'soon': is of the wrong kind"),
    ("runs", "message = CAST(x'ff' AS TEXT)", "its run due 1780279200 cannot be read: message b'\\xff': is of the wrong kind"),
    ("runs", "due = 1e18", "its run due 1000000000000000000 cannot be read"),
]


@pytest.mark.parametrize(("table", "change", "told"), DAMAGES)
def test_a_schedule_that_cannot_be_read_stops_no_other_and_can_be_removed(desk: Desk, table: str, change: str, told: str) -> None:
    desk.add(name="bad", retries=1)
    desk.add(name="good")
    desk.at(TWO)
    desk.store._database.execute(f"UPDATE {table} SET {change} WHERE name = 'bad'")
    desk.at(TWO + 700)
    desk.at(TWO + 24 * HOUR)
    assert [(run.due, run.state) for run in desk.store.history("good")] == [(TWO + 24 * HOUR, "submitted"), (TWO, "succeeded")]
    ((reason, name),) = [(line["reason"], line["schedule"]) for event, line in desk.lines if event == "unreadable"]  # once
    assert (name, reason) == ("bad", desk.store.unreadable()["bad"])
    assert told in reason
    assert "\n" not in reason
    assert sum("-bad-" in job for job in desk.jobs.jobs) == 1
    desk.store.remove("bad", desk.now)
    assert [one.name for one in desk.store.schedules()] == ["good"]
    desk.at(TWO + 48 * HOUR)
    assert [run.state for run in desk.store.history("good")] == ["submitted", "succeeded", "succeeded"]


def test_a_schedule_that_can_be_read_again_goes_on(desk: Desk) -> None:
    desk.add()
    for timezone in ("Europe/Atlantis", "UTC", "Europe/Atlantis"):
        desk.store._database.execute("UPDATE schedules SET timezone = ?", (timezone,))
        desk.at(TWO)
    assert desk.events() == ["unreadable", "planned", "submitted", "unreadable"]


def test_one_scheduler_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with only_scheduler(path), pytest.raises(ScheduleError, match="another scheduler is running"), only_scheduler(path):
        pass
    with only_scheduler(path):
        pass


def test_one_scheduler_a_store_by_whatever_link(tmp_path: Path) -> None:
    path, link, folder = tmp_path / "store.sqlite", tmp_path / "link.sqlite", tmp_path / "folder"
    link.symlink_to(path)
    folder.symlink_to(tmp_path)
    for other in (link, folder / "store.sqlite", folder / "link.sqlite"):
        with only_scheduler(path), pytest.raises(ScheduleError, match="another scheduler is running"), only_scheduler(other):
            pass
    link.unlink()
    link.symlink_to(link)
    with only_scheduler(link), pytest.raises(ScheduleError, match="cannot be used as the store"):
        Store(link)


def test_nothing_in_a_store_is_a_pickle(desk: Desk) -> None:
    desk.add(retries=1)
    desk.at(TWO)
    desk.store.close()
    database = sqlite3.connect(desk.store.path)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    kinds = {type(value) for table in tables for row in database.execute(f"SELECT * FROM {table}") for value in row}
    database.close()
    assert len(tables) == 4
    assert kinds <= {str, int, float, type(None)}


# A run and its end


def test_a_run_is_submitted_when_it_is_due_and_ends_as_its_job(desk: Desk) -> None:
    desk.add()
    desk.at(TWO - 1)
    assert desk.jobs.jobs == {}
    desk.at(TWO)
    desk.at(TWO + 5)
    assert desk.last().state == "running"
    desk.at(TWO + 601)
    run = desk.last()
    assert (run.state, run.started, run.ended) == ("succeeded", TWO, TWO + 600)
    (attempt,) = desk.store.attempts(run)
    assert desk.jobs.jobs[attempt.job][0] == ("archive", "/a", "/b")
    assert attempt.job.startswith("colorize-nightly-20260601T020000Z-1-")
    assert desk.events() == ["planned", "submitted", "running", "succeeded"]


@pytest.mark.parametrize(("end", "state"), [("FAILED", "failed"), ("STOPPED", "stopped")])
def test_a_run_that_does_not_succeed_says_so(desk: Desk, end: str, state: str) -> None:
    desk.add()
    desk.ends = {1: end}
    desk.at(TWO)
    desk.at(TWO + 700)
    assert desk.last().state == state
    assert desk.last().message == ("it could not be" if end == "FAILED" else "somebody stopped the job")


def test_a_failure_is_tried_again_later_and_later(desk: Desk) -> None:
    desk.add(retries=3, retry_seconds=100)
    desk.seconds = 10
    desk.ends = {1: "FAILED", 2: "FAILED", 3: "FAILED"}
    now, starts = TWO, []
    while not desk.store.history() or not desk.last().is_over:
        before = len(desk.jobs.jobs)
        desk.at(now)
        starts += [now - TWO] * (len(desk.jobs.jobs) - before)
        now += 1
    assert starts == [0, 110, 320, 730]  # after 100, 200 and 400 s
    assert [attempt.status for attempt in desk.store.attempts(desk.last())] == ["FAILED", "FAILED", "FAILED", "SUCCEEDED"]
    assert desk.last().state == "succeeded"


def test_every_attempt_has_its_own_time_in_its_command(desk: Desk) -> None:
    desk.add(command=("train", "--run", "/runs/{due}"), retries=1, retry_seconds=60)
    desk.ends = {1: "FAILED"}
    desk.at(TWO)
    desk.at(TWO + 601)
    desk.at(TWO + 662)
    assert [arguments[-1] for arguments, *_ in desk.jobs.jobs.values()] == ["/runs/20260601T020000Z-1", "/runs/20260601T020000Z-2"]


def test_what_somebody_stopped_is_not_tried_again(desk: Desk) -> None:
    desk.add(retries=3)
    desk.ends = {1: "STOPPED"}
    desk.at(TWO)
    desk.at(TWO + 700)
    desk.at(TWO + 2 * HOUR)
    assert len(desk.jobs.jobs) == 1


def test_a_new_scheduler_takes_over_what_is_under_way(desk: Desk) -> None:
    desk.add()
    desk.at(TWO)
    desk.restart()
    desk.at(TWO + 2 * HOUR)
    assert desk.history() == [("01 02:00", "succeeded")]
    assert len(desk.jobs.jobs) == 1


def test_a_submission_that_was_not_written_down_is_adopted(desk: Desk) -> None:
    desk.add()
    desk.store.plan("nightly", TWO)
    desk.now = TWO
    desk.jobs.start(("archive", "/a", "/b"), id=desk.store.job_id(desk.last()))
    desk.at(TWO + 5)
    assert "adopted" in desk.events()
    assert desk.last().state == "running"
    assert len(desk.jobs.jobs) == 1


def test_a_job_that_was_not_written_down_and_is_over_is_known_to_be_over_before_anything_is_decided(desk: Desk) -> None:
    desk.add()
    desk.store.plan("nightly", TWO)
    desk.now = TWO + 1
    desk.jobs.start(("archive", "/a", "/b"), id=desk.store.job_id(desk.last()))
    desk.at(TWO + 24 * HOUR + 5)
    assert desk.history() == [("01 02:00", "succeeded"), ("02 02:00", "submitted")]
    first = desk.store.history()[1]
    assert (first.started, first.ended) == (TWO + 1, TWO + 601)


def test_a_cluster_that_ended_takes_its_jobs_with_it(desk: Desk) -> None:
    desk.add(retries=1)
    desk.at(TWO)
    desk.jobs.jobs.clear()
    desk.at(TWO + 60)
    assert (desk.last().state, desk.last().message) == ("waiting", "Ray no longer knows the job: its cluster has ended")
    desk.at(TWO + 121)
    desk.at(TWO + 800)
    assert [attempt.status for attempt in desk.store.attempts(desk.last())] == ["LOST", "SUCCEEDED"]


# Ray is away


def test_a_due_time_waits_for_ray(desk: Desk) -> None:
    desk.add()
    desk.jobs.away = True
    asked = []
    for second in range(0, 1800, 5):
        before = len(desk.lines)
        desk.at(TWO + second)
        asked += [second] * any(event == "ray_away" for event, _ in desk.lines[before:])
    assert asked == [0, 5, 15, 35, 75, 155, 315, 615, 915, 1215, 1515]  # twice as long each time, up to 300 s
    assert AWAY_SECONDS == (5, 300)
    assert desk.last().state == "planned"
    assert desk.last().message.startswith("waits for Ray: no Ray job server")
    desk.jobs.away = False
    desk.at(TWO + 1815)
    assert desk.last().state == "submitted"
    assert desk.last().message == ""
    assert "ray_back" in desk.events()


def test_nothing_is_decided_of_a_schedule_whose_job_cannot_be_asked_for(desk: Desk) -> None:
    desk.add(cron="0 * * * *")
    desk.at(MIDNIGHT + HOUR)
    desk.jobs.away = True
    desk.at(MIDNIGHT + 2 * HOUR)
    desk.at(MIDNIGHT + 3 * HOUR)
    assert desk.history() == [("01 01:00", "submitted")]
    desk.jobs.away = False
    desk.at(MIDNIGHT + 3 * HOUR + 600)
    assert desk.history() == [("01 01:00", "succeeded"), ("01 02:00", "skipped"), ("01 03:00", "submitted")]


def test_a_submission_that_ray_refuses_is_tried_again_under_its_id(desk: Desk) -> None:
    desk.add()
    desk.jobs.refusing = True
    desk.at(TWO)
    assert desk.last().state == "planned"
    assert desk.last().message == "Ray did not take it yet: no agent is there yet"
    desk.jobs.refusing = False
    desk.at(TWO + 4)
    assert desk.jobs.jobs == {}
    desk.at(TWO + 5)
    assert desk.last().state == "submitted"
    assert desk.last().attempt == 1


def test_a_submission_that_ray_never_takes_fails(desk: Desk) -> None:
    desk.add(retries=3)
    desk.jobs.refusing = True
    for second in range(0, 3000, 5):
        desk.at(TWO + second)
    assert (desk.last().state, desk.last().message) == ("failed", "Ray did not take it: no agent is there yet")
    assert desk.events().count("refused") == REFUSALS - 1


# What was missed, and what would overlap


def test_the_last_of_the_missed_due_times_is_run(desk: Desk) -> None:
    desk.add()
    desk.at(TWO + 3 * 24 * HOUR + HOUR)
    assert desk.history() == [("01 02:00", "skipped"), ("02 02:00", "skipped"), ("03 02:00", "skipped"), ("04 02:00", "submitted")]
    assert desk.store.history()[-1].message.endswith("the run of 2026-06-04 02:00 UTC stands for it")


def test_missed_due_times_are_skipped_by_choice(desk: Desk) -> None:
    desk.add(missed="skip")
    desk.at(TWO + 24 * HOUR + HOUR)
    assert desk.history() == [("01 02:00", "skipped"), ("02 02:00", "skipped")]
    desk.at(TWO + 48 * HOUR + 100)
    assert desk.history()[-1] == ("03 02:00", "submitted")


def test_a_run_does_not_overlap_itself(desk: Desk) -> None:
    desk.add()
    desk.seconds = 30 * HOUR
    desk.at(TWO)
    desk.at(TWO + 24 * HOUR)
    assert desk.history() == [("01 02:00", "running"), ("02 02:00", "skipped")]
    assert desk.last().message == "the run of 2026-06-01 02:00 UTC was not over (running)"
    desk.at(TWO + 48 * HOUR)
    assert desk.history()[-1] == ("03 02:00", "submitted")


def test_by_choice_the_last_due_time_waits_for_the_end_of_the_run_before(desk: Desk) -> None:
    desk.add(overlap="wait")
    desk.seconds = 60 * HOUR
    for day in range(3):
        desk.at(TWO + day * 24 * HOUR)
    assert desk.history() == [("01 02:00", "running"), ("02 02:00", "skipped"), ("03 02:00", "planned")]
    assert "overtaken: the run of 2026-06-03 02:00 UTC" in desk.store.history()[1].message
    desk.at(TWO + 61 * HOUR)
    assert desk.history() == [("01 02:00", "succeeded"), ("02 02:00", "skipped"), ("03 02:00", "submitted")]


def test_a_run_that_waits_for_its_retry_is_not_over(desk: Desk) -> None:
    desk.add(retries=1, retry_seconds=6 * HOUR, cron="0 * * * *")
    desk.ends = {1: "FAILED"}
    for hour in range(1, 4):
        desk.at(MIDNIGHT + hour * HOUR)
    assert desk.history() == [("01 01:00", "waiting"), ("01 02:00", "skipped"), ("01 03:00", "skipped")]


def test_a_clock_that_goes_back_runs_nothing_twice(desk: Desk) -> None:
    desk.add()
    desk.at(TWO)
    desk.at(TWO - HOUR)
    desk.at(TWO)
    desk.at(TWO + 10)
    assert len(desk.jobs.jobs) == 1
    assert len(desk.store.history()) == 1


def a_clock_that_is_four_years_ahead(desk: Desk) -> None:
    for later in (0, 700):
        desk.at(TWO + 4 * 365 * 24 * HOUR + later)
    assert len(desk.history()) == 4 * 365 + 1


def test_what_a_clock_that_was_ahead_has_skipped_is_due_again(desk: Desk) -> None:
    desk.add()
    a_clock_that_is_four_years_ahead(desk)
    jobs = len(desk.jobs.jobs)
    for day in range(5):
        for later in (-1, 0, 700):
            desk.at(TWO + day * 24 * HOUR + later)
    assert [state for _, state in desk.history()[:5]] == ["succeeded"] * 5
    assert len(desk.history()) == 6  # and the one that was run four years ahead
    assert len(desk.jobs.jobs) == jobs + 5
    assert [told for event, told in desk.lines if event == "clock_was_ahead"] == [
        {"schedule": "nightly", "until": "2030-05-31 02:00 UTC", "due_again": 4 * 365}
    ]


def test_a_due_time_that_was_run_by_a_clock_that_was_ahead_is_not_run_again(desk: Desk) -> None:
    desk.add()
    for day in range(3):
        for later in (0, 700):
            desk.at(TWO + day * 24 * HOUR + later)
    for day in range(5):
        desk.at(TWO + day * 24 * HOUR + 5)
    assert desk.history() == [(f"0{day} 02:00", "succeeded") for day in range(1, 5)] + [("05 02:00", "submitted")]
    assert len(desk.jobs.jobs) == 5


def test_a_schedule_that_is_added_anew_after_a_clock_was_ahead_is_due(desk: Desk) -> None:
    desk.add()
    a_clock_that_is_four_years_ahead(desk)
    desk.store.remove("nightly", desk.now)
    desk.now = MIDNIGHT
    desk.add()
    desk.at(TWO)
    assert desk.history()[0] == ("01 02:00", "submitted")


@pytest.mark.parametrize("cron", ["0 2 * * *", "* * * * *", "0 0 1 1 *"])
def test_a_clock_that_stands_in_1970_changes_nothing(desk: Desk, cron: str) -> None:
    desk.add(cron=cron)
    desk.at(TWO)
    before = desk.store.history()
    for now in (0.0, 7300.0, 86400.0 * 365):
        desk.at(now)
        assert desk.store.history() == before
    desk.at(TWO + 60)
    assert len(desk.store.history()) <= len(before) + 1


def test_the_last_due_time_stands_for_the_missed_ones_also_where_it_was_run_by_hand(desk: Desk) -> None:
    desk.add()
    desk.store.begin("nightly", TWO + 48 * HOUR)
    desk.now = TWO + 48 * HOUR
    desk.runner.advance(desk.now)
    desk.at(TWO + 49 * HOUR)
    assert desk.history() == [("01 02:00", "skipped"), ("02 02:00", "skipped"), ("03 02:00", "succeeded")]
    assert len(desk.jobs.jobs) == 1


@pytest.mark.parametrize("trouble", ["away", "refusing"])
def test_a_clock_that_is_put_back_lengthens_no_wait_for_ray(desk: Desk, trouble: str) -> None:
    desk.add()
    setattr(desk.jobs, trouble, True)
    desk.at(TWO)
    setattr(desk.jobs, trouble, False)
    desk.at(TWO + 4)
    assert desk.last().state == "planned"
    desk.at(TWO - 12 * HOUR)
    assert desk.last().state == "submitted"


def test_a_retry_does_not_wait_for_as_long_as_the_clock_is_put_back(desk: Desk) -> None:
    desk.add(retries=1)
    desk.ends = {1: "FAILED"}
    desk.at(TWO)
    desk.at(TWO + 700)
    assert desk.last().state == "waiting"
    desk.at(TWO - 12 * HOUR)
    assert (desk.last().state, desk.last().attempt) == ("submitted", 2)


def test_two_processes_that_plan_at_once_plan_once(desk: Desk) -> None:
    desk.add()
    with Store(desk.store.path) as other:
        assert [run.state for run in desk.store.plan("nightly", TWO)] == ["planned"]
        assert other.plan("nightly", TWO + 1) == []
        first, second = desk.last(), other.history()[0]
        assert desk.store.submitted(first, TWO)
        assert not other.change(second, state="skipped")
    assert desk.last().state == "submitted"


# By hand


def test_pausing_leaves_due_times_out_and_resuming_does_not_make_up_for_them(desk: Desk) -> None:
    desk.add()
    assert desk.store.pause("nightly", True, MIDNIGHT)
    assert not desk.store.pause("nightly", True, MIDNIGHT)
    desk.at(TWO + 24 * HOUR)
    desk.store.pause("nightly", False, TWO + 25 * HOUR)
    desk.at(TWO + 26 * HOUR)
    assert desk.history() == []
    desk.at(TWO + 48 * HOUR)
    assert desk.history() == [("03 02:00", "submitted")]


def test_what_was_due_before_a_pause_has_its_row(desk: Desk) -> None:
    desk.add(missed="skip")
    desk.store.pause("nightly", True, TWO + HOUR)
    assert desk.history() == [("01 02:00", "skipped")]


def test_a_run_by_hand_is_a_run_and_does_not_overlap(desk: Desk) -> None:
    desk.add()
    desk.store.begin("nightly", MIDNIGHT + 10)
    desk.at(MIDNIGHT + 11)
    assert desk.last().state == "submitted"
    with pytest.raises(ScheduleError, match="its run of 2026-06-01 00:00:10 UTC is not over"):
        desk.store.begin("nightly", MIDNIGHT + 20)


def test_a_schedule_that_is_removed_leaves_its_history_and_its_job(desk: Desk) -> None:
    desk.add(retries=3)
    desk.ends = {1: "FAILED"}
    desk.at(TWO)
    assert [run.state for run in desk.store.remove("nightly", desk.now)] == ["submitted"]
    desk.at(TWO + 24 * HOUR)
    assert desk.history() == [("01 02:00", "failed")]  # and no retry
    assert len(desk.jobs.jobs) == 1


def test_what_waits_is_over_when_its_schedule_is_removed(desk: Desk) -> None:
    for name, cron in (("retry", "0 2 * * *"), ("queue", "0 * * * *")):
        desk.add(name=name, cron=cron, overlap="wait", retries=3, retry_seconds=6 * HOUR)
    desk.ends = {1: "FAILED"}
    desk.at(MIDNIGHT + HOUR)
    desk.at(TWO)
    desk.at(TWO + 700)
    assert [(run.name, run.state) for run in desk.store.open_runs()] == [("queue", "waiting"), ("queue", "planned"), ("retry", "waiting")]
    for name in ("queue", "retry"):
        assert desk.store.remove(name, desk.now) == []
    runs = [(run.name, run.state, run.message, run.ended) for run in desk.store.history()]
    reason = "it could not be; not tried again: its schedule was removed"
    assert runs == [
        ("queue", "skipped", "its schedule was removed before it began", desk.now),
        ("retry", "failed", reason, desk.now),
        ("queue", "failed", reason, desk.now),
    ]
    lines = len(desk.lines)
    desk.at(TWO + 24 * HOUR)
    assert len(desk.lines) == lines


def test_what_is_planned_waits_for_what_a_clock_that_was_ahead_has_begun(desk: Desk) -> None:
    desk.add(overlap="wait")
    desk.seconds = 4 * 365 * 24 * HOUR + 5000
    desk.at(TWO + 24 * HOUR * 3)
    for day in range(2):
        desk.at(TWO + 24 * HOUR * day)
    assert desk.history() == [("01 02:00", "skipped"), ("02 02:00", "planned"), ("04 02:00", "submitted")]
    assert len(desk.jobs.jobs) == 1


def test_a_run_whose_schedule_is_removed_before_it_begins_does_not_begin(desk: Desk) -> None:
    desk.add()
    desk.jobs.away = True
    desk.at(TWO)
    desk.store.remove("nightly", desk.now)
    desk.jobs.away = False
    desk.at(TWO + 60)
    assert desk.history() == [("01 02:00", "skipped")]
    assert desk.jobs.jobs == {}


def test_a_job_that_ray_takes_while_its_schedule_is_removed_and_found_unbegun_is_ended_and_in_the_history(desk: Desk) -> None:
    desk.add()
    take = desk.jobs.start

    def slowly(arguments: Sequence[str], *, id: str) -> str:
        with Store(desk.store.path) as other:  # colorize schedule remove --stop, meanwhile
            other.remove("nightly", desk.now)
            Runner(other, desk.jobs.connect, lambda *_, **__: None).advance(desk.now, "nightly")
        assert desk.last().state == "skipped"
        return take(arguments, id=id)

    desk.jobs.start = slowly  # type: ignore[method-assign]
    desk.at(TWO)
    desk.at(TWO + 30)
    ((job, _),) = desk.jobs.jobs.items()
    assert desk.jobs.state(job).status == "STOPPED"
    assert desk.history() == [("01 02:00", "stopped")]
    assert [attempt.job for attempt in desk.store.attempts(desk.last())] == [job]


@pytest.mark.parametrize("had_begun", [False, True])
def test_a_schedule_that_is_replaced_while_ray_is_away_loses_no_run_for_the_old_ones(desk: Desk, had_begun: bool) -> None:
    desk.add()
    desk.jobs.away = True
    desk.at(TWO)
    if had_begun:
        desk.jobs.away = False
        desk.jobs.start(("archive",), id=desk.store.job_id(desk.last()))
        desk.jobs.away = True
    desk.store.remove("nightly", desk.now)
    assert (desk.last().state, desk.last().message) == ("planned", DOUBTED)
    desk.add()
    for day in (1, 2):
        desk.at(TWO + day * 24 * HOUR)
    assert desk.history() == [("01 02:00", "planned"), ("02 02:00", "skipped"), ("03 02:00", "planned")]
    desk.jobs.away = False
    for minute in (10, 15, 20, 35):
        desk.at(TWO + 48 * HOUR + minute * 60)
    assert desk.history() == [("01 02:00", "succeeded" if had_begun else "skipped"), ("02 02:00", "skipped"), ("03 02:00", "succeeded")]
    assert len(desk.jobs.jobs) == (2 if had_begun else 1)


def test_a_submission_that_was_not_written_down_is_adopted_even_after_its_schedule_was_removed(desk: Desk) -> None:
    desk.add()
    desk.store.plan("nightly", TWO)
    desk.now = TWO
    desk.jobs.start(("archive",), id=desk.store.job_id(desk.last()))
    desk.store.remove("nightly", desk.now)
    desk.at(TWO + 5)
    desk.at(TWO + 700)
    assert desk.history() == [("01 02:00", "succeeded")]


def test_a_store_that_cannot_be_written_is_an_error_of_one_line(desk: Desk) -> None:
    desk.add()
    desk.store._database.execute("PRAGMA query_only = 1")
    with pytest.raises(ScheduleError, match=rf"{desk.store.path}: cannot be used as the store of schedules: attempt to write"):
        desk.at(TWO)
