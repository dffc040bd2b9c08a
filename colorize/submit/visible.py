"""Whether every node of a cluster sees the folders that a job works with, found out before the work starts.

What is read must be there on each node. What is written is put to the test: the driver leaves an empty file in the folder, or in the next
one above it that exists, and each node looks for it; so two disks that have a folder of one name are told from a folder that is shared.
URLs are the same from everywhere and are not looked at. One task a node that takes no CPU; nodes that join later are not asked.
"""

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from colorize.errors import ClusterError

NODE_SECONDS = 120.0
"""How long a node may take to start a worker and look."""


def check_visible(*, read: Iterable[Path] = (), written: Iterable[Path] = ()) -> None:
    """Raises ClusterError, naming the path and the node, unless every node of the Ray that is connected sees all these absolute paths.

    `written` need not exist; those who write them make them.
    """
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    with contextlib.ExitStack() as probes:
        looked_for = {path: path for path in read}
        if len(nodes) > 1:
            looked_for |= {probes.enter_context(_probe(path)): path for path in written}
        if not looked_for:
            return
        for node, missing in _answers(nodes, list(looked_for)):
            for path in missing:
                raise ClusterError(f"{looked_for[path]}: node {node} cannot see it: give a folder that every node shares, or a URL")


def _answers(nodes: list[dict[str, Any]], paths: list[Path]) -> Iterator[tuple[str, list[Path]]]:
    """(a node's name, those of `paths` that it does not see)."""
    if len(nodes) == 1:  # the driver is on it, and need not wait for a worker
        yield _name(nodes[0]), _missing(paths)
        return
    asked = {_asked(node, paths): node for node in nodes}
    answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    for answer in [*answered, *late]:
        node = _name(asked[answer])
        try:
            yield node, ray.get(answer, timeout=0)
        except (GetTimeoutError, RayError) as error:
            raise ClusterError(f"node {node} does not say what it sees ({type(error).__name__}): try again when it is up") from error


def _asked(node: dict[str, Any], paths: list[Path]) -> "ray.ObjectRef[list[Path]]":
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(_missing).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
    return task.remote(paths)


def _missing(paths: list[Path]) -> list[Path]:
    """Runs on a node."""
    return [path for path in paths if not _exists(path)]


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _probe(path: Path) -> Iterator[Path]:
    """An empty file in `path`, or in the nearest folder above it, for as long as the block lasts."""
    folder = next(folder for folder in (path, *path.parents) if folder.is_dir())
    probe = folder / f".colorize-{secrets.token_hex(8)}"
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise ClusterError(f"{path}: {folder} cannot be written on the node that runs the job ({error.strerror})") from error
    try:
        yield probe
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _name(node: dict[str, Any]) -> str:
    name, address = node.get("NodeManagerHostname"), node["NodeManagerAddress"]
    return f"{name} ({address})" if name and name != address else str(address)
