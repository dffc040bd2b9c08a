"""A place that holds files: what all places can do, and the local folder. `remote` has the others, and tells by a URL which one it is.

Paths are relative to the place, with `/`. A file appears whole or not at all: on a disk it is written beside its place, onto the disk,
and moved. Every failure is an OSError, as the file system gives it; `cause` says it in one line.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import IO
from urllib.parse import unquote

from colorize.errors import StorageError, one_line, printable
from colorize.storage.url import redacted

CHUNK = 8 << 20

FILE_URL = "file://"
"""How the URL of a local file begins."""

HOMELESS = "~: there is no home folder: name one in the variable HOME"

LONGEST_NAME = 255
"""Bytes of a file's name that a disk takes."""

_LINKS_REFUSED = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file, or what is in a file's place."""

    path: str
    """On a local disk possibly with the surrogates of a name that is not UTF-8."""
    size: int | None = None
    """Bytes; None for anything but a regular file: a pipe, a link to nothing, a link to a folder."""
    modified: int | None = None
    """Nanoseconds since 1970, as the file system has it."""
    is_folder: bool = False
    """A link to a folder, which is not followed."""
    problem: str | None = None
    """Why a folder could not be listed: then `path` is the folder's."""


class Place(ABC):
    """A folder somewhere. It can be sent to a worker on another machine."""

    shown: str
    """What messages call it."""

    @abstractmethod
    def walk(self) -> Iterator[Found]:
        """All files at any depth, in no order."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """What is directly in `folder`, sorted; nothing where there is no such folder."""

    @abstractmethod
    def look(self, path: str) -> Found | None:
        """What is there, links not followed; None when nothing is."""

    @abstractmethod
    def sizes(self) -> Callable[[str], int | None]:
        """A function from a path to its bytes (None: nothing there, −1: no regular file); on a bucket it costs one listing in all."""

    @abstractmethod
    def open(self, path: str) -> IO[bytes]:
        """Opens a file for reading from its beginning."""

    def open_seekable(self, path: str) -> IO[bytes]:
        """Opens a file of which only some places are to be read; in a bucket every one of them is a request."""
        return self.open(path)

    @abstractmethod
    def write(self, path: str, data: bytes, *, make_folder: bool = True) -> None:
        """Writes one of this program's own files, whole or not at all, replacing what is there."""

    @abstractmethod
    def scratch(self, folder: str) -> Path:
        """A local folder for files that `put` is to move to their places: on a disk it is `folder` itself, which must exist."""

    def staging(self) -> AbstractContextManager[None]:
        """To be around whatever writes into the scratch folder: an OSError names that folder, where it is not in this place."""
        return nullcontext()

    @abstractmethod
    def discard(self, staged: Path) -> None:
        """Removes a file of the scratch folder, if it is there still."""

    @abstractmethod
    def put(self, staged: Path, path: str, *, replace: bool) -> None:
        """Moves a file out of the scratch folder to `path`. Raises FileExistsError when something is there and `replace` is false."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Removes a file, or a folder with all that is in it; nothing happens where there is none."""

    @abstractmethod
    def rename(self, folder: str, other: str) -> bool:
        """Renames a folder in one step; False where that cannot be done, as in buckets."""

    @abstractmethod
    def identity(self) -> str | None:
        """What tells this folder from another that is mounted in its place later; None: it is not there."""

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        with self.open(path) as file:
            return file.read()

    def sha256(self, path: str) -> str:
        """The digest of a file."""
        with self.open(path) as file:
            return digest(file)


class LocalPlace(Place):
    """A folder that this machine (and every other node of the cluster) sees under one path."""

    def __init__(self, root: Path, shown: str) -> None:
        self.root = root
        self.shown = shown

    def walk(self) -> Iterator[Found]:
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                with os.scandir(self.root / prefix) as entries:
                    for entry in entries:
                        relative = f"{prefix}/{entry.name}" if prefix else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(relative)
                        else:
                            yield _found(relative, entry)
            except OSError as error:
                yield Found(path=prefix, problem=cause(error))

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self.root / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def look(self, path: str) -> Found | None:
        try:
            status = os.lstat(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        return Found(path=path, size=size, modified=status.st_mtime_ns, is_folder=stat.S_ISDIR(status.st_mode))

    def sizes(self) -> Callable[[str], int | None]:
        def size(path: str) -> int | None:
            try:
                found = self.look(path)
            except OSError:  # a name that is too long, say: writing it will tell
                return None
            return None if found is None else -1 if found.size is None else found.size

        return size

    def open(self, path: str) -> IO[bytes]:
        return (self.root / path).open("rb")

    def write(self, path: str, data: bytes, *, make_folder: bool = True) -> None:
        target = self.root / path
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{uuid.uuid4().hex}.partial"
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            with suppress(OSError):  # a disk that has turned read-only refuses even this, and the first error is the one to tell
                partial.unlink(missing_ok=True)

    def scratch(self, folder: str) -> Path:
        return self.root / folder

    def discard(self, staged: Path) -> None:
        staged.unlink(missing_ok=True)

    def put(self, staged: Path, path: str, *, replace: bool) -> None:
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # which here would mean that the picture itself is there
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
        try:
            move(staged, target, replace=replace)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _move_across(staged, target, replace=replace)  # a folder of the target that another disk is mounted in

    def remove(self, path: str) -> None:
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                target.unlink()

    def rename(self, folder: str, other: str) -> bool:
        (self.root / folder).replace(self.root / other)
        return True

    def identity(self) -> str | None:
        try:
            status = self.root.stat()
        except OSError:
            return None
        return f"{status.st_dev}:{status.st_ino}"


def move(staged: Path, target: Path, *, replace: bool) -> None:
    """Moves a file on one file system. Raises FileExistsError when something is there and `replace` is false."""
    if replace:
        staged.replace(target)
        return
    try:
        os.link(staged, target)  # unlike a move, it never replaces anything
    except OSError as error:
        if error.errno not in _LINKS_REFUSED:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "there is a file already", str(target)) from error
        staged.replace(target)
    else:
        staged.unlink()


def _move_across(staged: Path, target: Path, *, replace: bool) -> None:
    """As `move`, from one file system to another."""
    partial = target.parent / f".{uuid.uuid4().hex}.partial"
    try:
        with staged.open("rb") as source, partial.open("xb") as file:
            shutil.copyfileobj(source, file, CHUNK)
            file.flush()
            os.fsync(file.fileno())
        staged.unlink()  # first: where the scratch folder has gone meanwhile, nothing may come into its place any more
        move(partial, target, replace=replace)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def is_url(spec: str) -> bool:
    """Whether it names something by a URL, rather than by a path, which may have a colon too."""
    scheme, separator, _ = spec.partition("://")
    return bool(separator) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) is not None


def local_path(text: str) -> Path:
    """A path as a user writes it, `~` and `~user` being home folders. Raises StorageError where there is none of that user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        if text.partition("/")[0] == "~":  # in a container, say, of a user that nobody has named
            raise StorageError(HOMELESS) from error
        raise StorageError(f"{printable(text)}: there is no such home folder; write ./ before a name that begins with ~") from error


def path_of_url(url: str) -> Path:
    """The path that a `file:` URL names: absolute, `%20` and the like decoded. Raises StorageError for another machine's, and for none."""
    host, slash, path = url.removeprefix(FILE_URL).partition("/")
    decoded = unquote(path, errors="surrogateescape")
    if host not in ("", "localhost") or not slash or set("?#") & set(path) or "\0" in decoded:
        raise StorageError(f"{redacted(url)}: not the URL of a file: file:///FOLDER/NAME, absolute, of this machine, ? as %3F and # as %23")
    return Path("/" + decoded.lstrip("/"))


def cause(error: BaseException) -> str:
    """Why something failed, in one line."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return one_line(told, longest=300)


@contextmanager
def temporary_files() -> Iterator[None]:
    """An OSError of the block as one that names the folder for temporary files: nobody would think of it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{printable(gettempdir())}, the folder for temporary files: {cause(error)}") from error


def lock(file: IO[bytes] | int) -> bool:
    """Takes an open file for this process alone, until it is closed or the process ends; False where another process has it.

    On a file system without locks it gives True.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def digest(file: IO[bytes]) -> str:
    """SHA-256 of what is left to read."""
    sha256 = hashlib.sha256()
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
    return sha256.hexdigest()


def _found(relative: str, entry: os.DirEntry[str]) -> Found:
    try:
        if entry.is_dir():
            return Found(path=relative, is_folder=True)
        status = entry.stat() if entry.is_file() else None  # opening a pipe would wait for ever
    except OSError:
        status = None
    return Found(path=relative, size=status.st_size if status else None, modified=status.st_mtime_ns if status else None)


def with_suffix(path: str, suffix: str) -> str:
    """A path with something at its end; where its name gets too long for a disk, that ends with a digest."""
    folder, slash, name = path.rpartition("/")
    if len((name + suffix).encode()) > LONGEST_NAME:
        suffix = f"~{hashlib.sha256(name.encode()).hexdigest()[:16]}{suffix}"
        name = name.encode()[: LONGEST_NAME - len(suffix)].decode("utf-8", "ignore")
    return f"{folder}{slash}{name}{suffix}"
