"""The files and folders among a command's arguments: what a job must be able to see.

Knows nothing of Ray. Each parameter that holds a path has its kind here; a command that takes one more needs one more line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from colorize.cli import adapt, archive, evaluate, finetune, train
from colorize.errors import ConfigError, printable
from colorize.storage.place import FILE_URL, is_url, path_of_url
from colorize.storage.url import redacted

_URL_AS_PATH = re.compile(r"([a-z][a-z0-9+.-]+:)/(.*)")
"""What pathlib makes of a URL."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of this program, parsed, and written again in one way: options by their long names, then `--` and the arguments."""

    arguments: tuple[str, ...]
    """For `colorize`: the command's name first. Local paths are absolute where `parse` was given a folder; `--address` is left out."""
    address: str | None
    """What `--address` said."""
    read: tuple[Path, ...]
    """Local paths that must be there."""
    written: tuple[Path, ...]
    """Local paths that the command makes, or adds to."""


@dataclass(frozen=True, kw_only=True)
class PathArgument:
    """What is known of a value that can be a path."""

    path: str
    """A local path or a URL."""
    before: str = ""
    """What stands before it."""
    is_read: bool = False
    is_written: bool = False


def _read(value: str) -> PathArgument:
    return PathArgument(path=value, is_read=True)


def _written(value: str) -> PathArgument:
    return PathArgument(path=value, is_written=True)


def _scores(value: str) -> PathArgument | None:
    return None if value == evaluate.STANDARD_OUTPUT else _written(value)


def _continued(value: str) -> PathArgument:
    return PathArgument(path=value, is_read=True, is_written=True)


def _data(value: str) -> PathArgument | None:
    from colorize.data.sources import parse_source

    source = parse_source(value)
    return PathArgument(path=source.path, before=f"{source.kind}:", is_read=True) if source.path else None


def _model(value: str) -> PathArgument | None:
    from colorize.model.card import shipped_names

    return None if value in shipped_names() else _read(value)


def _palette(value: str) -> PathArgument | None:
    from colorize.model.swatches import shipped_palettes

    return None if value in shipped_palettes() else _read(value)


_KINDS: dict[str, dict[str, Callable[[str], PathArgument | None]]] = {
    "train": {"data": _data, "run": _written, "resume": _continued},
    "finetune": {"model": _model, "data": _data, "run": _written, "resume": _continued},
    "adapt": {"archive": _read, "model": _model, "run": _written, "resume": _continued},
    "evaluate": {"model": _model, "data": _data, "json": _scores, "sheet": _written, "classifier": _written},
    "archive": {"source": _read, "target": _written, "model": _model, "palette": _palette, "reference": _read},
}
"""Of each command that can be a job, the parameters that can be paths."""

_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "train": train.check, "finetune": finetune.check, "adapt": adapt.check, "evaluate": evaluate.check, "archive": archive.check,
}  # fmt: skip
"""Of each of them, what finds values that it would refuse wherever it ran; given all of its parameters, paths absolute."""

COMMANDS = tuple(_KINDS)
"""The commands that can be a job."""


def job_commands() -> Any:
    """The commands that can be a job, as a command of commands."""
    jobs = typer.Typer(pretty_exceptions_enable=False)
    for function in (train.train, finetune.finetune, adapt.adapt, evaluate.evaluate, archive.archive):
        jobs.command(function.__name__)(function)
    return typer.main.get_command(jobs)


def parse(arguments: Sequence[str], *, folder: Path | None = None, context: Any = None) -> Command:
    """`arguments` of `colorize`, parsed as the command itself parses them, with values in the ranges that it takes.

    Nothing of the user's is read: the paths may be those of other machines.

    folder: what relative paths are relative to, and where a run without a `--run` gets its directory; None: then both are errors, since
    the working directory of a job is one that Ray makes and deletes. context: of the command that asks, for the usage line of an error.

    Raises ConfigError for a command that cannot be a job and for such paths, DataError for a data source that is none, StorageError for a
    file URL that is none, what the command's own settings raise, and what its parser raises, which ends in its usage line and exit code 2.
    """
    _check_text(*arguments, *(() if folder is None else [str(folder)]))
    name = arguments[0] if arguments else ""
    if name not in _KINDS:
        raise ConfigError(f"{name or 'no command'}: cannot be a job; these can: {', '.join(COMMANDS)}")
    if name == "archive" and arguments[1:2] == ["status"]:
        raise ConfigError("archive status: needs no cluster: run it without submit")
    told = name if context is None else f"{context.info_name} {name}"
    above = None if context is None else context.parent
    with job_commands().commands[name].make_context(told, list(arguments[1:]), parent=above) as parsed:
        given = [
            (parameter, parsed.params[parameter.name])
            for parameter in parsed.command.params
            if parameter.name in parsed.params and parsed.get_parameter_source(parameter.name).name == "COMMANDLINE"
        ]
        values = dict(parsed.params)
    options, positional, places = [], [], []
    for parameter, value in given:
        texts: list[str] = []
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if parameter.name == "address":
                continue
            flag = parameter.opts[-1]
            kind = _KINDS[name].get(parameter.name)
            text, place = str(one), None if kind is None else kind(str(one))
            named = flag if flag.startswith("-") else parameter.name.upper()
            if isinstance(one, Path) and (url := _URL_AS_PATH.match(text)):
                raise ConfigError(f"{named} {redacted(f'{url[1]}//{url[2]}')}: must be a file or folder that every node shares, and no URL")
            if place is not None and (place.path.startswith(FILE_URL) or not is_url(place.path)):
                place = _absolute(place, folder, named)
                text = place.before + place.path
                places.append(place)
            texts.append(text)
            if not flag.startswith("-"):
                positional.append(text)
            else:
                options += [flag] if isinstance(one, bool) else [flag, text]
        if parameter.name in _KINDS[name]:
            values[parameter.name] = texts if isinstance(value, (list, tuple)) else texts[0]
    names = {parameter.name for parameter, _ in given}
    if "run" in _KINDS[name] and not names & {"run", "resume"}:
        if folder is None:
            raise ConfigError("--run: a job needs the directory of its run, an absolute path that every node shares")
        run = _written(str(folder / "runs" / time.strftime("%Y%m%d-%H%M%S")))
        options += ["--run", run.path]
        places.append(run)
        values["run"] = run.path
    _CHECKS[name](values)
    return Command(
        arguments=(name, *options, *(["--", *positional] if positional else [])),
        address=next((value for parameter, value in given if parameter.name == "address"), None),
        read=tuple(Path(place.path) for place in places if place.is_read),
        written=tuple(Path(place.path) for place in places if place.is_written),
    )


def _absolute(place: PathArgument, folder: Path | None, named: str) -> PathArgument:
    """The place by its local path, as every node is to look for it and the command to open it."""
    if place.path.startswith(FILE_URL):
        return replace(place, path=str(path_of_url(place.path)))
    if Path(place.path).is_absolute():
        return place
    if folder is None:
        raise ConfigError(f"{named} {place.path}: a job needs an absolute path or a URL: its working directory is one that Ray makes")
    return replace(place, path=str(folder / place.path))


def _check_text(*words: str) -> None:
    """Raises ConfigError for a word that is not UTF-8, as names of files can be: no job can be given it."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise ConfigError(
                f"{printable(word)}: is not UTF-8, and a job is given its command as text: rename it, or name a folder above it"
            )
