"""docs/cli.md: every command of `colorize` with its arguments and options, from the functions that define them.

It reads signatures and never the printed help, whose boxes and line breaks change with the terminal and with Typer's version.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import typer

from colorize.cli.main import app

HEAD = """\
# The command line

Made by `make docs` from `colorize/cli/`; do not edit.

Exit codes: 0 done; 1 an error, or files that failed, each told in one line; 2 wrong usage; 130 interrupted, but 0 for
`serve` and `schedule start`, which run until they are stopped.
Every command has `-h` and `--help`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    group: Any = typer.main.get_command(app)
    assert app.registered_callback is not None
    sections = [HEAD, _section("colorize", "colorize [OPTIONS] COMMAND", group, app.registered_callback.callback)]
    for name, command in _commands(group, "colorize"):
        function = inspect.unwrap(command.callback)
        arguments = [_title(parameter, kind) for parameter, kind in _parameters(command, function) if not _is_option(parameter)]
        sections.append(_section(name, " ".join([name, *arguments, "[OPTIONS]"]), command, function))
    return "\n".join(sections)


def _commands(group: Any, above: str) -> Iterator[tuple[str, Any]]:
    """(its whole name, a command), those of groups within the group included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{above} {name}", command
            yield from _commands(command, f"{above} {name}")
        else:
            yield f"{above} {name}", command


def _section(name: str, usage: str, command: Any, function: Callable[..., Any] | None) -> str:
    rows = [_row(parameter, kind) for parameter, kind in _parameters(command, function)]
    table = ["| option | default | meaning |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n\n".join([f"## `{name}`", inspect.cleandoc(command.help), f"```\n{usage}\n```", "\n".join(table)]) + "\n"


def _parameters(command: Any, function: Callable[..., Any] | None) -> list[tuple[Any, Any]]:
    """(parameter, the type of its value) in the order of the signature, without --help."""
    assert function is not None
    hints = get_type_hints(function)
    return [(parameter, hints[parameter.name]) for parameter in command.params if parameter.name in hints]


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _row(parameter: Any, kind: Any) -> tuple[str, str, str]:
    """(what is typed, default, meaning)."""
    told, default = parameter.help, ""
    if found := re.search(r"\s*\[default: (.*?)\]", told):  # one that is worked out when the command runs
        told, default = told.replace(found[0], ""), found[1]
    elif isinstance(parameter.show_default, str):
        default = parameter.show_default
    elif parameter.required:
        default = "required"
    elif parameter.default is not None and parameter.default is not False:
        default = f"{parameter.default}"
    return f"`{_title(parameter, kind)}`", default, told.replace("|", "\\|")


def _title(parameter: Any, kind: Any) -> str:
    if not _is_option(parameter):
        name = parameter.metavar or parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
        return name if parameter.required else f"[{name}]"
    flags = ", ".join(parameter.opts)
    return flags if kind is bool else f"{flags} {parameter.metavar or _metavar(kind)}"


def _metavar(kind: Any) -> str:
    named = next((part for part in get_args(kind) if part is not type(None)), kind)
    if get_origin(named) is list:
        return f"{_metavar(get_args(named)[0])}…"
    return {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "PATH"}[named.__name__]
