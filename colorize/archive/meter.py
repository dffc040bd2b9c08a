"""What a bulk run measures of itself, for Prometheus: counted by each worker as its pictures are committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from colorize.archive.manifest import STAGES, Row
from colorize.telemetry import RUNS, Meter, Series

STAGE = "archive"

PLANNED = Series(name="colorize_archive_planned", kind="gauge", about="Pictures that this run is to look at.")
PICTURES = Series(
    name="colorize_archive_pictures",
    kind="counter",
    about="Pictures that are done: coloured, skipped, failed or unchanged.",
    tags=("status",),
)
MEGAPIXELS = Series(name="colorize_archive_megapixels", kind="counter", about="Megapixels coloured.")
BYTES = Series(name="colorize_archive_bytes", kind="counter", about="Bytes of files read (in) and written (out).", tags=("direction",))
STAGE_SECONDS = Series(
    name="colorize_archive_stage_seconds", kind="counter",
    about="Workers' time by stage: read, decode, predict, encode, write.", tags=("stage",),
)  # fmt: skip
PICTURE_SECONDS = Series(
    name="colorize_archive_picture_seconds", kind="histogram", about="A worker's time for a coloured picture, all stages.",
    bounds=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)  # fmt: skip
FAILURES = Series(
    name="colorize_archive_failures", kind="counter",
    about="Pictures that failed: picture (damaged, or none), source, target, worker (it died over it), program.", tags=("cause",),
)  # fmt: skip

SERIES = (PLANNED, PICTURES, MEGAPIXELS, BYTES, STAGE_SECONDS, PICTURE_SECONDS, FAILURES)

_CAUSES = {
    "cannot be read": "source",
    "the target cannot be written": "target",
    "its confidence map": "target",
    "the worker process died": "worker",
}


class ArchiveMeter:
    """The series of one bulk run in one process."""

    def __init__(self, run_id: str) -> None:
        self._meter = Meter((*SERIES, RUNS), run_id)

    def planned(self, pictures: int) -> None:
        """The run is under way, and so many are to be looked at: every worker tells the same, since Ray exports nothing of a driver."""
        self._meter.record(RUNS, 1, stage=STAGE)
        self._meter.record(PLANNED, pictures)

    def count(self, rows: Sequence[Row]) -> None:
        """Pictures were committed; of a file with pages all rows at once."""
        first = [row for row in rows if row.page == 0]
        colored = [row for row in rows if row.status == "coloured"]
        for status, number in Counter(row.status for row in first).items():
            self._meter.record(PICTURES, number, status=status)
        for name, number in Counter(cause_of(row) for row in first if row.status == "failed").items():
            self._meter.record(FAILURES, number, cause=name)
        self._meter.record(MEGAPIXELS, sum(row.megapixels for row in colored))
        self._meter.record(BYTES, sum(row.source_bytes or 0 for row in first), direction="in")
        self._meter.record(BYTES, sum(row.target_bytes or 0 for row in first if row.status == "coloured"), direction="out")
        for stage in STAGES:
            self._meter.record(STAGE_SECONDS, sum(getattr(row, stage) or 0.0 for row in first), stage=stage.removeprefix("seconds_"))
        for row in first:
            if row.status == "coloured":
                self._meter.record(PICTURE_SECONDS, sum(getattr(row, stage) or 0.0 for stage in STAGES))


def cause_of(row: Row) -> str:
    """The cause of a failure as one of a handful of words: reasons name files and numbers, and would make any number of series."""
    if row.program_error:
        return "program"
    return next((name for start, name in _CAUSES.items() if (row.reason or "").startswith(start)), "picture")
