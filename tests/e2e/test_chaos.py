"""Twenty random kills over a training run, a bulk run and a service on three nodes, from one seed: nothing is lost, every run ends right.

Each run gets its share of them: of workers (which are Ray's actors), of whole nodes, and of the program that drives it. A node that was
killed is started again, as an autoscaler or a person would; a program that was killed is started again by the same command, or `--resume`.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorize.model.colormodel import load_model
from tests.archives import check_whole, colored_in_one_block, make_scans, outputs
from tests.nodes import Nodes, cluster
from tests.processes import PROGRAM
from tests.service_nodes import Customer, replicas, service

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

SEED = 20
TRAIN_KILLS, ARCHIVE_KILLS, SERVICE_KILLS = 4, 10, 6
PICTURES = 160
EPOCHS = 12
MODEL = "cifar10"
PATIENCE = 300
"""Seconds without any progress that count as a hang."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head without CPUs, which is not killed here, and two nodes, which are."""
    with cluster(1, num_cpus=0) as nodes:
        for _ in range(2):
            nodes.add()
        yield nodes


class Chaos:
    """Kills, as its chance will have it."""

    def __init__(self, nodes: Nodes, share: int) -> None:
        self._nodes, self._chance = nodes, random.Random(SEED + share)
        self.done: list[str] = []

    def wait(self) -> None:
        """A moment, so that not all are hit at the same place."""
        time.sleep(self._chance.uniform(0, 2))

    def strike(self, title: bytes, driver: subprocess.Popen[str] | None) -> None:
        """Kills a process whose command line has `title`, a node, or the driver where there is one."""
        kind = self._chance.choice(("worker", "node", "driver") if driver else ("worker", "node"))
        if kind == "driver":
            assert driver is not None
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
        elif kind == "node":
            node = self._chance.choice(self._nodes.nodes[1:])
            self._nodes.kill(node)
            self._nodes.start_ray(node)
        else:
            deadline = time.monotonic() + PATIENCE
            while not (pids := [pid for node in self._nodes.nodes for pid in self._nodes.processes(node, title)]):
                assert time.monotonic() < deadline, "no worker comes back"
                time.sleep(0.2)
            os.kill(self._chance.choice(sorted(pids)), signal.SIGKILL)
        self.done.append(kind)


def gone(nodes: Nodes, title: bytes) -> None:
    """Waits until the workers of a killed driver are gone."""
    deadline = time.monotonic() + PATIENCE
    while any(nodes.processes(node, title) for node in nodes.nodes):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_training(nodes: Nodes, tmp_path: Path) -> None:
    """Between two kills at least one epoch is finished: a run that is hit more often cannot get anywhere."""
    run, chaos = tmp_path / "run", Chaos(nodes, 0)
    title = b"RayTrainWorker"

    def start(*options: object) -> subprocess.Popen[str]:
        return nodes.start(PROGRAM, "train", *options, stderr=subprocess.DEVNULL)

    new = ("--data", "cifar10-sample", "--width", 8, "--depth", 2, "--epochs", EPOCHS, "--workers", "1-2", "--run", run)
    program, lines, safe = start(*new), [], 0
    while True:
        assert program.stdout is not None
        with program:
            for line in program.stdout:
                lines.append(line.rstrip("\n"))
                if line.startswith("epoch ") and int(line.split()[1].split("/")[0]) > safe and len(chaos.done) < TRAIN_KILLS:
                    chaos.wait()
                    chaos.strike(title, program)
                    safe = max(int(path.parent.name.split("_")[1]) for path in (run / "ray").glob("checkpoint_0*/SHA256SUMS"))
                    if chaos.done[-1] == "driver":
                        break
        if program.returncode != -signal.SIGKILL:
            break
        gone(nodes, title)
        program = start("--resume", run)
    assert program.returncode == 0, lines
    assert len(chaos.done) == TRAIN_KILLS, lines
    history = json.loads((run / "history.json").read_text())
    assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
    assert history[-1]["loss"] < history[0]["loss"]
    assert load_model(run).card.training["best_epoch"] in range(1, EPOCHS + 1)


def test_the_bulk_run(nodes: Nodes, tmp_path: Path) -> None:
    scans = make_scans(tmp_path / "scans", PICTURES)
    undisturbed = colored_in_one_block(scans, tmp_path / "undisturbed", MODEL)
    target, chaos = tmp_path / "out", Chaos(nodes, 1)
    title = b"MapWorker"

    def start() -> subprocess.Popen[str]:
        return nodes.start(PROGRAM, "archive", scans, target, "--model", MODEL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    program = start()
    for kill in range(ARCHIVE_KILLS):
        goal, deadline = (kill + 1) * PICTURES // (ARCHIVE_KILLS + 2), time.monotonic() + PATIENCE
        while len(outputs(target)) < goal and program.poll() is None:
            assert time.monotonic() < deadline, f"hangs at {len(outputs(target))}, after {chaos.done}"
            time.sleep(0.1)
        assert program.poll() is None, f"ended before its {kill + 1}th kill, after {chaos.done}"
        chaos.strike(title, program)
        if chaos.done[-1] == "driver":
            gone(nodes, title)
            program = start()
    assert program.wait(timeout=PATIENCE) == 0, chaos.done
    check_whole(target, undisturbed)


def test_the_service(nodes: Nodes) -> None:
    chaos = Chaos(nodes, 2)
    with service(nodes, "HeadOnly", MODEL), Customer(nodes.head) as customer:
        for _ in range(SERVICE_KILLS):
            customer.wait(5, PATIENCE)
            chaos.strike(b"ServeReplica", None)
        customer.wait(10, PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while sum(len(replicas(nodes, node)) for node in nodes.nodes) < 4:
            assert time.monotonic() < deadline, "not all replicas come back"
            time.sleep(0.2)
    assert customer.failed == []
    assert TRAIN_KILLS + ARCHIVE_KILLS + len(chaos.done) == 20
