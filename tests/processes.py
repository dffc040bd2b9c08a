"""Programs that tests start as users do, and what is left of them: every process that descends from one carries its mark."""

import contextlib
import os
import sys
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("colorize")

MARK = "COLORIZE_TEST_MARK"


def environment(mark: str) -> dict[str, str]:
    """This process's environment with the mark, without a Ray to join."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {MARK: mark}


def marked(mark: str) -> list[int]:
    """The processes that descend from one started with this mark; zombies, which have no environment, do not count."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if folder.name.isdecimal() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def left_behind(mark: str, seconds: float = 60) -> list[int]:
    """The processes with this mark that are still there after so many seconds: Ray takes a moment to end its own."""
    deadline = time.monotonic() + seconds
    while (found := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
