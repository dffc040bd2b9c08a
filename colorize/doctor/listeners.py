"""Who listens on this machine: whether the usual ports are free, and whether anything of Ray's can be reached from outside.

Read from /proc/net and /proc/PID, without root: of other users' processes the port is known and not the program.
Whoever reaches a Ray port of a cluster without a token runs code there, so that is wrong and not only a warning (docs/security.md).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from colorize import auth
from colorize.doctor.finding import Finding
from colorize.errors import printable

USUAL_PORTS = {
    8000: "the service",
    6379: "Ray's head",
    8265: "Ray's dashboard and jobs",
    10001: "the Ray client's server",
    52365: "Ray's agent",
}
"""That this program and Ray take when nobody says otherwise."""

_OF_RAY = re.compile(
    r"^ray::|(?:^|[\s/])(?:raylet|gcs_server)(?:\s|$)|/ray/(?:core|dashboard|_private|util)/|ray\.util\.client\.server|^ray-dashboard"
)
_LISTENING = "0A"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A TCP socket that accepts connections."""

    address: str
    port: int
    pid: int | None = None
    """None: a process that this user may not look into."""
    command: str = ""
    has_token: bool = False
    """Whether its process was started to ask for Ray's token."""

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def is_of_ray(self) -> bool:
        """By its program; where that is hidden, by its port."""
        if self.pid is None:
            return self.port in USUAL_PORTS and self.port != 8000
        return bool(_OF_RAY.search(self.command)) and not self.command.startswith("ray::ProxyActor")  # whose HTTP port asks for keys

    @property
    def program(self) -> str:
        """For people."""
        if self.pid is None:
            return "a process of another user"
        first, _, rest = self.command.partition(" ")
        name = self.command if first.startswith("ray::") else " ".join([Path(first).name, *([rest] if len(rest) < 30 else [])]).strip()
        return f"{name or 'a process'} (pid {self.pid})"


def read_listeners(proc: Path = Path("/proc")) -> list[Listener]:
    """All sockets that listen, by port."""
    found: dict[str, tuple[str, int]] = {}
    for name in ("tcp", "tcp6"):
        with suppress(OSError):  # without IPv6 there is no tcp6
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENING:
                    host, _, number = words[1].partition(":")
                    found[words[9]] = (_address(host), int(number, 16))
    owners = dict(_owners(proc, set(found)))
    listeners = []
    for inode, (address, port) in found.items():
        pid = owners.get(inode)
        command, has_token = ("", False) if pid is None else (_text(proc / str(pid) / "cmdline"), _asks_for_token(proc, pid))
        listeners.append(Listener(address=address, port=port, pid=pid, command=command, has_token=has_token))
    return sorted(listeners, key=lambda one: (one.port, one.address))


def _address(host: str) -> str:
    """Of the kernel's hexadecimal: 32-bit words in this machine's order."""
    words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _owners(proc: Path, inodes: set[str]) -> Iterator[tuple[str, int]]:
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # of another user, or it has ended
                for entry in (folder / "fd").iterdir():
                    target = str(entry.readlink())
                    if target.startswith("socket:[") and target[8:-1] in inodes:
                        yield target[8:-1], int(folder.name)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _asks_for_token(proc: Path, pid: int) -> bool:
    """By the environment that it, or one of the processes above it, was started with: Ray's own write their titles over theirs."""
    for _ in range(3):
        with suppress(OSError):
            if b"RAY_AUTH_MODE=token" in (proc / str(pid) / "environ").read_bytes().split(b"\0"):
                return True
        parent = re.search(r"^PPid:\s+(\d+)", _text(proc / str(pid) / "status"), re.MULTILINE)
        if parent is None or int(parent[1]) <= 1:
            return False
        pid = int(parent[1])
    return False


def check_ports(listeners: list[Listener]) -> Finding:
    """Whether the usual ports are free."""
    held = {one.port: one for one in listeners if one.port in USUAL_PORTS}
    free = ", ".join(str(port) for port in USUAL_PORTS if port not in held)
    taken = "; ".join(f"{port} ({USUAL_PORTS[port]}) is held by {one.program}" for port, one in held.items())
    if not held:
        return Finding(check="ports", status="ok", found=f"{free} are free")
    advice = "" if all(one.is_of_ray for one in held.values()) else "choose another: colorize serve --port, ray start --port"
    return Finding(check="ports", status="warning" if advice else "ok", found=taken + (f"; free: {free}" if free else ""), advice=advice)


def check_exposure(listeners: list[Listener]) -> Finding:
    """Whether something of Ray's listens on more than the loopback interface."""
    of_ray = [one for one in listeners if one.is_of_ray]
    open_ = [one for one in of_ray if not one.is_loopback]
    if not open_:
        found = "no Ray runs here" if not of_ray else f"{len(of_ray)} port{'s' * (len(of_ray) > 1)} of Ray, all on the loopback interface"
        return Finding(check="Ray from outside", status="ok", found=found)
    bare = [one for one in open_ if not one.has_token]
    shown = "; ".join(f"{one.address}:{one.port} {one.program}" for one in (bare or open_)[:4])
    more = f"; and {len(bare or open_) - 4} more" if len(bare or open_) > 4 else ""
    if bare:
        advice = (
            "whoever reaches such a port runs code here: end it, or start Ray with RAY_AUTH_MODE=token behind a firewall that lets only "
            "the cluster's own nodes in (docs/security.md)"
        )
        return Finding(
            check="Ray from outside", status="wrong", found=f"without a token, not on the loopback interface: {shown}{more}", advice=advice
        )
    return Finding(
        check="Ray from outside", status="warning", found=f"with a token, not on the loopback interface: {shown}{more}",
        advice="let a firewall keep all but the cluster's own nodes from it",
    )  # fmt: skip


def check_token_file(path: Path | None = None) -> Finding:
    """Whether the token of Ray is this user's secret: Ray writes it readable by all, so the folders around it have to be closed.

    path: None: where Ray looks for it.
    """
    check = "Ray's token"
    if path is None and os.environ.get(auth.TOKEN):
        return Finding(check=check, status="ok", found=f"in {auth.TOKEN}, which counts before any file")
    is_named = path is None and bool(os.environ.get(auth.TOKEN_PATH))
    path = path or auth.token_file()
    why = auth.file_problem(path)
    if why is not None:
        if not is_named and why == os.strerror(errno.ENOENT):
            found = "none yet: Ray makes one when it starts here, `ray get-auth-token --generate` now"
            return Finding(check=check, status="ok", found=found)
        advice = f"name its file in {auth.TOKEN_PATH}, or leave it out" if is_named else "let this user read it, or make one anew"
        found = f"{printable(path)}{f' ({auth.TOKEN_PATH})' if is_named else ''}: no token can be read there: {why}"
        return Finding(check=check, status="wrong", found=found, advice=advice)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077 and all(folder.stat().st_mode & 0o011 for folder in path.absolute().parents):
        return Finding(check=check, status="wrong", found=f"{path} can be read by others (mode {mode:o})", advice=f"chmod 600 {path}")
    return Finding(check=check, status="ok", found=f"{path}, out of others' reach")
