"""What a run has to do: the source's listing held against the manifest and the target. Knows nothing of Ray and writes nothing.

For every picture the first of these that applies:

    another picture's output has its output's name       failed: only with `wanted`
    never seen, the target has a file of its name       skipped: not this program's, left as it is
    never seen                                           new
    failed the last time                                 again
    in colour already, the source of that size and time  nothing to do, unless it is to be coloured all the same (`recolor`, `force`)
    output gone from the target                          again
    output of another size than this program wrote       skipped: altered, left as it is
    output altered before, of its old size now           again, and a worker compares its digest
    source of another size or time                       a worker compares its digest: changed, or only touched
    otherwise                                            nothing to do
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from colorize.archive.journal import ALTERED
from colorize.archive.listing import Entry, Listing
from colorize.archive.manifest import Row, to_rows
from colorize.errors import ArchiveError, printable
from colorize.imaging.convert import Format, converted_name

PRESENT = "already in the target"
IN_COLOR = "in colour already"
SAME_NAME = "its output would have the name of that of"
VANISHED = "its source has vanished; its output stays"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One picture that a worker is to look at."""

    path: str
    size: int
    modified: int | None
    known: str | None = None
    """The source's digest as it was coloured: where it is still the same, there is nothing to do."""
    replaces: str | None = None
    """The digest of the output of an earlier run, which may be replaced."""


@dataclass(kw_only=True)
class Work:
    """What a run does, and what it says without doing anything."""

    tasks: list[Task] = field(default_factory=list)
    """In the order of their paths."""
    counts: Counter[str] = field(default_factory=Counter)
    """Why: `new`, `failed before`, `changed`, `output gone`, `output back`, `again`."""
    kept: int = 0
    """Pictures that are coloured already."""
    rows: list[Row] = field(default_factory=list)
    """Rows that need no worker: of skipped and failed files, of unchanged pictures that were in colour already, and of coloured ones whose
    source has vanished or is back."""
    dropped: list[str] = field(default_factory=list)
    """Paths whose rows go: inputs that are no longer there and have no output."""
    other_settings: int = 0
    """Of those kept: coloured by another model, vividness, temperature, palette or reference than this run's."""


class _Known(NamedTuple):
    status: str
    reason: str | None
    size: int | None
    modified: int | None
    source_sha256: str | None
    target_path: str | None
    target_bytes: int | None
    target_sha256: str | None
    model_sha256: str | None
    vividness: float | None
    control: str | None


def plan_work(
    listing: Listing,
    manifest: pa.Table,
    target_size: Callable[[str], int | None],
    *,
    model_sha256: str,
    vividness: float,
    control: str | None = None,
    run_id: str,
    force: bool = False,
    retry_failed: bool = False,
    recolor: bool = False,
    wanted: Format | None = None,
) -> Work:
    """Decides for every file. `target_size`: the bytes of a file in the target, None where there is none. `wanted`: the outputs' format.

    Raises ArchiveError where the target holds outputs in another format than is wanted.
    """
    work = Work(rows=_with_standing(listing.rows, manifest))
    at = _first_pages(manifest)
    known = _Rows(manifest)
    touched: list[str] = []  # coloured rows that only get another reason
    in_color: list[str] = []  # rows that stay
    outdone = {} if wanted is None else _outdone([entry.path for entry in listing.pictures], at, known, wanted)
    for entry in listing.pictures:
        index = at.pop(entry.path, None)
        before = None if index is None else known[index]
        if retry_failed and (before is None or before.status != "failed"):
            work.kept += before is not None and before.status == "coloured"
            continue
        if (other := outdone.get(entry.path)) is not None:
            work.rows.append(
                Row(
                    path=entry.path, status="failed", reason=f"{SAME_NAME} {printable(other)}: rename one of them",
                    source_bytes=entry.size, source_modified=entry.modified, run_id=run_id,
                )
            )  # fmt: skip
            continue
        target_path = converted_name(entry.path, wanted)
        if before is not None and before.target_path not in (None, target_path):
            asked = f"--format {wanted}" if wanted else "each picture's own format"
            raise ArchiveError(f"{before.target_path}: is in another format than {asked}: give another target")
        size = target_size(target_path)
        foreign = before is None or before.target_sha256 is None
        if foreign and size is not None:
            _skip(work, entry, PRESENT if before is None or before.reason != ALTERED else ALTERED, run_id, None)
        elif before is None:
            _do(work, entry, "new")
        elif before.status == "skipped" and before.reason == ALTERED:
            is_back = force if before.target_bytes is None else size == before.target_bytes  # of the same size already: it costs a look
            if size is not None and not is_back:
                _skip(work, entry, ALTERED, run_id, before)
            else:
                _do(work, entry, "output gone" if size is None else "output back", replaces=before.target_sha256)
        elif before.status == "skipped":
            is_in_color = (before.reason or "").startswith(IN_COLOR) and not (recolor or force)
            if is_in_color and (entry.size, entry.modified) == (before.size, before.modified):
                in_color.append(entry.path)
            else:
                digest = before.source_sha256 if is_in_color else None
                _do(work, entry, "changed" if is_in_color else "new", known=digest, replaces=before.target_sha256)
        elif before.status == "failed":
            _do(work, entry, "failed before", replaces=before.target_sha256)
        elif size is None:
            _do(work, entry, "output gone")
        elif size != before.target_bytes:
            _skip(work, entry, ALTERED, run_id, before)
        elif force:
            _do(work, entry, "again", replaces=before.target_sha256)
        elif (entry.size, entry.modified) != (before.size, before.modified):
            _do(work, entry, "changed", known=before.source_sha256, replaces=before.target_sha256)
        else:
            work.kept += 1
            work.other_settings += (before.model_sha256, before.vividness, before.control) != (model_sha256, vividness, control)
            if before.reason is not None:
                touched.append(entry.path)
    listed = {row.path for row in listing.rows}
    folders = tuple(f"{folder}/" for folder in listing.unlisted)
    for path, index in at.items():
        before = known[index]
        if path in listed or (folders and path.startswith(folders)):
            continue
        if before.target_sha256 is None:
            work.dropped.append(path)
        elif before.status == "coloured" and before.reason != VANISHED:
            touched.append(path)
    work.rows += _with_reason(manifest, touched, {entry.path for entry in listing.pictures})
    work.rows += to_rows(manifest.filter(pc.is_in(manifest["path"], value_set=pa.array(in_color, pa.string()))))
    return work


def _outdone(paths: list[str], at: dict[str, int], known: _Rows, wanted: Format) -> dict[str, str]:
    """The pictures whose output would have the name of another's, each with that other one.

    `a.tif` becomes `a.tif.jpg`, which an `a.tif.jpg` stays: the name is whose output has it, else the first one's.
    """
    found: dict[str, str] = {}
    all_paths = set(paths)
    for path in paths:
        name = converted_name(path, wanted)
        if name != path and name in all_paths:
            loser, other = (path, name) if name in at and known[at[name]].target_sha256 is not None else (name, path)
            found[loser] = other
    return found


def _do(work: Work, entry: Entry, why: str, *, known: str | None = None, replaces: str | None = None) -> None:
    work.counts[why] += 1
    work.tasks.append(Task(path=entry.path, size=entry.size, modified=entry.modified, known=known, replaces=replaces))


def _skip(work: Work, entry: Entry, reason: str, run_id: str, before: _Known | None) -> None:
    """`before`: the row of the output as this program left it, if it did."""
    row = Row(path=entry.path, status="skipped", reason=reason, source_bytes=entry.size, source_modified=entry.modified, run_id=run_id)
    work.rows.append(row if before is None else _standing(row, before))


def _standing(row: Row, before: _Known | Row) -> Row:
    """A row that still knows the output of an earlier run: only so can that be replaced when the source can be read again."""
    return replace(row, target_path=before.target_path, target_bytes=before.target_bytes, target_sha256=before.target_sha256)


def _with_standing(rows: list[Row], manifest: pa.Table) -> list[Row]:
    """The rows of files that are not looked at, with the outputs that stand of them: a link may lead nowhere for a night only."""
    mine = pc.is_in(manifest["path"], value_set=pa.array([row.path for row in rows], pa.string()))
    before = {row.path: row for row in to_rows(manifest.filter(pc.and_(mine, pc.is_valid(manifest["target_sha256"]))))}
    return [_standing(row, before[row.path]) if row.path in before else row for row in rows]


class _Rows:
    """The rows of a manifest by their number, each taken out when it is asked for: all at once, they are 1.4 kilobytes a picture."""

    def __init__(self, manifest: pa.Table) -> None:
        columns = manifest.select(
            [
                "status", "reason", "source_bytes", "source_modified", "source_sha256", "target_path", "target_bytes", "target_sha256",
                "model_sha256", "vividness", "control",
            ]
        )  # fmt: skip
        self._columns = [_one_chunk(column) for column in columns.columns]

    def __getitem__(self, index: int) -> _Known:
        return _Known(*(column[index].as_py() for column in self._columns))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return (
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    )


def _first_pages(manifest: pa.Table) -> dict[str, int]:
    """The number of the first page's row of every path."""
    pages = manifest["page"].to_pylist()
    return {path: index for index, (path, page) in enumerate(zip(manifest["path"].to_pylist(), pages, strict=True)) if page == 0}


def _with_reason(manifest: pa.Table, paths: list[str], present: set[str]) -> list[Row]:
    """The rows of coloured pictures whose source has vanished, or is there again."""
    if not paths:
        return []
    wanted = pc.is_in(manifest["path"], value_set=pa.array(paths, pa.string()))
    return [replace(row, reason=None if row.path in present else VANISHED) for row in to_rows(manifest.filter(wanted))]
