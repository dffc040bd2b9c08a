"""`colorize demo`: every stage once, on the bundled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colorize.cli.options import ADDRESS


def demo(
    output: Annotated[Path, typer.Option(help="The folder for the report and all that the demo makes.")] = Path("demo"),
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Train on the bundled sample, judge two models, colour the bundled archive, and write a report to look at.

    Offline, in a few minutes. What an earlier demo made in that folder is replaced.
    """
    from colorize.cli.display import TrainingDisplay, console
    from colorize.cli.evaluate import score_table
    from colorize.demo.run import next_commands, run_demo

    report = run_demo(
        output, address=address, say=console.print, show=lambda result: console.print(score_table(result)), watch=TrainingDisplay
    )
    console.print(f"\nThe report: {report.absolute()}\n\nTry next:")
    for command, purpose in next_commands(output):
        console.print(f"  {command}")
        console.print(f"      {purpose}", style="dim")
