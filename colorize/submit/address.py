"""Where a cluster's job server listens.

Ray's own client lets RAY_ADDRESS override the address that it is given, and asks for the token only where RAY_AUTH_MODE is set. Here an
address that is given counts, and a token that is there is sent.
"""

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
from ray._private import ray_constants, services
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.dashboard.utils import ray_client_address_to_api_server_url

from colorize import auth, cluster
from colorize.errors import ClusterError, one_line, printable
from colorize.storage.url import without_secrets
from colorize.submit.submission import proxies_for

API_SERVER = ray_constants.RAY_API_SERVER_ADDRESS_ENVIRONMENT_VARIABLE
"""The variable that names a job server, and that Ray's client lets override all else."""

_PROBE_SECONDS = 5.0


def job_server(address: str | None) -> str:
    """`http://host:port` of the job server that `address`, the environment or else this machine has.

    Raises ClusterError when nothing answers there, or it is no address.
    """
    named = address or os.environ.get(API_SERVER) or os.environ.get("RAY_ADDRESS") or "auto"
    origin = next((f" (from {name})" for name in (API_SERVER, "RAY_ADDRESS") if os.environ.get(name) and not address), "")
    if named == "local":
        raise ClusterError(f"local{origin}: has no job server: such a Ray ends with its command; start one with `ray start --head`")
    if named.startswith(("http://", "https://")):
        if not _has_host(named):
            raise ClusterError(f"{printable(without_secrets(named))}{origin}: not a job server's address: give http://host:8265")
        return named.rstrip("/")
    if not named.startswith("ray://") and named != "auto" and _speaks_http(named):
        return f"http://{named}"
    found = cluster.find(named, origin)
    try:
        if named.startswith("ray://"):
            return str(ray_client_address_to_api_server_url(found))
        store = GcsClient(address=services.canonicalize_bootstrap_address_or_die(found))
        listening = store.internal_kv_get(ray_constants.DASHBOARD_ADDRESS.encode(), ray_constants.KV_NAMESPACE_DASHBOARD)
    except Exception as error:  # Ray's own have no other base: it has gone meanwhile, or a head was asked as a client's server
        said = one_line(without_secrets(str(error)))
        raise ClusterError(f"{without_secrets(named)}{origin}: does not say where its job server is: {said}") from error
    if not listening:
        raise ClusterError(f"{without_secrets(named)}{origin}: this Ray takes no jobs: it was started without its dashboard")
    return f"http://{listening.decode()}"


@contextlib.contextmanager
def direct(address: str) -> Iterator[None]:
    """Within, Ray's client takes this address, whatever RAY_ADDRESS says."""
    before = os.environ.get(API_SERVER)
    os.environ[API_SERVER] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[API_SERVER]
        else:
            os.environ[API_SERVER] = before


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def _speaks_http(address: str) -> bool:
    """Whether a `host:port` is a job server's and not that of Ray's head, which speaks gRPC."""
    shown, url = auth.header(), f"http://{address}/api/version"
    try:
        requests.get(url, headers=shown, timeout=_PROBE_SECONDS, proxies=proxies_for(url))
    except (requests.RequestException, ValueError):
        return False
    return True
