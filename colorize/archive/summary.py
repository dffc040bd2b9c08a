"""How far a bulk run is, and what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from ray.exceptions import RayError, RayTaskError, UserCodeException

from colorize.errors import ArchiveError
from colorize.storage.place import Place, cause


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, after each block of pictures."""

    total: int
    """Pictures that this run is to look at."""
    colored: int
    failed: int
    skipped: int
    """Of the total: pictures whose target appeared or was altered, and pictures that were touched and have not changed."""
    megapixels: float
    """Coloured so far."""
    pictures_per_second: float
    megapixels_per_second: float
    """Since the first pictures were done, so without the start of the workers; 0 until there are more."""
    new_failures: tuple[tuple[str, str], ...] = ()
    """(path, reason) of the pictures of this block that failed."""

    @property
    def done(self) -> int:
        return self.colored + self.failed + self.skipped

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the throughput so far; None while there is none."""
        return (self.total - self.done) / self.pictures_per_second if self.pictures_per_second else None


@dataclass(frozen=True, kw_only=True)
class ArchiveSummary:
    """What came of a run."""

    run_id: str
    source: Path
    target: Path
    """Of places that are no local folders: their URLs without secrets, as a Path holds them."""
    manifest: str
    """The Parquet file with one row an input and page."""
    report: str
    """The page with all pictures before and after."""
    inputs: int
    """Files below the source, and pictures that were there once and have their output."""
    colored: int
    """By this run."""
    kept: int
    """Coloured by an earlier run, and unchanged."""
    skipped: dict[str, int]
    """Files by reason, the most frequent first."""
    failures: list[tuple[str, str]]
    """(path, reason) by path."""
    program_errors: int
    """How many of the failures are errors of this program and none of the files'."""
    megapixels: float
    """Coloured by this run."""
    seconds: float
    """Wall-clock time with the start of the workers."""
    pictures_per_second: float
    """Without the start of the workers; 0 for a single block."""

    @property
    def failed(self) -> int:
        return len(self.failures)


@dataclass(kw_only=True)
class Tally:
    """The rows of a run as they come in: a block at a time, kept as Arrow tables of some 450 bytes a row."""

    total: int
    """Pictures that are to be looked at."""
    tables: list[pa.Table] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)
    _counts: Counter[str] = field(default_factory=Counter)
    _megapixels: float = 0.0
    _first: float = 0.0
    _last: float = 0.0
    _before: tuple[int, float] = (0, 0.0)
    """Pictures and megapixels of the first block: its time has the start of the workers in it."""
    _new_failures: tuple[tuple[str, str], ...] = ()

    def add(self, table: pa.Table) -> None:
        """Takes the rows of pictures that are done; a path that was here already is left out, whatever a restarted worker sends twice."""
        paths = table["path"].to_pylist()
        new = [path not in self.seen for path in paths]
        if not all(new):
            table = table.filter(pa.array(new))
        self.seen.update(paths)
        self.tables.append(table)
        for page, status in zip(table["page"].to_pylist(), table["status"].to_pylist(), strict=True):
            self._counts[status] += page == 0
        failed = table.filter(pc.and_(pc.equal(table["status"], "failed"), pc.equal(table["page"], 0)))
        self._new_failures = tuple(zip(failed["path"].to_pylist(), failed["reason"].to_pylist(), strict=True))
        colored = table.filter(pc.equal(table["status"], "coloured"))
        pixels = pc.sum(pc.multiply(pc.cast(colored["width"], pa.int64()), colored["height"])).as_py()
        self._megapixels += (pixels or 0) / 1e6
        self._last = time.monotonic()
        if not self._first:
            self._first, self._before = self._last, (self._counts.total(), self._megapixels)

    def progress(self) -> Progress:
        """The state now."""
        rate, megapixel_rate = self._rates()
        return Progress(
            total=self.total, colored=self._counts["coloured"], failed=self._counts["failed"],
            skipped=self._counts["skipped"] + self._counts["unchanged"], megapixels=self._megapixels, pictures_per_second=rate,
            megapixels_per_second=megapixel_rate, new_failures=self._new_failures,
        )  # fmt: skip

    def _rates(self) -> tuple[float, float]:
        elapsed = self._last - self._first
        if elapsed <= 0:
            return 0.0, 0.0
        return (self._counts.total() - self._before[0]) / elapsed, (self._megapixels - self._before[1]) / elapsed


@contextmanager
def breaking_off(place: Place, what: str, so_far: Callable[[], str] = str) -> Iterator[None]:
    """What Ray itself meets in it (a worker that died over a picture, a cluster that went down) as an ArchiveError.

    `what` broke off; `so_far`: what the message ends with. Errors of this program pass.
    """
    try:
        yield
    except RayError as error:
        if isinstance(error, RayTaskError | UserCodeException):
            raise
        first = cause(ValueError(str(error).partition("\n")[0]))
        raise ArchiveError(f"{place.shown}: {what} broke off ({type(error).__name__}: {first}){so_far()}") from error
