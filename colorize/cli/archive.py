"""`colorize archive`: a whole folder in colour, watched; and `colorize archive status`: what a target holds."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize import log
from colorize.cli.options import ADDRESS, PALETTE, REFERENCE, TEMPERATURE
from colorize.errors import ConfigError, printable
from colorize.model.card import DEFAULT_MODEL, DEFAULT_VIVIDNESS

if TYPE_CHECKING:
    from colorize.archive.job import Plan
    from colorize.archive.summary import ArchiveSummary, Progress

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""

LISTED_FAILURES = 20

LISTED_REASONS = 20

SPEED_PICTURES = 50
"""Of fewer pictures no speed is told at the end."""

STATUS = "status"


def archive(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(help="The folder of the pictures, at any depth, or a URL such as s3://bucket/scans.", show_default=False),
    ],
    target: Annotated[str, typer.Argument(help="The folder or URL for the same tree in colour; it may exist.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model, a model file, or a training run's directory.")] = DEFAULT_MODEL,
    vividness: Annotated[float, typer.Option(help="0 is the most accurate colour, 1 as colourful as real pictures.")] = DEFAULT_VIVIDNESS,
    temperature: Annotated[float | None, TEMPERATURE] = None,
    palette: Annotated[str | None, PALETTE] = None,
    reference: Annotated[str | None, REFERENCE] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes, one CPU each.", show_default="all there are")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Of all results: jpeg, png, tiff or webp.", show_default="each its own")
    ] = None,
    recolor: Annotated[bool, typer.Option("--recolor", help="Colour pictures anew that are in colour already.")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="Show in a corner that the colours are made: three stripes.")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Also write confidence maps: white is certain.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Only the pictures that failed the last time.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Colour everything anew that this program has coloured.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much there is to do; write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for another program: a line now and then, and at the end.")] = False,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Colour every picture below a folder or bucket, as a Ray Data job. `colorize archive status TARGET` sums up what a target holds.

    The same command again does what is new, has changed or failed. What this program did not write is never overwritten. One bad file
    never stops the others: it is listed, and the exit code is 1. TARGET/_colorize has the manifest and report.html, with every picture
    before and after. (A folder that is called `status` is given as ./status.)
    """
    from colorize import cluster
    from colorize.archive.config import ArchiveConfig
    from colorize.archive.job import carry_out, prepare
    from colorize.cli.archive_json import ArchiveLines
    from colorize.cli.display import console
    from colorize.imaging.convert import as_format

    if source == STATUS:
        given = {name for name in context.params if (origin := context.get_parameter_source(name)) and origin.name == "COMMANDLINE"}
        if given - {"source", "target", "json"}:
            raise ConfigError(
                "archive status takes a TARGET and --json, and no other options; a folder that is called status is given as ./status"
            )
        _print_status(target, json)
        return
    config = ArchiveConfig(
        source=source, target=target, model=model, vividness=vividness, temperature=temperature, palette=palette,
        reference=reference, workers=workers, force=force, retry_failed=retry_failed,
        format=as_format(format_), recolor=recolor, mark=mark, confidence=confidence,
    )  # fmt: skip
    plan = prepare(config)
    if not json:
        console.print(_describe(plan), markup=False)
        if plan.work.other_settings:
            console.print(
                f"{_count(plan.work.other_settings, 'picture')} in the target {'has' if plan.work.other_settings == 1 else 'have'} the "
                "colours of another model or other settings and stay; --force colours everything anew"
            )
    if dry_run:
        _print_estimate(plan, json)
        return
    pictures = len(plan.work.tasks)
    with (
        cluster.connect(address) if pictures else nullcontext() as ray,
        ArchiveLines(plan) if json else ArchiveDisplay(pictures) as display,
    ):
        if ray and not json:
            console.print(ray.describe())
        summary = carry_out(plan, on_progress=display.show)
        if isinstance(display, ArchiveLines):
            display.end(summary)
    if not json:
        _print_summary(summary)
    if summary.failed:
        raise typer.Exit(1)


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError, ArchiveError for arguments with which nothing can be coloured, whatever lies there. `given`: all, by name."""
    from colorize.archive.config import ArchiveConfig
    from colorize.archive.listing import check_names
    from colorize.imaging.convert import as_format

    fields = {field.name: given[field.name] for field in dataclasses.fields(ArchiveConfig) if field.name in given}
    ArchiveConfig(**fields, format=as_format(given["format_"]))
    check_names(given["source"], given["target"])


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
        """Takes the state after some more pictures."""
        from colorize.cli.display import duration

        self._done = now.done
        speed = f"{now.pictures_per_second:.1f} pictures/s, {now.megapixels_per_second:.1f} MP/s" if now.pictures_per_second else "…"
        left = "" if now.seconds_left is None else f", {duration(now.seconds_left)} left"
        state = f"{speed}, {now.failed:,} failed{left}"
        self._bar.update(self._task, completed=now.done, description=state)
        if self._bar.disable and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(f"{now.done:,} of {now.total:,} pictures, {now.megapixels:,.0f} MP, {state}")


def _describe(plan: Plan) -> str:
    """What is to be done: `scans: 12 pictures to colour (10 new, 2 changed), 300 coloured already; 3 skipped (3 hidden file)`."""
    work = plan.work
    reasons = Counter(row.reason or "" for row in work.rows if row.status == "skipped")
    why = "" if not work.counts or set(work.counts) == {"new"} else _reasons(dict(work.counts.most_common()))
    kept = f", {work.kept:,} coloured already" if work.kept else ""
    skipped = f"; {reasons.total():,} skipped{_reasons(dict(reasons.most_common()))}" if reasons else ""
    return f"{plan.source.shown}: {_count(len(work.tasks), 'picture')} to colour{why}{kept}{skipped}"


def _print_estimate(plan: Plan, as_json: bool) -> None:
    from colorize.archive.estimate import estimate
    from colorize.cli.display import console, duration

    workers = plan.config.workers or os.cpu_count() or 1
    found = estimate(plan.source, [task.path for task in plan.work.tasks], plan.current, workers)
    if as_json:
        print(json_module.dumps(dataclasses.asdict(found)))
        return
    about = "about " if found.is_sampled else ""
    unreadable = f", {found.unreadable:,} without a readable header" if found.unreadable else ""
    console.print(
        f"{about}{found.megapixels:,.1f} MP{unreadable}; about {duration(found.seconds)} on {_count(workers, 'worker')}; "
        "nothing was written"
    )


def _print_summary(summary: ArchiveSummary) -> None:
    from colorize.cli.display import console, duration

    listed = [] if log.wants_lines() else summary.failures[:LISTED_FAILURES]  # there they have their lines already
    for path, reason in listed:
        print(f"colorize: {printable(path)}: {printable(reason)}", file=sys.stderr)
    if listed and summary.failed > LISTED_FAILURES:
        rest = f"and {summary.failed - LISTED_FAILURES:,} more: status `failed` in {printable(summary.manifest)}"
        print(f"colorize: {rest}", file=sys.stderr)
    if summary.program_errors and not log.wants_lines():
        were = "1 failure is an error" if summary.program_errors == 1 else f"{summary.program_errors:,} failures are errors"
        print(f"colorize: {were} of this program, not of the files: please report it", file=sys.stderr)
    skipped = sum(summary.skipped.values())
    kept = f", {summary.kept:,} coloured already" if summary.kept else ""
    # Of few pictures the start of the workers is most of the time, and the two numbers would contradict each other.
    speed = f", {summary.pictures_per_second:.1f} pictures/s once warm" if summary.colored + summary.failed >= SPEED_PICTURES else ""
    console.print(
        f"{_count(summary.colored, 'picture')} coloured{kept}, {summary.failed:,} failed, {skipped:,} skipped{_reasons(summary.skipped)}: "
        f"{summary.megapixels:,.1f} MP in {duration(summary.seconds)}{speed}",
        markup=False,
    )
    console.print(f"manifest  {printable(summary.manifest)}", markup=False)
    console.print(f"report    {printable(summary.report)}", markup=False)


def _print_status(target: str, as_json: bool) -> None:
    from rich.text import Text

    from colorize.archive.status import read_status
    from colorize.cli.display import console, duration, table

    def cell(text: str) -> Text:
        return Text(printable(text))

    now = read_status(target)
    if as_json:
        print(json_module.dumps(dataclasses.asdict(now)))
        return
    for run in now.unfinished:
        console.print(f"run {run} is under way or was killed; the next run settles what it left\n", markup=False)
    statuses = ", ".join(f"{count:,} {status}" for status, count in now.statuses.items())
    console.print(f"{printable(now.target)}: {_count(now.files, 'file')}: {statuses}", markup=False)
    formats = ", ".join(f"{count:,} {name}" for name, count in now.formats.items())
    if now.megapixels:
        console.print(
            f"{now.megapixels:,.1f} MP in colour ({formats}), {now.source_bytes / 1e6:,.1f} MB in, {now.target_bytes / 1e6:,.1f} MB out"
        )
        stages = ", ".join(f"{name.removeprefix('seconds_')} {duration(seconds)}" for name, seconds in now.stages.items())
        console.print(f"workers' time: {stages}")
    if now.models:
        models = table("model", "vividness", "pictures", "weights", numbers=(1, 2))
        for name, sha256, vividness, count in now.models:
            models.add_row(cell(name), f"{vividness:g}", f"{count:,}", sha256[:12])
        console.print("", models)
    if now.reasons:
        reasons = table("files", "status", "reason", numbers=(0,))
        for status, reason, count in now.reasons[:LISTED_REASONS]:
            reasons.add_row(f"{count:,}", status, cell(reason))
        console.print("", reasons)
        if len(now.reasons) > LISTED_REASONS:
            rest = sum(count for _, _, count in now.reasons[LISTED_REASONS:])
            others = _count(len(now.reasons) - LISTED_REASONS, "other reason")
            console.print(f"and {_count(rest, 'file')} for {others}: column `reason` in the manifest", markup=False)
    if now.failures:
        failures = table("failed", "reason")
        for path, reason in now.failures:
            failures.add_row(cell(path), cell(reason))
        console.print("", failures)
        if now.statuses["failed"] > len(now.failures):
            console.print(f"and {now.statuses['failed'] - len(now.failures):,} more: status `failed` in the manifest", markup=False)
    if now.doubtful:
        doubtful = table("least confident", "confidence", numbers=(1,))
        for path, page, pages, confidence in now.doubtful:
            doubtful.add_row(cell(f"{path}, page {page + 1}" if (pages or 1) > 1 else path), f"{confidence:.2f}")
        console.print("", doubtful)


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count:,} {reason}' for reason, count in counts.items())})" if counts else ""


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
