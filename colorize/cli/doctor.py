"""`colorize doctor`: whether everything is in order here, on one screen."""

from __future__ import annotations

import dataclasses
import json as json_module
from typing import Annotated

import typer

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "wrong": "[bold red]wrong[/]"}


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    model: Annotated[list[str] | None, typer.Option(help="A model file or a run to look at too; may be given again.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to look at (host:port, auto); without it RAY_ADDRESS, if set.")] = None,
) -> None:
    """Look at packages, CPUs, GPUs, memory, disks, ports, the cluster and the models: what is wrong, and what to do.

    No Ray is started; a cluster (--address, RAY_ADDRESS) is joined for a moment. The exit code is 1 where something is wrong.
    """
    from rich.table import Table
    from rich.text import Text

    from colorize.cli.display import console
    from colorize.doctor.examine import examine

    findings = []
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for column in ("status", "check", "found"):
        table.add_column(column, overflow="fold", no_wrap=column != "found")
    with console.status("looking …"):
        for finding in examine(address, tuple(model or ())):
            findings.append(finding)
            table.add_row(Text.from_markup(MARKS[finding.status]), Text(finding.check), Text(finding.found))
            if finding.advice:
                table.add_row("", "", Text(f"→ {finding.advice}", style="bold"))
    wrong, warnings = (sum(one.status == status for one in findings) for status in ("wrong", "warning"))
    if json:
        print(json_module.dumps([dataclasses.asdict(finding) for finding in findings], ensure_ascii=False, indent=1))
    else:
        console.print(table, soft_wrap=False)
        console.print("all is well" if not wrong + warnings else f"{wrong} wrong, {warnings} warning{'' if warnings == 1 else 's'}")
    if wrong:
        raise typer.Exit(1)
