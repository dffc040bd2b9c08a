"""A Ray that is started as its users start it: `ray start --head`, with a token, on ports of its own, in folders of its own.

It is ended by its own process, never by `ray stop`, which ends every Ray of the machine.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR

from tests.processes import environment, left_behind, marked

RAY = Path(sys.executable).with_name("ray")

SECONDS = 240
"""Long enough for a machine that has much else to do."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head, and how to reach it."""

    jobs: str
    """The URL of its job server."""
    address: str
    """`host:port` of the cluster."""
    home: Path
    """A home directory with the token in it."""
    variables: dict[str, str]
    """The environment of a program that has the token."""
    session: Path


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def head(*, cpus: int = 2) -> Iterator[Head]:
    """Token authentication is on, and its job server listens on 127.0.0.1."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # a socket's path may have 107 characters: pytest's folders are too deep
    port, dashboard, client = free_ports(3)
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    mark = uuid.uuid4().hex
    variables = environment(mark) | {"HOME": str(folder), "PATH": f"{RAY.parent}:{os.environ['PATH']}"}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"):
        variables.pop(name, None)
    options = [
        "--head", "--port", str(port), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--num-cpus", str(cpus),
        "--ray-client-server-port", str(client), "--temp-dir", str(folder / "s"),
    ]  # fmt: skip
    try:
        with _node(options, variables | {"RAY_AUTH_MODE": "token"}, folder / "head.log"):
            told = (folder / "head.log").read_text()
            address = told.partition("--address='")[2].partition("'")[0]
            yield Head(
                jobs=f"http://127.0.0.1:{dashboard}", address=address, home=folder, variables=variables, session=folder / "s",
            )  # fmt: skip
        assert left_behind(mark) == []
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


BARE = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@contextlib.contextmanager
def bare_ray() -> Iterator[str]:
    """The address of a Ray that was started as Ray's own documentation says, without a token."""
    variables = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", ENABLE_RAY_CLUSTERS_ENV_VAR)}
    variables["RAY_AUTH_MODE"] = "disabled"
    command = [sys.executable, "-c", BARE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("\n", timeout=60)


@contextlib.contextmanager
def _node(options: Sequence[str], variables: dict[str, str], log: Path, before: Sequence[str] = ()) -> Iterator[None]:
    command = [*before, str(RAY), "start", "--block", "--disable-usage-stats", "--dashboard-agent-listen-port", "0", *options]
    with log.open("w") as output, subprocess.Popen(command, env=variables, stdout=output, stderr=output, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(SECONDS)
