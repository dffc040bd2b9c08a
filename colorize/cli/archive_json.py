"""`colorize archive --json`: what a bulk run tells another program, a JSON object a line on standard output.

Every line has the counts of all files so far (`coloured`, with those that were in colour already, `skipped`, `failed` and `listed`, which
the other three reach at the end), the seconds since the beginning, the failures since the line before (100 in all) and whether it is the
`last`. A line comes when a fiftieth of the time has passed that the run has taken so far, but not within LINE_SECONDS: what is read is at
most 2 % old, and the log of ten hours has some 350 lines, 60 kilobytes.
"""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colorize.archive.job import Plan
    from colorize.archive.summary import ArchiveSummary, Progress

LINE_SECONDS = 2.0
LISTED_FAILURES = 100


class ArchiveLines:
    """Prints the lines of one run; stands in for `ArchiveDisplay`."""

    def __init__(self, plan: Plan) -> None:
        statuses = [row.status for row in plan.work.rows]
        self._before = {
            "coloured": plan.work.kept + statuses.count("coloured"),
            "skipped": statuses.count("skipped"),
            "failed": statuses.count("failed"),
        }
        self._tasks = len(plan.work.tasks)
        self._began = plan.began
        self._counts = {**self._before, "listed": self._tasks + sum(self._before.values())}
        self._failures = [(row.path, row.reason or "") for row in plan.work.rows if row.status == "failed"]
        self._told = 0
        self._printed = float("-inf")

    def __enter__(self) -> ArchiveLines:
        self._print()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._print()  # where it stood

    def show(self, now: Progress) -> None:
        """Takes the state after some more pictures."""
        done = {"coloured": now.colored, "skipped": now.skipped, "failed": now.failed}
        self._counts = {name: count + done[name] for name, count in self._before.items()}
        self._counts["listed"] = now.total + sum(self._before.values())
        self._failures += now.new_failures[: LISTED_FAILURES - len(self._failures)]
        elapsed = time.monotonic() - self._began
        if time.monotonic() - self._printed >= max(LINE_SECONDS, elapsed / 50):
            self._print()

    def end(self, summary: ArchiveSummary) -> None:
        """Prints the last line."""
        self._counts = {
            "coloured": summary.colored + summary.kept, "skipped": sum(summary.skipped.values()), "failed": summary.failed,
        }  # fmt: skip
        self._counts["listed"] = sum(self._counts.values())
        known = set(self._failures[: self._told])
        self._failures[self._told :] = [failure for failure in summary.failures if failure not in known]
        self._print(is_last=True)

    def _print(self, *, is_last: bool = False) -> None:
        failures = self._failures[self._told : LISTED_FAILURES]
        self._told += len(failures)
        self._printed = time.monotonic()
        told = {
            "counts": self._counts,
            "failures": [{"path": path, "reason": reason} for path, reason in failures],
            "seconds": round(self._printed - self._began, 3),
            "last": is_last,
        }
        print(json.dumps(told), flush=True)
