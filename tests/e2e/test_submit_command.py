"""`colorize submit` and `colorize jobs` on a Ray that asks for a token, and `jobs/` by Ray's own `ray job submit`."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.heads import RAY, Head, head
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SECONDS = 600

SMALL = ("--data", "cifar10-sample", "--limit", "128", "--width", "8", "--depth", "1", "--workers", "1")
"""A training of seconds."""


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    with head() as started:
        yield started


def run(ray_head: Head, *arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`colorize …` with the cluster's token and address."""
    return subprocess.run(
        [PROGRAM, *arguments, "--address", ray_head.jobs], cwd=cwd, env=ray_head.variables | variables, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip


def jobs(ray_head: Head, cwd: Path) -> list[dict[str, Any]]:
    listed = run(ray_head, "jobs", "--json", cwd=cwd)
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def archive_of(folder: Path, pictures: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(pictures):
        (folder / f"{number}.png").write_bytes(encoded(grey_scene(40 + number, 48), "PNG"))
    return folder


def test_a_training_is_followed_to_its_end(ray_head: Head, tmp_path: Path) -> None:
    done = run(ray_head, "submit", "train", *SMALL, "--epochs", "1", "--run", "one", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    id = done.stdout.splitlines()[0].split()[1]
    assert "epoch 1/1" in done.stdout
    assert f"job {id} SUCCEEDED" in done.stdout
    assert "Running entrypoint" not in done.stdout
    assert (tmp_path / "one" / "model.safetensors").is_file()
    entry = next(job for job in jobs(ray_head, tmp_path) if job["id"] == id)
    assert entry["status"] == "SUCCEEDED"
    assert entry["command"].startswith("colorize train --data cifar10-sample --epochs 1 ")
    assert entry["started"] < entry["ended"]


def test_an_archive_is_coloured_on_the_cluster_and_the_program_is_uploaded_once(ray_head: Head, tmp_path: Path) -> None:
    archive_of(tmp_path / "scans")
    done = run(ray_head, "submit", "archive", "scans", "colour", "--model", "cifar10", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "colour").glob("*.png")} == {"0.png", "1.png", "2.png"}
    packages = ray_head.session / "session_latest" / "runtime_resources" / "working_dir_files"
    assert len([folder for folder in packages.iterdir() if folder.is_dir()]) == 1


def test_a_job_that_fails_says_why(ray_head: Head, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(ray_head, "submit", "train", "--data", "folder:empty", "--run", "one", cwd=tmp_path)
    assert done.returncode == 1
    [complaint] = done.stderr.splitlines()
    assert complaint.startswith("colorize: train-")
    assert str(tmp_path / "empty") in complaint
    assert not (tmp_path / "one").exists()


def test_a_path_that_is_not_there_is_told_before_the_work_starts(ray_head: Head, tmp_path: Path) -> None:
    done = run(ray_head, "submit", "archive", "missing", "colour", cwd=tmp_path)
    assert done.returncode == 1
    [complaint] = done.stderr.splitlines()
    assert f"{tmp_path / 'missing'}: node " in complaint
    assert complaint.endswith("cannot see it: give a folder that every node shares, or a URL")
    assert not (tmp_path / "colour").exists()


def test_ctrl_c_leaves_the_job_alone_and_stop_ends_it(ray_head: Head, tmp_path: Path) -> None:
    command = [PROGRAM, "submit", "train", *SMALL, "--epochs", "100000", "--run", "long", "--address", ray_head.jobs]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ray_head.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        id = program.stdout.readline().split()[1]
        told = []
        for line in program.stdout:
            told.append(line)
            if line.startswith("epoch 1/"):
                break
        else:
            assert program.stderr
            pytest.fail(f"the job ended before its first epoch did:\n{''.join(told)}{program.stderr.read()}")
        program.send_signal(signal.SIGINT)
        rest, complaint = program.communicate(timeout=SECONDS)
    assert program.returncode == 130
    assert f"the job goes on: colorize jobs log {id} --address {ray_head.jobs}, colorize jobs stop {id}" in rest
    assert complaint == "colorize: interrupted\n"
    assert {job["id"]: job["status"] for job in jobs(ray_head, tmp_path)}[id] == "RUNNING"

    stopped = run(ray_head, "jobs", "stop", id, cwd=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    log = run(ray_head, "jobs", "log", id, cwd=tmp_path)
    assert log.returncode == 130
    assert "epoch 1/100000" in log.stdout
    assert f"job {id} STOPPED" in log.stdout
    assert run(ray_head, "jobs", "stop", id, cwd=tmp_path).stdout == f"job {id} is over: STOPPED\n"
    assert (tmp_path / "long" / "ray").is_dir()  # its checkpoints


def test_no_wait_gives_the_id_alone(ray_head: Head, tmp_path: Path) -> None:
    archive_of(tmp_path / "scans", 1)
    done = run(ray_head, "submit", "archive", "scans", "colour", "--model", "cifar10", "--no-wait", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert run(ray_head, "jobs", "log", done.stdout.strip(), cwd=tmp_path).returncode == 0
    assert (tmp_path / "colour" / "0.png").is_file()


@pytest.mark.parametrize("command", ["log", "stop"])
def test_an_unknown_job_is_an_error(ray_head: Head, command: str, tmp_path: Path) -> None:
    done = run(ray_head, "jobs", command, "train-x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"colorize: train-x: there is no such job on {ray_head.jobs}; colorize jobs lists them\n"


def test_a_wrong_token_is_an_error(ray_head: Head, tmp_path: Path) -> None:
    done = run(ray_head, "jobs", cwd=tmp_path, RAY_AUTH_TOKEN="0" * 64)
    assert done.returncode == 1
    [complaint] = done.stderr.splitlines()
    assert complaint.startswith(f"colorize: {ray_head.jobs}: this Ray has another token than this machine")


def test_a_missing_token_is_an_error(ray_head: Head, tmp_path: Path) -> None:
    done = run(ray_head, "submit", "train", *SMALL, cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 1
    [complaint] = done.stderr.splitlines()
    assert complaint.startswith(f"colorize: {ray_head.jobs}: this Ray asks for a token, and this machine has none")


def test_rays_own_job_submit_runs_what_is_in_jobs(ray_head: Head, tmp_path: Path) -> None:
    """`ray job submit --working-dir . -- python -m jobs.evaluate …` from the checkout; a relative path is an error there."""
    command = [str(RAY), "job", "submit", "--address", ray_head.jobs, "--working-dir", str(ROOT), "--", "python", "-m"]
    path = f"{RAY.parent}:{ray_head.variables['PATH']}"
    variables = ray_head.variables | {"PATH": path, "RAY_AUTH_MODE": "token"}
    scores = tmp_path / "scores.json"
    done = subprocess.run(
        [*command, "jobs.evaluate", "cifar10", "--limit", "20", "--json", str(scores)],
        env=variables, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(scores.read_text())["pictures"] == 20
    refused = subprocess.run(
        [*command, "jobs.train", "--run", "runs/one"], env=variables, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "colorize: --run runs/one: a job needs an absolute path or a URL" in refused.stdout + refused.stderr
