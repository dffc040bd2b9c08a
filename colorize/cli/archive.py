"""`colorize archive`: a whole folder in colour, watched."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from colorize.cli.picture import printable
from colorize.cli.train import ADDRESS
from colorize.model.card import DEFAULT_MODEL, DEFAULT_VIVIDNESS

if TYPE_CHECKING:
    from colorize.archive.listing import Listing
    from colorize.archive.summary import ArchiveSummary, Progress

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""

LISTED_FAILURES = 20


def archive(
    source: Annotated[Path, typer.Argument(help="The folder that holds the pictures, at any depth.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The folder for the same tree in colour; it may exist.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model, a model file, or a training run's directory.")] = DEFAULT_MODEL,
    vividness: Annotated[float, typer.Option(help="0 is the most accurate colour, 1 as colourful as real pictures.")] = DEFAULT_VIVIDNESS,
    workers: Annotated[int | None, typer.Option(help="Worker processes, one CPU each.", show_default="all there are")] = None,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Colour every JPEG and PNG below a folder, as a Ray Data job.

    What TARGET holds already is left as it is, so the same command again does only what is missing. One bad file never stops the
    others: it is listed, and the exit code is 1. TARGET/_colorize/manifest says of every file what became of it.
    """
    from colorize import cluster
    from colorize.archive.config import ArchiveConfig
    from colorize.archive.job import carry_out, prepare
    from colorize.cli.display import console

    plan = prepare(ArchiveConfig(source=source, target=target, model=model, vividness=vividness, workers=workers))
    console.print(_describe(plan.listing, source), markup=False)
    pictures = len(plan.listing.pictures)
    with cluster.connect(address) if pictures else nullcontext() as ray:
        if ray:
            console.print(ray.describe())
        with ArchiveDisplay(pictures) as display:
            summary = carry_out(plan, on_progress=display.show)
    _print_summary(summary)
    if summary.failed:
        raise typer.Exit(1)


class ArchiveDisplay:
    """How far the run is: a bar on a terminal, a line every 10 s elsewhere, and where it stood when it was interrupted."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from colorize.cli.display import console

        self._console = console
        self._total = total
        self._done = 0
        self._last_line = time.monotonic()
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=console, transient=True,
            disable=not (console.is_terminal and total),
        )  # fmt: skip
        self._task = self._bar.add_task("starting the workers …", total=total)

    def __enter__(self) -> ArchiveDisplay:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            self._console.print(f"{self._done:,} of {self._total:,} pictures done; the same command again does the rest")

    def show(self, now: Progress) -> None:
        """Takes the state after one more picture."""
        from colorize.cli.display import duration

        self._done = now.done
        speed = f"{now.pictures_per_second:.1f} pictures/s" if now.pictures_per_second else "…"
        left = "" if now.seconds_left is None else f", {duration(now.seconds_left)} left"
        state = f"{speed}, {now.failed:,} failed{left}"
        self._bar.update(self._task, completed=now.done, description=state)
        if self._bar.disable and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(f"{now.done:,} of {now.total:,} pictures, {now.megapixels:,.0f} MP, {state}")


def _describe(listing: Listing, source: Path) -> str:
    reasons = Counter(row.reason or "" for row in listing.rows if row.status == "skipped")
    skipped = f"; {reasons.total():,} skipped{_reasons(reasons)}" if reasons else ""
    return f"{printable(source)}: {_count(len(listing.pictures), 'picture')} to colour{skipped}"


def _print_summary(summary: ArchiveSummary) -> None:
    from colorize.cli.display import console, duration

    for path, reason in summary.failures[:LISTED_FAILURES]:
        print(f"colorize: {printable(path)}: {printable(reason)}", file=sys.stderr)
    if summary.failed > LISTED_FAILURES:
        print(f"colorize: and {summary.failed - LISTED_FAILURES:,} more: status `failed` in {summary.manifest}", file=sys.stderr)
    if summary.program_errors:
        were = "1 failure is an error" if summary.program_errors == 1 else f"{summary.program_errors:,} failures are errors"
        print(f"colorize: {were} of this program, not of the files: please report it", file=sys.stderr)
    skipped = sum(summary.skipped.values())
    console.print(
        f"{_count(summary.colored, 'picture')} coloured, {summary.failed:,} failed, {skipped:,} skipped{_reasons(summary.skipped)}: "
        f"{summary.megapixels:,.1f} MP in {duration(summary.seconds)}, {summary.pictures_per_second:.1f} pictures/s",
        markup=False,
    )
    console.print(f"manifest  {printable(summary.manifest)}", markup=False)


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count:,} {reason}' for reason, count in counts.items())})" if counts else ""


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
