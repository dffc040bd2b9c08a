"""The files of a source: a folder's, local or in a bucket, listed without Ray. Files are named relative to the source.

A worker on another machine must see the same path, so a cluster wants a bucket or a shared folder.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from colorize.errors import DataError, one_line, printable
from colorize.storage.place import FILE_URL, local_path, path_of_url
from colorize.storage.url import redacted, without_secrets


@dataclass(frozen=True, kw_only=True)
class PictureFiles:
    """A folder, local or in a bucket, and the files in it."""

    spec: str
    """What the user wrote."""
    filesystem: fs.FileSystem
    root: str
    """The folder's path within `filesystem`; for a single file, the folder that holds it."""
    names: tuple[str, ...]
    """Files relative to `root`, sorted; hidden ones (a leading dot, in any part) are left out."""

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


def find_files(spec: str, path: str) -> PictureFiles:
    """All files below `path`, a local path or a bucket's URI (s3://, gs://, abfs://, hdfs://, file://).

    Raises DataError when it is missing, empty, or cannot be listed, or a name in it is not UTF-8; StorageError for a file URL that
    is none, and for a home that is none.
    """
    shown = redacted(path)
    try:
        if path.startswith(FILE_URL):
            filesystem, root = fs.LocalFileSystem(), str(path_of_url(path))
        elif "://" in path:
            filesystem, root = fs.FileSystem.from_uri(path.replace(" ", "%20"))
        else:
            filesystem, root = fs.LocalFileSystem(), str(local_path(path).absolute())
        root = root.rstrip("/")
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.NotFound:
            raise DataError(f"{shown}: no such file or folder")
        if info.type == fs.FileType.File:
            root, _, name = root.rpartition("/")
            return PictureFiles(spec=spec, filesystem=filesystem, root=root, names=(name,))
        if isinstance(filesystem, fs.LocalFileSystem):
            names = _files_below(root)
        else:
            found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
            names = [entry.path[len(root) :].lstrip("/") for entry in found if entry.type == fs.FileType.File]
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise DataError(f"{printable(shown)}: cannot be listed: {one_line(without_secrets(str(error)))}") from error
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    for name in visible:
        if not name.isascii() and os.fsencode(name).decode(errors="replace") != name:
            raise DataError(f"{shown}: {printable(name)}: its name is not valid UTF-8: rename it")
    if not visible:
        raise DataError(f"{shown}: the folder is empty")
    return PictureFiles(spec=spec, filesystem=filesystem, root=root, names=tuple(visible))


def _files_below(root: str) -> list[str]:
    """The files below a local folder, relative to it, without hidden ones. Raises OSError.

    Links are followed, but not to a folder that they lie in: pyarrow goes round such a loop forty times, and one picture becomes many, for
    training and for the test. A link to nothing counts as a file, one that cannot be read.
    """
    names: list[str] = []
    waiting: list[tuple[Path, tuple[os.stat_result, ...]]] = [(Path(root or "/"), ())]
    while waiting:
        folder, around = waiting.pop()
        here = folder.stat()
        if any(os.path.samestat(here, above) for above in around):
            continue
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                waiting.append((path, (*around, here)))
            elif path.is_file() or (path.is_symlink() and not path.exists()):
                names.append(str(path)[len(root) :].lstrip("/"))
    return names
