"""`colorize schedule …` as people type it: what is printed, what is refused in which words, how it ends."""

import errno
import io
import json
import logging
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from colorize import log
from colorize.cli import schedule as command
from colorize.cli.main import main
from colorize.errors import ClusterError, ScheduleError
from colorize.schedule.process import log_line
from colorize.schedule.store import Store
from tests.schedules import MemoryJobs

ADD = ["add", "nightly", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin"]
ARCHIVE = ["--", "archive", "/mnt/scans", "/mnt/colour", "--vividness", "0.5"]


@pytest.fixture
def schedule(tmp_path: Path) -> Callable[..., int]:
    """Runs `colorize schedule` on a store of this test's."""

    def run(*arguments: str) -> int:
        name, *rest = arguments
        return main(["schedule", name, "--store", str(tmp_path / "store.sqlite"), *rest])

    return run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> MemoryJobs:
    """A job server that answers in place of Ray's; its jobs take half a second."""
    made = MemoryJobs(time.time, lambda job: (0.5, "SUCCEEDED"))
    monkeypatch.setattr(command, "_jobs", lambda address: made.connect())
    monkeypatch.setattr(command, "LOOK_SECONDS", (0.05, 0.1))
    return made


def test_a_schedule_is_added_listed_paused_resumed_and_removed(
    schedule: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "store.sqlite").close()
    assert schedule("list") == 0
    assert schedule(*ADD, "--retries", "2", "--missed", "skip", *ARCHIVE) == 0
    assert schedule("pause", "nightly") == 0
    assert schedule("pause", "nightly") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "no schedules"
    assert told[1].startswith("nightly: due 20")
    assert told[1].endswith("for the first time (Europe/Berlin)")
    assert "02:30 CE" in told[1]
    assert told[2:] == ["nightly: paused", "nightly: already paused"]

    schedule("list", "--json")
    (one,) = json.loads(capsys.readouterr().out)
    assert one["command"] == ["archive", "--vividness", "0.5", "--", "/mnt/scans", "/mnt/colour"]
    assert (one["cron"], one["timezone"], one["retries"], one["missed"], one["overlap"]) == (
        "30 2 * * *",
        "Europe/Berlin",
        2,
        "skip",
        "skip",
    )
    assert (one["paused"], one["next_due"], one["last"]) == (True, None, None)

    assert schedule("resume", "nightly") == 0
    schedule("list")
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "nightly: no longer paused"
    assert re.match(r"nightly   30 2 \* \* \*   20\d\d-\d\d-\d\d 02:30 CES?T ", told[-1])
    assert told[-1].rstrip().endswith("archive --vividness 0.5 -- /mnt/scans /mnt/colour")

    assert schedule("remove", "nightly") == 0
    assert schedule("remove", "nightly") == 1
    told = capsys.readouterr()
    assert told.out == "nightly: removed; its history stays\n"
    assert told.err == "colorize: schedule nightly: there is none of this name; there are: none\n"


def test_a_schedule_that_cannot_be_read_is_listed_and_removed(
    schedule: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(*ADD, *ARCHIVE)
    schedule("add", "weekly", "--cron", "@weekly", "--timezone", "UTC", *ARCHIVE)
    with sqlite3.connect(tmp_path / "store.sqlite") as database:
        database.execute("UPDATE schedules SET timezone = 'Europe/Atlantis' WHERE name = 'nightly'")
    database.close()
    why = "schedule nightly: cannot be read, only removed: timezone 'Europe/Atlantis': there is none of this name"
    capsys.readouterr()
    assert schedule("list") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["name", "weekly", "nightly"]
    assert re.match(rf"nightly +unreadable +{why}", told[-1])
    assert schedule("list", "--json") == 0
    weekly, nightly = json.loads(capsys.readouterr().out)
    assert (weekly["name"], nightly["name"]) == ("weekly", "nightly")
    assert nightly["unreadable"].startswith(why)
    for name in ("pause", "run"):
        assert schedule(name, "nightly") == 1
        assert capsys.readouterr().err.startswith(f"colorize: {why}")
    assert schedule("remove", "nightly") == 0
    assert schedule("list") == 0
    assert "nightly" not in capsys.readouterr().out.replace("nightly: removed", "")


def test_relative_paths_are_of_the_folder_in_which_it_was_added(
    schedule: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert schedule(*ADD, "--", "archive", "scans", "s3://bucket/colour") == 0
    with Store(tmp_path / "store.sqlite") as store:
        assert store.schedule("nightly").command == ("archive", "--", str(tmp_path / "scans"), "s3://bucket/colour")


@pytest.fixture
def move() -> Iterator[Callable[[str], None]]:
    """Puts this process into a time zone, until the test ends."""
    with pytest.MonkeyPatch.context() as patched:

        def to(zone: str) -> None:
            patched.setenv("TZ", zone)
            patched.setattr("tzlocal.unix._cache_tz_name", None)
            time.tzset()

        yield to
    time.tzset()


def test_this_machines_time_zone_is_kept_by_its_name(schedule: Callable[..., int], tmp_path: Path, move: Callable[[str], None]) -> None:
    move("America/New_York")
    assert schedule("add", "nightly", "--cron", "@daily", *ARCHIVE) == 0
    move("Asia/Tokyo")
    with Store(tmp_path / "store.sqlite") as store:
        assert store.schedule("nightly").timezone == "America/New_York"


def test_a_time_zone_without_a_name_is_not_taken_for_another(
    schedule: Callable[..., int], move: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    move("XYZ-9:17")
    assert schedule("add", "nightly", "--cron", "@daily", *ARCHIVE) == 1
    told = capsys.readouterr().err
    assert told.startswith("colorize: TZ=XYZ-9:17: timezone 'XYZ-9:17': there is none of this name; give one ")
    assert told.endswith(", with --timezone\n")
    assert schedule("add", "nightly", "--cron", "@daily", "--timezone", "Asia/Tokyo", *ARCHIVE) == 0


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("Nowhere/X", "TZ=Nowhere/X: timezone 'Nowhere/X': there is none of this name; give one "),
        ("UTC0", "TZ=UTC0: timezone 'UTC0': there is none of this name; give one "),
        ("Europe", "TZ=Europe: timezone 'Europe': is none; give a name "),
        ("/nowhere", "TZ=/nowhere: there is no such file: give a time zone with --timezone"),
    ],
)
def test_a_time_zone_that_there_is_not_is_not_taken_for_utc(
    zone: str, told: str, schedule: Callable[..., int], move: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    move(zone)
    assert schedule("add", "nightly", "--cron", "@daily", *ARCHIVE) == 1
    assert capsys.readouterr().err.startswith(f"colorize: {told}")


@pytest.mark.parametrize(("zone", "name"), [("", "UTC"), (":Asia/Tokyo", "Asia/Tokyo"), ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo")])
def test_the_ways_to_write_a_time_zone(zone: str, name: str, move: Callable[[str], None]) -> None:
    move(zone)
    assert command._local_timezone() == name


@pytest.mark.parametrize("zone", ["Europe/London", "Pacific/Auckland"])
def test_a_zone_that_differs_only_in_summer_is_not_taken_for_another(
    zone: str, move: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a container has its host's /etc/localtime, and an /etc/timezone of its own."""
    move(f"/usr/share/zoneinfo/{zone}")
    standard = min(datetime(2026, month, 1, tzinfo=ZoneInfo(zone)).strftime("%z") for month in (1, 7))
    monkeypatch.setattr("tzlocal.get_localzone_name", lambda: {"+0000": "UTC", "+1200": "Etc/GMT-12"}[standard])
    with pytest.raises(ScheduleError, match=r"^this machine's clocks go by UTC.* on 20.*, and not by .*: give one with --timezone$"):
        command._local_timezone()


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("runs", "command = 'nojson'", "schedule nightly: its run due {due} cannot be read: command 'nojson': is no list of words"),
        ("runs", "started = 9e999", "schedule nightly: its run due {due} cannot be read: started inf: is no time"),
        ("runs", "message = CAST(x'ff' AS TEXT)", "schedule nightly: its run due {due} cannot be read: message b'\\xff': is of the wrong"),
        ("attempts", "job = x'00'", "schedule nightly: attempt 1 of its run due {due} cannot be read: job b'\\x00': is of the wrong kind"),
    ],
)
def test_a_damaged_run_is_told_of_beside_the_others(
    table: str,
    change: str,
    told: str,
    schedule: Callable[..., int],
    jobs: MemoryJobs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("nightly", "weekly"):
        schedule("add", name, "--cron", "@weekly", "--timezone", "UTC", *ARCHIVE)
        assert schedule("run", name) == 0
    with sqlite3.connect(tmp_path / "store.sqlite") as database:
        ((due,),) = database.execute("SELECT due FROM runs WHERE name = 'nightly'").fetchall()
        database.execute(f"UPDATE {table} SET {change} WHERE name = 'nightly'")
    database.close()
    told = told.format(due=due)
    capsys.readouterr()
    assert schedule("history") == 0
    lines = capsys.readouterr().out.splitlines()
    (bad,) = [line for line in lines if "unreadable" in line]
    assert re.match(rf"{due} +nightly +unreadable +{re.escape(told)}", bad)
    assert any(re.search(r" weekly +succeeded ", line) for line in lines)
    assert schedule("history", "--json") == 0
    found = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert found["weekly"]["state"] == "succeeded"
    assert found["nightly"]["due"] == str(due)
    assert found["nightly"]["unreadable"].startswith(told)
    assert schedule("list") == 0
    assert " @weekly " in capsys.readouterr().out


def test_a_history_can_be_as_long_as_anybody_says(schedule: Callable[..., int], tmp_path: Path) -> None:
    Store(tmp_path / "store.sqlite").close()
    assert schedule("history", "--limit", str(10**30)) == 0


@pytest.mark.parametrize("name", ["history", "pause", "resume", "remove", "run"])
def test_a_name_that_is_no_text_is_no_schedules(
    name: str, schedule: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "store.sqlite").close()
    assert schedule(name, "\udcff") == 1
    assert capsys.readouterr().err == "colorize: ?: is not UTF-8: no schedule has such a name\n"


@pytest.mark.parametrize("parts", [["x" * 300], ["x" * 200] * 3 + ["store.sqlite"]])
def test_a_store_whose_name_is_too_long_is_an_error_of_one_line(
    parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite opens no path of more than 512 bytes."""
    path = tmp_path.joinpath(*parts)
    assert main(["schedule", *ADD, "--store", str(path), *ARCHIVE]) == 1
    assert main(["schedule", "list", "--store", str(path)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"colorize: {path}: cannot be used as the store of schedules: ")
    assert second.startswith(f"colorize: {path}: cannot be ")


def test_nothing_is_added_paused_or_resumed_by_a_clock_of_1970(
    schedule: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(*ADD, *ARCHIVE)
    capsys.readouterr()
    monkeypatch.setattr(command.time, "time", lambda: 60.0)
    told = "colorize: this machine's clock stands at 1970-01-01 00:01 UTC, before this program was written: set it first\n"
    for arguments in (["add", "often", "--cron", "* * * * *", *ARCHIVE], ["pause", "nightly"], ["resume", "nightly"]):
        assert schedule(*arguments) == 1
        assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([*ADD, "--", "serve"], 1, "serve: cannot be a job; these can: train, finetune, adapt, evaluate, archive"),
        ([*ADD, "--", "archive", "status", "/mnt/colour"], 1, "archive status"),
        ([*ADD, "--", "archive", "/a", "/b", "--dry-run"], 1, "--dry-run: writes nothing; there is nothing to schedule"),
        ([*ADD, "--", "archive", "/a", "/b", "--vividness", "7"], 1, "vividness 7.0: must lie in 0…1"),
        ([*ADD, "--", "archive", "--help"], 1, "archive --help: only prints something; there is nothing to schedule"),
        ([*ADD, "--", "archive", "/mnt/scans"], 2, "Missing argument"),
        ([*ADD, "--", "archive", "/a", "/b", "--vivid", "1"], 2, "No such option"),
        ([*ADD, "--", "archive", "/a", "/b", "--vividness", "much"], 2, "unable to parse string as a number"),
        ([*ADD, "--", "archive", "/a", "/b", "--address", "head:6379"], 1, "--address head:6379: belongs to colorize schedule start"),
        ([*ADD, "--", "train"], 1, "is there already at the second run: put {due} into it"),
        ([*ADD, "--", "train", "--run", "/r/one"], 1, "--run /r/one: is there already at the second run"),
        ([*ADD, "--", "archive", "s3://KEY:WORD@bucket/a", "/b"], 1, "word 3 of the command holds a secret"),
        ([*ADD, "--missed", "all", *ARCHIVE], 1, "missed 'all': must be run or skip"),
        (["add", "nightly", "--cron", "0 2 * *", *ARCHIVE], 1, "cron '0 2 * *': 5 fields are needed"),
        (["add", "Nightly!", "--cron", "@daily", *ARCHIVE], 1, "name 'Nightly!': small letters"),
        (["run", "nightly"], 1, "schedule nightly: there is none of this name; there are: none"),
        (["pause", "nightly"], 1, "schedule nightly: there is none of this name"),
        (["history", "nightly"], 1, "schedule nightly: there is none of this name"),
        (["remove", "nightly", "--address", "head:6379"], 1, "--address head:6379: is only used with --stop"),
    ],
)
def test_what_is_refused(
    arguments: list[str], code: int, told: str, schedule: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] != "add":
        Store(tmp_path / "store.sqlite").close()
    assert schedule(*arguments) == code
    error = capsys.readouterr().err
    assert told in " ".join(error.replace("│", " ").split())
    assert "WORD" not in error
    if code == 1:
        assert error.count("\n") == 1
    if (tmp_path / "store.sqlite").exists():
        with Store(tmp_path / "store.sqlite") as store:
            assert store.schedules() == []


@pytest.mark.parametrize(
    "command", [["list"], ["history", "x"], ["run", "x"], ["pause", "x"], ["resume", "x"], ["remove", "x"]], ids="".join
)
def test_a_named_store_that_is_not_there_is_not_made(
    command: list[str], schedule: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert schedule(*command) == 1
    store = tmp_path / "store.sqlite"
    assert capsys.readouterr().err == f"colorize: {store}: there is no such store of schedules; `colorize schedule add` makes one\n"
    assert not store.exists()


def test_a_training_gets_a_directory_of_its_own(schedule: Callable[..., int]) -> None:
    assert schedule(*ADD, "--", "train", "--run", "/r/{due}") == 0


def test_run_shows_the_log_and_ends_as_the_job_does(
    schedule: Callable[..., int], jobs: MemoryJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(*ADD, *ARCHIVE)
    capsys.readouterr()
    assert schedule("run", "nightly") == 0
    ((job, (arguments, *_)),) = jobs.jobs.items()
    assert arguments == ("archive", "--vividness", "0.5", "--", "/mnt/scans", "/mnt/colour")
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [f"submitted {job}", f"the log of {job}"]
    assert told[-1] == "succeeded"

    schedule("history", "--json")
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["name"], run["by_hand"], run["state"], run["message"]) == ("nightly", True, "succeeded", "")
    assert [(attempt["job"], attempt["status"]) for attempt in run["attempts"]] == [(job, "SUCCEEDED")]
    schedule("history")
    told = capsys.readouterr().out.splitlines()
    assert re.search(rf" \(by hand\)   nightly   succeeded   \d s    1      {job}$", told[-1])


def test_run_fails_as_the_job_does(schedule: Callable[..., int], jobs: MemoryJobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.plan = lambda job: (0.1, "FAILED")
    schedule(*ADD, *ARCHIVE)
    assert schedule("run", "nightly") == 1
    assert capsys.readouterr().err == "colorize: schedule nightly: failed: it could not be\n"


def test_run_that_is_interrupted_leaves_the_job_alone(
    schedule: Callable[..., int], jobs: MemoryJobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(job: str) -> Iterator[str]:
        yield "a line"
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", interrupted)
    schedule(*ADD, *ARCHIVE)
    assert schedule("run", "nightly") == 130
    (job,) = jobs.jobs
    told = capsys.readouterr()
    assert told.out.splitlines()[-2:] == ["a line", f"the job goes on: {job}"]
    assert told.err == "colorize: interrupted\n"
    assert jobs.stopped == {}


def test_run_begins_nothing_where_ray_does_not_answer(
    schedule: Callable[..., int], jobs: MemoryJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.away = True
    schedule(*ADD, *ARCHIVE)
    assert schedule("run", "nightly") == 1
    assert capsys.readouterr().err == "colorize: no Ray job server answers there\n"
    schedule("history")
    assert capsys.readouterr().out == "no runs\n"


@pytest.mark.parametrize("state", ["planned", "submitted", "unrecorded"])
def test_run_takes_one_that_is_not_over_to_its_end(
    state: str,
    schedule: Callable[..., int],
    jobs: MemoryJobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    began, followed = time.time(), []

    def follow(job: str) -> Iterator[str]:
        followed.append(job)
        yield "a line"

    jobs.plan = lambda job: (1000.0, "SUCCEEDED")
    jobs.clock = lambda: began + 1000 * len(followed)  # a job ends when its log is looked at
    monkeypatch.setattr(jobs, "follow", follow)
    schedule(*ADD, *ARCHIVE)
    with Store(tmp_path / "store.sqlite") as store:
        run = store.begin("nightly", time.time())
        job = store.job_id(run)
        if state != "planned":
            jobs.start(run.arguments(), id=job)
        if state == "submitted":
            store.submitted(run, time.time())
    capsys.readouterr()
    assert schedule("run", "nightly") == 0
    told = capsys.readouterr().out.splitlines()
    assert re.match(r"goes on with the run of .* \(submitted\)$", told[-3])
    assert told[-2:] == ["a line", "succeeded"]
    assert followed == [job]
    assert list(jobs.jobs) == [job]
    with Store(tmp_path / "store.sqlite") as store:
        assert [one.state for one in store.history()] == ["succeeded"]


def test_run_that_is_interrupted_before_a_retry_says_so_and_the_next_one_takes_it_up(
    schedule: Callable[..., int], jobs: MemoryJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        with Store(tmp_path / "store.sqlite") as store:
            if [one.state for one in store.open_runs()] == ["waiting"]:
                raise KeyboardInterrupt

    jobs.plan = lambda job: (0.0, "FAILED" if job.split("-")[-2] == "1" else "SUCCEEDED")
    schedule(*ADD, "--retries", "1", "--retry-delay", "1", *ARCHIVE)
    with monkeypatch.context() as patch:
        patch.setattr(command.time, "sleep", interrupt)
        assert schedule("run", "nightly") == 130
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "its attempt 2 is started by colorize schedule start, or by the next colorize schedule run nightly"
    assert "the job goes on" not in told

    assert schedule("run", "nightly") == 0
    assert re.search(r"goes on with the run of .* \(waiting\)", capsys.readouterr().out)
    with Store(tmp_path / "store.sqlite") as store:
        (run,) = store.history()
        assert (run.state, [attempt.status for attempt in store.attempts(run)]) == ("succeeded", ["FAILED", "SUCCEEDED"])


@pytest.mark.parametrize("stop", [False, True])
def test_removing_leaves_the_job_or_ends_it(
    stop: bool, schedule: Callable[..., int], jobs: MemoryJobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.plan = lambda job: (1000, "SUCCEEDED")
    schedule(*ADD, *ARCHIVE)
    with Store(tmp_path / "store.sqlite") as store:
        run = store.begin("nightly", time.time())
        store.submitted(run, time.time())
        job = store.job_id(run)
    jobs.start(run.arguments(), id=job)
    capsys.readouterr()
    assert schedule("remove", "nightly", *(["--stop"] if stop else [])) == 0
    told = capsys.readouterr().out.splitlines()
    with Store(tmp_path / "store.sqlite") as store:
        (after,) = store.history("nightly")
    if stop:
        assert jobs.state(job).status == "STOPPED"
        assert after.state == "stopped"
    else:
        assert jobs.state(job).ended is None
        assert told == ["nightly: removed; its history stays", f"its job goes on: {job}"]
        assert after.state == "submitted"


def test_a_job_that_cannot_be_stopped_keeps_its_schedule(
    schedule: Callable[..., int], jobs: MemoryJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule(*ADD, *ARCHIVE)
    with Store(tmp_path / "store.sqlite") as store:
        store.begin("nightly", time.time())

    def refuse(address: str | None) -> None:
        raise ClusterError("no Ray job server answers there")

    monkeypatch.setattr(command, "_jobs", refuse)
    assert schedule("remove", "nightly", "--stop") == 1
    with Store(tmp_path / "store.sqlite") as store:
        assert [one.name for one in store.schedules()] == ["nightly"]


def test_an_event_that_asks_for_somebody_is_an_error_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    logger = logging.getLogger(log.ROOT)
    request.addfinalizer(partial(setattr, logger, "handlers", logger.handlers))
    monkeypatch.setenv(log.VARIABLE, "json")
    log.begin()
    for event in ("failed", "ray_away", "planned"):
        log_line(event, schedule="nightly", reason="line one\nline two")
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert [(line["message"], line["level"]) for line in lines] == [("failed", "error"), ("ray_away", "warning"), ("planned", "info")]
    assert {line["reason"] for line in lines} == {"line one\nline two"}
    assert not out


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["people", "programs"])
def test_an_output_on_a_full_disk_is_an_error_of_one_line(json: list[str], tmp_path: Path) -> None:
    Store(tmp_path / "store.sqlite").close()
    command = [sys.executable, "-m", "colorize.cli.job", "schedule", "list", "--store", tmp_path / "store.sqlite", *json]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    told = r"colorize: standard output.* cannot be written: No space left on device: make room\n"
    assert re.fullmatch(told, done.stderr), done.stderr
    assert done.returncode == 1


def test_a_log_on_a_full_disk_ends_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        reason = errno.ENOSPC

        def flush(self) -> None:
            raise OSError(self.reason, "told by the system")

    monkeypatch.setattr("sys.stdout", Full())
    log_line("started")
    monkeypatch.setattr(Full, "reason", errno.EPIPE)
    with pytest.raises(BrokenPipeError):  # nobody reads it any more
        log_line("ended")


def test_an_event_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    log_line("failed", schedule="nightly", reason='line one\nline "two" \\', empty="")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split(" ", 1)[1] == 'failed schedule=nightly reason="line one?line \\"two\\" \\\\" empty=""'
