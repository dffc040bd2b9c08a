"""A cluster without a CPU whose autoscaler starts nodes: Ray's own fake one, whose nodes are processes of this machine."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from colorize import growth
from tests.archives import make_scans, outputs
from tests.nodes import Nodes, cluster
from tests.processes import PROGRAM

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SECOND_GENERATION = {
    "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
}  # fmt: skip
"""`ray up` and KubeRay set the last one too."""

FAILS = """
import sys
from colorize import cluster, growth
growth.GROW_SECONDS = 6
with cluster.connect(*sys.argv[1:]):
    cluster.require(cpus=9, what="9 workers", option="--workers", count=9)
"""


@contextlib.contextmanager
def growing(folder: Path, **settings: str) -> Iterator[Nodes]:
    """A head, and up to two nodes of one CPU when something asks for them."""
    folders = ("file_mounts", "docker", "auth", "head_node", "worker_nodes")
    commands = (
        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands",
        "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
    )  # fmt: skip
    none: dict[str, object] = {name: {} for name in folders} | {name: [] for name in commands}
    provider = {"type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    (folder / "cluster.json").write_text(json.dumps(none | {
        "cluster_name": "fake", "max_workers": 2, "upscaling_speed": 100, "idle_timeout_minutes": 5, "file_mounts_sync_continuously": False,
        "provider": provider, "head_node_type": FAKE_HEAD_NODE_TYPE, "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1, "object_store_memory": 150_000_000}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }))  # fmt: skip
    settings = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"} | settings
    with cluster(1, num_cpus=0, head_options=[f"--autoscaling-config={folder / 'cluster.json'}"], **settings) as nodes:
        yield nodes


def test_a_run_has_the_nodes_started_that_it_needs(tmp_path: Path) -> None:
    scans, target = make_scans(tmp_path / "scans", 6), tmp_path / "out"
    with growing(tmp_path) as nodes:
        run = nodes.start(PROGRAM, "archive", scans, target, "--model", "cifar10", "--workers", 2)
        told, errors = run.communicate(timeout=300)
        assert run.returncode == 0, told + errors
        assert "2 workers: waiting until the cluster has grown to 2 CPUs" in errors
        assert len(outputs(target)) == 6
        reason = "9 workers need 9 CPUs, the cluster has 2: use --workers 2 or fewer (asked to grow, it has not in 0.1 minutes)"
        assert reason in refusal(nodes)
        assert reason in refusal(nodes, f"ray://{nodes.head.address}:10001")


def test_the_second_generation_of_autoscalers_is_asked_too(tmp_path: Path) -> None:
    """Asked, no more: the fake one of the second generation needs a file that Ray's wheel lacks, so no node comes."""
    with growing(tmp_path, **SECOND_GENERATION) as nodes:
        assert "9 workers need 9 CPUs, the cluster has 0: join a larger one (asked to grow, it has not in 0.1 minutes)" in refusal(nodes)


def refusal(nodes: Nodes, *address: str) -> str:
    """The last line of what a program says that is refused nine workers."""
    with nodes.start(sys.executable, "-c", FAILS, *address, stdout=subprocess.DEVNULL) as fails:
        _, errors = fails.communicate(timeout=120)
    assert "9 workers: waiting until the cluster has grown to 9 CPUs" in errors
    return str(errors.strip().splitlines()[-1])


def test_a_ray_that_was_started_by_hand_is_not_asked(ray_cluster: object) -> None:
    assert not growth.grows()
