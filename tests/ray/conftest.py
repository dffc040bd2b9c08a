"""One local Ray for the whole test session: starting one takes longer than most tests."""

from collections.abc import Iterator

import pytest

from colorize.cluster import ClusterInfo, connect


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ClusterInfo]:
    """A Ray of two CPUs on the loopback interface that takes jobs, shut down when the session ends."""
    with connect("local", num_cpus=2, jobs=True) as info:
        yield info
