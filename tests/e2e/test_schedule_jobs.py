"""Schedules on a Ray that asks for a token: a scheduler that is killed while its job runs, and a run by hand that fails."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorize.schedule.plan import Schedule
from colorize.schedule.store import Store
from tests.heads import Head, head
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    with head() as started:
        yield started


def test_a_job_whose_scheduler_is_killed_runs_once_and_its_end_is_known(ray_head: Head, tmp_path: Path) -> None:
    store, source, target = tmp_path / "store.sqlite", tmp_path / "scans", tmp_path / "colour"
    source.mkdir()
    for number in range(2):
        (source / f"{number}.png").write_bytes(encoded(grey_scene(40 + number, 48), "PNG"))
    words = ("archive", "--model", "cifar10", "--workers", "1", "--", str(source), str(target))
    with Store(store) as opened:  # due three times in the hours before
        opened.add(Schedule(name="hourly", cron="0 * * * *", timezone="UTC", command=words), time.time() - 3 * 3600)
    start = [PROGRAM, "schedule", "start", "--store", store, "--address", ray_head.jobs]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True, env=ray_head.variables) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.split()[1] == "submitted":
                first.send_signal(signal.SIGKILL)
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True, env=ray_head.variables) as second:
        assert second.stdout is not None
        for line in second.stdout:
            if line.split()[1] in ("succeeded", "failed"):
                second.terminate()
    assert second.returncode == 0

    with Store(store) as opened:
        *skipped, run = reversed(opened.history())
        (attempt,) = opened.attempts(run)
    assert [one.state for one in skipped] == ["skipped"] * 2
    assert (run.state, attempt.status, run.message) == ("succeeded", "SUCCEEDED", "")
    listed = subprocess.run(
        [PROGRAM, "jobs", "--json", "--address", ray_head.jobs], env=ray_head.variables, capture_output=True, text=True, check=True
    )
    assert [job["id"] for job in json.loads(listed.stdout)] == [attempt.job]
    assert {path.name for path in target.glob("*.png")} == {"0.png", "1.png"}


def test_a_run_by_hand_ends_as_its_job_does(ray_head: Head, tmp_path: Path) -> None:
    store, source = tmp_path / "store.sqlite", tmp_path / "missing"
    with Store(store) as opened:
        words = ("archive", "--", str(source), str(tmp_path / "colour"))
        opened.add(Schedule(name="nightly", cron="0 2 * * *", timezone="UTC", command=words), time.time())
    run = [PROGRAM, "schedule", "run", "nightly", "--store", store, "--address", ray_head.jobs]
    done = subprocess.run(run, check=False, capture_output=True, text=True, env=ray_head.variables)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"colorize: schedule nightly: failed: {source}")
    with Store(store) as opened:
        (row,) = opened.history()
    assert (row.by_hand, row.state) == (True, "failed")
    assert row.message.startswith(str(source))
