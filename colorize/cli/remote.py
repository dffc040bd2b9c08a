"""`colorize remote …`: pictures and archives coloured by a service elsewhere, through the client that other programs use.

The API key comes from COLORIZE_API_KEY alone: what is an option can be read by everyone on the machine.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize.cli.picture import check_names, result_files
from colorize.client import KEY_VARIABLE
from colorize.client import SERVER as DEFAULT_SERVER
from colorize.errors import ColorizeError, PictureError, RemoteError, printable

if TYPE_CHECKING:
    from colorize.client.answers import Colored, RunStatus

CONCURRENCY = 4
"""Pictures on their way at a time: enough for the service to work on one while others travel."""

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""

LISTED_FAILURES = 20

SERVER = typer.Option(metavar="URL", help=f"The service's address; its key comes from {KEY_VARIABLE}.")
RUN = typer.Argument(metavar="ID", help="The run's id.", show_default=False)

app = typer.Typer(help="Colour pictures and archives with a service elsewhere.", no_args_is_help=True)


@app.command()
def picture(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Picture files, of any format that is read.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder for the results.", show_default=False)],
    server: Annotated[str, SERVER] = DEFAULT_SERVER,
    model: Annotated[str | None, typer.Option(help="One of `colorize remote models`.", show_default="the service's")] = None,
    vividness: Annotated[
        float | None, typer.Option(help="0 is the most accurate colour, 1 as colourful as real pictures.", show_default="the service's")
    ] = None,
    candidates: Annotated[int, typer.Option(help="How many colourings of each: NAME, NAME-2, …")] = 1,
    format_: Annotated[
        str | None, typer.Option("--format", help="Of the results: jpeg, png, tiff or webp.", show_default="each its own")
    ] = None,
    confidence: Annotated[bool, typer.Option("--confidence", help="Also write NAME-confidence.png: white is certain.")] = False,
) -> None:
    """Send pictures and write them in colour under their own names in DIR, as `colorize picture` does.

    Nothing is overwritten. A file that fails is one line, does not stop the others, and makes the exit code 1.
    """
    from rich.progress import Progress

    from colorize.cli.display import console
    from colorize.client.blocking import Client
    from colorize.imaging.convert import as_format

    wanted = as_format(format_)
    check_names(files, output, candidates, confidence, wanted)
    settings = _given(model=model, vividness=vividness, format=wanted)
    settings |= ({"candidates": candidates} if candidates != 1 else {}) | ({"confidence": True} if confidence else {})
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"{output}: cannot be made a folder for the results ({error.strerror})") from error
    on_their_way: deque[tuple[Path, list[Path]]] = deque()
    failed = 0

    def fail(error: ColorizeError) -> None:
        nonlocal failed
        failed += 1
        bar.print(f"colorize: {printable(str(error))}", file=sys.stderr)

    def sent() -> Iterator[Path]:
        for file in files:
            targets = result_files(file, output, candidates, confidence, wanted)
            try:
                _check_free(file, targets)
            except PictureError as error:
                fail(error)
                bar.advance()
            else:
                on_their_way.append((file, targets))
                yield file

    with Client(server) as client, _Bar(Progress(console=console, transient=True, disable=not console.is_terminal), len(files)) as bar:
        for outcome in client.colorize_many(sent(), concurrency=CONCURRENCY, **settings):
            file, targets = on_their_way.popleft()
            try:
                if isinstance(outcome, ColorizeError):
                    raise outcome
                _check_free(file, targets)  # again: one may have appeared meanwhile
                for target in _write(file, outcome, targets):
                    bar.print(f"{printable(target)}  {printable(outcome.model)}, confidence {outcome.mean_confidence:.2f}")
            except (PictureError, RemoteError) as error:
                fail(error)
            bar.advance()
    if failed:
        raise typer.Exit(1)


@app.command()
def archive(
    source: Annotated[str, typer.Argument(help="The folder of the pictures, or its URL, as the service sees it.", show_default=False)],
    target: Annotated[str, typer.Argument(help="The folder or URL for the same tree in colour.", show_default=False)],
    server: Annotated[str, SERVER] = DEFAULT_SERVER,
    model: Annotated[str | None, typer.Option(help="One of `colorize remote models`.", show_default="the service's")] = None,
    vividness: Annotated[
        float | None, typer.Option(help="0 is the most accurate colour, 1 as colourful as real pictures.", show_default="the service's")
    ] = None,
    recolor: Annotated[bool, typer.Option("--recolor", help="Colour pictures anew that are in colour already.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and leave it alone.")] = False,
) -> None:
    """Have the service colour a whole archive, and watch it: a bulk run on its cluster, which goes on when this command ends.

    Both places must lie within the roots that the service's operator allows. The exit code is 1 where a file failed.
    """
    from colorize.cli.display import console
    from colorize.client.blocking import Client

    with Client(server) as client:
        settings = _given(model=model, vividness=vividness) | ({"recolor": True} if recolor else {})
        run = client.submit_archive(source, target, on_pause=_tell_pause, **settings)
        console.print(run.id if detach else f"run {run.id}", markup=False)
        if detach:
            return
        with _RunDisplay(run.id) as display:
            last = run.wait(on_status=display.show, on_pause=_tell_pause)
    _print_run(last)
    if last.status != "succeeded" or last.counts["failed"]:
        raise typer.Exit(1)


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(metavar="ID", help="The run's id.", show_default="all runs")] = None,
    server: Annotated[str, SERVER] = DEFAULT_SERVER,
) -> None:
    """Say how far a bulk run of the service is, or list all that it knows."""
    from colorize.cli.display import console, duration
    from colorize.client.blocking import Client

    with Client(server) as client:
        if run is not None:
            _print_run(client.archive(run).status())
            return
        runs = client.archives()
    for one in runs:
        places = f"{printable(one.source)} → {printable(one.target)}"
        console.print(f"{one.id}  {one.status}  {_counts(one)}  {duration(one.seconds)}  {places}", markup=False)
    if not runs:
        console.print("no runs")


@app.command()
def cancel(run: Annotated[str, RUN], server: Annotated[str, SERVER] = DEFAULT_SERVER) -> None:
    """End a bulk run of the service. What it has done is kept; the same run again does the rest."""
    from colorize.cli.display import console
    from colorize.client.answers import is_over
    from colorize.client.blocking import Client

    with Client(server) as client:
        status = client.archive(run).cancel()
    told = f"is over already: {status}" if is_over(status) else "is to end; what it has done is kept"
    console.print(f"run {printable(run)} {told}", markup=False)


@app.command()
def models(server: Annotated[str, SERVER] = DEFAULT_SERVER) -> None:
    """List the models of the service."""
    from colorize.cli.display import console
    from colorize.client.blocking import Client

    with Client(server) as client:
        for one in client.models():
            notes = ", ".join(note for note, holds in (("the default", one.is_default), ("in memory", one.loaded)) if holds)
            told = f"{one.name}  {one.parameters / 1e6:.1f} M parameters  {one.working_size} pixels  {one.sha256[:12]}"
            console.print(f"{told}  {notes}".rstrip(), markup=False)


class _Bar:
    """A bar below the lines that are printed, on a terminal; elsewhere the lines alone."""

    def __init__(self, progress: Any, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("pictures", total=total, visible=total > 1)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def print(self, line: str, file: Any = None) -> None:
        if file is not None:
            print(line, file=file)
        else:
            self._progress.console.print(line, markup=False)

    def advance(self) -> None:
        self._progress.advance(self._task)


class _RunDisplay:
    """How far a run on the service is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, run: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from colorize.cli.display import console

        self._run = run
        self._console = console
        self._last_line = time.monotonic()
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("pending", total=None)

    def __enter__(self) -> _RunDisplay:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            self._console.print(f"the run goes on: colorize remote status {self._run}, colorize remote cancel {self._run}", markup=False)

    def show(self, now: RunStatus) -> None:
        """Takes what the service has said."""
        done = now.counts["coloured"] + now.counts["skipped"] + now.counts["failed"]
        self._bar.update(self._task, completed=done, total=now.counts["listed"] or None, description=f"{now.status}, {_counts(now)}")
        if self._bar.disable and time.monotonic() - self._last_line >= LINE_SECONDS and not now.is_over:
            self._last_line = time.monotonic()
            self._console.print(f"{now.status}: {done:,} of {now.counts['listed']:,} files, {_counts(now)}", markup=False)


def _tell_pause(reason: str) -> None:
    print(f"colorize: {printable(reason)}; asking again", file=sys.stderr)


def _print_run(run: RunStatus) -> None:
    from colorize.cli.display import console, duration

    for path, reason in run.failures[:LISTED_FAILURES]:
        print(f"colorize: {printable(path)}: {printable(reason)}", file=sys.stderr)
    if run.counts["failed"] > LISTED_FAILURES:
        print(f"colorize: and {run.counts['failed'] - LISTED_FAILURES:,} more: see the manifest in the target", file=sys.stderr)
    console.print(f"run {run.id} {run.status}: {_counts(run)} in {duration(run.seconds)}", markup=False)
    console.print(f"{printable(run.source)} → {printable(run.target)}", markup=False)
    if run.reason is not None:
        print(f"colorize: {printable(run.reason)}", file=sys.stderr)


def _counts(run: RunStatus) -> str:
    return f"{run.counts['coloured']:,} coloured, {run.counts['failed']:,} failed, {run.counts['skipped']:,} skipped"


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _check_free(file: Path, targets: list[Path]) -> None:
    for target in targets:
        if os.path.lexists(target):
            raise PictureError(f"{file}: {target} is there already, and nothing is overwritten: give another folder")


def _write(file: Path, colored: Colored, targets: list[Path]) -> Iterator[Path]:
    """Writes what came back; gives each file that it has written. Raises RemoteError where it is not what was asked for."""
    from colorize.client.answers import ZIP
    from colorize.imaging.files import write_whole

    found = list(colored.files().items()) if colored.content_type == ZIP else [("", colored.data)]
    if len(found) != len(targets):
        raise RemoteError(f"{file}: the service answers with {len(found)} files, and {len(targets)} were asked for")
    for target, (_, data) in zip(targets, found, strict=True):  # pictures first, then the map: as `colorize picture` orders them
        write_whole(target, data, replace=False)
        yield target
