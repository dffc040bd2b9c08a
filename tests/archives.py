"""Archives for tests of runs that are disturbed: pictures, what an undisturbed run makes of them, and whether a target is whole.

Whole: every input has exactly one row in the manifest and exactly one output, byte for byte that of a run that nothing disturbed.
"""

import hashlib
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from colorize.archive.journal import Journal
from colorize.archive.painter import Order, Painter, to_block
from colorize.archive.plan import Task
from colorize.model.card import DEFAULT_MODEL, resolve
from colorize.storage.place import LocalPlace
from tests.pictures import encoded, grey_scene

PATIENCE = 240


def make_scans(source: Path, count: int) -> Path:
    """The folder with so many pictures of several sizes and formats in two folders."""
    for number in range(count):
        kind = "PNG" if number % 5 == 0 else "JPEG"
        path = source / f"box {number % 2}" / f"{number:03}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(grey_scene(300 + 7 * (number % 11), 420 + 13 * (number % 7)), kind))
    return source


def colored_in_one_block(scans: Path, folder: Path, model: str = DEFAULT_MODEL) -> dict[str, str]:
    """path → SHA-256 of what the same code makes of each picture in one process, all of them in one block, below `folder`."""
    target = LocalPlace(folder, "undisturbed")
    journal = Journal(target, "run")
    journal.open()
    source = LocalPlace(scans, "scans")
    order = Order(source=source, target=target, source_identity=source.identity(), run_id="run", vividness=0.5)
    names = sorted(path.relative_to(scans).as_posix() for path in scans.rglob("*.*"))
    Painter(order, resolve(model).read_bytes())(to_block("0", [Task(path=name, size=1, modified=None) for name in names]))
    journal.release()
    return outputs(target.root)


def outputs(target: Path) -> dict[str, str]:
    """path → SHA-256 of every output."""
    files = [path for path in target.rglob("*") if path.is_file() and "_colorize" not in path.parts]
    return {path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for(process: subprocess.Popen[str], target: Path, count: int, patience: float = PATIENCE) -> None:
    """Until the target holds so many pictures; fails where the run ends before."""
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        if sum(1 for path in target.rglob("*.*") if "_colorize" not in path.parts) >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"the run ended or hung: {process.poll()}")


def check_whole(target: Path, undisturbed: dict[str, str]) -> None:
    """One row and one whole output an input, as if nothing had happened; and nothing of a run is left behind."""
    assert outputs(target) == undisturbed
    table = pq.read_table(target / "_colorize" / "manifest")
    rows = dict(zip(table["path"].to_pylist(), table["target_sha256"].to_pylist(), strict=True))
    assert table.num_rows == len(rows)
    assert rows == undisturbed
    assert set(table["status"].to_pylist()) == {"coloured"}
    assert sorted(path.name for path in (target / "_colorize").iterdir() if path.name != "history") == [
        "lock", "manifest", "report", "report.html",
    ]  # fmt: skip
    assert not list(target.rglob("*.partial"))
