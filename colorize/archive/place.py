"""A place that holds files: a local folder, or one in a bucket or on any other file system that pyarrow or fsspec knows by URL.

Knows nothing of pictures or runs. Paths are relative to the place, with `/`. A file appears whole or not at all: on a disk it is written
beside its place, onto the disk, and moved; an object store shows an object when its upload is complete; on any other file system it is
uploaded under another name and moved. What a URL holds besides the path (a user's name and key, a query) never appears in a message.
Every failure is an OSError, as the file system gives it; `cause` says it in one line.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from colorize.errors import ArchiveError

ARROW_SCHEMES = frozenset({"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"})
"""Opened by pyarrow itself; anything else by fsspec, where the package for it is installed."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"})
"""An object appears there when its upload is complete, so nothing needs to be moved into place."""

CHUNK = 8 << 20

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

    @abstractmethod
    def write(self, path: str, data: bytes, *, make_folder: bool = True) -> None:
        """Writes one of this program's own files, whole or not at all, replacing what is there."""

    @abstractmethod
    def scratch(self, folder: str) -> Path:
        """A local folder for files that `put` is to move to their places: on a disk it is `folder` itself, which must exist."""

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

    def put(self, staged: Path, path: str, *, replace: bool) -> None:
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # which here would mean that the picture itself is there
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
        if replace:
            staged.replace(target)
            return
        try:
            os.link(staged, target)  # unlike a move, it never replaces anything
        except OSError as error:
            if error.errno not in _LINKS_REFUSED:
                raise
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "there is a file already", path) from error
            staged.replace(target)
        else:
            staged.unlink()

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


class RemotePlace(Place):
    """A folder on a pyarrow file system."""

    def __init__(self, filesystem: fs.FileSystem, root: str, shown: str, *, whole_uploads: bool) -> None:
        """`whole_uploads`: a file appears there when its upload is complete, and not before."""
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.shown = shown
        self._whole_uploads = whole_uploads

    def walk(self) -> Iterator[Found]:
        try:
            found = self._infos("", recursive=True)
        except OSError as error:
            yield Found(path="", problem=cause(error))
            return
        for info in found:
            if info.type != fs.FileType.Directory:
                yield self._found(info)

    def names(self, folder: str) -> list[str]:
        return sorted(info.path.rstrip("/").rpartition("/")[2] for info in self._infos(folder, recursive=False))

    def look(self, path: str) -> Found | None:
        with _as_os_errors():
            info = self.filesystem.get_file_info(self._at(path))
        return None if info.type == fs.FileType.NotFound else self._found(info)

    def sizes(self) -> Callable[[str], int | None]:
        known = {found.path: -1 if found.size is None else found.size for found in self.walk() if found.problem is None}
        return known.get

    def open(self, path: str) -> IO[bytes]:
        with _as_os_errors():
            return cast(IO[bytes], self.filesystem.open_input_stream(self._at(path)))

    def write(self, path: str, data: bytes, *, make_folder: bool = True) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self._upload(Path(file.name), path)

    def scratch(self, folder: str) -> Path:
        local = Path(tempfile.gettempdir()) / f"colorize-{os.getpid()}-{folder.replace('/', '-')}"
        local.mkdir(mode=0o700, exist_ok=True)
        return local

    def put(self, staged: Path, path: str, *, replace: bool) -> None:
        if not replace and self.look(path) is not None:
            raise FileExistsError(errno.EEXIST, "there is a file already", path)
        self._upload(staged, path)
        staged.unlink()

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError), _as_os_errors():
            info = self.filesystem.get_file_info(self._at(path))
            if info.type == fs.FileType.Directory:
                self.filesystem.delete_dir(self._at(path))
            elif info.type != fs.FileType.NotFound:
                self.filesystem.delete_file(self._at(path))

    def rename(self, folder: str, other: str) -> bool:
        return False

    def identity(self) -> str | None:
        return "" if self.look("") is not None else None

    def _upload(self, local: Path, path: str) -> None:
        """Uploads a file whole; its size is compared afterwards, since a stream that breaks may still be closed as if it were whole."""
        at = self._at(path)
        size = local.stat().st_size
        with _as_os_errors():
            if self._whole_uploads:
                self._stream(local, at)
            else:
                self.filesystem.create_dir(at.rpartition("/")[0], recursive=True)
                partial = f"{at.rpartition('/')[0]}/.{uuid.uuid4().hex}.partial"
                self._stream(local, partial)
                self.filesystem.move(partial, at)
            written = self.filesystem.get_file_info(at).size
        if written != size:
            self.remove(path)
            raise OSError(errno.EIO, f"{written} of {size} bytes arrived", path)

    def _stream(self, local: Path, at: str) -> None:
        with local.open("rb") as file, self.filesystem.open_output_stream(at) as stream:
            while chunk := file.read(CHUNK):
                stream.write(chunk)

    def _infos(self, folder: str, *, recursive: bool) -> list[Any]:
        selector = fs.FileSelector(self._at(folder), recursive=recursive, allow_not_found=bool(folder))
        with _as_os_errors():
            return list(self.filesystem.get_file_info(selector))

    def _found(self, info: Any) -> Found:
        path = info.path[len(self.root) :].removeprefix("/") if self.root else info.path
        is_file = info.type == fs.FileType.File
        return Found(path=path, size=info.size if is_file else None, modified=info.mtime_ns, is_folder=not is_file)

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/") if self.root else path


def open_place(spec: str | Path) -> Place:
    """The place that a user names: a path, or a URL such as `s3://bucket/folder`. Nothing is looked up yet.

    Raises ArchiveError when the URL makes no sense, or no file system is installed for it.
    """
    text = str(spec)
    scheme, separator, _ = text.partition("://")
    if isinstance(spec, Path) or not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return LocalPlace(Path(text).expanduser(), _printable(text))
    shown = redacted(text)
    if scheme == "file":
        return LocalPlace(Path(unquote(urlsplit(text).path)), shown)
    filesystem: Any
    try:
        if scheme in ARROW_SCHEMES:
            filesystem, root = fs.FileSystem.from_uri(_uri(scheme, text))
        else:
            import fsspec  # type: ignore[import-untyped]

            opened, root = fsspec.url_to_fs(text)
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(opened))
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        told = " ".join(str(error).split()).replace(_uri(scheme, text), shown).replace(text, shown)
        for secret in _secrets(text):
            told = told.replace(secret, "…")
        raise ArchiveError(f"{shown}: cannot be opened: {told}") from error
    if not root.strip("/"):
        raise ArchiveError(f"{shown}: cannot be opened: it names no folder")
    return RemotePlace(filesystem, root, shown, whole_uploads=scheme in OBJECT_STORES)


def redacted(text: str) -> str:
    """A URL without user, key and query; a path as it is, on one line."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _printable(text)
    path = rest.partition("?")[0]
    host, slash, tail = path.partition("/")
    return _printable(f"{scheme}://{host.rpartition('@')[2]}{slash}{tail}")


def cause(error: BaseException) -> str:
    """Why something failed, in one line."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    told = _printable(" ".join(told.split()))
    return told if len(told) <= 300 else f"{told[:299]}…"


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


def _uri(scheme: str, text: str) -> str:
    """A URL as pyarrow parses it: ASCII, without spaces; for S3 with small files as one request, not the four of an upload in parts."""
    uri = "".join(character if character.isascii() and character > " " else quote(character) for character in text)
    if scheme != "s3" or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _secrets(text: str) -> Iterator[str]:
    parts = text.partition("://")[2]
    user = parts.partition("/")[0].rpartition("@")[0]
    for secret in (user, *user.split(":", 1), parts.partition("?")[2]):
        if len(secret) > 2:
            yield secret
            yield quote(secret)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except (pa.ArrowException, ValueError) as error:
        raise OSError(errno.EIO, cause(error)) from error


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
