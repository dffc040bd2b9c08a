"""What a user writes after `--data`: the specification of a source, parsed.

Knows nothing of what is in files: whether a path exists is found out where it is opened.
"""

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from colorize.errors import DataError, one_line
from colorize.storage.place import FILE_URL, local_path, path_of_url
from colorize.storage.url import WAY_OUT, has_secret, without_secrets

Kind = Literal["cifar10-sample", "cifar10", "folder", "parquet"]

FIXED_SIZE: tuple[Kind, ...] = ("cifar10", "cifar10-sample")
"""The kinds of sources whose pictures have one size of their own."""

FORMS = "cifar10-sample, cifar10, cifar10:PATH, folder:PATH_OR_BUCKET or parquet:PATH_OR_BUCKET"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One parsed specification."""

    kind: Kind
    """Which reader it is for."""
    path: str | None
    """A local path or a bucket's URI, as it was written; None for the bundled sample and for the CIFAR-10 download."""

    def __str__(self) -> str:
        return self.kind if self.path is None else f"{self.kind}:{self.path}"


def parse_source(spec: str) -> Source:
    """`spec` as a Source; `str(parse_source(spec)) == spec`. Raises DataError, listing the forms, for anything else, and for a URL with a
    secret: what was trained on is written into the run, the model's card and the scores.

    The path is everything after the first colon: `folder:s3://bucket/scans` and `parquet:C:\\photos` are whole.
    """
    if has_secret(spec):
        raise DataError(f"{one_line(without_secrets(spec))}: holds a secret, which would be kept with what is made of the data: {WAY_OUT}")
    kind, colon, path = spec.partition(":")
    match kind:
        case "cifar10-sample" if not colon:
            return Source(kind=kind, path=None)
        case "cifar10" if not colon:
            return Source(kind=kind, path=None)
        case "cifar10" | "folder" | "parquet" if path.strip():
            return Source(kind=kind, path=path)
        case "folder" | "parquet" | "cifar10":
            raise DataError(f"{spec!r}: a path is missing: write {kind}:PATH")
        case "cifar10-sample":
            raise DataError(f"{spec!r}: the bundled sample takes no path: write cifar10-sample, or cifar10:PATH")
    raise DataError(f"{spec!r}: no such data source: write {FORMS}")


def check_apart(specs: Sequence[str]) -> None:
    """Raises DataError where one of several sources lies within another of its kind: each splits its pictures by itself, by their names
    in it, so what one tests by the other could train on. The same source again is no fault. Links are followed.
    """
    sources = [parse_source(spec) for spec in specs]
    for inner, outer in permutations(sources, 2):
        if inner.kind != outer.kind or inner.path is None or outer.path is None:
            continue
        around = _folders(outer.path)
        if _folders(inner.path)[:-1][: len(around)] == around:
            told = f"lies within {one_line(outer)}: a picture could be trained on by one and tested by the other"
            raise DataError(f"--data {one_line(inner)}: {told}: name folders that lie apart")


def _folders(path: str) -> tuple[str, ...]:
    """The folders on the way to a local path, without links, or to a bucket's URI, however it is written; the last is the place itself."""
    if path.startswith(FILE_URL) or "://" not in path:
        local = path_of_url(path) if path.startswith(FILE_URL) else local_path(path)
        return Path(os.path.realpath(local)).parts
    scheme, _, rest = path.partition("?")[0].partition("://")
    bucket, _, inside = unquote(rest).partition("/")
    return (scheme.replace("gcs", "gs"), bucket, *PurePosixPath(posixpath.normpath(f"//{inside}")).parts[1:])
