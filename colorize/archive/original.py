"""A picture's file as a worker reads it: into memory, unless it is large, and then with as little of it in memory as its format allows."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from colorize.archive.journal import StopRunError
from colorize.errors import PictureError
from colorize.imaging.formats import is_known, open_scan
from colorize.imaging.guard import HEAD_BYTES
from colorize.storage.place import CHUNK, LocalPlace, Place, cause, digest, temporary_files

LARGE_BYTES = 64_000_000
"""A larger file is not read into memory: of a TIFF, only what is needed is. Out of a bucket it comes into a temporary file first."""

PICTURE = "picture"
"""What messages call it; a row has the path in a column of its own."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """A file, as `open_scan` takes it."""

    data: Path | BinaryIO | bytes
    size: int
    sha256: str


def read_original(source: Place, identity: str | None, path: str, size: int, held: ExitStack) -> Original:
    """The file of that `path` in the source. `held` closes what must stay open while the picture is read.

    identity: `Place.identity` of the source when it was listed. size: the file's, as it was listed.
    Raises PictureError for a file that cannot be read, or is large and no picture; StopRunError where the source is there no more.
    """
    try:
        if size <= LARGE_BYTES:
            data = source.read(path)
            return Original(data=data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        if isinstance(source, LocalPlace):
            local = source.root / path
            with local.open("rb") as file:
                return Original(data=local, size=local.stat().st_size, sha256=digest(file))
        return _fetched(source, path, held)
    except PictureError:
        raise
    except (OSError, ValueError) as error:
        if source.identity() != identity:
            raise StopRunError(f"{source.shown}: the source has vanished") from error
        raise PictureError(f"cannot be read: {cause(error)}") from error


def _fetched(source: Place, path: str, held: ExitStack) -> Original:
    """A file of a bucket as a temporary one; where it begins as no picture, no more of it is read. Raises OSError, PictureError."""
    sha256, size = hashlib.sha256(), 0
    with source.open(path) as remote:
        part = remote.read(HEAD_BYTES)
        if not is_known(part):
            open_scan(part, name=PICTURE)  # raises, and says what it is instead
        with temporary_files():
            local = cast(BinaryIO, held.enter_context(TemporaryFile()))  # noqa: SIM115
        while part:
            sha256.update(part)
            with temporary_files():
                size += local.write(part)
            part = remote.read(CHUNK)
    with temporary_files():
        local.seek(0)
    return Original(data=local, size=size, sha256=sha256.hexdigest())
