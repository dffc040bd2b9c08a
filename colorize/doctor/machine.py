"""The machine: processors, memory, shared memory, disks and open files, as Linux tells them, and whether they suffice.

`read_machine` reads, the checks judge: they know nothing of where the numbers come from.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from colorize.data.download import cache_folder
from colorize.doctor.finding import Finding, Status
from colorize.errors import printable

STORE_SHARE = 0.3
"""Of the memory, which Ray's object store takes."""
STORE_FLOOR = 10_000_000_000
"""Ray makes the store smaller to fit into /dev/shm, but never smaller than this on its account (REQUIRE_SHM_SIZE_THRESHOLD)."""

LEAST_MEMORY, FAIR_MEMORY = 1_000_000_000, 2_000_000_000
"""Ray and one worker with a model take about 1.5 GB of both."""

LEAST_DISK = 1_000_000_000
FULLEST_DISK = 0.95
"""Ray makes no more objects on a disk that is fuller than this (RAY_local_fs_capacity_threshold)."""

LEAST_FILES, FAIR_FILES = 1024, 8192


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The file system that a folder is on, in bytes."""

    purpose: str
    path: str
    total: int
    free: int
    problem: str | None = None
    """Why this user cannot write there; None: he can."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this process has, in bytes."""

    cpus: int
    cpu_limit: float | None = None
    """CPUs that a container may use; None: no limit."""
    memory: int
    """In the machine."""
    memory_free: int
    """That programs could take now."""
    memory_limit: int | None = None
    """Of the container; None: no limit."""
    shm_free: int | None = None
    """Of /dev/shm; None: there is none."""
    disks: tuple[Disk, ...] = ()
    open_files: int = 0
    """To which the limit may be raised, as Ray does."""

    @property
    def usable_memory(self) -> int:
        """What there is in all, the container's limit counted."""
        return min(self.memory, self.memory_limit or self.memory)


def read_machine(root: Path = Path("/")) -> Machine:
    """The machine that this process runs on. root: where /proc, /sys and /dev are."""
    meminfo = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    memory, free = (int(meminfo[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit, used, quota = _cgroup(root)
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    shm = None
    with suppress(OSError):
        shm = shutil.disk_usage(root / "dev/shm").free
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        cpus=os.cpu_count() or 1, cpu_limit=quota, memory=memory, memory_free=free,
        memory_limit=limit if limit is not None and limit < memory else None, shm_free=shm,
        disks=tuple(_disks()), open_files=hard if hard != resource.RLIM_INFINITY else 1 << 30,
    )  # fmt: skip


def _disks() -> Iterator[Disk]:
    places = {"Ray's files": Path(os.environ.get("RAY_TMPDIR") or "/tmp"), "temporary files": _temporary()}
    places["downloads"] = cache_folder()
    seen = set()
    for purpose, wanted in places.items():
        folder, problem = _nearest(wanted.absolute())
        shown = wanted if problem else folder
        if shown not in seen:
            seen.add(shown)
            usage = shutil.disk_usage(folder)
            yield Disk(purpose=purpose, path=str(shown), total=usage.total, free=usage.free, problem=problem)


def _temporary() -> Path:
    """The folder of temporary files; where none can be written, the one that was to be it."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return Path(os.environ.get("TMPDIR") or "/tmp")


def _nearest(folder: Path) -> tuple[Path, str | None]:
    """The folder, or the nearest above it that can be looked at; and why nothing can be written there, if so."""
    problem = None
    for place in (folder, *folder.parents):
        try:
            is_folder = stat.S_ISDIR(place.stat().st_mode)
        except FileNotFoundError:
            continue
        except OSError as error:  # a folder above it that is closed, or a file
            problem = problem or error.strerror or str(error)
            continue
        if is_folder:
            break
        problem = f"{place} is a file"
    if problem is None and not os.access(place, os.W_OK | os.X_OK):
        problem = os.strerror(errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES)
    return place, problem


def _cgroup(root: Path) -> tuple[int | None, int | None, float | None]:
    """The tightest memory limit of the groups that this process is in, what is used of it, and the tightest CPU quota in CPUs."""
    limit = used = quota = None
    for folder in _groups(root):
        memory, cpu = _number(folder / "memory.max"), _words(folder / "cpu.max")
        if memory is not None and (limit is None or memory < limit):
            # Files that were read and may be forgotten count as used.
            stat = dict(line.split() for line in _lines(folder / "memory.stat"))
            limit, used = memory, max(0, (_number(folder / "memory.current") or 0) - int(stat.get("inactive_file", 0)))
        if len(cpu) == 2 and cpu[0].isdecimal():
            share = int(cpu[0]) / int(cpu[1])
            quota = share if quota is None else min(quota, share)
    first = root / "sys/fs/cgroup/memory/memory.limit_in_bytes"  # version 1 of control groups
    if limit is None and (memory := _number(first)) is not None:
        limit, used = memory, _number(first.with_name("memory.usage_in_bytes"))
    old, period = (_number(root / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota is None and old and period:
        quota = old / period
    return limit, used, quota


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the group that this process is in, and of those around it."""
    top = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        if line.startswith("0::"):
            folder = top / line[3:].lstrip("/")
            while folder != top and top in folder.parents:
                yield folder
                folder = folder.parent
    yield top


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _number(path: Path) -> int | None:
    """None also for `max` and for −1: no limit."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def check_machine(machine: Machine) -> list[Finding]:
    """CPUs, memory, shared memory, disks and open files."""
    return [_cpus(machine), _memory(machine), _shm(machine), *(_disk(disk) for disk in machine.disks), _files(machine)]


def _cpus(machine: Machine) -> Finding:
    if machine.cpu_limit is None:
        return Finding(check="CPUs", status="ok", found=f"{machine.cpus}")
    is_tight = machine.cpu_limit < 1
    return Finding(
        check="CPUs", status="warning" if is_tight else "ok", found=f"{machine.cpu_limit:g} of {machine.cpus} (the container's limit)",
        advice="less than one CPU: everything is slow, and Ray still counts one" if is_tight else "",
    )  # fmt: skip


def _memory(machine: Machine) -> Finding:
    free = machine.memory_free
    limit = "" if machine.memory_limit is None else f", the container's limit is {size(machine.memory_limit)}"
    found = f"{size(free)} free of {size(machine.memory)}{limit}"
    if free >= FAIR_MEMORY:
        return Finding(check="memory", status="ok", found=found)
    way_out = "end other programs, or raise the limit" if limit else "end other programs"
    advice = f"Ray and one worker take about 1.5 GB: {way_out}; --workers 1 takes the least"
    return Finding(check="memory", status="wrong" if free < LEAST_MEMORY else "warning", found=found, advice=advice)


def _shm(machine: Machine) -> Finding:
    if machine.shm_free is None:
        return Finding(check="/dev/shm", status="wrong", found="there is none", advice="mount a tmpfs there: Ray keeps its objects in it")
    store = min(machine.usable_memory * STORE_SHARE, max(STORE_FLOOR, 0.95 * machine.shm_free))
    found = f"{size(machine.shm_free)} free; Ray's object store takes {size(store)}"
    if machine.shm_free >= store:
        return Finding(check="/dev/shm", status="ok", found=found)
    gigabytes = -(-int(store * 1.1) // 1_000_000_000)
    advice = f"the store goes to the disk and is slow: docker run --shm-size={gigabytes}g, or mount -o remount,size={gigabytes}g /dev/shm"
    # A tenth and less is what a container gets when nobody asks (64 MB): even a small training would live on the disk.
    return Finding(check="/dev/shm", status="wrong" if machine.shm_free < store / 10 else "warning", found=found, advice=advice)


def _disk(disk: Disk) -> Finding:
    found = f"{size(disk.free)} free of {size(disk.total)} in {disk.path}"
    if disk.problem:
        advice = "let this user write there, or name another folder: RAY_TMPDIR, TMPDIR, COLORIZE_CACHE"
        return Finding(
            check=disk.purpose, status="wrong", found=f"{printable(disk.path)}: cannot be written ({disk.problem})", advice=advice
        )
    if disk.free < LEAST_DISK:
        return Finding(check=disk.purpose, status="wrong", found=found, advice="make room: at least 1 GB")
    if disk.free < (1 - FULLEST_DISK) * disk.total:
        advice = "more than 95 % full: Ray moves no more objects to this disk when memory runs out; make room"
        return Finding(check=disk.purpose, status="warning", found=found, advice=advice)
    return Finding(check=disk.purpose, status="ok", found=found)


def _files(machine: Machine) -> Finding:
    found = f"up to {machine.open_files:,}" if machine.open_files < 1 << 30 else "without a limit"
    if machine.open_files >= FAIR_FILES:
        return Finding(check="open files", status="ok", found=found)
    status: Status = "wrong" if machine.open_files < LEAST_FILES else "warning"
    return Finding(
        check="open files",
        status=status,
        found=found,
        advice=f"Ray opens many: ulimit -Hn {FAIR_FILES * 8} or more (limits.conf, LimitNOFILE)",
    )


def size(count: float) -> str:
    """`24.8 GB`, `64 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
