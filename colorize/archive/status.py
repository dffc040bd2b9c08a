"""What a target holds, from its manifest and from the journal of a run that is under way or was killed: counts, reasons, models, extremes.

Knows nothing of Ray and writes nothing. `colorize archive status TARGET` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from colorize.archive.journal import unfinished
from colorize.archive.manifest import CURRENT, STAGES, merge, read_manifest, to_table
from colorize.errors import ArchiveError
from colorize.storage.place import cause
from colorize.storage.remote import open_place

LISTED = 20


@dataclass(frozen=True, kw_only=True)
class ArchiveStatus:
    """A target, summed up."""

    target: str
    files: int
    statuses: dict[str, int]
    """Files by status."""
    reasons: list[tuple[str, str, int]]
    """(status, reason, files), the most frequent first; `coloured` ones only where they have a reason."""
    models: list[tuple[str, str, float, int]]
    """(model, SHA-256 of its weights, vividness, pictures)."""
    formats: dict[str, int]
    """Coloured files by format."""
    megapixels: float
    source_bytes: int
    target_bytes: int
    """Of all that is coloured."""
    stages: dict[str, float]
    """A worker's seconds for all that is coloured, by stage."""
    failures: list[tuple[str, str]]
    """(path, reason) of the first failures."""
    doubtful: list[tuple[str, int, int | None, float]]
    """(path, page from 0 on, pages, mean confidence) of the least confident pictures."""
    unfinished: list[str]
    """Runs that are under way, or were killed: their pictures are counted here, and settled by the next run."""


def read_status(target: str | Path) -> ArchiveStatus:
    """Sums a target up. Raises ArchiveError when it holds no manifest."""
    place = open_place(target)
    try:
        if place.look(CURRENT) is None and not unfinished(place):
            raise ArchiveError(f"{place.shown}: no run of `colorize archive` has ended there: {CURRENT} is missing")
        table = read_manifest(place)
        runs = unfinished(place)
        for journal in runs:
            table, _ = merge(table, [to_table([row for rows in journal.rows().values() for row in rows])])
    except OSError as error:
        raise ArchiveError(f"{place.shown}: cannot be looked up ({cause(error)})") from error
    first = table.filter(pc.equal(table["page"], 0))
    colored = table.filter(pc.equal(table["status"], "coloured"))
    outputs = first.filter(pc.equal(first["status"], "coloured"))
    failed = first.filter(pc.equal(first["status"], "failed"))
    doubtful = colored.filter(pc.is_valid(colored["mean_confidence"])).sort_by("mean_confidence").slice(0, LISTED)
    grouped = first.filter(pc.is_valid(first["reason"])).group_by(["status", "reason"]).aggregate([("path", "count")])
    models = outputs.group_by(["model", "model_sha256", "vividness"]).aggregate([("path", "count")])
    return ArchiveStatus(
        target=place.shown,
        files=first.num_rows,
        statuses=_counts(first["status"]),
        reasons=_tuples(grouped.sort_by([("path_count", "descending")]), "status", "reason", "path_count"),
        models=_tuples(models.sort_by([("path_count", "descending")]), "model", "model_sha256", "vividness", "path_count"),
        formats=_counts(outputs["format"]),
        megapixels=_sum(pc.multiply(pc.cast(colored["width"], pa.int64()), colored["height"])) / 1e6,
        source_bytes=int(_sum(outputs["source_bytes"])),
        target_bytes=int(_sum(outputs["target_bytes"])),
        stages={stage: _sum(colored[stage]) for stage in STAGES},
        failures=_tuples(failed.slice(0, LISTED), "path", "reason"),
        doubtful=_tuples(doubtful, "path", "page", "pages", "mean_confidence"),
        unfinished=[journal.folder.rpartition("/")[2] for journal in runs],
    )


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    found = [(one["values"], one["counts"]) for one in column.value_counts().to_pylist()]
    return dict(sorted(found, key=lambda one: -one[1]))


def _sum(column: pa.ChunkedArray) -> float:
    return float(pc.sum(column).as_py() or 0)


def _tuples(table: pa.Table, *names: str) -> list[tuple]:  # type: ignore[type-arg]
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
