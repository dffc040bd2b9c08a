"""Training on several nodes that die and come, each in a network namespace of its own: it goes on by itself and ends as well as ever.

All runs here have one seed; how well a run ends is its best PSNR, on the same 500 pictures, beside that of a run that nothing disturbed.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nodes import Nodes, cluster
from tests.processes import PROGRAM

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 6
SETTINGS = ("--data", "cifar10-sample", "--width", 8, "--depth", 2, "--epochs", EPOCHS, "--seed", 3)
CLOSE_DB = 0.1
NOTICE_SECONDS = 10
"""Clouds give 30 to 120."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes of one CPU; what a test kills it starts again."""
    with cluster(2) as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _whole_again(nodes: Nodes) -> Iterator[None]:
    yield
    for node in nodes.nodes[1:]:
        if not nodes.processes(node, b"raylet"):
            nodes.start_ray(node)


def start(nodes: Nodes, *options: object) -> subprocess.Popen[str]:
    return nodes.start(PROGRAM, "train", *options, stderr=subprocess.DEVNULL)  # where Ray tells of nodes that it has lost


def watch(run: subprocess.Popen[str], acts: dict[str, Callable[[], object]]) -> list[str]:
    """The lines of a run to its end; of each act, which is done once, when a line first starts so."""
    assert run.stdout is not None
    lines, left = [], dict(acts)
    with run:
        for line in run.stdout:
            lines.append(line.rstrip("\n"))
            for beginning in [one for one in left if line.startswith(one)]:
                left.pop(beginning)()
    assert not left, lines
    return lines


def history(run: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((run / "history.json").read_text())
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    return rows


def psnr(run: Path) -> float:
    return max(row["psnr"] for row in history(run))


@pytest.fixture(scope="module")
def undisturbed(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> float:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    program = start(nodes, *SETTINGS, "--workers", 2, "--run", run)
    lines = watch(program, {})
    assert program.returncode == 0, lines
    assert not [line for line in lines if "again" in line or "damaged" in line]
    return psnr(run)


def test_a_killed_worker_and_a_killed_node(nodes: Nodes, undisturbed: float, tmp_path: Path) -> None:
    """First a worker, then the whole node that it is on: the run goes on with two, then with the one that is left."""

    def kill_worker() -> None:
        (worker,) = nodes.processes(nodes.nodes[1], b"RayTrainWorker")
        os.kill(worker, signal.SIGKILL)

    program = start(nodes, *SETTINGS, "--workers", 2, "--run", tmp_path / "run")
    lines = watch(program, {"epoch 1/": kill_worker, "epoch 4/": lambda: nodes.kill(nodes.nodes[1])})
    assert program.returncode == 0, lines
    started = [line for line in lines if line.startswith("started again with ")]
    assert started[0].startswith("started again with 2 workers, from epoch "), lines
    assert started[-1].startswith("started again with 1 worker, from epoch "), lines
    assert psnr(tmp_path / "run") == pytest.approx(undisturbed, abs=CLOSE_DB)


def test_a_node_that_is_taken_away_with_notice(nodes: Nodes, undisturbed: float, tmp_path: Path) -> None:
    """As spot nodes are: the cluster is told, and some seconds later the node is gone. The run goes on with the one that is left."""
    node = nodes.nodes[1]
    gone = threading.Timer(NOTICE_SECONDS, nodes.kill, [node])

    def take_away() -> None:
        nodes.drain(node, NOTICE_SECONDS)
        gone.start()

    program = start(nodes, *SETTINGS, "--workers", 2, "--run", tmp_path / "run")
    lines = watch(program, {"epoch 2/": take_away})
    gone.join()
    assert program.returncode == 0, lines
    started = [line for line in lines if line.startswith("started again with ")]
    assert started[-1].startswith("started again with 1 worker, from epoch "), lines
    assert psnr(tmp_path / "run") == pytest.approx(undisturbed, abs=CLOSE_DB)


def test_a_killed_driver_and_a_damaged_checkpoint(nodes: Nodes, undisturbed: float, tmp_path: Path) -> None:
    """Killed after epoch 3, whose checkpoint then loses a bit: the run goes on from the one before it, and says so."""
    run = tmp_path / "run"
    program = start(nodes, *SETTINGS, "--workers", 2, "--run", run)

    def kill() -> None:
        os.killpg(program.pid, signal.SIGKILL)

    watch(program, {"epoch 3/": kill})
    assert program.returncode == -signal.SIGKILL
    ends(nodes)
    newest = max(path.parent for path in (run / "ray").glob("checkpoint_0*/SHA256SUMS"))
    epoch = json.loads((newest / "state.json").read_text())["epoch"]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    (run / "ray" / "checkpoint_manager_snapshot.json").write_text('{"ray_version": "2.6')  # Ray's own notes, cut as it was killed
    program = start(nodes, "--resume", run)
    lines = watch(program, {})
    assert program.returncode == 0, lines
    said = f"{newest}: damaged (state.safetensors has changed since it was written): the checkpoint before it is used"
    assert said in lines, lines
    assert next(line for line in lines if line.startswith("epoch ")).startswith(f"epoch {epoch}/")
    assert psnr(run) == pytest.approx(undisturbed, abs=CLOSE_DB)


def ends(nodes: Nodes, seconds: float = 120) -> None:
    """Waits until the killed driver's workers are gone."""
    deadline = time.monotonic() + seconds
    while any(nodes.processes(node, b"RayTrainWorker") for node in nodes.nodes):
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError):
            time.sleep(0.2)


def test_workers_that_join_later(nodes: Nodes, tmp_path: Path) -> None:
    """`--workers 1-2` starts on the one node that there is and uses the other one when it comes."""
    nodes.kill(nodes.nodes[1])
    program = start(nodes, *SETTINGS[:6], "--epochs", 60, "--workers", "1-2", "--run", tmp_path / "run")

    def enough() -> None:
        os.killpg(program.pid, signal.SIGINT)

    lines = watch(program, {"epoch 1/": lambda: nodes.start_ray(nodes.nodes[1]), "started again with 2 workers": enough})
    assert [line for line in lines if line.startswith("started again with 2 workers, from epoch ")], lines
    ends(nodes)
