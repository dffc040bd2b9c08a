"""Files written whole or not at all, and files read."""

import errno
import os
from pathlib import Path

import pytest

from colorize.errors import HintError, PictureError
from colorize.imaging.files import in_the_way, reading, write_whole, writing_whole
from colorize.imaging.formats import open_scan


def test_write_whole_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jpg"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("has_links", [True, False])
def test_what_has_come_meanwhile_is_not_replaced_unless_told_to(has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "out.jpg"
    write_whole(path, b"first", replace=False)
    path.unlink()

    def come_second() -> None:
        with writing_whole(path, replace=False):
            path.write_bytes(b"another program's")

    with pytest.raises(PictureError) as caught:
        come_second()
    assert str(caught.value) == f"{path}: is there already, and nothing is overwritten: give another name"
    assert path.read_bytes() == b"another program's"
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_takes_the_longest_names(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".jpg")
    write_whole(path, b"data")
    assert path.read_bytes() == b"data"


def test_write_whole_names_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"kept")
    cases = {
        tmp_path / "folder": "is a directory",
        tmp_path / "nowhere" / "x.jpg": "no such file or directory",
        tmp_path / "file" / "x.jpg": "not a directory",
        tmp_path / "null\0" / "x.jpg": "embedded null byte",
    }
    for path, reason in cases.items():
        with pytest.raises(PictureError) as caught:
            write_whole(path, b"data")
        assert str(caught.value) == f"{path}: cannot be written: {reason}".replace("\0", "?")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_what_is_in_the_way_of_a_file_is_told_before_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    assert in_the_way(tmp_path / "new") is None
    assert in_the_way(tmp_path / "file") is None
    assert in_the_way(tmp_path) == "is a folder; give the name of a file"
    for path in ("none/new", "file/new"):
        assert in_the_way(tmp_path / path) == "its folder does not exist"
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    assert in_the_way(tmp_path / "new") == "its folder cannot be written; give a file in another one"
    monkeypatch.chdir(tmp_path)
    assert in_the_way(Path("new")) == "its folder cannot be written; give a file in another one"


ERRORS = [
    PictureError("scan.tif: is damaged"),
    HintError("hints: are none"),
    ValueError("of a bug"),
    KeyboardInterrupt(),
    ZeroDivisionError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_block_that_fails_leaves_what_was_there_and_its_error(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out.tif"
    path.write_bytes(b"kept")

    def fail() -> None:
        with writing_whole(path) as file:
            file.write(b"half of")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert path.read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_can_be_read_back_while_it_is_written(tmp_path: Path) -> None:
    with writing_whole(tmp_path / "out.tif") as file:
        file.write(b"0123456789")
        file.seek(2)
        assert file.read(3) == b"234"
        file.seek(0)
        file.write(b"ab")
    assert (tmp_path / "out.tif").read_bytes() == b"ab23456789"


def test_what_cannot_be_read_is_named_whoever_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a folder, not a picture",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / "missing": "there is no such file",
        tmp_path / ("x" * 300): "cannot be read: file name too long",
        Path("a\0b"): "cannot be read: embedded null byte",
    }
    for path, reason in cases.items():
        with pytest.raises(PictureError) as caught:
            open_scan(path, name="x")
        assert str(caught.value) == f"x: {reason}"
    (tmp_path / "file").write_bytes(b"data")
    with pytest.raises(PictureError, match=r"^x: cannot be read: input/output error$"), reading(tmp_path / "file", "x"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_huge_file_that_is_no_picture_is_not_read(tmp_path: Path) -> None:
    film = tmp_path / "film.jpg"
    with film.open("wb") as file:
        file.truncate(1 << 40)  # a sparse one: more than any machine has memory for
    with pytest.raises(PictureError, match=r"film\.jpg: is no picture of a known format"):
        open_scan(film)
