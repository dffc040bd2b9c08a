"""`colorize doctor` beside a real Ray: it is reached, its token is shown, and it is seen to listen where it does."""

import pytest
from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR

from colorize.cluster import ClusterInfo
from colorize.doctor.listeners import Listener, check_exposure, read_listeners
from colorize.doctor.reach import check_cluster
from tests.heads import bare_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _found_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes 127.0.0.1 for the machine's outer address, where the session's Ray does not listen."""
    monkeypatch.setenv(ENABLE_RAY_CLUSTERS_ENV_VAR, "0")


def test_a_cluster_that_lives(ray_cluster: ClusterInfo) -> None:
    found = check_cluster(ray_cluster.address)
    assert found.status == "ok", found
    assert "1 node alive, 2 CPUs, 0 GPUs, its token accepted" in found.found


def test_a_cluster_with_another_token(ray_cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    found = check_cluster(ray_cluster.address)
    assert found.status == "wrong"
    assert "~/.ray/auth_token" in found.advice, found


def of(address: str) -> list[Listener]:
    """What the Ray at `address` and its workers listen on: what came up while no other did."""
    return [one for one in read_listeners() if one.is_of_ray and one.port == int(address.rpartition(":")[2])]


def test_ours_is_on_the_loopback_interface_and_has_a_token(ray_cluster: ClusterInfo) -> None:
    [head] = of(ray_cluster.address)
    assert (head.is_loopback, head.has_token) == (True, True)
    assert "gcs_server" in head.command


def test_a_ray_as_it_comes_is_open_to_all() -> None:
    with bare_ray() as address:
        found = check_exposure(of(address))
        assert found.status == "wrong"
        assert "gcs_server" in found.found
        assert address.rpartition(":")[2] in found.found
