"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colorize.errors import printable

if TYPE_CHECKING:
    from colorize.data.dataset import LabDataset
    from colorize.train.progress import EpochReport, Report, StepReport

console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)  # a path may hold `:x:` or `[/x]`

console_of_notes = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)
"""For what is told beside, where standard output is for another program."""


def describe(dataset: LabDataset) -> str:
    """One line on a loaded data set: what is in it and what was left out."""
    parts = [f"{dataset.pictures:,} pictures of {dataset.height}×{dataset.width}"]
    if dataset.dropped_grey:
        parts.append(f"{dataset.dropped_grey:,} grey ones left out")
    if dataset.unreadable:
        name, reason = dataset.unreadable[0]
        parts.append(f"{len(dataset.unreadable):,} unreadable ones left out (the first: {printable(name)}: {reason})")
    if dataset.other_formats:
        parts.append(f"{dataset.other_formats:,} of other formats left out (only JPEG and PNG are read)")
    if dataset.other_labels:
        parts.append(f"labels left out (only numbers that every file has are read; these are {dataset.other_labels})")
    if dataset.outside:
        files = "file" if dataset.outside == 1 else "files"
        parts.append(f"{dataset.outside:,} {files} beside train and test left out")
    return ", ".join(parts)


def table(*columns: str, numbers: tuple[int, ...] = ()) -> Table:
    """An empty table without lines; `numbers`: which columns are set flush right."""
    made = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    return made


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 04 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class TrainingDisplay:
    """A table of finished epochs that grows, with the epoch under way below it; where it grows too long for the terminal, its end."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._rows: list[EpochReport] = []
        self._live = Live(Text("starting the workers …"), console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            if self._rows:
                self._live.update(self._table(None, self._rows))
            self._live.stop()

    def show(self, report: Report) -> None:
        """Takes the next report."""
        from colorize.train.progress import EpochReport, Notice

        if isinstance(report, Notice):
            console.print(report.text)  # on a terminal, above the table
        elif isinstance(report, EpochReport):
            self._rows.append(report)
            if self._live:
                self._live.update(self._table(None, self._latest()))
            else:
                console.print(
                    f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}"
                    f"  SSIM {report.ssim:.4f} ({report.ssim_gain:+.4f} over grey)"
                    f"  PSNR {report.psnr:.2f} ({report.psnr_gain:+.2f})"
                    f"  {report.pictures_per_second:,.0f} images/s  {duration(report.seconds)}"
                )
        elif self._live:
            self._live.update(self._table(report, self._latest()))

    def _latest(self) -> list[EpochReport]:
        """The last epochs, as many as the terminal has room for below the headings and above the epoch under way."""
        return self._rows[-max(1, console.height - 3) :]

    def _table(self, now: StepReport | None, rows: list[EpochReport]) -> Table:
        table = Table("epoch", "loss", "SSIM", "over grey", "PSNR", "over grey", "images/s", "time", box=None, padding=(0, 2, 0, 0))
        for column in table.columns:
            column.justify = "right"
        for row in rows:
            table.add_row(
                f"{row.epoch}/{row.epochs}", f"{row.loss:.3f}", f"{row.ssim:.4f}", f"{row.ssim_gain:+.4f}", f"{row.psnr:.2f}",
                f"{row.psnr_gain:+.2f}", f"{row.pictures_per_second:,.0f}", duration(row.seconds),
            )  # fmt: skip
        if now is not None:
            table.add_row(
                f"{now.epoch}/{self._epochs}", f"{now.loss:.3f}", "", "", "", f"step {now.step:,}/{now.steps:,}",
                f"{now.pictures_per_second:,.0f}", f"{duration(now.seconds_left)} left", style="dim",
            )  # fmt: skip
        return table
