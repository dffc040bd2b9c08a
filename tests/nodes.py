"""Several Ray nodes on one machine, each in a network namespace with an address of its own, and the sudden end of one of them.

    namespace of node 0   10.77.N.1 ─┐
    namespace of node 1   10.77.N.2 ─┼─ bridge in the machine's own namespace, 10.77.N.254, where the test is
    …                               ─┘

A node is what `ray start` starts: its raylet, its agents, its workers. All of them carry the node's mark in their environment
(`tests.processes`), by which they are found and killed. What a test starts by `Nodes.start` runs in the namespace of the head and carries
a mark of its own, and so do the workers that it gets on that node; the killer of a node goes by the tree of processes as well.
Needs root, `ip` and the right to make namespaces; otherwise the test is skipped and says so.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import PROGRAM, environment, left_behind, marked

PORT = 6379
STORE_BYTES = 150_000_000
START_SECONDS = 180
INTERFACE = "eth0"
RAY = PROGRAM.with_name("ray")


@dataclass(frozen=True)
class Node:
    """A node that runs."""

    number: int
    namespace: str
    address: str
    """Its IP address."""
    mark: str


@dataclass
class Nodes:
    """A cluster whose first node is its head."""

    identity: str
    folder: Path
    """Ray's own files."""
    settings: dict[str, str]
    """More of the environment of every node."""
    head_options: Sequence[str] = ()
    """Of `ray start`, beside those that every head has."""
    nodes: list[Node] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    """Of everything that was started."""

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def address(self) -> str:
        """Where to join the cluster."""
        return f"{self.head.address}:{PORT}"

    def add(self, num_cpus: int = 1) -> Node:
        """Starts another node; the first one is the head."""
        number = len(self.nodes)
        node = Node(number, f"cz{self.identity}n{number}", f"10.77.{int(self.identity, 16) % 250 + 1}.{number + 1}", uuid.uuid4().hex)
        _wire(self.identity, node)
        self.nodes.append(node)
        self.start_ray(node, num_cpus)
        return node

    def start_ray(self, node: Node, num_cpus: int = 1) -> None:
        """Starts Ray on a node, for the first time or after it was killed."""
        joins = ["--head", f"--port={PORT}", "--include-dashboard=false"] if node.number == 0 else [f"--address={self.address}"]
        where = [f"--temp-dir={self.folder}", *self.head_options] if node.number == 0 else []
        command = [
            RAY, "start", *joins, *where, f"--node-ip-address={node.address}", f"--num-cpus={num_cpus}",
            f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats", "--log-style=record",
        ]  # fmt: skip
        if node.number == 0:  # Ray, which sees the other nodes' processes, would take them for a head that is still there
            (self.folder / "ray_current_cluster").unlink(missing_ok=True)
        self.marks.append(node.mark)
        done = subprocess.run(
            _inside(node, *map(str, command)), env=self._environment(node.mark), capture_output=True, text=True, timeout=START_SECONDS,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *command: object, **popen: object) -> subprocess.Popen[str]:
        """Starts a program in the head's namespace, in a process group of its own; RAY_ADDRESS is the cluster's."""
        mark = uuid.uuid4().hex
        self.marks.append(mark)
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True} | popen
        own = self._environment(mark) | {"RAY_ADDRESS": self.address}
        return subprocess.Popen(_inside(self.head, *map(str, command)), env=own, **settings)  # type: ignore[call-overload,no-any-return]

    def kill(self, node: Node) -> None:
        """`kill -9` of every process of a node, until none is left: what a power cut does. Its namespace stays, for `start_ray`."""
        deadline = time.monotonic() + 60
        while pids := self.processes(node):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, "a process that SIGKILL does not end"
            time.sleep(0.05)

    def drain(self, node: Node, seconds: int) -> None:
        """Says that a node will be taken away in so many seconds, as a cloud does with a spot node. What takes it away is `kill`."""
        (raylet,) = self.processes(node, b"raylet/raylet\0")
        identity = re.findall(rb"--node[-_]id=([0-9a-f]+)", Path(f"/proc/{raylet}/cmdline").read_bytes())[0]
        command = [
            RAY, "drain-node", f"--address={self.address}", f"--node-id={identity.decode()}", f"--deadline-remaining-seconds={seconds}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot",
        ]  # fmt: skip
        mark = uuid.uuid4().hex
        self.marks.append(mark)
        own = self._environment(mark) | {"RAY_ADDRESS": self.address}
        done = subprocess.run(_inside(node, *map(str, command)), env=own, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self, node: Node, title: bytes = b"") -> list[int]:
        """Of a node, those whose command line has `title`; programs that tests started there are none of them."""
        found = []
        for pid in marked(node.mark):
            with contextlib.suppress(OSError):
                if title in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def _environment(self, mark: str) -> dict[str, str]:
        path = f"{PROGRAM.parent}:{os.environ['PATH']}"
        # Gloo would look for the address of the machine's name, which is the same in all namespaces.
        return environment(mark) | {"RAY_AUTH_MODE": "disabled", "PATH": path, "GLOO_SOCKET_IFNAME": INTERFACE} | self.settings


@contextlib.contextmanager
def cluster(count: int, num_cpus: int = 1, *, head_options: Sequence[str] = (), **settings: str) -> Iterator[Nodes]:
    """A cluster of so many nodes; afterwards no process, namespace or file of it is left. settings: more of their environment."""
    identity = uuid.uuid4().hex[:4]
    _check(identity)
    nodes = Nodes(identity, Path(tempfile.mkdtemp(prefix="cz", dir="/tmp")), settings, head_options)  # short: Unix sockets lie in it
    try:
        for _ in range(count):
            nodes.add(num_cpus)
        yield nodes
    finally:
        for mark in nodes.marks:
            for pid in marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        left = [pid for mark in nodes.marks for pid in left_behind(mark)]
        for node in nodes.nodes:
            _ip("netns", "delete", node.namespace)
        _ip("link", "delete", f"cz{identity}")
        shutil.rmtree(nodes.folder, ignore_errors=True)
        assert left == []


def _inside(node: Node, *command: str) -> list[str]:
    return ["ip", "netns", "exec", node.namespace, *command]


def _ip(*arguments: str) -> str:
    """What is wrong, or nothing."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


def _check(identity: str) -> None:
    """Makes the bridge; skips the test where that is not allowed."""
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` (iproute2) for network namespaces")
    number = int(identity, 16) % 250 + 1
    trouble = _ip("link", "add", f"cz{identity}", "type", "bridge")
    if trouble:
        pytest.skip(f"needs the right to make network namespaces: {trouble}")
    trouble = _ip("address", "add", f"10.77.{number}.254/24", "dev", f"cz{identity}") or _ip("link", "set", f"cz{identity}", "up")
    trouble = trouble or _ip("netns", "add", f"cz{identity}probe") or _ip("netns", "delete", f"cz{identity}probe")
    if trouble:
        _ip("link", "delete", f"cz{identity}")
        pytest.skip(f"needs the right to make network namespaces: {trouble}")


def _wire(identity: str, node: Node) -> None:
    """The namespace of a node, with a cable from it to the bridge."""
    inner, outer = f"cz{identity}i{node.number}", f"cz{identity}o{node.number}"
    for arguments in (
        ("netns", "add", node.namespace),
        ("link", "add", inner, "type", "veth", "peer", "name", outer),
        ("link", "set", inner, "netns", node.namespace, "name", INTERFACE),
        ("link", "set", outer, "master", f"cz{identity}", "up"),
        ("-n", node.namespace, "address", "add", f"{node.address}/24", "dev", INTERFACE),
        ("-n", node.namespace, "link", "set", INTERFACE, "up"),
        ("-n", node.namespace, "link", "set", "lo", "up"),
        ("-n", node.namespace, "route", "add", "default", "via", f"{node.address.rpartition('.')[0]}.254"),
    ):
        trouble = _ip(*arguments)
        assert not trouble, f"ip {' '.join(arguments)}: {trouble}"
