"""`colorize serve` as its users run it: a process, its line, its signals, and nothing left behind."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
import warnings
from collections.abc import Iterator

import pytest

from colorize.cli.main import main
from colorize.imaging.picture import read_picture
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM, environment, left_behind, marked

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    import ray.serve  # noqa: F401

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SECONDS = 400
"""Long enough for a machine that has much else to do."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """`colorize serve` in a process group of its own, as a terminal starts it."""

    def __init__(self, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [PROGRAM, "serve", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment(self.mark),
        )  # fmt: skip
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def line_with(self, start: str) -> str:
        """The next line with this start; the test fails with all lines when the program ends before."""
        deadline = time.monotonic() + SECONDS
        while (line := self._queue.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            self.lines.append(line)
            if line.startswith(start):
                return line
        raise AssertionError(f"no line starts with {start!r}: {self.lines}")

    def close(self) -> None:
        for pid in marked(self.mark):  # those that this test started, and only where it failed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    program = Program("--port", str(free_port()))
    try:
        yield program
    finally:
        program.close()


@pytest.mark.parametrize("stop", ["Ctrl-C in the terminal", pytest.param("a supervisor's SIGTERM", marks=pytest.mark.slow)])
def test_it_says_when_it_is_ready_answers_and_ends_clean(program: Program, stop: str) -> None:
    url = program.line_with("Ready: http://127.0.0.1:").split()[1]
    with urllib.request.urlopen(f"{url}/healthz", timeout=SECONDS) as response:
        assert json.load(response)["status"] == "ok"
    request = urllib.request.Request(f"{url}/v1/colorize", data=encoded(grey_scene(90, 120), "JPEG"), method="POST")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        assert read_picture(response.read()).pixels.shape == (90, 120, 3)

    if stop.startswith("Ctrl-C"):
        os.killpg(program.process.pid, signal.SIGINT)
    else:
        program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(timeout=SECONDS) == 0
    assert left_behind(program.mark) == []
    with pytest.raises(AssertionError, match="no line starts"):
        program.line_with("no such line")
    assert [line.split(":")[0] for line in program.lines] == [program.lines[0].split(":")[0], "Ready", "stopping"]
    assert program.lines[0].startswith("Ray ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "no/such/model"], "colorize: no/such/model: no such model"),
        (["--host", "0.0.0.0"], "colorize: --host 0.0.0.0: others can reach it, so API keys are needed: set COLORIZE_API_KEYS"),
        (["--host", "here"], "colorize: --host here: must be an IP address"),
        (["--models", "no/such/folder"], "colorize: --models no/such/folder: is no folder"),
        (["--port", "0"], "colorize: --port 0: must lie in 1…65535"),
        (["--port", "{busy}"], "colorize: port {busy} of 127.0.0.1: address already in use: choose another with --port"),
        (["--address", "127.0.0.1:1"], "colorize: 127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_what_cannot_start_is_one_line(
    arguments: list[str], complaint: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        busy = str(other.getsockname()[1])
        code = main(["serve", *(argument.format(busy=busy) for argument in arguments)])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith(complaint.format(busy=busy))
    assert err.count("\n") == 1
