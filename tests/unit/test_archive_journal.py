"""The journal of a run: outputs come whole and once, and whoever finds it knows what is proven."""

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from colorize.archive.journal import ALTERED, APPEARED, Journal, Output, StopRunError, unfinished
from colorize.archive.manifest import Row
from colorize.errors import ArchiveError
from colorize.storage.place import LocalPlace, Place
from colorize.storage.remote import open_place


@pytest.fixture(params=["disk", "url"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A target on a disk, and the same behind fsspec, where nothing can be locked or renamed."""
    return LocalPlace(tmp_path / "out", "out") if request.param == "disk" else open_place(f"local://{tmp_path}/out")


def opened(target: Place, run_id: str = "run") -> Journal:
    journal = Journal(target, run_id)
    journal.open()
    return journal


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def output(journal: Journal, path: str, data: bytes, replaces: str | None = None, suffix: str = "") -> Output:
    staged = journal.stage()
    staged.write_bytes(data)
    row = Row(
        path=path, status="coloured", target_path=path + suffix, target_bytes=len(data), target_sha256=sha256(data), model="m", run_id="run"
    )  # fmt: skip
    return Output(rows=[row], staged=staged, replaces=replaces)


FAILED = Row(path="bad.jpg", status="failed", reason="r", run_id="run")


def test_a_group_comes_into_the_target_with_its_rows(target: Place, tmp_path: Path) -> None:
    journal = opened(target)
    rows = journal.commit("0-1", [output(journal, "deep/a.jpg", b"A"), FAILED, output(journal, "b.jpg", b"B")])
    assert [(row.path, row.status) for row in rows] == [("deep/a.jpg", "coloured"), ("bad.jpg", "failed"), ("b.jpg", "coloured")]
    assert (tmp_path / "out" / "deep" / "a.jpg").read_bytes() == b"A"
    assert rows[0].seconds_write is not None
    assert journal.recall("0") == {row.path: [row] for row in rows}
    assert journal.recall("1") == {}
    journal.close()
    assert journal.rows() == journal.rows({"0", "1"}) == {row.path: [row] for row in rows}
    assert journal.rows({"1"}) == {}
    journal.remove()
    assert not (tmp_path / "out" / "_colorize" / "runs").exists()


def test_what_is_not_this_programs_is_left_as_it_is(target: Place, tmp_path: Path) -> None:
    journal = opened(target)
    for name in ("mine.jpg", "altered.jpg"):
        target.write(name, b"mine")
    rows = journal.commit("0-1", [output(journal, "mine.jpg", b"new"), output(journal, "altered.jpg", b"new", replaces=sha256(b"old"))])
    assert [(row.status, row.reason, row.target_sha256, row.model) for row in rows] == [
        ("skipped", APPEARED, None, None), ("skipped", ALTERED, sha256(b"old"), None),
    ]  # fmt: skip
    assert [(tmp_path / "out" / name).read_bytes() for name in ("mine.jpg", "altered.jpg")] == [b"mine", b"mine"]


def test_an_earlier_output_is_replaced_when_it_is_as_it_was_left(target: Place, tmp_path: Path) -> None:
    journal = opened(target)
    target.write("a.jpg", b"old")
    (row,) = journal.commit("0-1", [output(journal, "a.jpg", b"new", replaces=sha256(b"old"))])
    assert row.status == "coloured"
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"new"


def test_the_same_output_that_is_there_already_is_this_programs(target: Place) -> None:
    journal = opened(target)
    target.write("a.jpg", b"A")  # a worker put it there, and died
    (row,) = journal.commit("0-1", [output(journal, "a.jpg", b"A")])
    assert row.status == "coloured"


def test_an_output_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    target = LocalPlace(tmp_path, "out")
    journal = opened(target)
    target.write("file", b"x")
    rows = journal.commit("0-1", [output(journal, "file/a.jpg", b"A"), output(journal, "n" * 300, b"N"), output(journal, "b.jpg", b"B")])
    assert [(row.status, row.reason) for row in rows] == [
        ("failed", "the target cannot be written: Not a directory"),
        ("failed", "the target cannot be written: File name too long"),
        ("coloured", None),
    ]
    assert [path.name for path in (tmp_path / "_colorize" / "runs" / "run").iterdir() if "." not in path.name] == ["open"]


def test_of_a_failed_replacement_the_row_still_knows_what_stands(tmp_path: Path) -> None:
    journal = opened(LocalPlace(tmp_path, "out"))
    (row,) = journal.commit("0-1", [output(journal, "n" * 300, b"N", replaces="digest")])
    assert (row.status, row.target_sha256) == ("failed", "digest")


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_intended_outputs_count_where_they_are_as_intended(target: Place, suffix: str) -> None:
    journal = opened(target)
    outputs = [output(journal, name, name.encode(), suffix=suffix) for name in ("there.jpg", "missing.jpg", "foreign.jpg")]
    journal.commit("0-1", [*outputs, FAILED])
    folder = journal.folder
    intent = target.read(f"{folder}/0-1.done")  # as a worker leaves it that dies before it is done
    target.remove(f"{folder}/0-1.done")
    target.write(f"{folder}/0-1.intent", intent)
    target.remove(f"missing.jpg{suffix}")
    target.write(f"foreign.jpg{suffix}", b"other")
    assert sorted(journal.rows()) == ["bad.jpg", "there.jpg"]


def test_a_part_that_was_cut_counts_for_nothing(target: Place) -> None:
    journal = opened(target)
    journal.commit("0-1", [output(journal, "a.jpg", b"A")])
    target.write(f"{journal.folder}/0-1.done", target.read(f"{journal.folder}/0-1.done")[:40])
    assert journal.rows() == {}


class Hiccup(LocalPlace):
    """A place that lists its files and cannot read them, as a bucket now and then."""

    def read(self, path: str) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)


def test_a_part_that_cannot_be_read_is_not_taken_for_one_that_was_cut(tmp_path: Path) -> None:
    journal = opened(LocalPlace(tmp_path, "out"))
    journal.commit("0-1", [output(journal, "a.jpg", b"A")])
    unread = Journal(Hiccup(tmp_path, "out"), "run")
    with pytest.raises(OSError, match="Input/output error"):
        unread.rows()
    with pytest.raises(StopRunError, match="Input/output error"):
        unread.recall("0")
    assert list(journal.rows()) == ["a.jpg"]


def test_a_part_that_is_done_while_it_is_looked_at_counts(tmp_path: Path) -> None:
    class Late(LocalPlace):
        def names(self, folder: str) -> list[str]:
            return [name.replace(".done", ".intent") for name in super().names(folder)]

    journal = opened(LocalPlace(tmp_path, "out"))
    journal.commit("0-1", [output(journal, "a.jpg", b"A")])
    assert list(Journal(Late(tmp_path, "out"), "run").rows()) == ["a.jpg"]


def test_a_closed_journal_lets_nothing_into_the_target(target: Place, tmp_path: Path) -> None:
    journal, worker = opened(target), Journal(target, "run")
    late = output(worker, "a.jpg", b"late")
    journal.close()
    with pytest.raises(StopRunError, match="out: cannot be written"):
        worker.commit("0-1", [late])
    assert not late.staged.exists()
    assert worker.begin("0") == 1
    assert not (tmp_path / "out" / "a.jpg").exists()
    journal.remove()


def test_begun_things_are_counted(target: Place) -> None:
    journal = opened(target)
    assert [journal.begin("a"), journal.begin("a"), journal.begin("b"), journal.begin("a")] == [1, 2, 1, 3]


def test_a_second_run_on_the_same_target_is_refused(target: Place) -> None:
    first = opened(target)
    with pytest.raises(ArchiveError, match=r"out: another run .*is writing there: wait until it has ended$"):
        Journal(target, "other").open()
    first.close()
    first.remove()
    opened(target, "other").remove()
    assert unfinished(target) == []


def test_a_dead_run_is_found_and_is_not_in_the_way(target: Place) -> None:
    dead = opened(target, "1")
    dead.commit("0-1", [output(dead, "a.jpg", b"A")])
    target.write(f"{dead.folder}/open", b'{"host": "elsewhere", "pid": 1}')
    if isinstance(target, LocalPlace):
        dead.release()  # as the system does when its process ends
    else:
        with pytest.raises(ArchiveError, match=r"if it is dead, the same command goes on in \d+ s"):
            opened(target, "2")
        dead.close()
    journal = opened(target, "2")
    (found,) = unfinished(target, but="2")
    found.close()
    assert list(found.rows()) == ["a.jpg"]
    found.remove()
    journal.remove()


def test_rows_of_all_pages_go_together(target: Place) -> None:
    journal = opened(target)
    one = output(journal, "a.tif", b"A")
    pages = replace(one, rows=[replace(one.rows[0], page=page, pages=3) for page in range(3)])
    journal.commit("0-1", [pages])
    assert [[row.page for row in rows] for rows in journal.rows().values()] == [[0, 1, 2]]
