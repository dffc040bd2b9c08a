"""What each stage of a bulk run takes on one core, and the driver's part: where `jobs.scaling` starts from.

    python -m jobs.benchmarks.stages scans      into jobs/scaling.json

All are processor time, of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

from colorize.archive import manifest
from colorize.archive.config import ArchiveConfig
from colorize.archive.job import BLOCK_PICTURES, order_of, prepare
from colorize.archive.journal import Journal
from colorize.archive.manifest import STAGES, Row, to_table
from colorize.archive.painter import Painter, to_block
from colorize.archive.summary import Tally
from colorize.imaging.files import write_whole
from colorize.model.card import DEFAULT_MODEL
from colorize.model.colormodel import load_model
from colorize.storage.place import LocalPlace
from colorize.train.run import processor
from jobs.scaling import LISTED, RECORD, Measured


def measure(scans: Path) -> Measured:
    """Measures all of it on one core: the stages on these pictures, the driver's part on LISTED files that are made."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    with tempfile.TemporaryDirectory() as folder:
        rows, share = _painted(scans, Path(folder) / "target")
        listed, driver, row_bytes, manifest_bytes = _driver(Path(folder), rows[0])
    model = load_model(DEFAULT_MODEL)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.network(torch.zeros(1, 1, 192, 256))
    total = {stage: share * sum(getattr(row, stage) or 0.0 for row in rows) / len(rows) for stage in STAGES}
    return Measured(
        hardware=f"one core of {processor()}", pictures=len(rows), megapixels=sum(row.megapixels for row in rows) / len(rows),
        read=total["seconds_read"], decode=total["seconds_decode"], predict=total["seconds_predict"], encode=total["seconds_encode"],
        write=total["seconds_write"], source_bytes=sum(row.source_bytes or 0 for row in rows) / len(rows),
        target_bytes=sum(row.target_bytes or 0 for row in rows) / len(rows), listed=listed, driver=driver, row_bytes=row_bytes,
        manifest_bytes=manifest_bytes, predict_flops=(2.0 if model.card.mirrored else 1.0) * counter.get_total_flops(),
    )  # fmt: skip


def _painted(scans: Path, target: Path) -> tuple[list[Row], float]:
    """The rows of a worker that colours these pictures, without Ray; what is not coloured is left out. And the share of the time on the
    clock that it had the processor: rows have clock times, which are longer where others use the core."""
    plan = prepare(ArchiveConfig(source=scans, target=target))
    journal = Journal(plan.target, plan.run_id)
    journal.open()
    painter = Painter(order_of(plan), plan.model.read_bytes())
    painter(to_block("warm", plan.work.tasks[:4]))
    began, used = time.perf_counter(), time.process_time()
    rows = manifest.to_rows(painter(to_block("timed", plan.work.tasks[4:])))
    share = (time.process_time() - used) / (time.perf_counter() - began)
    journal.close()
    return [row for row in rows if row.status == "coloured"], share


def _driver(folder: Path, row: Row) -> tuple[float, float, float, float]:
    """Seconds a file to list and plan, seconds a row to take back and write, and a row's bytes in memory and in the manifest's file."""
    many = folder / "many"
    for number in range(LISTED):
        path = many / f"{number // 1000:03}" / f"scan-{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    began = time.process_time()
    plan = prepare(ArchiveConfig(source=many, target=folder / "none"))
    listed = (time.process_time() - began) / LISTED
    fields = asdict(row)

    def done(path: str) -> Row:
        digest = hashlib.sha256(path.encode()).hexdigest()  # of each its own, as it is: equal ones would be packed
        return Row(**fields | {"path": path, "target_path": path, "source_sha256": digest, "target_sha256": digest[::-1]})

    paths = [task.path for task in plan.work.tasks]
    tables = [to_table([done(path) for path in paths[first : first + BLOCK_PICTURES]]) for first in range(0, LISTED, BLOCK_PICTURES)]
    began = time.process_time()
    tally = Tally(total=LISTED)
    for table in tables:
        tally.add(table)
    merged, superseded = manifest.merge(manifest.SCHEMA.empty_table(), tally.tables)
    place = LocalPlace(folder, "folder")
    manifest.write_manifest(place, merged, superseded, "run")
    driver = (time.process_time() - began) / LISTED
    assert isinstance(merged, pa.Table)
    return listed, driver, merged.nbytes / LISTED, (folder / manifest.CURRENT).stat().st_size / LISTED


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.stages", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    sample = Path(str(files("colorize") / "sample" / "archive"))
    parser.add_argument("scans", type=Path, nargs="?", default=sample, help="a folder of grey scans; without one the bundled sample")
    measured = json.dumps(asdict(measure(parser.parse_args().scans)), indent=1) + "\n"
    write_whole(RECORD, measured.encode())
    print(measured, end="")


if __name__ == "__main__":
    main()
