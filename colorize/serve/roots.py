"""Where bulk runs may read and write: the roots that the operator allows, and whether a place that a client names lies within one.

Knows nothing of HTTP and nothing of Ray. It would rather refuse a strange name than understand it: there is one spelling of a place within
a root, and every other one (`..`, an empty part, percent-encoding, a user, a query, a chain of file systems, characters that some file
system might take for a slash or a dot) is refused. Local names are looked up: what counts is where they lead, through all symbolic links.
Links that somebody with access to a root puts there after the check, or deeper below it, are the operator's own.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colorize.errors import ArchiveError, ConfigError, printable

MAX_LENGTH = 4096
"""Of a place's name in characters: no path may be longer on Linux."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)(/.*)?", re.DOTALL)
_FILE = "file"


class OutsideError(ArchiveError):
    """A place that lies in none of the roots, or is spelled in a way that is not taken."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A place that a run may use."""

    shown: str
    """As a client may read it."""
    opened: str
    """As the run is to open it: of a local one its real path, of a URL one with the query of its root."""


@dataclass(frozen=True, kw_only=True)
class _Root:
    scheme: str
    """Empty for a local folder."""
    host: str
    parts: tuple[str, ...]
    query: str


class Roots:
    """The operator's list."""

    def __init__(self, specs: Sequence[str]) -> None:
        """specs: absolute paths and URLs. Raises ConfigError for one that is neither, or that would allow everything."""
        self._roots = tuple(_root(spec) for spec in specs)

    def __bool__(self) -> bool:
        return bool(self._roots)

    def admit(self, spec: str) -> Allowed:
        """The place that a client names, where it lies within a root. Raises OutsideError, which repeats nothing that was looked up."""
        outside = OutsideError(f"{_told(spec)}: lies in none of the places that the operator of this service allows")
        try:
            scheme, host, parts, query = _taken_apart(spec)
        except ValueError as error:
            raise OutsideError(f"{_told(spec)}: {error}") from error
        if query:
            raise OutsideError(f"{_told(spec)}: has a query; give the place alone")
        if not scheme:
            real = _real("/" + "/".join(parts))
            if real is None or not any(_is_within(real, root) for root in self._roots if not root.scheme):
                raise outside
            return Allowed(shown=real, opened=real)
        for root in self._roots:
            if (root.scheme, root.host) == (scheme, host) and parts[: len(root.parts)] == root.parts:
                shown = f"{scheme}://{host}/{'/'.join(parts)}".rstrip("/")
                return Allowed(shown=shown, opened=f"{shown}?{root.query}" if root.query else shown)
        raise outside


def _root(spec: str) -> _Root:
    try:
        scheme, host, parts, query = _taken_apart(spec)
        if not scheme and not parts:
            raise ValueError("would allow every file of the machine; name the folders")
        if scheme and not (host or parts):
            raise ValueError("names neither a bucket nor a host")
    except ValueError as error:
        raise ConfigError(f"archive_roots: {_told(spec)}: {error}") from error
    return _Root(scheme=scheme, host=host, parts=parts, query=query)


def _taken_apart(spec: str) -> tuple[str, str, tuple[str, ...], str]:
    """(scheme, host, the parts of the path, query) of a place in its one spelling; of a local one, scheme and host are empty.

    Raises ValueError, which says what is wrong with it.
    """
    if not spec or len(spec) > MAX_LENGTH:
        raise ValueError(f"a place has 1 to {MAX_LENGTH:,} characters")
    if not spec.isprintable():
        raise ValueError("has characters that cannot be printed")
    found = _URL.fullmatch(spec)
    if found is None:
        if not spec.startswith("/"):
            raise ValueError("is neither an absolute path nor a URL such as s3://bucket/folder")
        return "", "", _parts(spec), ""
    scheme, host, rest = found[1], found[2], found[3] or ""
    path, _, query = rest.partition("?")
    if "@" in host:
        raise ValueError("has a user or a key in it; credentials come from the environment of the machines")
    if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]*", host):
        raise ValueError("its bucket or host has characters that none has")
    for character in "%#\\?":
        if character in path or (character in "#\\?" and character in query):
            raise ValueError(f"has a {character} in it; names are written as they are, without any encoding")
    if "::" in path:
        raise ValueError("is a chain of places")
    if scheme == _FILE:
        if host or query:
            raise ValueError("a file URL has no host and no query; give the path")
        return "", "", _parts(path), ""
    return scheme, host, _parts(path) if path else (), query


def _parts(path: str) -> tuple[str, ...]:
    """The parts of `/a/b` or `/a/b/`. Raises ValueError for one that is empty, or that some file system could take for more than a name."""
    parts = path.removeprefix("/").removesuffix("/").split("/")
    if parts == [""] and path in ("", "/"):
        return ()
    for part in parts:
        plain = unicodedata.normalize("NFKC", part)
        if not plain.strip() or set(plain.strip()) <= {"."} or "/" in plain or "\\" in plain or "\0" in plain:
            raise ValueError(f"{part!r} in it is not the name of a folder")
    return tuple(parts)


def _real(path: str) -> str | None:
    """Where a path leads, the last parts of which need not exist; None where a link in it leads nowhere or a part cannot be looked up."""
    ahead = Path(path)
    missing: list[str] = []
    while not os.path.lexists(ahead):
        missing.append(ahead.name)
        ahead = ahead.parent
    try:
        return str(ahead.resolve(strict=True).joinpath(*reversed(missing)))
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        return None


def _is_within(real: str, root: _Root) -> bool:
    folder = _real("/" + "/".join(root.parts))
    return folder is not None and (real == folder or real.startswith(f"{folder.rstrip('/')}/"))


def _told(spec: str) -> str:
    """A client's spelling, as a message may repeat it: without what could be a key."""
    return re.sub(r"//[^/]*@", "//…@", printable(spec[:200]).partition("?")[0]) or "''"
