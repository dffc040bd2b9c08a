"""What a user writes after `--data`: the specification of a source, parsed.

Knows nothing of files: whether a path exists is found out where it is opened.
"""

from dataclasses import dataclass
from typing import Literal

from colorize.errors import DataError, one_line
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
