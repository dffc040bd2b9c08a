"""The manifest: what became of every input, as one Parquet file of one row an input and page.

    TARGET/_colorize/manifest/current.parquet   exactly one row a (path, page): swapped whole at the end of a run
    TARGET/_colorize/history/RUN_ID.parquet     rows that a run superseded: coloured by then, coloured anew or gone since

Knows nothing of Ray: rows travel as Arrow tables of the same schema, so that the nulls of a failed picture stay nulls on the way from a
worker to the file. A row is about 450 bytes in memory: 100,000 are 45 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colorize.errors import ArchiveError
from colorize.storage.place import Place, cause

FOLDER = "_colorize"
"""Where this program keeps its own files, below the target."""

CURRENT = f"{FOLDER}/manifest/current.parquet"

Status = Literal["coloured", "skipped", "failed", "unchanged", "stopped"]
"""The last two are between a worker and its driver only: `unchanged` is a file that was touched and has its old content; `stopped` is why
a worker can do no more, such as a full disk."""

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("page", pa.int32()),
        ("pages", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_bytes", pa.int64()),
        ("source_modified", pa.int64()),
        ("target_path", pa.string()),
        ("target_bytes", pa.int64()),
        ("source_sha256", pa.string()),
        ("target_sha256", pa.string()),
        ("model", pa.string()),
        ("model_sha256", pa.string()),
        ("vividness", pa.float64()),
        ("control", pa.string()),
        ("mean_confidence", pa.float64()),
        ("colorfulness", pa.float64()),
        ("seconds_read", pa.float64()),
        ("seconds_decode", pa.float64()),
        ("seconds_predict", pa.float64()),
        ("seconds_encode", pa.float64()),
        ("seconds_write", pa.float64()),
        ("thumbnail", pa.string()),
        ("program_error", pa.bool_()),
        ("run_id", pa.string()),
    ]
)

STAGES = ("seconds_read", "seconds_decode", "seconds_predict", "seconds_encode", "seconds_write")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one input. What does not apply is None: a skipped file has no model, an unreadable one no size."""

    path: str
    """Relative to the source and to the target, with `/`."""
    page: int = 0
    """0 in files of one page."""
    pages: int | None = None
    """How many pages its file has; each has its row, and all of them share one output."""
    status: Status
    reason: str | None = None
    """Why it was skipped or failed; of a coloured one: that its source has vanished since."""
    format: str | None = None
    """By content: `JPEG` or `PNG`."""
    width: int | None = None
    height: int | None = None
    """Pixels as stored, before any orientation that EXIF asks for."""
    source_bytes: int | None = None
    source_modified: int | None = None
    """Nanoseconds since 1970. Where size and time are the same as here, a source counts as unchanged; otherwise its digest decides."""
    target_path: str | None = None
    """Where its output stands below the target: as `path`, but for a suffix where another format was asked for."""
    target_bytes: int | None = None
    source_sha256: str | None = None
    target_sha256: str | None = None
    """Of the output that stands in the target, also where a later attempt to replace it failed; of an altered one, as this program left it.
    Only a file of this digest is replaced."""
    model: str | None = None
    """The model's name, and …"""
    model_sha256: str | None = None
    """… the digest of its weights, from its card."""
    vividness: float | None = None
    control: str | None = None
    """`DecodeSettings.control`: the temperature, palette or reference that was asked for; None where none was."""
    mean_confidence: float | None = None
    """0…1."""
    colorfulness: float | None = None
    """Hasler and Süsstrunk's measure of the coloured thumbnail: 0 is grey."""
    seconds_read: float | None = None
    seconds_decode: float | None = None
    seconds_predict: float | None = None
    seconds_encode: float | None = None
    seconds_write: float | None = None
    """A worker's time for it, by stage; of a file with pages, all of it at page 0."""
    thumbnail: str | None = None
    """Where the report's picture of it is: `SHEET#PLACE,WIDTHxHEIGHT` below `_colorize/report/thumbnails`."""
    program_error: bool = False
    """True: it failed by an error of this program, not by the file's fault."""
    run_id: str

    @property
    def megapixels(self) -> float:
        return (self.width or 0) * (self.height or 0) / 1e6


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)


def to_rows(table: pa.Table) -> list[Row]:
    """What `to_table` took."""
    return [Row(**fields) for fields in table.to_pylist()]


def read_manifest(target: Place) -> pa.Table:
    """The current manifest; an empty table where there is none. Raises ArchiveError for one that is damaged or of another layout."""
    try:
        with target.open(CURRENT) as file:
            table = pq.read_table(pa.BufferReader(file.read()))
    except (FileNotFoundError, NotADirectoryError):
        return SCHEMA.empty_table()
    except (OSError, pa.ArrowException) as error:
        raise ArchiveError(f"{target.shown}/{CURRENT}: cannot be read ({cause(error)}): put back a copy, or use another target") from error
    if table.schema.names == [name for name in SCHEMA.names if name != "control"]:  # written before there were such settings
        place = SCHEMA.get_field_index("control")
        table = table.add_column(place, SCHEMA.field(place), pa.nulls(table.num_rows, pa.string()))
    if table.schema.names != SCHEMA.names:
        raise ArchiveError(f"{target.shown}/{CURRENT}: written by another version of this program: move it away, or use another target")
    return table.cast(SCHEMA)


def version(target: Place) -> str:
    """Tells one state of the manifest from another, without reading it; empty where there is none. Raises ArchiveError."""
    try:
        found = target.look(CURRENT)
    except OSError as error:
        raise ArchiveError(f"{target.shown}: cannot be looked up ({cause(error)})") from error
    return f"{found.size}:{found.modified}" if found else ""


def merge(current: pa.Table, new: Sequence[pa.Table], dropped: Iterable[str] = ()) -> tuple[pa.Table, pa.Table]:
    """(the manifest after a run, sorted; the coloured or dropped rows that it no longer has).

    A path in `new` replaces all rows of that path; a path in `dropped` goes.
    """
    added = pa.concat_tables([SCHEMA.empty_table(), *new])
    gone = pa.concat_arrays([*added["path"].chunks, pa.array(list(dropped), pa.string())])
    is_gone = pc.is_in(current["path"], value_set=gone)
    superseded = current.filter(is_gone)
    if superseded.num_rows:
        kept = pc.is_in(_outcome(superseded), value_set=_outcome(added))
        superseded = superseded.filter(pc.invert(kept))
    table = pa.concat_tables([current.filter(pc.invert(is_gone)), added]).sort_by([("path", "ascending"), ("page", "ascending")])
    return table, superseded.filter(pc.not_equal(superseded["status"], "skipped"))


def write_manifest(target: Place, table: pa.Table, superseded: pa.Table, run_id: str) -> None:
    """Swaps the manifest, the superseded rows first into the history. Raises OSError when it cannot be written."""
    if superseded.num_rows:
        target.write(f"{FOLDER}/history/{run_id}.parquet", _parquet(superseded))
    target.write(CURRENT, _parquet(table))


def _outcome(table: pa.Table) -> pa.Array:
    """What makes two rows tell the same: path, page, status and output."""
    parts = [table["path"], pc.cast(table["page"], pa.string()), table["status"], pc.fill_null(table["target_sha256"], "")]
    joined = pc.binary_join_element_wise(*parts, "\0")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
