"""`colorize`: the commands, their errors and their exit codes.

0: done. 1: a `ColorizeError`, in one line. 2: wrong usage. 130: interrupted.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from colorize import log
from colorize.cli import (
    adapt,
    archive,
    demo,
    doctor,
    evaluate,
    finetune,
    models,
    picture,
    remote,
    restore,
    schedule,
    serve,
    submit,
    train,
    verify,
)  # fmt: skip
from colorize.errors import ColorizeError, printable
from colorize.storage.place import HOMELESS
from colorize.storage.url import without_secrets

INTERRUPTED = 128 + signal.SIGINT

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk, or a share of it, that is full."""

NO_HOME = "Could not determine home directory."
"""What pathlib says where a user has none, whom a container was given by number: Ray asks for it when it is imported."""

AGAIN_SECONDS = 0.05
"""From an interrupt that was swallowed until it is raised again."""

app = typer.Typer(
    name="colorize",
    help="Colour for whole archives of black-and-white pictures, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("finetune")(finetune.finetune)
app.command("adapt")(adapt.adapt)
app.command("evaluate")(evaluate.evaluate)
app.command("picture")(picture.picture)
app.command("archive")(archive.archive)
app.command("verify")(verify.verify)
app.command("restore")(restore.restore)
app.command("serve")(serve.serve)
app.add_typer(remote.app, name="remote")
app.command("submit", context_settings={"ignore_unknown_options": True})(submit.submit)
app.add_typer(submit.app, name="jobs")
app.add_typer(schedule.app, name="schedule")
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"colorize {version('colorize')}")
        raise typer.Exit


@app.callback()
def colorize(
    _: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """Colour for whole archives of black-and-white pictures, on Ray."""


def run(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: the `colorize` program and every file in `jobs/`."""
    code = main(arguments)
    # Python's last collections would look through all that is left, which goes with the process anyway: of 100,000 pictures 1.0 of 1.3 s.
    gc.freeze()
    sys.exit(code)


def main(arguments: list[str] | None = None, *, around: AbstractContextManager[None] | None = None) -> int:
    """Runs one command, within `around` where that is given, and returns its exit code."""
    # A supervisor's stop is an interrupt too: what is finished is kept, Ray goes down in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        log.begin()
        with _interrupts_kept(), around or nullcontext():
            app(arguments, standalone_mode=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except ColorizeError as error:
        _complain(str(error))
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in FULL:
            raise
        _complain(f"{error.filename or 'standard output, or a file'} cannot be written: {error.strerror}: make room")
        code = 1
    except RuntimeError as error:
        if str(error) != NO_HOME:
            raise
        _complain(HOMELESS)
        code = 1
    else:
        code = 0
    code = _output_written(code)
    if code == INTERRUPTED:  # typer turns an interrupt inside a command into this exit code, without a word
        _complain("interrupted")
    return code


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Raises an interrupt again that came to nothing: what a weakref's callback, a `__del__` or Cython raises, Python only reports."""
    main_thread, report = threading.get_ident(), sys.unraisablehook
    again: list[threading.Timer] = []

    def keep(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            report(lost)
            return
        # Not here, where it would be swallowed as well; and as a signal, which ends a wait.
        timer = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main_thread, signal.SIGTERM))
        timer.daemon = True
        again.append(timer)
        timer.start()

    sys.unraisablehook = keep
    try:
        yield
    finally:
        sys.unraisablehook = report
        for timer in again:
            timer.cancel()


def _output_written(code: int) -> int:
    """The exit code, after what was printed has left this process; 1 where it cannot."""
    try:
        if sys.stdout is not None:  # it was closed by whoever started this
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 – Python would try once more at its end, and report that
        if error.errno in FULL and not code:
            _complain(f"standard output cannot be written: {error.strerror}: make room")
        return code or 1
    return code


def _complain(message: str) -> None:
    message = printable(without_secrets(message))  # of a URL that was given, whoever repeats it; of a name with a line break, one line
    if log.wants_lines():
        logging.getLogger(__name__).error(message)
        return
    Console(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(f"colorize: {message}", markup=False)
