"""The service on a Ray that is joined or started: its port, its start, its end.

Knows nothing of pictures. Serve's own `run` waits for ever for replicas that do not fit, answers a port in use with the traceback of
an actor, and may take 20 s to stop; here the first two are one line each, and the end takes less (STOP_SECONDS).
It listens on the loopback interface of the cluster's head node unless told otherwise, and on no other without API keys.
"""

import ipaddress
import logging
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
import ray.util
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import ControllerOptions, HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, LoggingConfig

from colorize import cluster, log
from colorize.errors import ConfigError, ServiceError
from colorize.serve.application import assemble, read_model
from colorize.serve.config import ServeConfig
from colorize.serve.keys import API_KEYS

LOOPBACK = "127.0.0.1"
APPLICATION = "colorize"
START_SECONDS = 300.0
"""How long the service may take to start: 70 s were seen on two cores that ten other programs shared."""

STOP_SECONDS = 3.0
"""How long requests that are under way may take to end when the service is stopped. Its end took 2.7 s idle, and 8.5 to 12 s with
work under way on a busy machine: Ray's processes end after that."""

_PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
# With 5 s, Serve kills a proxy that imports its libraries on a busy machine, three checks later, and starts it from the beginning.


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that answers."""

    url: str
    """Where: `http://127.0.0.1:8000`."""
    model: str
    """The name in the model's card."""
    cluster: cluster.ClusterInfo
    """The Ray that it runs on."""


@contextmanager
def running(config: ServeConfig, *, port: int, host: str = LOOPBACK, address: str | None = None) -> Iterator[Service]:
    """The service, answering for the length of a `with` block. host: an address of the head node. address: as in `cluster.connect`.

    The keys in COLORIZE_API_KEYS count beside those of the configuration.
    Raises ConfigError for a port or host that is none, keys that are none, and a host that others reach while there are no keys; ModelError
    before Ray starts, ClusterError where Ray cannot be joined or is too small, and ServiceError where the port is taken, Serve runs on the
    cluster already, or a replica does not start.
    """
    log.bind(stage="serve")
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port {port}: must lie in 1…65535")
    config = config.with_keys_of_environment()
    if not _is_loopback(host) and not config.api_keys:
        raise ConfigError(f"--host {host}: others can reach it, so API keys are needed: set {API_KEYS} (`openssl rand -hex 24` makes one)")
    model, card = read_model(config.model)
    if not (address or os.environ.get("RAY_ADDRESS")):
        _check_port(host, port)
    is_ours = not ray.is_initialized()
    with cluster.connect(address, jobs=bool(config.archive_roots)) as info:
        is_ours = is_ours and info.started_here
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        if info.gpus:
            # Half of one leaves room for the workers of bulk runs, which would wait for ever for theirs.
            config = config.model_copy(update={"model_gpus": 0.5 if config.archive_roots else 1})
        info = cluster.require(cpus=config.cpus, gpus=config.gpus, what="the service's replicas")
        if serve.status().proxies:
            raise ServiceError(f"Ray Serve runs already on {info.address}: use `serve deploy`, or stop it with `serve shutdown`")
        is_here = _is_head_here(info)
        if is_here:
            _check_port(host, port)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        try:
            _start(assemble(config, model, card), host, port)
            if is_here:
                _wait_until_routed(url.replace("0.0.0.0", LOOPBACK).replace("[::]", "[::1]"))
            log.event("service is ready", url=url, model=card.name)
            yield Service(url=url, model=card.name, cluster=info)
        finally:
            log.event("service ends")
            _stop(is_ours)


def _is_head_here(info: cluster.ClusterInfo) -> bool:
    return info.started_here or info.address.rpartition(":")[0] == ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]


def _stop(is_ours: bool) -> None:
    """Lets requests that are under way end, for STOP_SECONDS at most, and takes Serve off a Ray that stays."""
    if is_ours:  # the rest of Serve goes down with Ray, without the raylet's message on the controller's end
        with suppress(RayServeException):  # Serve did not get as far as to start
            serve.delete(APPLICATION, _blocking=False)
            deadline = time.monotonic() + STOP_SECONDS
            while APPLICATION in serve.status().applications and time.monotonic() < deadline:
                time.sleep(0.1)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _is_loopback(host: str) -> bool:
    """Raises ConfigError for what is no IP address: a name may mean another machine tomorrow."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise ConfigError(
            f"--host {host}: must be an IP address: {LOOPBACK} for this machine only, 0.0.0.0 for all that reach it"
        ) from error


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port that was just given up is free
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(f"port {port} of {host}: {(error.strerror or str(error)).lower()}: choose another with --port") from error


def _start(application: serve.Application, host: str, port: int) -> None:
    try:
        with suppress(TimeoutError):  # after 60 s; the proxy goes on to start, and the service is waited for below
            serve.start(
                proxy_location="HeadOnly",
                http_options=HTTPOptions(host=host, port=port),  # no time limit of the proxy's: it would cut off streams and batches
                controller_options=ControllerOptions(runtime_env={"env_vars": _PATIENCE}),
                logging_config=LoggingConfig(enable_access_log=False, encoding="JSON" if log.is_json() else "TEXT"),
            )
        serve.run_many([serve.RunTarget(application, name=APPLICATION)], wait_for_applications_running=False)
        deadline = time.monotonic() + START_SECONDS
        while (state := serve.status().applications[APPLICATION]).status != ApplicationStatus.RUNNING:
            if state.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                messages = [state.message, *(deployment.message for deployment in state.deployments.values())]
                raise ServiceError(f"the service does not start: {_last_line(messages)}")
            if time.monotonic() > deadline:
                raise ServiceError(f"the service is not up after {START_SECONDS:.0f} s: the cluster may be busy, see `ray status`")
            time.sleep(0.1)
    except (RayError, RayServeException, TimeoutError, RuntimeError) as error:
        raise ServiceError(f"the service does not start on port {port}: {_last_line([str(error)])}") from error


def _wait_until_routed(url: str) -> None:
    """Until the proxy, which learns of a new application a moment after it runs, passes requests on.

    A refusal of the application's own is an answer too; the 404 is the proxy's, as long as it knows of none.
    """
    deadline = time.monotonic() + START_SECONDS
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy that the environment names is for other machines
    while True:
        try:
            with direct.open(f"{url}/healthz", timeout=10):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if 400 <= error.code < 500 and error.code != 404:
                    return
            if time.monotonic() > deadline:
                raise ServiceError(f"{url}: the service does not answer there: {error}") from error
            time.sleep(0.1)


def _last_line(messages: list[str]) -> str:
    """The last line that is not empty: in a traceback, the one with the cause."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray gives no reason"
