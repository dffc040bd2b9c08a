"""The bulk run and the service over nodes that are killed, each in a network namespace of its own: nothing is lost, and all end alone.

The head is restarted as well, with its state (GCS) kept in a folder by Ray's RocksDB store: the service goes on answering meanwhile.
"""

import json
import sys
import time
from pathlib import Path

import pytest

from tests.archives import check_whole, colored_in_one_block, make_scans, wait_for
from tests.nodes import cluster
from tests.processes import PROGRAM
from tests.service_nodes import Customer, replicas, service

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PICTURES = 90
MODEL = "cifar10"


def test_a_bulk_run_on_three_nodes_of_which_one_is_killed(tmp_path: Path) -> None:
    scans = make_scans(tmp_path / "scans", PICTURES)
    undisturbed = colored_in_one_block(scans, tmp_path / "undisturbed", MODEL)
    target = tmp_path / "out"
    with cluster(3) as nodes:
        run = nodes.start(PROGRAM, "archive", scans, target, "--model", MODEL)
        wait_for(run, target, PICTURES // 4)
        nodes.kill(nodes.nodes[2])
        printed, errors = run.communicate(timeout=400)
    assert run.returncode == 0, printed + errors
    check_whole(target, undisturbed)


def test_a_service_on_three_nodes_of_which_one_is_killed() -> None:
    """The head has no CPU, so all replicas are on the two others; one of them goes with all that it has, and what it had comes back."""
    with cluster(1, num_cpus=0) as nodes:
        for _ in range(2):
            nodes.add()
        with service(nodes, "HeadOnly", MODEL), Customer(nodes.head) as customer:
            customer.wait(5)
            victim = max(nodes.nodes[1:], key=lambda node: len(replicas(nodes, node)))
            (other,) = (node for node in nodes.nodes[1:] if node is not victim)
            assert replicas(nodes, victim)
            nodes.kill(victim)
            customer.wait(20)
            deadline = time.monotonic() + 200
            while len(replicas(nodes, other)) < 4:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            customer.wait(5)
    assert customer.failed == []


def test_a_head_that_is_restarted_while_the_service_answers(tmp_path: Path) -> None:
    """The head is killed with the GCS in it and started again; the other node's proxy and replicas answer all the time."""
    with cluster(1, num_cpus=0, RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=str(tmp_path / "gcs")) as nodes:
        other = nodes.add()
        with service(nodes, "EveryNode", MODEL), Customer(other) as customer:
            customer.wait(5)
            nodes.kill(nodes.head)
            customer.wait(10)
            nodes.start_ray(nodes.head, num_cpus=0)
            customer.wait(10)
            printed, errors = nodes.start(sys.executable, "-c", WHOLE).communicate(timeout=300)
            assert json.loads(printed) == [2, "RUNNING"], errors
            customer.wait(5)
    assert customer.failed == []


WHOLE = """
import json, time
import ray
from ray import serve

ray.init(address="auto", log_to_driver=False)
deadline = time.monotonic() + 200
while time.monotonic() < deadline:
    application = serve.status().applications.get("colorize")
    found = [sum(node["Alive"] for node in ray.nodes()), application.status.value if application else "unknown"]
    if found == [2, "RUNNING"]:
        break
    time.sleep(1)
print(json.dumps(found))
"""
"""Waits until the cluster has both nodes and the service is what it was told to be."""
