"""How far a bulk run is, and what came of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from colorize.archive.manifest import Row


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, after each picture."""

    total: int
    """Pictures that this run is to colour."""
    colored: int
    failed: int
    skipped: int
    """Of the total: pictures whose target appeared while the run was under way."""
    megapixels: float
    """Coloured so far."""
    pictures_per_second: float
    """Since the first picture was done, so without the start of the workers; 0 until there are two."""

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
    manifest: Path
    """The Parquet file with one row an input."""
    inputs: int
    """All files below the source."""
    colored: int
    skipped: dict[str, int]
    """Files by reason, the most frequent first."""
    failures: list[tuple[str, str]]
    """(path, reason) by path."""
    program_errors: int
    """How many of the failures are errors of this program and none of the files'."""
    megapixels: float
    """Coloured."""
    seconds: float
    """Wall-clock time with the start of the workers."""
    pictures_per_second: float
    """Without the start of the workers; 0 for fewer than two pictures."""

    @property
    def failed(self) -> int:
        return len(self.failures)


@dataclass(kw_only=True)
class Tally:
    """The rows of a run as they come in: one a path, whatever a restarted worker sends twice."""

    total: int
    """Pictures that are to be coloured."""
    rows: dict[str, Row]
    """By path; to begin with, the files that are not to be coloured."""
    began: float = field(default_factory=time.monotonic)
    _counts: Counter[str] = field(default_factory=Counter)
    _megapixels: float = 0.0
    _first: float = 0.0
    _last: float = 0.0

    def add(self, row: Row) -> None:
        """Takes the row of a picture that is done."""
        if row.path in self.rows:
            return
        self.rows[row.path] = row
        self._counts[row.status] += 1
        self._last = time.monotonic()
        self._first = self._first or self._last
        if row.status == "coloured":
            self._megapixels += row.megapixels

    def progress(self) -> Progress:
        """The state now."""
        return Progress(
            total=self.total, colored=self._counts["coloured"], failed=self._counts["failed"], skipped=self._counts["skipped"],
            megapixels=self._megapixels, pictures_per_second=self._rate(),
        )  # fmt: skip

    def summary(self, *, run_id: str, source: Path, target: Path, manifest: Path) -> ArchiveSummary:
        """The state at the end."""
        failures = sorted((row.path, row.reason or "") for row in self.rows.values() if row.status == "failed")
        skipped = Counter(row.reason or "" for row in self.rows.values() if row.status == "skipped")
        return ArchiveSummary(
            run_id=run_id, source=source, target=target, manifest=manifest, inputs=len(self.rows), colored=self._counts["coloured"],
            skipped=dict(skipped.most_common()), failures=failures,
            program_errors=sum(row.program_error for row in self.rows.values()), megapixels=self._megapixels,
            seconds=time.monotonic() - self.began, pictures_per_second=self._rate(),
        )  # fmt: skip

    def _rate(self) -> float:
        elapsed = self._last - self._first
        return (self._counts.total() - 1) / elapsed if elapsed > 0 else 0.0
