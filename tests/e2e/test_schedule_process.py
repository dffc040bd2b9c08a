"""The scheduler as a process: stopped, killed at any moment, started twice, and what its store and the job server say afterwards."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from colorize.schedule.plan import Schedule
from colorize.schedule.store import Store
from tests.processes import PROGRAM
from tests.scheduler_process import fast_clock
from tests.schedules import due_minute_by_minute

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BEGAN = datetime(2026, 10, 24, 22, 2, tzinfo=UTC).timestamp()
SPEED = 1800.0
"""Half an hour of the scheduler's clock a second."""


def test_a_signal_ends_it_in_order_and_a_second_one_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    add = [PROGRAM, "schedule", "add", "nightly", "--cron", "0 2 1 1 *", "--store", store, "--", "archive", "/a", "/b"]
    subprocess.run(add, check=True, capture_output=True)
    with subprocess.Popen([PROGRAM, "schedule", "start", "--store", store], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split(" ", 1)[1] == f"started store={store}\n"
        second = subprocess.run([PROGRAM, "schedule", "start", "--store", store], check=False, capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.startswith(f"colorize: {store}: another scheduler is running on this store")
        process.terminate()
        assert process.stdout.read().split(" ", 1)[1] == "ended\n"
    assert process.returncode == 0


@pytest.mark.parametrize("later", [0.0, 0.002, 0.005, 0.01, 0.02])
def test_an_interrupt_just_after_the_start_is_not_lost(later: float, tmp_path: Path) -> None:
    command = [PROGRAM, "schedule", "start", "--store", tmp_path / "store.sqlite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(later)
        process.terminate()
        try:
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_its_events_are_json_where_that_is_asked_for(tmp_path: Path) -> None:
    command, environment = [PROGRAM, "schedule", "start", "--store", tmp_path / "store.sqlite"], os.environ | {"COLORIZE_LOG": "json"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        process.terminate()
        out, err = process.communicate()
    assert (out, process.returncode) == ("", 0)
    assert (first["stage"], first["level"], first["message"], first["store"]) == ("schedule", "info", "started", str(command[-1]))
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["ended"]


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_due_time_and_doubles_none(tmp_path: Path) -> None:
    chance = random.Random(7)
    store, folder = tmp_path / "store.sqlite", tmp_path / "jobs"
    folder.mkdir()
    began_real = time.time()
    (folder / "began").write_text(repr(began_real))
    schedules = [
        Schedule(name="often", cron="*/10 * * * *", timezone="Europe/Berlin", command=("archive", "/a", "/b"), retries=1),
        Schedule(name="waits", cron="*/15 * * * *", timezone="UTC", command=("train",), overlap="wait", missed="skip"),
    ]
    with Store(store) as opened:
        for schedule in schedules:
            opened.add(schedule, BEGAN)

    command = [sys.executable, "-m", "tests.scheduler_process", store, folder, str(BEGAN), str(SPEED)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    lines: list[str] = []
    for _ in range(12):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
            assert process.stdout is not None
            lines.append(process.stdout.readline())
            time.sleep(chance.uniform(0, 1.2))
            process.kill()
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process, Store(store) as opened:
        ended = fast_clock(began_real, BEGAN, SPEED)
        for schedule in schedules:
            opened.pause(schedule.name, True, ended)
        while opened.open_runs():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        lines += process.communicate()[0].splitlines()
    assert process.returncode == 0

    with Store(store) as opened:
        runs = opened.history()
        attempts = [attempt for run in runs for attempt in opened.attempts(run)]
    for schedule, rule in zip(schedules, (10, 15), strict=True):
        expected = due_minute_by_minute(lambda wall, rule=rule: wall.minute % rule == 0, True, ZoneInfo(schedule.timezone), BEGAN, ended)
        assert sorted(run.due for run in runs if run.name == schedule.name) == expected
    jobs = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert Counter(attempt.job for attempt in attempts) == Counter(jobs.keys())
    assert {attempt.job: attempt.status for attempt in attempts} == {job: told["status"] for job, told in jobs.items()}
    for schedule in schedules:
        times = sorted((told["started"], told["ends"]) for job, told in jobs.items() if job.split("-")[1] == schedule.name)
        assert all(one[1] <= following[0] for one, following in itertools.pairwise(times))
    asked = Counter((folder / "asked").read_text().split())
    adopted = [line for line in lines if line.split()[1:2] == ["adopted"]]
    assert set(asked) == set(jobs)
    assert len(runs) > 20
    print(f"\n12 kills: {len(runs)} due, {len(jobs)} jobs, {asked.total() - len(jobs)} asked for again, {len(adopted)} adopted")
