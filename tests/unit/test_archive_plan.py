"""What a run has to do: every file against the manifest and the target, and the manifest that it leaves."""

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayError, UserCodeException

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import BLOCK_BYTES, BLOCK_PICTURES, PARTS_A_WORKER, Plan, carry_out, cut_into_blocks, prepare
from colorize.archive.journal import ALTERED, Journal, unfinished
from colorize.archive.listing import Entry, Listing
from colorize.archive.manifest import SCHEMA, Row, merge, read_manifest, to_rows, to_table, write_manifest
from colorize.archive.plan import IN_COLOR, PRESENT, SAME_NAME, VANISHED, Task, Work, plan_work
from colorize.archive.summary import breaking_off
from colorize.errors import ArchiveError
from colorize.imaging.convert import Format, converted_name
from colorize.storage.place import LocalPlace

COLOURED: dict[str, Any] = {
    "status": "coloured", "source_bytes": 10, "source_modified": 1, "source_sha256": "s", "target_bytes": 20, "target_sha256": "t",
    "model_sha256": "m", "vividness": 0.5, "run_id": "old",
}  # fmt: skip


SETTINGS: dict[str, Any] = {"model_sha256": "m", "vividness": 0.5, "run_id": "new"}


def coloured(path: str = "a.jpg", **changes: Any) -> Row:
    return Row(**({"path": path} | COLOURED | changes))


def planned(*rows: Row, size: int = 10, modified: int = 1, there: int | None = 20, present: bool = True, **options: Any) -> Work:
    """The work where `a.jpg` is in the source (`present`), and `there` are the bytes of its output."""
    listing = Listing(pictures=[Entry(path="a.jpg", size=size, modified=modified)] if present else [], rows=[])
    return plan_work(listing, to_table(rows), {"a.jpg": there}.get, **(SETTINGS | options))


def why(work: Work) -> list[str]:
    return list(work.counts)


def reasons(work: Work) -> list[tuple[str, str | None]]:
    return [(row.status, row.reason) for row in work.rows]


def test_a_new_picture_is_coloured_unless_the_target_has_something_there() -> None:
    work = planned(there=None)
    assert work.tasks == [Task(path="a.jpg", size=10, modified=1)]
    assert why(work) == ["new"]
    work = planned(there=3)
    assert (work.tasks, reasons(work)) == ([], [("skipped", PRESENT)])
    assert planned(Row(path="a.jpg", status="skipped", reason=PRESENT, run_id="old"), there=None).counts == {"new": 1}


def test_what_is_done_is_kept() -> None:
    work = planned(coloured())
    assert (work.tasks, work.rows, work.kept, work.other_settings, work.dropped) == ([], [], 1, 0, [])


@pytest.mark.parametrize(("setting", "value"), [("model_sha256", "other"), ("vividness", 0.6)])
def test_other_settings_are_counted_and_redo_nothing(setting: str, value: Any) -> None:
    work = planned(coloured(), **{setting: value})
    assert (work.tasks, work.kept, work.other_settings) == ([], 1, 1)


@pytest.mark.parametrize("change", [{"size": 11}, {"modified": 2}])
def test_a_source_that_looks_changed_is_compared(change: dict[str, int]) -> None:
    work = planned(coloured(), **change)
    assert [(task.known, task.replaces) for task in work.tasks] == [("s", "t")]
    assert why(work) == ["changed"]


def test_a_picture_that_was_in_color_already_is_done_until_it_changes_or_is_asked_for() -> None:
    reason = f"{IN_COLOR} (pages 2 of 2)"
    old = Row(path="a.jpg", status="skipped", reason=reason, source_bytes=10, source_modified=1, source_sha256="s", run_id="old")
    work = planned(old, there=None)
    assert (work.tasks, work.rows, work.dropped) == ([], [old], [])
    assert [task.known for task in planned(old, there=None, modified=2).tasks] == ["s"]
    for options in ({"recolor": True}, {"force": True}, {"recolor": True, "modified": 2}):
        assert [(task.known, task.replaces) for task in planned(old, there=None, **options).tasks] == [(None, None)]
    assert reasons(planned(old, there=3)) == [("skipped", PRESENT)]
    standing = replace(old, target_bytes=20, target_sha256="t")  # coloured once, from another source
    assert [task.replaces for task in planned(standing, recolor=True).tasks] == ["t"]


def test_an_output_that_is_gone_is_made_again_and_one_that_was_altered_stays() -> None:
    assert [(task.known, task.replaces) for task in planned(coloured(), there=None).tasks] == [(None, None)]
    work = planned(coloured(), there=21, modified=2)
    assert (work.tasks, reasons(work)) == ([], [("skipped", ALTERED)])
    again = planned(Row(path="a.jpg", status="skipped", reason=ALTERED, run_id="old"), there=21)
    assert (again.tasks, reasons(again)) == ([], [("skipped", ALTERED)])


def test_an_altered_output_that_is_back_is_this_programs_again() -> None:
    old = coloured(target_path="a.jpg")
    (altered,) = planned(old, there=21).rows
    assert (altered.status, altered.reason, altered.model_sha256) == ("skipped", ALTERED, None)
    assert (altered.target_path, altered.target_bytes, altered.target_sha256) == ("a.jpg", 20, "t")
    for options in ({}, {"force": True}):
        still = planned(altered, there=21, **options)
        assert (still.tasks, still.rows) == ([], [replace(altered, run_id="new")])
    back = planned(altered, there=20)
    assert (why(back), [task.replaces for task in back.tasks]) == (["output back"], ["t"])
    assert why(planned(altered, there=None)) == ["output gone"]
    of_the_same_size = replace(altered, target_bytes=None)  # as a worker found it
    assert reasons(planned(of_the_same_size, there=20)) == [("skipped", ALTERED)]
    assert why(planned(of_the_same_size, there=20, force=True)) == ["output back"]


def test_a_source_that_is_away_for_a_night_does_not_lose_its_output() -> None:
    old = coloured(target_path="a.jpg")
    listing = Listing(pictures=[], rows=[Row(path="a.jpg", status="failed", reason="is a link to nothing", run_id="new")])
    away = plan_work(listing, to_table([replace(old, pages=2), replace(old, page=1, pages=2)]), {"a.jpg": 20}.get, **SETTINGS)
    (row,) = away.rows
    assert (row.status, row.target_path, row.target_bytes, row.target_sha256) == ("failed", "a.jpg", 20, "t")
    assert (row.source_sha256, row.model, away.dropped) == (None, None, [])
    back = planned(row)
    assert (why(back), [task.replaces for task in back.tasks]) == (["failed before"], ["t"])
    gone = planned(row, present=False)
    assert (gone.rows, gone.dropped) == ([], [])


def test_what_failed_is_tried_again_and_its_older_output_may_be_replaced() -> None:
    work = planned(Row(path="a.jpg", status="failed", target_sha256="t", run_id="old"))
    assert [(task.known, task.replaces) for task in work.tasks] == [(None, "t")]
    assert why(work) == ["failed before"]
    work = planned(Row(path="a.jpg", status="failed", run_id="old"), there=5)  # the user put one there
    assert (work.tasks, reasons(work)) == ([], [("skipped", PRESENT)])


def test_force_does_all_of_this_programs_again_and_nothing_else() -> None:
    assert [(task.known, task.replaces) for task in planned(coloured(), force=True).tasks] == [(None, "t")]
    assert planned(there=20, force=True).tasks == []
    assert planned(coloured(), there=21, force=True).tasks == []


def test_only_what_failed() -> None:
    assert planned(there=None, retry_failed=True).tasks == []
    assert planned(coloured(), modified=2, retry_failed=True).tasks == []
    assert len(planned(Row(path="a.jpg", status="failed", run_id="old"), there=None, retry_failed=True).tasks) == 1


@given(
    names=st.sets(
        st.tuples(st.sampled_from(["a", "b.png"]), *[st.sampled_from(["", ".tif", ".jpg", ".JPG", ".png"])] * 2).map("".join), max_size=9
    ),
    wanted=st.sampled_from([None, "jpeg", "png", "tiff"]),
)
def test_no_two_pictures_become_one_output(names: set[str], wanted: Format | None) -> None:
    listing = Listing(pictures=[Entry(path=name, size=1) for name in sorted(names)], rows=[])
    work = plan_work(listing, SCHEMA.empty_table(), {}.get, wanted=wanted, **SETTINGS)
    outputs = [converted_name(task.path, wanted) for task in work.tasks]
    assert len(set(outputs)) == len(outputs)
    assert {row.status for row in work.rows} <= {"failed"}
    assert sorted([task.path for task in work.tasks] + [row.path for row in work.rows]) == sorted(names)
    assert set(outputs) == {converted_name(name, wanted) for name in names}


@pytest.mark.parametrize(("has_output", "other"), [(None, "a.tif"), ("a.tif", "a.tif"), ("a.tif.jpg", "a.tif.jpg")])
def test_of_two_pictures_with_one_output_the_one_that_has_it_keeps_it(has_output: str | None, other: str) -> None:
    listing = Listing(pictures=[Entry(path=name, size=10, modified=1) for name in ("a.tif", "a.tif.jpg")], rows=[])
    before = [coloured(has_output, target_path="a.tif.jpg")] if has_output else []
    there = {"a.tif.jpg": 20} if has_output else {}
    work = plan_work(listing, to_table(before), there.get, wanted="jpeg", **SETTINGS)
    (row,) = work.rows
    assert {row.path, other} == {"a.tif", "a.tif.jpg"}
    assert (row.status, row.reason) == ("failed", f"{SAME_NAME} {other}: rename one of them")
    assert (len(work.tasks), work.kept) == ((0, 1) if has_output else (1, 0))


def test_a_source_that_vanished_keeps_its_output_and_its_row() -> None:
    work = planned(coloured(), present=False)
    (row,) = work.rows
    assert row == coloured(reason=VANISHED)
    assert planned(row, present=False).rows == []
    (back,) = planned(row).rows
    assert back == coloured()
    work = planned(Row(path="a.jpg", status="failed", run_id="old"), present=False)
    assert (work.dropped, work.rows) == (["a.jpg"], [])


def test_nothing_vanishes_from_a_folder_that_cannot_be_listed() -> None:
    rows = [coloured("deep/a.jpg"), coloured("deeper/a.jpg")]
    listing = Listing(pictures=[], rows=[], unlisted=["deep"])
    work = plan_work(listing, to_table(rows), {}.get, model_sha256="m", vividness=0.5, run_id="new")
    assert [row.path for row in work.rows] == ["deeper/a.jpg"]


# A run that finds, as it begins, that another one has ended since it was planned


@pytest.fixture
def idle(tmp_path: Path) -> tuple[Plan, LocalPlace]:
    """A plan of a run without anything to do, for outputs as JPEG; and its target."""
    target = LocalPlace(tmp_path / "out", "out")
    source = LocalPlace(tmp_path / "in", "in")
    source.write("a.png", b"0123456789")
    found = source.look("a.png")
    assert found is not None
    target.write("a.png.jpg", b"x" * 20)
    write_manifest(
        target, to_table([coloured("a.png", target_path="a.png.jpg", source_modified=found.modified)]), SCHEMA.empty_table(), "1"
    )
    plan = prepare(ArchiveConfig(source=source.root, target=target.root, format="jpeg"))
    assert (plan.work.tasks, plan.work.kept) == ([], 1)
    return plan, target


def test_a_run_that_refuses_to_start_leaves_the_manifest_as_it_is(idle: tuple[Plan, LocalPlace]) -> None:
    plan, target = idle
    rows = [coloured("a.png", target_path="a.png"), coloured("b.png", target_path="b.png")]
    write_manifest(target, to_table(rows), SCHEMA.empty_table(), "2")
    with pytest.raises(ArchiveError, match=r"^a\.png: is in another format than --format jpeg"):
        carry_out(plan)
    assert to_rows(read_manifest(target)) == rows
    assert target.names("_colorize/runs") == []
    following = Journal(target, "next")
    following.open()
    following.remove()


def test_a_journal_that_cannot_be_read_is_kept(idle: tuple[Plan, LocalPlace]) -> None:
    class Hiccup(LocalPlace):
        def read(self, path: str) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    plan, target = idle
    before = read_manifest(target)
    dead = Journal(target, "0")
    dead.open()
    dead.commit("0-1", [Row(path="b.png", status="failed", reason="r", run_id="0")])
    dead.release()
    with pytest.raises(ArchiveError, match=r"^out: cannot be looked up \(Input/output error\)$"):
        carry_out(replace(plan, target=Hiccup(target.root, "out")))
    assert read_manifest(target) == before
    assert [list(journal.rows()) for journal in unfinished(target)] == [["b.png"]]


def test_what_ray_meets_is_one_line_and_errors_of_this_program_pass() -> None:
    out = LocalPlace(Path("out"), "out")
    told = r"^out: the run broke off \(RayError: a node died\); 1 is done$"
    with pytest.raises(ArchiveError, match=told), breaking_off(out, "the run", lambda: "; 1 is done"):
        raise RayError("a node died\nat …")
    with pytest.raises(UserCodeException), breaking_off(out, "the run"):
        raise UserCodeException("KeyError")


# The manifest


def test_rows_survive_their_table_with_what_they_lack() -> None:
    rows = [Row(path="a\n", status="failed", reason="r", run_id="1"), coloured("b", width=3, height=2, mean_confidence=0.5)]
    assert to_rows(to_table(rows)) == rows


def test_a_run_replaces_whole_files_and_the_history_keeps_what_went() -> None:
    pages = [coloured("a.tif", page=page, pages=3) for page in range(3)]
    current = to_table([*pages, coloured("b"), coloured("c"), Row(path="d", status="failed", run_id="old")])
    new = [coloured("a.tif", page=0, pages=1, target_sha256="new"), coloured("c", reason=VANISHED), coloured("0")]
    table, superseded = merge(current, [to_table(new[:1]), to_table(new[1:])], ["d"])
    assert to_rows(table) == [new[2], new[0], coloured("b"), new[1]]
    assert to_rows(superseded) == [*pages, Row(path="d", status="failed", run_id="old")]
    assert merge(SCHEMA.empty_table(), [], [])[0].num_rows == 0


def test_the_manifest_is_read_as_it_was_written(tmp_path: Any) -> None:
    place = LocalPlace(tmp_path, "out")
    assert read_manifest(place).num_rows == 0
    write_manifest(place, to_table([coloured()]), SCHEMA.empty_table(), "1")
    write_manifest(place, to_table([coloured("b")]), to_table([coloured()]), "2")
    assert to_rows(read_manifest(place)) == [coloured("b")]
    assert [path.name for path in (tmp_path / "_colorize" / "history").iterdir()] == ["2.parquet"]


def test_a_manifest_that_cannot_be_read_stops_everything(tmp_path: Any) -> None:
    place = LocalPlace(tmp_path, "out")
    place.write("_colorize/manifest/current.parquet", b"nonsense")
    with pytest.raises(ArchiveError, match=r"^out/_colorize/manifest/current\.parquet: cannot be read "):
        read_manifest(place)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"path": ["a"]}), sink)
    place.write("_colorize/manifest/current.parquet", bytes(sink.getvalue()))
    with pytest.raises(ArchiveError, match="written by another version"):
        read_manifest(place)


def test_every_column_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "archive.md").read_text()
    table = page.partition("| column | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))) == sorted(
        SCHEMA.names, key=re.findall(r"`(\w+)`", table).index
    )


@given(sizes=st.lists(st.integers(0, 2 * BLOCK_BYTES), min_size=1, max_size=600), workers=st.integers(1, 9))
def test_blocks_hold_every_task_once_and_shrink_towards_the_end(sizes: list[int], workers: int) -> None:
    tasks = [Task(path=str(number), size=size, modified=1) for number, size in enumerate(sizes)]
    blocks = cut_into_blocks(tasks, workers)
    assert [task for block in blocks for task in block] == tasks
    left = len(tasks)
    for block in blocks:
        assert 1 <= len(block) <= max(1, min(BLOCK_PICTURES, left // (workers * PARTS_A_WORKER)))
        assert len(block) == 1 or sum(task.size for task in block) <= BLOCK_BYTES
        left -= len(block)


def test_the_last_blocks_are_of_single_pictures_however_long_the_run() -> None:
    tasks = [Task(path=str(number), size=1000, modified=1) for number in range(10_000)]
    sizes = [len(block) for block in cut_into_blocks(tasks, 2)]
    assert sizes[:100] == [BLOCK_PICTURES] * 100
    assert sizes[-8:] == [1] * 8
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) < 10_000 / BLOCK_PICTURES + 50
