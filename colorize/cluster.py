"""Ray, joined or started: who runs it, how large it is, and whether it is large enough.

Knows nothing of pictures or networks. `connect` joins the Ray that `address` or RAY_ADDRESS names and leaves it running; with
neither it starts one on this machine, on the loopback interface only, and shuts it down again, Ctrl-C included. A Ray that
somebody else started on this machine is never joined by accident, as a plain `ray.init()` would join it.

Resources are checked before anything starts, because Ray waits for ever for what a cluster does not have; one that grows by
itself is asked to (see `growth`). The local start takes 2.5 s on 2 cores (without the dashboard, which only bulk runs of the service need),
joining under 2 s. A dead address is found out first, by TCP and then by gRPC: Ray's own attempt takes 20 s where nothing answers and two
minutes where something else does.
"""

import contextlib
import functools
import logging
import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import parameter, ray_constants, services
from ray._private import worker as ray_worker  # the only place that knows whether this process started its Ray
from ray._private.grpc_utils import init_grpc_channel  # with Ray's own TLS and token settings
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from colorize import auth, growth, log
from colorize.errors import ClusterError
from colorize.storage.url import without_secrets

CONNECT_SECONDS = 8.0
"""How long an address may take to accept a TCP connection, and then to speak gRPC, before it counts as dead."""

DEATH_SECONDS = 30.0
"""How long Ray may take to notice that a node is gone; a node that is only silent is not waited for any longer."""

_QUIET_LOGGERS = ("ray", "ray.data", "ray.train", "ray.tune")

_KNOWN_NOISE = re.compile(
    rb"core_worker\.cc:\d+: Actor with class name: 'MapWorker\(.* has constructor arguments in the object store"
    rb"|Task MapWorker\(.* will be retried\. Error: The actor is dead because it was killed by `ray\.kill`"
)
"""Lines of Ray's C++ core. The first, on stderr, comes for every actor pool of Ray Data, which puts those arguments there itself and keeps
them; the second, also on stdout, when a run is stopped, and Ray Data kills the pool's actors at their work: nothing will be retried."""


@dataclass(frozen=True, kw_only=True)
class ClusterInfo:
    """What was found when Ray was joined or started."""

    cpus: int
    """Logical CPUs of all nodes together."""
    gpus: int
    """GPUs of all nodes together."""
    memory_bytes: int
    """Memory that Ray gives to tasks and to its object store, all nodes together."""
    nodes: int
    """Nodes that are alive."""
    address: str
    """`host:port` of the cluster's head."""
    started_here: bool
    """True: this process started it and shuts it down."""

    def describe(self) -> str:
        """One line for people, such as `Ray 2.60.0: started here, 2 CPUs, 0 GPUs, 22.3 GB memory`."""
        where = "started here" if self.started_here else f"joined at {self.address}"
        nodes = "" if self.nodes == 1 else f"{self.nodes} nodes, "
        memory = f"{self.memory_bytes / 1e9:.1f} GB memory"
        return f"Ray {ray.__version__}: {where}, {nodes}{_count(self.cpus, 'CPU')}, {_count(self.gpus, 'GPU')}, {memory}"

    def has(self, *, cpus: float = 0, gpus: float = 0) -> bool:
        """Whether it has so many in all, busy or not."""
        return cpus <= self.cpus and gpus <= self.gpus

    def require(self, *, cpus: float = 0, gpus: float = 0, what: str, option: str | None = None, count: int | None = None) -> None:
        """Raises ClusterError unless the cluster has `cpus` and `gpus` in all (busy or not).

        `what` opens the message ("99 workers"). Where `option` and `count` are given (`--workers`, 99), the message says which
        number would fit: "99 workers need 99 CPUs, the cluster has 2: use --workers 2 or fewer".
        """
        for need, have, unit in ((gpus, self.gpus, "GPU"), (cpus, self.cpus, "CPU")):
            if need <= have:
                continue
            fits = 0 if option is None or count is None else math.floor(have * count / need)
            way_out = f"use {option} {fits} or fewer" if fits > 1 else f"use {option} 1" if fits else "join a larger one"
            verb = "needs" if what.startswith("1 ") else "need"
            raise ClusterError(f"{what} {verb} {_count(need, unit)}, the cluster has {have}: {way_out}")


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def current() -> ClusterInfo:
    """The Ray that this process is connected to, as it is now.

    Raises ClusterError when there is none: everything that runs on Ray runs inside `connect`.
    """
    if not ray.is_initialized():
        raise ClusterError("not connected to Ray: run this inside colorize.cluster.connect()")
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return ClusterInfo(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        memory_bytes=int(resources.get("memory", 0) + resources.get("object_store_memory", 0)),
        nodes=sum(bool(node["Alive"]) for node in nodes),
        address=ray.get_runtime_context().gcs_address,
        started_here=_started_here(),
    )


def require(*, cpus: float = 0, gpus: float = 0, what: str, option: str | None = None, count: int | None = None) -> ClusterInfo:
    """The Ray that this process is connected to, which has `cpus` and `gpus` in all, now or when it has grown.

    Arguments as for `ClusterInfo.require`. A cluster that grows by itself is asked for what it lacks and waited for, which a line on
    standard error says. Raises ClusterError.
    """
    needed = {"cpus": cpus, "gpus": gpus}
    info, note = current(), ""
    if not info.has(**needed) and growth.grows():
        units = " and ".join(_count(need, unit) for need, unit in ((gpus, "GPU"), (cpus, "CPU")) if need)
        _tell(f"{what}: waiting until the cluster has grown to {units}")
        parts = count or math.ceil(cpus) or 1
        bundle = {unit: need / parts for unit, need in (("CPU", cpus), ("GPU", gpus)) if need}
        growth.grow([bundle] * parts, lambda: current().has(**needed))
        info, note = current(), f" (asked to grow, it has not in {growth.GROW_SECONDS / 60:g} minutes)"
    try:
        info.require(**needed, what=what, option=option, count=count)
    except ClusterError as error:
        raise ClusterError(f"{error}{note}") from None
    return info


def _tell(line: str) -> None:
    if log.wants_lines():
        log.event(line)
    else:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def connect(address: str | None = None, *, num_cpus: int | None = None, jobs: bool = False) -> Iterator[ClusterInfo]:
    """Joins or starts Ray for the length of a `with` block.

    `address`: `host:port`, `auto` (any Ray that runs on this machine), `ray://host:port`, or `local` (start one whatever the
    environment says). None: RAY_ADDRESS where it is set (as inside `ray job submit`), else `local`.
    `num_cpus`: how many CPUs a Ray that is started here offers; None: all of this machine's. A Ray that is joined has its own.
    `jobs`: whether a Ray that is started here takes jobs, on a free port of 127.0.0.1, from who has its token; costs about 200 MB.
    A process that is connected already stays so: the block then uses that connection and leaves it open.

    Raises ClusterError within about 15 s when the address is dead, and when a local Ray cannot start.
    """
    if ray.is_initialized():
        silence()
        yield current()
        return
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    origin = "" if address else " (from RAY_ADDRESS)"
    start = target == "local"
    silence()
    if not start:
        target = find(target, origin, "start one with `ray start --head`, or leave the address out to use this machine")
    with _without_noise(), _connected(target, start, origin, num_cpus, jobs) as info:
        yield info


@contextlib.contextmanager
def _connected(target: str, start: bool, origin: str, num_cpus: int | None, jobs: bool) -> Iterator[ClusterInfo]:
    options: dict[str, Any] = {"address": target, "log_to_driver": False, "logging_level": logging.ERROR}
    if start:
        options |= {"num_cpus": num_cpus, "include_dashboard": jobs}
        if jobs:
            options |= {"dashboard_host": "127.0.0.1", "dashboard_port": 0}
    try:
        with (
            _signals_kept(),
            _loopback() if start else contextlib.nullcontext(),
            _taking_jobs() if start and jobs else contextlib.nullcontext(),
        ):
            ray.init(**options)
    except Exception as error:  # a node that is too slow to start is a bare Exception
        ray.shutdown()
        reason = " ".join(str(error).split()) or type(error).__name__
        what = "Ray cannot start on this machine" if start else f"{target}{origin}: no Ray cluster answers there"
        raise ClusterError(f"{what}: {reason}") from error
    try:
        silence()
        if not start and not target.startswith("ray://"):
            _wait_for_deaths()
        yield current()
    finally:
        ray.shutdown()


def _wait_for_deaths() -> None:
    """Waits until Ray knows of the nodes that answer no more.

    It learns of a node's end within some ten seconds. What is asked of that node until then, Ray 2.60 forgets, and waits for it for ever.
    """
    deadline = time.monotonic() + DEATH_SECONDS
    while time.monotonic() < deadline:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        if all(_answers(node["NodeManagerAddress"], node["NodeManagerPort"]) for node in nodes if node["Alive"]):
            return
        time.sleep(0.5)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def silence() -> None:
    """Turns off Ray's own progress bars and log lines below errors: this program has its own display.

    Applies to this process and to the Ray Data contexts that are copied from it.
    """
    from ray.data import DataContext  # a second or two more than Ray itself, which those who only ask a cluster's job server need not wait

    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_rich_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Lets everything through to stderr, in order, but the lines of _KNOWN_NOISE, and what else Ray itself prints but these: no setting of
    Ray's leaves them out."""
    show = ray_worker.print_to_stdstream

    def quieter(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
        kept = [line for line in data["lines"] if not _KNOWN_NOISE.search(line.encode())]
        if kept:
            show(data | {"lines": kept}, *arguments, **options)

    ray_worker.print_to_stdstream = quieter
    stderr = 2  # not sys.stderr: C++ writes to the file descriptor
    original = os.dup(stderr)
    source, sink = os.pipe()
    os.dup2(sink, stderr)
    os.close(sink)

    def pump() -> None:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                if not _KNOWN_NOISE.search(line):
                    os.write(original, line)

    thread = threading.Thread(target=pump, name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = show
        sys.stderr.flush()
        os.dup2(original, stderr)  # the pipe's last end in this process: the pump reads what is in it, and ends
        thread.join(timeout=2)
        if not thread.is_alive():  # a child of this process may hold another end
            os.close(original)


def _started_here() -> bool:
    node = ray_worker._global_node
    return node is not None and bool(node.is_head())


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts SIGTERM back where it was: the handler of `ray.init` prints a stack and exits with 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """A Ray that starts inside listens on 127.0.0.1 only, as it does on macOS, where a firewall would ask; elsewhere on everything."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _taking_jobs() -> Iterator[None]:
    """A Ray that starts inside, on the loopback interface, can take jobs.

    Its agent, through which they go, listens on a free port: `ray.init` knows only 52365, one a machine. And its processes, the jobs
    among them, look for it on 127.0.0.1: Ray's own way is to take that for the machine's outer address, where nothing listens.
    """
    before, variable = parameter.RayParams, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    environment = os.environ.get(variable)
    parameter.RayParams = functools.partial(before, dashboard_agent_listen_port=0)  # type: ignore[misc,assignment]
    os.environ[variable] = "0"
    try:
        yield
    finally:
        parameter.RayParams = before  # type: ignore[misc]
        if environment is None:
            del os.environ[variable]
        else:
            os.environ[variable] = environment


def find(target: str, origin: str = "", way_out: str = "start one with `ray start --head`") -> str:
    """The `host:port` to join, `auto` resolved; messages have `origin`, where it was named, and `way_out`.

    Where the Ray there asks for a token and this machine has one, this process shows it from now on. Raises ClusterError unless something
    there speaks gRPC, as Ray's head does, and takes the token.
    """
    named = f"{without_secrets(target)}{origin}"
    if target == "auto":
        try:
            found = services.canonicalize_bootstrap_address("auto")
        except ConnectionError as error:
            raise ClusterError(f"{named}: no Ray runs on this machine: {way_out}") from error
        assert found is not None, "Ray either finds an address or raises"
    else:
        found = target
    if found.startswith(("http://", "https://")):
        raise ClusterError(f"{named}: is a job server's address: give host:port of the head")
    host, separator, port = found.removeprefix("ray://").rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ClusterError(f"{named}: not a Ray address: give host:port, ray://host:port or auto")
    is_head = not found.startswith("ray://")
    if not host.isprintable():  # half a character, from bytes that are no text, say: Ray's part in C++ takes none
        raise ClusterError(f"{named}: not a Ray address: no machine can have such a name")
    if is_head:
        host = services.resolve_ip_for_localhost(host)  # where Ray will look for it
    else:
        auth.use_token()  # a proxy of Ray's that does not say whether it asks for one
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except UnicodeError as error:  # a name with an empty part, as in `head..local`, or with one of more than 63 characters
        raise ClusterError(f"{named}: not a Ray address: no machine can have such a name") from error
    except OSError as error:
        raise ClusterError(f"{named}: no Ray cluster answers there ({error.strerror or error}): {way_out}") from error
    try:
        try:
            with auth.told():
                _ask(f"{host}:{port}", is_head)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED or not auth.use_token():
                raise
            _ask(f"{host}:{port}", is_head)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterError(f"{named}: no Ray cluster answers there ({error.details()}): {way_out}") from error
        raise ClusterError(f"{named}: {auth.problem()}") from error
    except grpc.FutureTimeoutError as error:
        raise ClusterError(f"{named}: what answers there is not a Ray cluster: {way_out}") from error
    return found


def _ask(address: str, is_head: bool) -> None:
    """Raises grpc.RpcError or grpc.FutureTimeoutError unless gRPC is spoken there, and a head gives its cluster's name."""
    channel = init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        if is_head:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    finally:
        channel.close()
