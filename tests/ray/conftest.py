"""One local Ray for the whole test session: starting one takes longer than most tests."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
import torch

from colorize.cluster import ClusterInfo, connect

torch.set_num_threads(1)  # of this process; two wait for each other where Ray's own processes want the cores

os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 - Ray's spelling; its ten seconds are longer than most runs here

os.environ |= {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "word"}  # which Ray's processes inherit; of tests.buckets

AGENT_PORT = 52365
"""The one that the agents of all Rays on a machine would take, if they were let."""


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ClusterInfo]:
    """A Ray of two CPUs on the loopback interface that takes jobs, shut down when the session ends."""
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # another Ray has it, which will do as well
            other.bind(("127.0.0.1", AGENT_PORT))
        with connect("local", num_cpus=2, jobs=True) as info:
            yield info
