"""The service on a Ray that is joined or started: its port, its start, its end.

Knows nothing of pictures. Serve's own `run` waits for ever for replicas that do not fit, answers a port in use with the traceback of
an actor, and may take 20 s to stop; here the first two are one line each, and the end took 2.7 s on two busy cores.
It listens on the loopback interface of the cluster's head node only: Serve has no authentication.
"""

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

from colorize import cluster
from colorize.errors import ConfigError, ServiceError
from colorize.serve.application import assemble, read_model
from colorize.serve.config import ServeConfig

HOST = "127.0.0.1"
APPLICATION = "colorize"
START_SECONDS = 300.0
"""How long the service may take to start: 70 s were seen on two cores that ten other programs shared."""

REQUEST_SECONDS = 120.0
"""How long a request may take, its upload included, before it is cut off with 408."""


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
def running(config: ServeConfig, *, port: int, address: str | None = None) -> Iterator[Service]:
    """The service, answering for the length of a `with` block. address: as in `cluster.connect`.

    Raises ConfigError for a port that is none, ModelError before Ray starts, ClusterError where Ray cannot be joined or is too small,
    and ServiceError where the port is taken, Serve runs on the cluster already, or a replica does not start.
    """
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port {port}: must lie in 1…65535")
    model, card = read_model(config.model)
    if not (address or os.environ.get("RAY_ADDRESS")):
        _check_port(port)
    is_ours = not ray.is_initialized()
    with cluster.connect(address) as info:
        is_ours = is_ours and info.started_here
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        if info.gpus:
            config = config.model_copy(update={"model_gpus": 1})
        info.require(cpus=config.cpus, gpus=config.gpus, what="the service's replicas")
        if serve.status().proxies:
            raise ServiceError(f"Ray Serve runs already on {info.address}: use `serve deploy`, or stop it with `serve shutdown`")
        is_here = _is_head_here(info)
        if is_here:
            _check_port(port)
        try:
            _start(assemble(config, model, card), port)
            if is_here:
                _wait_until_routed(port)
            yield Service(url=f"http://{HOST}:{port}", model=card.name, cluster=info)
        finally:
            _stop(is_ours)


def _is_head_here(info: cluster.ClusterInfo) -> bool:
    return info.started_here or info.address.rpartition(":")[0] == ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]


def _stop(is_ours: bool) -> None:
    """Lets requests that are under way end, for SHUTDOWN_SECONDS at most, and takes Serve off a Ray that stays."""
    if is_ours:  # the rest of Serve goes down with Ray, without the raylet's message on the controller's end
        with suppress(RayServeException):  # Serve did not get as far as to start
            serve.delete(APPLICATION)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port that was just given up is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServiceError(f"port {port} of {HOST}: {(error.strerror or str(error)).lower()}: choose another with --port") from error


def _start(application: serve.Application, port: int) -> None:
    try:
        with suppress(TimeoutError):  # after 60 s; the proxy goes on to start, and the service is waited for below
            serve.start(
                proxy_location="HeadOnly",
                http_options=HTTPOptions(host=HOST, port=port, request_timeout_s=REQUEST_SECONDS),
                controller_options=ControllerOptions(runtime_env={"env_vars": _PATIENCE}),
                logging_config=LoggingConfig(enable_access_log=False),
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


def _wait_until_routed(port: int) -> None:
    """Until the proxy, which learns of a new application a moment after it runs, passes requests on."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=10):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if time.monotonic() > deadline:
                raise ServiceError(f"port {port} of {HOST}: the service does not answer there: {error}") from error
            time.sleep(0.1)


def _last_line(messages: list[str]) -> str:
    """The last line that is not empty: in a traceback, the one with the cause."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray gives no reason"
