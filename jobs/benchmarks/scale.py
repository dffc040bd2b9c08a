"""`scale`: training and the bulk job on one node of two cores, and on two nodes of one core each.

The nodes are Ray nodes on this machine: each has its raylet, its object store and its workers, pinned to cores of its own; what they say
to each other goes over TCP on the loopback interface. So what is measured is what several nodes cost, without what a network adds.
The driver and the head's own processes share the first node's cores, as they would on a cluster.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ray.cluster_utils import Cluster

from colorize import cluster
from colorize.data.dataset import load_dataset, records_to_lab, run_in_tasks
from colorize.data.tally import Tally
from colorize.train.config import TrainConfig
from jobs.benchmarks.archive import job, repeated_scans
from jobs.benchmarks.sample import repeated_sample
from jobs.benchmarks.train import EPOCHS, ray_train

LAYOUTS = {"1_node": (2,), "2_nodes": (1, 1)}
"""The cores of each node."""

TRAIN_PICTURES = 6_400
ARCHIVE_PICTURES = 320
STORE_BYTES = 1_000_000_000


def measure(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key; the ratios are two nodes of one core over one node of two."""
    numbers: dict[str, list[float]] = {key: [] for key in ("train_2_nodes_ratio", "archive_2_nodes_ratio")}
    with tempfile.TemporaryDirectory() as folder:
        source = repeated_scans(Path(folder) / "scans", ARCHIVE_PICTURES)
        for run in range(runs):
            train, archive = {}, {}
            for layout, cores in LAYOUTS.items():
                with nodes(cores) as address, cluster.connect(address):
                    train[layout] = _train(Path(folder) / f"run-{run}-{layout}", sum(cores))
                    target = Path(folder) / f"target-{run}-{layout}"
                    archive[layout], _ = job(source, target)
                    shutil.rmtree(target)
            numbers["train_2_nodes_ratio"].append(train["2_nodes"] / train["1_node"])
            numbers["archive_2_nodes_ratio"].append(archive["2_nodes"] / archive["1_node"])
            for layout in LAYOUTS:
                numbers.setdefault(f"train_{layout}_images_per_s", []).append(train[layout])
                numbers.setdefault(f"archive_{layout}_pictures_per_s", []).append(archive[layout])
    return numbers


@contextlib.contextmanager
def nodes(cores: tuple[int, ...]) -> Iterator[str]:
    """A cluster with a node for each number, pinned to so many cores that no other node has; its address."""
    free = sorted(os.sched_getaffinity(0))
    if len(free) < sum(cores):
        raise RuntimeError(f"{sum(cores)} cores are needed, this process may use {len(free)}")
    everything = set(free)
    started = Cluster()
    try:
        for number in cores:
            mine, free = free[:number], free[number:]
            os.sched_setaffinity(0, mine)  # what is started here inherits it
            started.add_node(num_cpus=number, object_store_memory=STORE_BYTES, include_dashboard=False)
        os.sched_setaffinity(0, everything)
        yield started.address
    finally:
        os.sched_setaffinity(0, everything)
        started.shutdown()  # type: ignore[no-untyped-call]


def _train(directory: Path, workers: int) -> float:
    config = TrainConfig(data="cifar10-sample", epochs=EPOCHS, workers=workers, batch_size=64, size=32)
    blocks, _ = repeated_sample(TRAIN_PICTURES)
    train = run_in_tasks(blocks, records_to_lab(Tally(), drop_grey=False)).materialize()
    return ray_train(config, directory, train, load_dataset("cifar10-sample", split="test", limit=100).dataset)
