"""The official CIFAR-10 archive, downloaded once into a cache: with progress, resumable, checked, whole or not at all.

Knows nothing of what is in the archive, nor of Ray. A download that breaks off is taken up again where it stopped (HTTP
Range, a `.partial` file beside the target), at once and at the next run; the file takes its name only when its MD5 is right.
There is no fall-back: without the archive there is an error that says how to get it by hand.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from colorize.errors import DataError
from colorize.storage.place import local_path

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

TIMEOUT_SECONDS = 30.0
"""How long the server may stay silent."""
ATTEMPTS = 5
"""How often a transfer that breaks off is taken up again within one call."""
_CHUNK_BYTES = 1 << 18


def cache_folder() -> Path:
    """Where downloads are kept: COLORIZE_CACHE, else `colorize` in XDG_CACHE_HOME, else in ~/.cache. Raises StorageError."""
    if chosen := os.environ.get("COLORIZE_CACHE"):
        return local_path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else local_path("~/.cache")) / "colorize"


def cifar10_archive(cache: Path | None = None) -> Path:
    """The official archive in the cache (170 MB), downloaded if it is not there yet.

    Raises DataError, naming the way out, when it cannot be had.
    """
    target = (cache or cache_folder()) / CIFAR10_URL.rpartition("/")[2]
    try:
        return download(CIFAR10_URL, target, md5=CIFAR10_MD5)
    except DataError as error:
        raise DataError(f"{error}; or get the archive some other way and use cifar10:PATH") from error


def download(url: str, target: Path, *, md5: str) -> Path:
    """Downloads `url` to `target` unless it is there with the right `md5` already, and returns `target`.

    Raises DataError when the server cannot be reached, refuses, breaks off for good or sends other bytes, when `target` cannot
    be written, and when another process is downloading it. What came is kept for the next try, unless the bytes are wrong.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        if target.is_file() and _md5_of(target) == md5:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab+") as file, _locked(file, partial):
            _fetch_all(url, file)
            file.flush()
            os.fsync(file.fileno())
            found = _md5_of(partial)
            if found != md5:
                partial.unlink()
                raise DataError(f"{url}: the download has MD5 {found}, not {md5}: it was thrown away, try again")
            partial.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _fetch_all(url: str, file: BinaryIO) -> None:
    """Appends to `file` until it is whole, taking up transfers that break off."""
    with _progress(url) as (bar, task):
        for attempt in range(1, ATTEMPTS + 1):
            have = file.seek(0, os.SEEK_END)
            try:
                with _open(url, have) as response:
                    if response.status == http.HTTPStatus.OK and have:  # the server does not do ranges: from the start
                        file.truncate(0)
                        have = 0
                    length = response.headers.get("Content-Length")
                    expected = None if length is None else have + int(length)
                    bar.update(task, total=expected, completed=have)
                    while chunk := _read(response):
                        _append(file, chunk)
                        bar.update(task, advance=len(chunk))
                if expected is None or file.seek(0, os.SEEK_END) >= expected:
                    return
                broken = f"the server closed the connection {expected - file.tell():,} bytes too early"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                    if error.headers.get("Content-Range") == f"bytes */{have}":
                        return  # the last try broke off after the last byte
                    file.truncate(0)
                    broken = "what an earlier try left is longer than the file"
                else:
                    raise DataError(f"{url}: cannot be downloaded: {error.code} {error.reason}") from error
            except _TransferError as error:
                broken = str(error)
                if file.seek(0, os.SEEK_END) <= have:  # nothing came at all: trying again at once is no use
                    raise DataError(f"{url}: cannot be downloaded: {broken}") from error
            if attempt == ATTEMPTS:
                kept = file.seek(0, os.SEEK_END)
                raise DataError(f"{url}: the download broke off: {broken}; {kept:,} bytes are kept, the next run goes on from there")


class _TransferError(Exception):
    """The network's fault, told from a disk's: both are OSError."""


def _open(url: str, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "colorize", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.build_opener(_SameScheme).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _TransferError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(str(error) or type(error).__name__) from error
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(str(error) or type(error).__name__) from error


def _append(file: BinaryIO, chunk: bytes) -> None:
    file.seek(0, os.SEEK_END)
    file.write(chunk)


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something that anyone on the way can read and change."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage | Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


@contextlib.contextmanager
def _locked(file: BinaryIO, partial: Path) -> Iterator[None]:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(f"{partial}: another process is downloading it: wait for that one") from error
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def _progress(url: str) -> Iterator[tuple[Progress, TaskID]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar, bar.add_task(url.rpartition("/")[2], total=None)


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
