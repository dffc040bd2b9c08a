"""Joining and starting Ray, in processes of their own where the session's Ray would be in the way."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from colorize.cluster import ClusterInfo, connect, current, require
from colorize.errors import ClusterError
from tests.heads import bare_ray

pytestmark = pytest.mark.ray


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    # The session's Ray, which asks for a token, has said so in this process's environment.
    inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(session: str) -> list[int]:
    """The processes whose command line names a Ray session folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it ended while we were looking
            if session in command:
                found.append(int(entry.name))
    return found


def test_info(ray_cluster: ClusterInfo) -> None:
    assert (ray_cluster.cpus, ray_cluster.gpus, ray_cluster.nodes, ray_cluster.started_here) == (2, 0, 1, True)
    assert ray_cluster.memory_bytes > 1e9
    memory = f"{ray_cluster.memory_bytes / 1e9:.1f} GB memory"
    assert ray_cluster.describe() == f"Ray {ray.__version__}: started here, 2 CPUs, 0 GPUs, {memory}"


def test_describe_a_large_one() -> None:
    info = ClusterInfo(cpus=64, gpus=1, memory_bytes=256_000_000_000, nodes=4, address="10.0.0.1:6379", started_here=False)
    assert info.describe() == f"Ray {ray.__version__}: joined at 10.0.0.1:6379, 4 nodes, 64 CPUs, 1 GPU, 256.0 GB memory"


@pytest.mark.parametrize(
    ("what", "cpus", "gpus", "workers", "message"),
    [
        ("99 workers", 99, 0, 99, "99 workers need 99 CPUs, the cluster has 2: use --workers 2 or fewer"),
        ("2 workers", 4, 0, 2, "2 workers need 4 CPUs, the cluster has 2: use --workers 1"),
        ("2 workers", 2, 2, 2, "2 workers need 2 GPUs, the cluster has 0: join a larger one"),
        ("1 worker", 0, 1, None, "1 worker needs 1 GPU, the cluster has 0: join a larger one"),
        ("3 replicas", 2.5, 0, None, "3 replicas need 2.5 CPUs, the cluster has 2: join a larger one"),
    ],
)
@pytest.mark.usefixtures("ray_cluster")
def test_too_few_resources(what: str, cpus: float, gpus: int, workers: int | None, message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        require(cpus=cpus, gpus=gpus, what=what, option="--workers" if workers else None, count=workers)
    assert str(caught.value) == message


def test_enough_resources(ray_cluster: ClusterInfo) -> None:
    require(cpus=2, what="2 workers", option="--workers", count=2)


def test_a_connection_is_used_and_left_open(ray_cluster: ClusterInfo) -> None:
    with connect("127.0.0.1:1") as info:
        assert info == ray_cluster
    assert ray.is_initialized()
    assert current() == ray_cluster


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


def test_dead_addresses(silent_port: int) -> None:
    script = f"""
import os
from colorize.cluster import connect, current
from colorize.errors import ClusterError
from tests.heads import bare_ray

def show(enter):
    try:
        enter()
    except ClusterError as error:
        print(error)

show(current)
for address in ("127.0.0.1:1", "nonsense", "host:0", "127.0.0.1:{silent_port}"):
    show(lambda: connect(address).__enter__())
os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
show(lambda: connect().__enter__())
"""
    output, errors = start(script).communicate(timeout=120)
    lines = output.splitlines()
    assert errors == ""
    assert lines[0].startswith("not connected to Ray")
    assert lines[1].startswith("127.0.0.1:1: no Ray cluster answers there (Connection refused): start one with")
    assert lines[2] == "nonsense: not a Ray address: give host:port, ray://host:port or auto"
    assert lines[3].startswith("host:0: not a Ray address")
    assert lines[4].startswith(f"127.0.0.1:{silent_port}: what answers there is not a Ray cluster")
    assert lines[5].startswith("127.0.0.1:1 (from RAY_ADDRESS): no Ray cluster answers there")
    assert len(lines) == 6


SITTING = """
import pathlib, sys, time
import ray
from colorize.cluster import connect

with connect(num_cpus=1) as info:
    session = pathlib.Path(ray._private.worker._global_node.get_session_dir_path()).name
    print(info.describe(), session, info.address, sep="\\n", flush=True)
    assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    print("working", flush=True)
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


def read_sitting(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(4)]
    assert lines[3] == "working"
    assert "started here, 1 CPU, 0 GPUs" in lines[0]
    return lines[1], lines[2]


@pytest.mark.slow
def test_what_is_started_is_shut_down_and_says_nothing() -> None:
    process = start(SITTING)
    session, address = read_sitting(process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""
    assert address.startswith("127.0.0.1:")
    assert processes_of(session) == []


@pytest.mark.slow
def test_a_machine_with_a_token_works_on_a_ray_that_asks_for_none(tmp_path: Path) -> None:
    """Were it shown, this machine's process would ask for one itself, and wait for ever for workers that have none."""
    (tmp_path / "auth_token").write_text("0" * 64)
    work = """
import ray
from colorize import cluster

@ray.remote(num_returns="streaming")
def items():  # each comes by a call of the worker's, as all of Ray Data's blocks do
    yield 42

with cluster.connect():
    ready, _ = ray.wait([items.remote()], timeout=60)
    print(*[ray.get(next(one)) for one in ready])
"""
    with bare_ray() as address:
        process = start(work, RAY_ADDRESS=address, RAY_AUTH_TOKEN_PATH=str(tmp_path / "auth_token"))
        told, errors = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, "42\n"), errors


@pytest.mark.slow
def test_ray_data_adds_nothing_to_stderr_and_nothing_of_it_is_lost() -> None:
    pool = """
    class Same:
        def __call__(self, batch):
            return batch

    os.write(2, b"before, by the descriptor\\n")
    numbers = ray.data.range(4, override_num_blocks=1)
    assert numbers.map_batches(Same, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1).count() == 4
    print("then, by Python", file=sys.stderr)
print("after", file=sys.stderr)
"""
    body = SITTING[: SITTING.index("    time.sleep")] + pool
    process = start(f"import os, ray.data\n{body}")
    read_sitting(process)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors == "before, by the descriptor\nthen, by Python\nafter\n"


def test_ctrl_c_leaves_no_process_behind() -> None:
    process = start(SITTING.replace("float(sys.argv[1]) if len(sys.argv) > 1 else 0", "600"))
    session, _ = read_sitting(process)
    assert processes_of(session)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (1, -signal.SIGINT)
    assert processes_of(session) == []
