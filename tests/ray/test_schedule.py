"""Schedules on a real Ray: a scheduler that is killed while its job runs, and a run by hand that fails."""

import itertools
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import ray

from colorize.cluster import ClusterInfo
from colorize.schedule.plan import Schedule
from colorize.schedule.store import Store
from colorize.submit.jobs import JobClient
from tests.processes import PROGRAM

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "colorize" / "sample" / "archive"


@pytest.fixture
def address(ray_cluster: ClusterInfo) -> str:
    return f"http://{ray.get_dashboard_url()}"


def test_a_job_whose_scheduler_is_killed_runs_once_and_its_end_is_known(address: str, tmp_path: Path) -> None:
    store, source, target = tmp_path / "store.sqlite", tmp_path / "scans", tmp_path / "colour"
    source.mkdir()
    for picture in itertools.islice(sorted(SAMPLE.rglob("*.jpg")), 2):
        shutil.copy(picture, source)
    words = ("archive", str(source), str(target), "--workers", "1")
    with Store(store) as opened:  # due some hours ago, several times
        opened.add(Schedule(name="hourly", cron="0 * * * *", timezone="UTC", command=words), time.time() - 3 * 3600)
    start = [PROGRAM, "schedule", "start", "--store", store, "--address", address]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.split()[1] == "submitted":
                first.send_signal(signal.SIGKILL)
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as second:
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
    assert [job.id for job in JobClient(address).list() if job.id.startswith("colorize-hourly-")] == [attempt.job]
    assert sorted(path.name for path in target.glob("*.jpg")) == sorted(path.name for path in source.iterdir())


def test_a_run_by_hand_ends_as_its_job_does(address: str, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    words = ("archive", str(tmp_path / "missing"), str(tmp_path / "colour"))
    with Store(store) as opened:
        opened.add(Schedule(name="nightly", cron="0 2 * * *", timezone="UTC", command=words), time.time())
    run = [PROGRAM, "schedule", "run", "nightly", "--store", store, "--address", address]
    done = subprocess.run(run, check=False, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "missing" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("colorize: schedule nightly: failed: ")
    with Store(store) as opened:
        (row,) = opened.history()
    assert (row.by_hand, row.state) == (True, "failed")
    assert "missing" in row.message
