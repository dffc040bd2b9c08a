"""What the tasks of one load left out, counted in one place.

Imports neither torch nor Ray Data: the actor is a process of its own, which is up in a second without them and takes four with them.
"""

from collections.abc import Mapping
from typing import Any

import ray


class Tally:
    """Counts what the tasks of one load left out. Goes with the tasks: all its copies talk to one actor, which takes no CPU.

    By name, so that a task that runs twice counts once.
    """

    def __init__(self) -> None:
        self._actor: Any = ray.remote(num_cpus=0)(_Counts).remote()

    def add(self, grey: list[str], unreadable: Mapping[str, str]) -> None:
        """Counts names of grey pictures and name → reason of unreadable ones; returns when it is done."""
        if grey or unreadable:
            ray.get(self._actor.add.remote(grey, dict(unreadable)))

    def result(self) -> tuple[int, dict[str, str]]:
        """(grey pictures, unreadable ones by name)."""
        counted: tuple[int, dict[str, str]] = ray.get(self._actor.result.remote())
        return counted


class _Counts:
    def __init__(self) -> None:
        self._grey: set[str] = set()
        self._unreadable: dict[str, str] = {}

    def add(self, grey: list[str], unreadable: dict[str, str]) -> None:
        self._grey.update(grey)
        self._unreadable.update(unreadable)

    def result(self) -> tuple[int, dict[str, str]]:
        return len(self._grey), self._unreadable
