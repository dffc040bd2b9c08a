"""What `colorize archive --json` prints and what the service reads from a job's output: the two ends of one agreement."""

import itertools
import json
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colorize.archive.manifest import Row, to_table
from colorize.archive.summary import Tally
from colorize.cli import archive_json
from colorize.cli.archive_json import ArchiveLines

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from colorize.serve.bulk import Counts, read_output


def row(number: int, status: Any, reason: str | None = None) -> Row:
    return Row(path=f"{number}.jpg", status=status, reason=reason, run_id="r", width=10, height=10)


def plan(tasks: int, *rows: Row, kept: int = 0) -> Any:
    return SimpleNamespace(work=SimpleNamespace(rows=list(rows), tasks=[None] * tasks, kept=kept), began=0.0)


def summary(**given: Any) -> Any:
    return SimpleNamespace(**({"colored": 0, "kept": 0, "skipped": {}, "failed": 0, "failures": []} | given))


def test_what_is_printed_is_what_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_json, "LINE_SECONDS", 0.0)
    tally = Tally(total=4)
    the_plan = plan(4, row(90, "skipped", "hidden"), row(91, "failed", "its name"), kept=2)
    log = ""

    def read() -> tuple[Counts, list[tuple[str, str]], bool]:
        nonlocal log
        log += "a line of Ray's\n" + capsys.readouterr().out
        counts, failures, is_whole, complaint = read_output(log)
        assert complaint is None
        return counts, [(one.path, one.reason) for one in failures], is_whole

    with ArchiveLines(the_plan) as lines:
        assert read() == (Counts(coloured=2, skipped=1, failed=1, listed=8), [("91.jpg", "its name")], False)
        lines._began = float("inf")  # so that every call prints
        tally.add(to_table([row(1, "coloured"), row(2, "failed", "is text,\nnot a picture"), row(3, "skipped", "appeared")]))
        lines.show(tally.progress())
        failures = [("91.jpg", "its name"), ("2.jpg", "is text, not a picture")]
        assert read() == (Counts(coloured=3, skipped=2, failed=2, listed=8), failures, False)
        tally.add(to_table([row(4, "coloured")]))
        lines.show(tally.progress())
        assert read() == (Counts(coloured=4, skipped=2, failed=2, listed=8), failures, False)
        both = [("2.jpg", "is text,\nnot a picture"), ("91.jpg", "its name")]
        lines.end(summary(colored=2, kept=2, skipped={"hidden": 1, "appeared": 1}, failed=2, failures=both))
        assert read() == (Counts(coloured=4, skipped=2, failed=2, listed=8), failures, True)


def test_a_run_that_breaks_off_prints_where_it_stood(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), ArchiveLines(plan(3)):
        raise KeyError
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["counts"] == last["counts"] == {"coloured": 0, "skipped": 0, "failed": 0, "listed": 3}
    assert last["last"] is False


def test_failures_are_listed_up_to_a_hundred_and_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_json, "LINE_SECONDS", 0.0)
    tally = Tally(total=300)
    with ArchiveLines(plan(300)) as lines:
        lines._began = float("inf")
        for start in range(0, 300, 30):
            tally.add(to_table([row(number, "failed", "is bad") for number in range(start, start + 30)]))
            lines.show(tally.progress())
        lines.end(summary(failed=300, failures=[(f"{number}.jpg", "is bad") for number in range(300)]))
    counts, failures, is_whole, _ = read_output(capsys.readouterr().out)
    assert (counts.failed, is_whole) == (300, True)
    assert [one.path for one in failures] == [f"{number}.jpg" for number in range(100)]


def test_lines_become_seldom_as_time_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(archive_json.time, "monotonic", lambda: now)
    progress = Tally(total=1).progress()
    with ArchiveLines(plan(1)) as lines:
        while now < 36_000:
            now += 1.0
            lines.show(progress)
    printed = [json.loads(line)["seconds"] for line in capsys.readouterr().out.splitlines()]
    assert len(printed) < 400
    assert all(after - before <= max(3.0, after / 50 + 1) for before, after in itertools.pairwise(printed))


def test_a_complaint_is_told() -> None:
    assert read_output("noise\ncolorize: /b: cannot be  written\nmore noise")[3] == "/b: cannot be written"


_LINE = st.sampled_from(['{"counts": {"coloured": 1}, "failures": [], "seconds": 1, "last": false}', '{"counts": ', "colorize: "])


@given(st.lists(_LINE | st.text() | st.tuples(_LINE, st.text()).map("".join)).map("\n".join))
def test_any_output_can_be_read(log: str) -> None:
    _, failures, _, complaint = read_output(log)
    assert len(failures) <= 100
    assert complaint is None or complaint.isprintable()
