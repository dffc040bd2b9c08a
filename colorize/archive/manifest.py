"""The manifest: what became of every input of one run, as one Parquet file of one row an input and page.

Knows nothing of Ray: rows travel as Arrow tables of the same schema, so that the nulls of a failed picture stay nulls on the way
from a worker to the file. A row is about 700 bytes in memory: 50,000 are 35 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from colorize.imaging.files import write_whole

FOLDER = Path("_colorize")
"""Where a run keeps its own files, below the target."""

Status = Literal["coloured", "skipped", "failed"]

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("page", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_bytes", pa.int64()),
        ("target_bytes", pa.int64()),
        ("source_sha256", pa.string()),
        ("target_sha256", pa.string()),
        ("model", pa.string()),
        ("model_sha256", pa.string()),
        ("vividness", pa.float64()),
        ("mean_confidence", pa.float64()),
        ("seconds", pa.float64()),
        ("program_error", pa.bool_()),
        ("run_id", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one input. What does not apply is None: a skipped file has no model, an unreadable one no size."""

    path: str
    """Relative to the source and to the target, with `/`."""
    page: int = 0
    """0 in files of one page."""
    status: Status
    reason: str | None = None
    """Why it was skipped or failed."""
    format: str | None = None
    """By content: `JPEG` or `PNG`."""
    width: int | None = None
    height: int | None = None
    """Pixels as stored, before any orientation that EXIF asks for."""
    source_bytes: int | None = None
    target_bytes: int | None = None
    source_sha256: str | None = None
    target_sha256: str | None = None
    model: str | None = None
    """The model's name, and …"""
    model_sha256: str | None = None
    """… the digest of its weights, from its card."""
    vividness: float | None = None
    mean_confidence: float | None = None
    """0…1."""
    seconds: float | None = None
    """A worker's time for it: reading, its share of the prediction, encoding."""
    program_error: bool = False
    """True: it failed by an error of this program, not by the file's fault."""
    run_id: str

    @property
    def megapixels(self) -> float:
        return (self.width or 0) * (self.height or 0) / 1e6


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def to_rows(table: pa.Table) -> list[Row]:
    """What `to_table` took."""
    return [Row(**fields) for fields in table.to_pylist()]


def path_of(target: Path, run_id: str) -> Path:
    """The manifest file of a run."""
    return target / FOLDER / "manifest" / f"{run_id}.parquet"


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows, in the order of their paths, whole or not at all. Raises PictureError when `path` cannot be written."""
    buffer = BytesIO()
    pq.write_table(to_table(sorted(rows, key=lambda row: (row.path, row.page))), buffer)
    write_whole(path, buffer.getvalue())
