"""Places that a URL names: in a bucket, or on any other file system that pyarrow or fsspec knows.

An object store shows an object when its upload is complete; on any other file system a file is uploaded under another name and moved.
What a URL holds besides the path (a user's name and key, a query) never appears in a message.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from colorize.errors import StorageError, printable
from colorize.storage.place import CHUNK, FILE_URL, Found, LocalPlace, Place, cause, is_url, local_path, path_of_url, temporary_files
from colorize.storage.url import redacted, user_of

ARROW_SCHEMES = frozenset({"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"})
"""Opened by pyarrow itself; anything else by fsspec, where the package for it is installed."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"})
"""An object appears there when its upload is complete, so nothing needs to be moved into place."""

SEEK_BYTES = 1 << 16
"""What is read at once of a file in which somebody seeks."""


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

    def open_seekable(self, path: str) -> IO[bytes]:
        with _as_os_errors():
            return BufferedReader(self.filesystem.open_input_file(self._at(path)), SEEK_BYTES)

    def write(self, path: str, data: bytes, *, make_folder: bool = True) -> None:
        with ExitStack() as stack:
            with temporary_files():
                file = stack.enter_context(tempfile.NamedTemporaryFile())
                file.write(data)
                file.flush()
            self._upload(Path(file.name), path, aside=len(data) > CHUNK)  # a break half-way must not cost the one that it replaces

    def scratch(self, folder: str) -> Path:
        local = Path(tempfile.gettempdir()) / f"colorize-{os.getpid()}-{folder.replace('/', '-')}"
        with temporary_files():
            local.mkdir(mode=0o700, exist_ok=True)
        return local

    def staging(self) -> AbstractContextManager[None]:
        return temporary_files()

    def put(self, staged: Path, path: str, *, replace: bool) -> None:
        if not replace and self.look(path) is not None:
            raise FileExistsError(errno.EEXIST, "there is a file already", path)
        self._upload(staged, path)
        self.discard(staged)

    def discard(self, staged: Path) -> None:
        staged.unlink(missing_ok=True)
        with suppress(OSError):  # others are staged still
            staged.parent.rmdir()

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

    def _upload(self, local: Path, path: str, *, aside: bool = False) -> None:
        """Uploads a file whole; its size is compared afterwards, since a stream that breaks may still be closed as if it were whole.

        `aside`: under another name first, then moved, in an object store too.
        """
        at = self._at(path)
        size = local.stat().st_size
        with _as_os_errors():
            if self._whole_uploads and not aside:
                self._stream(local, at)
            else:
                folder = at.rpartition("/")[0]
                if not self._whole_uploads:
                    self.filesystem.create_dir(folder, recursive=True)
                partial = f"{folder}/.{uuid.uuid4().hex}.partial"
                try:
                    self._stream(local, partial)
                    self.filesystem.move(partial, at)
                except BaseException:
                    with suppress(Exception):
                        self.filesystem.delete_file(partial)
                    raise
            written = self.filesystem.get_file_info(at).size
        if written != size:
            self.remove(path)
            raise OSError(errno.EIO, f"{written} of {size} bytes arrived", path)

    def _stream(self, local: Path, at: str) -> None:
        before = sent = 0
        try:
            with local.open("rb") as file, self.filesystem.open_output_stream(at) as stream:
                while chunk := file.read(CHUNK):
                    before, sent = sent, sent + len(chunk)
                    stream.write(chunk)
        except BaseException:  # a stream that is closed is complete, whatever it lacks; of another size is what stood there before
            with suppress(Exception):
                if self.filesystem.get_file_info(at).size in {before, sent} - {local.stat().st_size}:
                    self.filesystem.delete_file(at)
            raise

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

    Raises StorageError when the URL makes no sense, or no file system is installed for it.
    """
    text = str(spec)
    scheme = text.partition("://")[0]
    if isinstance(spec, Path) or not is_url(text):
        return LocalPlace(local_path(text), printable(text))
    shown = redacted(text)
    if text.startswith(FILE_URL):
        return LocalPlace(path_of_url(text), shown)
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
        raise StorageError(f"{shown}: cannot be opened: {told}") from error
    if not root.strip("/"):
        raise StorageError(f"{shown}: cannot be opened: it names no folder")
    return RemotePlace(filesystem, root, shown, whole_uploads=scheme in OBJECT_STORES)


def write_file(spec: str, data: bytes) -> None:
    """Writes a file by its path or URL, whole or not at all. Raises StorageError."""
    place = open_place(spec)
    try:
        place.write("", data)
    except OSError as error:
        raise StorageError(f"{place.shown}: cannot be written ({cause(error)})") from error


def _uri(scheme: str, text: str) -> str:
    """A URL as pyarrow parses it: ASCII, without spaces; for S3 with small files as one request, not the four of an upload in parts."""
    uri = "".join(character if character.isascii() and character > " " else quote(character) for character in text)
    if scheme != "s3" or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _secrets(text: str) -> Iterator[str]:
    user = user_of(text)
    for secret in (user, *user.split(":", 1), text.partition("?")[2]):
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
