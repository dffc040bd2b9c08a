"""The demo: every stage of the system once, on the bundled data, in a few minutes, ending in a page to look at.

Nothing here is special to the demo but the settings: each stage is the call that the command of the same name makes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from colorize import cluster
from colorize.archive.config import ArchiveConfig
from colorize.archive.job import colorize_archive
from colorize.archive.manifest import to_rows
from colorize.archive.summary import ArchiveSummary
from colorize.data.dataset import load_dataset
from colorize.demo.report import GREY, MEAN_COLOR, ArchivePair, DemoReport, Sheet, write_report
from colorize.errors import RunError
from colorize.evaluation import Evaluation, evaluate, examples
from colorize.model.card import DEFAULT_MODEL
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings
from colorize.train.config import TrainConfig
from colorize.train.directory import RunDirectory
from colorize.train.progress import Report
from colorize.train.run import check_workers, environment, fit

CIFAR_MODEL = "cifar10"
"""The shipped model that is judged on CIFAR-10; the archive gets the one for photographs."""

DATA = "cifar10-sample"
EPOCHS = 6
SHEET_ROWS = 8
MARK = "demo.json"
"""What tells a folder that an earlier demo made, and that this one may use again, from one of the user's."""
MARKED = json.dumps({"made_by": "colorize demo"}) + "\n"
"""What the mark holds: a user may have a file of its name."""
RUN, ARCHIVE, REPORT = "run", "archive", "report.html"
"""What a demo makes beside it, and all that a later one removes."""


class Watch(Protocol):
    """A display of a training run."""

    def show(self, report: Report) -> None:
        """Takes the next report."""


def run_demo(
    output: Path, *, address: str | None, say: Callable[[str], None], show: Callable[[Evaluation], None],
    watch: Callable[[int], AbstractContextManager[Watch]],
) -> Path:  # fmt: skip
    """Runs all stages and returns the report's path, `output`/report.html.

    say: prints a line. show: prints a table of scores. watch: makes the display of a training run of so many epochs.
    Raises RunError when `output` is there and no earlier demo made it, or it cannot be written, and what the stages raise.
    """
    began = time.monotonic()
    make_room(output)
    with cluster.connect(address) as ray:
        say(ray.describe())
        train, test = load_dataset(DATA, split="train"), load_dataset(DATA, split="test")
        say(f"data: {train.pictures:,} training pictures in LAB ({train.dropped_grey} grey ones left out), {test.pictures:,} test pictures")
        workers = min(2, ray.cpus)
        config = TrainConfig(data=DATA, epochs=EPOCHS, workers=workers, gpu=ray.gpus >= workers, size=train.height)
        check_workers(config.workers, config.gpu)
        directory = RunDirectory(output / RUN)
        directory.create(config)
        with watch(config.epochs) as display:
            result = fit(config, directory, train=train.dataset, validation=test.dataset, on_report=display.show)
        models = {f"{CIFAR_MODEL}, which ships": load_model(CIFAR_MODEL), "the model just trained": result.model}
        scores: dict[str, dict[str, float]] = {}
        for name, model in models.items():
            evaluation = evaluate(model, test.dataset, data=DATA, settings=DecodeSettings())
            say(f"evaluation of {name}")
            show(evaluation)
            scores |= {name: evaluation.metrics, GREY: evaluation.baselines["grey"], MEAN_COLOR: evaluation.baselines["mean_color"]}
        say(f"archive: {DEFAULT_MODEL} colours the sample archive …")
        source = Path(str(files("colorize") / "sample" / "archive"))
        archive = colorize_archive(ArchiveConfig(source=source, target=output / ARCHIVE))
        say(f"archive: {archive.colored} pictures, {archive.megapixels:.1f} megapixels, {archive.failed} failed")
        told = environment()
        facts = {"Cluster": ray.describe(), "Processor": told["hardware"]}
        facts["Versions"] = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
        facts["Training"] = f"{train.pictures:,} pictures of CIFAR-10, {config.epochs} epochs, {workers} workers"
        sheets = [
            Sheet(title=name, rows=examples(model, test.dataset, settings=DecodeSettings(), count=SHEET_ROWS))
            for name, model in models.items()
        ]
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    report = DemoReport(
        title="Colour for a whole archive",
        lead="One run of every stage: pictures sharded and converted, a network trained, two networks judged, an archive coloured.",
        facts=facts | {"Time": f"{minutes} min {seconds:02} s"},
        archive=_pairs(archive),
        failures=archive.failures,
        sheets=sheets,
        history=result.history,
        scores=list(scores.items()),
        commands=next_commands(output),
    )
    path = output / REPORT
    write_report(path, report)
    return path


def next_commands(output: Path) -> list[tuple[str, str]]:
    """Three commands that a newcomer can go on with, each with what it does."""
    colorize = _program()
    return [
        (f"{colorize} archive scans scans-in-colour --vividness 0.5", "colours a folder of your own scans"),
        (f"{colorize} serve --model {shlex.quote(str(output / RUN))}", "answers POST /v1/colorize with the model just trained"),
        (f"{colorize} train --data cifar10 --epochs 30", "trains on all 50,000 pictures (the download is 170 MB)"),
    ]


def _program() -> str:
    """What a shell finds this program by: its name, or the path that it was started by, as `make demo` does."""
    started = Path(sys.argv[0])
    found = shutil.which("colorize")
    if started.name != "colorize" or (found is not None and Path(found).resolve() == started.resolve()):
        return "colorize"
    return shlex.quote(str(started))


def make_room(output: Path) -> None:
    """A folder with the mark in it. From the one of an earlier demo goes what that one made; whatever else is in it stays."""
    mark = output / MARK
    try:
        if output.is_symlink():
            raise RunError(f"{output}: is a symbolic link; name a folder with --output")
        if mark.is_file() and mark.read_bytes() == MARKED.encode():
            for name in (RUN, ARCHIVE, REPORT):
                _remove(output / name)
            return
        output.mkdir(parents=True)
        mark.write_text(MARKED)
    except FileExistsError:
        raise RunError(f"{output}: is there already, and no demo made it; name another folder with --output") from None
    except OSError as error:
        raise RunError(f"{output}: cannot be made ({error.strerror or error})") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _pairs(archive: ArchiveSummary) -> list[ArchivePair]:
    rows = [row for row in to_rows(pq.read_table(archive.manifest)) if row.status == "coloured"]
    return [
        ArchivePair(
            name=row.path, before=archive.source / row.path, after=archive.target / row.path,
            mean_confidence=row.mean_confidence or 0.0, width=row.width or 0, height=row.height or 0,
        )
        for row in rows
    ]  # fmt: skip
