"""What a bulk run finds in its folders, and what it refuses before it starts."""

import os
from pathlib import Path

import pytest

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import prepare
from colorize.archive.listing import HIDDEN, NOT_A_PICTURE, PRESENT, UNSUPPORTED, check_places, list_archive
from colorize.archive.manifest import Row, to_rows, to_table
from colorize.archive.staging import Staging
from colorize.errors import ArchiveError, ConfigError, ModelError, PictureError


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refusal(source: Path, target: Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        prepare(ArchiveConfig(source=source, target=target))
    message = str(caught.value)
    assert "\n" not in message
    return message


# Places


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no", tmp_path / "out") == f"{tmp_path / 'no'}: there is no such folder"


def test_a_source_that_is_a_file_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "a.jpg")
    assert refusal(source, tmp_path / "out").startswith(f"{source}: is a file")


def test_an_empty_source_is_refused_even_with_empty_folders_in_it(tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    assert refusal(tmp_path / "in", tmp_path / "out") == f"{tmp_path / 'in'}: the folder is empty"


def test_a_source_without_pictures_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    put(tmp_path / "in" / "notes.txt")
    put(tmp_path / "in" / "deep" / "scan.tif")
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert message == f"{tmp_path / 'in'}: no pictures in it (.jpg, .jpeg, .png): 1 of formats not supported yet, 1 other file"
    assert not (tmp_path / "out").exists()


def test_a_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    target = put(tmp_path / "out")
    assert refusal(tmp_path / "in", target).startswith(f"{target}: is a file")


def test_a_target_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    put(tmp_path / "file")
    assert refusal(tmp_path / "in", tmp_path / "file" / "out").startswith(
        f"{tmp_path / 'file' / 'out'}: cannot be written (Not a directory)"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_target_without_permission_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    target = tmp_path / "out"
    target.mkdir(mode=0o555)
    assert "cannot be written (Permission denied)" in refusal(tmp_path / "in", target)


@pytest.mark.parametrize("target", [".", "out", "sub/out", "../in/out"])
def test_a_target_inside_the_source_is_refused(tmp_path: Path, target: str) -> None:
    put(tmp_path / "in" / "a.jpg")
    message = refusal(tmp_path / "in", tmp_path / "in" / target)
    assert "lies inside the source" in message or "is the source itself" in message


def test_a_source_inside_the_target_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "deep" / "a.jpg")
    assert "lies inside the target" in refusal(tmp_path / "in" / "deep", tmp_path / "in")


def test_links_do_not_hide_that_a_target_lies_inside_the_source(tmp_path: Path) -> None:
    put(tmp_path / "in" / "sub" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "sub")
    assert "lies inside the source" in refusal(tmp_path / "in", tmp_path / "link" / "out")
    assert "lies inside the source" in refusal(tmp_path / "in", tmp_path / "link")
    (tmp_path / "again").symlink_to(tmp_path / "in")
    assert "is the source itself" in refusal(tmp_path / "in", tmp_path / "again")


def test_siblings_of_one_name_are_no_nesting(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert check_places(tmp_path / "in", tmp_path / "in-color") == (tmp_path / "in", tmp_path / "in-color")


def test_a_link_that_leads_nowhere_round_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "loop" in refusal(tmp_path / "in", tmp_path / "loop" / "out")


# Settings


@pytest.mark.parametrize(("setting", "value"), [("vividness", -0.1), ("vividness", 1.5), ("workers", 0), ("workers", -3)])
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{setting} {value}: must "):
        ArchiveConfig(source=tmp_path, target=tmp_path / "out", **{setting: value})


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    with pytest.raises(ModelError, match="no such model"):
        prepare(ArchiveConfig(source=tmp_path / "in", target=tmp_path / "out", model="none"))
    assert not (tmp_path / "out").exists()


# The listing


def test_every_file_is_either_to_be_coloured_or_has_a_row(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    pictures = ["Z.JPG", "a.jpg", "b.Jpeg", "deep/er/c.png", "deep/ü ñ.jfif"]
    others = {
        "notes.txt": NOT_A_PICTURE, "no-suffix": NOT_A_PICTURE, "scan.TIF": UNSUPPORTED, "deep/x.webp": UNSUPPORTED,
        ".DS_Store": HIDDEN, "deep/._a.jpg": HIDDEN, ".cache/a.jpg": HIDDEN,
    }  # fmt: skip
    for name in [*pictures, *others]:
        put(source / name, b"12345")
    put(source / "done.jpg")
    put(target / "done.jpg", b"mine")
    listing = list_archive(source, target, "run")
    assert [entry.path for entry in listing.pictures] == sorted(pictures)
    assert {entry.size for entry in listing.pictures} == {5}
    assert {row.path: row.reason for row in listing.rows} == others | {"done.jpg": PRESENT}
    assert {row.status for row in listing.rows} == {"skipped"}
    assert {row.run_id for row in listing.rows} == {"run"}


def test_links_to_files_are_followed_and_links_to_folders_are_rows(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(tmp_path / "elsewhere" / "a.jpg", b"123")
    source.mkdir()
    (source / "a.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "round").symlink_to(source)
    (source / "lost.jpg").symlink_to(tmp_path / "gone.jpg")
    listing = list_archive(source, tmp_path / "out", "run")
    assert [(entry.path, entry.size) for entry in listing.pictures] == [("a.jpg", 3)]
    assert {(row.path, row.status) for row in listing.rows} == {("folder", "skipped"), ("round", "skipped"), ("lost.jpg", "failed")}


def test_pipes_and_names_that_are_not_utf8_fail_without_being_opened(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    os.mkfifo(source / "pipe.jpg")
    (Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.jpg"))).write_bytes(b"x")
    listing = list_archive(source, tmp_path / "out", "run")
    assert listing.pictures == []
    assert {row.path: row.reason for row in listing.rows} == {
        "pipe.jpg": "is not a regular file, or a link to nothing",
        "caf\ufffd.jpg": "its name is not valid UTF-8: rename it",
    }


# Rows and staging


def test_rows_survive_their_table_with_what_they_lack() -> None:
    rows = [
        Row(path="a", status="failed", reason="r", run_id="1"),
        Row(path="b", status="coloured", width=3, height=2, mean_confidence=0.5, run_id="1"),
    ]
    assert to_rows(to_table(rows)) == rows


def coloured(path: str) -> Row:
    return Row(path=path, status="coloured", run_id="run")


def test_staging_moves_whole_files_and_overwrites_none(tmp_path: Path) -> None:
    staging = Staging(tmp_path, "run")
    staging.open()
    staging.put(coloured("deep/a.jpg"), b"whole")
    assert (tmp_path / "deep" / "a.jpg").read_bytes() == b"whole"
    with pytest.raises(PictureError, match="appeared during the run"):
        staging.put(coloured("deep/a.jpg"), b"other")
    put(tmp_path / "file")
    with pytest.raises(PictureError, match="cannot be written"):
        staging.put(coloured("file/a.jpg"), b"x")
    assert (tmp_path / "deep" / "a.jpg").read_bytes() == b"whole"
    assert staging.close() == [coloured("deep/a.jpg")]


def test_staging_gives_the_rows_that_the_driver_has_not_had(tmp_path: Path) -> None:
    staging = Staging(tmp_path, "run")
    staging.open()
    assert [staging.begin("a"), staging.begin("a"), staging.begin("b")] == [1, 2, 1]
    for name in "ab":
        staging.put(coloured(name), b"x")
    failed = Row(path="c", status="failed", run_id="run")
    staging.finish(failed)
    assert staging.finished("a") == coloured("a")
    assert staging.finished("other") is None
    staging.take(coloured("b"))
    assert sorted(staging.close(), key=lambda row: row.path) == [coloured("a"), failed]
    assert not staging.folder.parent.exists()
    assert staging.close() == []


def test_a_row_whose_picture_never_reached_the_target_does_not_count(tmp_path: Path) -> None:
    staging = Staging(tmp_path, "run")
    staging.open()
    staging.finish(coloured("a"))  # as a worker leaves it that dies between the two
    assert staging.finished("a") is None
    assert staging.close() == []


def test_a_closed_staging_lets_nothing_into_the_target(tmp_path: Path) -> None:
    staging, other = Staging(tmp_path, "run"), Staging(tmp_path, "other")
    staging.open()
    other.open()
    staging.close()
    with pytest.raises(PictureError, match="the target cannot be written: no such file or directory"):
        staging.put(coloured("a.jpg"), b"late")
    assert staging.begin("a.jpg") == 1
    staging.finish(Row(path="a.jpg", status="failed", run_id="run"))
    assert not (tmp_path / "a.jpg").exists()
    assert not staging.folder.exists()
    other.put(coloured("b.jpg"), b"x")
    assert (tmp_path / "b.jpg").exists()
