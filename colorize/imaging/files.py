"""Files written whole or not at all: beside their target first, onto the disk, then into place. And files that are read as pictures."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from colorize.errors import PictureError, printable
from colorize.storage.place import move


@contextmanager
def writing_whole(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """An empty file, open for reading and writing, that becomes `path` when the block ends well, replacing what was there.

    Raises PictureError when something is there at that moment and `replace` is false, and when the folder is missing or the file cannot be
    written; whatever else the block raises passes. However the block ends, nothing else is left behind.
    """
    partial = path.parent / f".{uuid.uuid4().hex}.partial"
    try:
        opened = partial.open("x+b")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise _cannot_be_written(path, error) from error
    try:
        try:
            with opened as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            move(partial, path, replace=replace)
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError as error:
        raise PictureError(f"{printable(str(path))}: is there already, and nothing is overwritten: give another name") from error
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def write_whole(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes a file of these bytes as `writing_whole` does."""
    with writing_whole(path, replace=replace) as file:
        file.write(data)


def in_the_way(path: Path) -> str | None:
    """Why no file can be written there, as far as that can be told without writing: for whoever has minutes of work to do first."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return "its folder does not exist"
    if path.is_dir():
        return "is a folder; give the name of a file"
    return None if os.access(folder, os.W_OK | os.X_OK) else "its folder cannot be written; give a file in another one"


def _cannot_be_written(path: Path, error: Exception) -> PictureError:
    return PictureError(f"{printable(str(path))}: cannot be written: {reason_of(error)}")


@contextmanager
def reading(path: Path, name: str) -> Iterator[BinaryIO]:
    """A regular file, open for reading within the block; `name` is what messages call it.

    Raises PictureError where it is missing, a folder, no regular file or cannot be opened, and for an OSError or MemoryError of the block.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(mode):  # reading a pipe or a device could wait for ever
            raise PictureError(f"{name}: is not a regular file")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise PictureError(f"{name}: there is no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{name}: cannot be read: {reason_of(error)}") from error
    with file:
        try:
            yield file
        except (OSError, MemoryError) as error:
            raise PictureError(f"{name}: cannot be read: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """What an exception says, on one line that begins with a small letter."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(reason[:1].lower() + reason[1:])
