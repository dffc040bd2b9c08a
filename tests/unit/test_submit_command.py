"""`colorize submit` and `colorize jobs` against a job server of this process: what is printed, exit codes, Ctrl-C."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colorize.cli.main import main
from colorize.errors import ClusterError
from colorize.submit import submission
from colorize.submit.wheel import Wheel
from tests.jobservers import JobServer, serving
from tests.processes import PROGRAM, environment

ARCHIVE = ["archive", "s3://in", "s3://out"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("colorize.submit.jobs.build_wheel", lambda: Wheel(name="colorize-0-py3-none-any.whl", data=b"PK"))
    with serving(JobServer()) as started:
        yield started


def ends(server: JobServer, status: str, message: str = "") -> threading.Thread:
    """Gives the next job that is submitted a log and an end."""

    def run() -> None:
        deadline = time.monotonic() + 60
        while not server.jobs and time.monotonic() < deadline:
            time.sleep(0.01)
        [id] = server.jobs
        server.logs[id] = ["9 pictures coloured\n"]
        server.jobs[id] |= {"status": status, "message": message, "end_time": 4000}

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("status", "message", "code", "complaint"),
    [
        ("SUCCEEDED", "", 0, ""),
        ("FAILED", "Job entrypoint command failed with exit code 1\ncolorize: s3://in: is empty", 1, "colorize: {id}: s3://in: is empty\n"),
        ("STOPPED", "", 130, "colorize: interrupted\n"),
    ],
)
def test_the_exit_code_is_the_jobs(
    server: JobServer, capsys: pytest.CaptureFixture[str], status: str, message: str, code: int, complaint: str
) -> None:
    thread = ends(server, status, message)
    server.wait_for_log = True
    assert main(["submit", *ARCHIVE, "--address", server.url]) == code
    thread.join()
    [id] = server.jobs
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"job {id} on {server.url}", "9 pictures coloured", f"job {id} {status} after 3 s"]
    assert told.err == complaint.format(id=id)


def test_options_may_stand_anywhere(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--no-wait", "archive", "--address", server.url, "--force", "s3://in", "--workers", "3", "s3://out"]) == 0
    [(id, job)] = server.jobs.items()
    assert capsys.readouterr().out == f"{id}\n"
    assert job["metadata"] == {"colorize_command": "colorize archive --workers 3 --force -- s3://in s3://out"}


def test_nothing_is_sent_of_a_command_that_is_wrong(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "archive", "s3://in", "--address", server.url]) == 2
    assert main(["submit", "models", "--address", server.url]) == 1
    assert (server.jobs, server.uploads) == ({}, 0)


def test_ctrl_c_leaves_the_job_alone(server: JobServer, tmp_path: Path) -> None:
    server.is_open = server.wait_for_log = True
    command = [PROGRAM, "submit", *ARCHIVE, "--address", server.url]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment("submit"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        id = program.stdout.readline().split()[1]
        server.jobs[id]["status"] = "RUNNING"
        server.logs[id] = ["first\n"]
        assert program.stdout.readline() == "first\n"
        program.send_signal(signal.SIGINT)
        rest, complaint = program.communicate(timeout=60)
    assert program.returncode == 130
    assert rest == f"the job goes on: colorize jobs log {id} --address {server.url}, colorize jobs stop {id} --address {server.url}\n"
    assert complaint == "colorize: interrupted\n"
    assert server.stopped == []


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ClusterError("no answer")], ids=["interrupt", "no answer"])
def test_a_job_that_was_taken_without_an_answer_is_known(
    trouble: BaseException, server: JobServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def submit_job(*given: Any, **job: Any) -> str:
        submission.submit_job(*given, **job)
        raise trouble

    monkeypatch.setattr("colorize.submit.jobs.submit_job", submit_job)
    code = main(["submit", "--no-wait", *ARCHIVE, "--address", server.url])
    [id] = server.jobs
    out, err = capsys.readouterr()
    if isinstance(trouble, KeyboardInterrupt):
        assert (code, out) == (130, "")
        there = f"--address {server.url}"
        told = f"if it was taken already, the job goes on: colorize jobs log {id} {there}, colorize jobs stop {id} {there}\n"
        assert err == f"{told}colorize: interrupted\n"
    else:
        assert (code, out, err) == (0, f"{id}\n", "")


def test_a_job_that_was_not_taken_is_an_error(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.refusals = ["no"]
    assert main(["submit", "--no-wait", *ARCHIVE, "--address", server.url]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), server.jobs) == ("", 1, {})


def test_jobs_are_listed(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--address", server.url]) == 0
    assert capsys.readouterr().out == "no jobs\n"
    server.add("one", "SUCCEEDED", metadata={"colorize_command": "colorize train --run /r"})
    assert main(["jobs", "--address", server.url]) == 0
    assert capsys.readouterr().out == "one  SUCCEEDED  2 s  colorize train --run /r\n"
    assert main(["jobs", "--json", "--address", server.url]) == 0
    told: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert told == [{"id": "one", "command": "colorize train --run /r", "status": "SUCCEEDED", "message": "", "started": 1.0, "ended": 3.0}]


def test_an_address_may_stand_before_what_is_done_with_a_job(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.add("one", "RUNNING")
    assert main(["jobs", "--address", server.url, "stop", "one"]) == 0
    assert server.stopped == ["one"]
    server.add("one", "SUCCEEDED")
    server.logs["one"] = ["first\n"]
    assert main(["jobs", "--address", "http://127.0.0.1:1", "log", "one", "--address", server.url]) == 0
    assert "first\n" in capsys.readouterr().out
    assert main(["jobs", "--json", "log", "one", "--address", server.url]) == 1
    assert capsys.readouterr().err == "colorize: --json: is of the list of jobs, and not of log\n"


def test_a_job_is_stopped_once(server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.add("one", "RUNNING")
    assert main(["jobs", "stop", "one", "--address", server.url]) == 0
    assert capsys.readouterr().out == "job one is to end within 60 s; what it has done is kept\n"
    server.add("one", "STOPPED")
    assert main(["jobs", "stop", "one", "--address", server.url]) == 0
    assert capsys.readouterr().out == "job one is over: STOPPED\n"
    assert server.stopped == ["one"]
