"""What a bulk run finds in its folders, and what it refuses before it starts."""

import os
import unicodedata
from pathlib import Path

import pytest

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import prepare
from colorize.archive.listing import HIDDEN, LINKED_FOLDER, NOT_A_PICTURE, RESERVED, UNSUPPORTED, Listing, check_places, list_archive
from colorize.errors import ArchiveError, ConfigError, ModelError
from colorize.storage.place import Found, LocalPlace
from colorize.storage.remote import open_place


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


def listed(folder: Path) -> Listing:
    return list_archive(LocalPlace(folder, "in"), "run")


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
    put(tmp_path / "in" / "deep" / "scan.psd")
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'in'}: no pictures in it (")
    assert message.endswith("): 1 of formats not supported yet, 1 other file")
    assert not (tmp_path / "out").exists()


def test_a_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    target = put(tmp_path / "out")
    assert refusal(tmp_path / "in", target).startswith(f"{target}: is a file")


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
    places = check_places(LocalPlace(tmp_path / "in", "in"), LocalPlace(tmp_path / "in-color", "out"))
    assert [place.root for place in places if isinstance(place, LocalPlace)] == [tmp_path / "in", tmp_path / "in-color"]


@pytest.mark.parametrize(("source", "target"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_nesting_is_seen_behind_urls_too(tmp_path: Path, source: str, target: str) -> None:
    put(tmp_path / "a" / "b" / "a.jpg")
    with pytest.raises(ArchiveError, match=r"lies inside|is the source itself"):
        check_places(open_place(f"local://{tmp_path}/{source}"), open_place(f"local://{tmp_path}/{target}"))


def test_a_link_that_leads_nowhere_round_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "loop" in refusal(tmp_path / "in", tmp_path / "loop" / "out")


# Settings


@pytest.mark.parametrize(("setting", "value"), [("vividness", -0.1), ("vividness", 1.5), ("workers", 0), ("workers", -3)])
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{setting} {value}: must "):
        ArchiveConfig(source=tmp_path, target=tmp_path / "out", **{setting: value})  # type: ignore[arg-type]


def test_all_again_and_only_the_failed_ones_contradict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^force and retry_failed: "):
        ArchiveConfig(source=tmp_path, target=tmp_path / "out", force=True, retry_failed=True)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg")
    with pytest.raises(ModelError, match="no such model"):
        prepare(ArchiveConfig(source=tmp_path / "in", target=tmp_path / "out", model="none"))
    assert not (tmp_path / "out").exists()


# The listing


def test_every_file_is_either_a_picture_or_has_a_row(tmp_path: Path) -> None:
    pictures = [
        "Z.JPG", "a.jpg", "A.jpg", "a.png", "b.Jpeg", "deep/er/c.png", "deep/ü ñ.jfif", "line\nbreak.jpg", "trailing .png",
        "deep/_colorize/a.jpg",
        unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg"), "x" * 251 + ".jpg", "%41?#&.jpg",
    ]  # fmt: skip
    others = {
        "notes.txt": NOT_A_PICTURE, "no-suffix": NOT_A_PICTURE, "scan.PSD": UNSUPPORTED, "deep/x.gif": UNSUPPORTED,
        ".DS_Store": HIDDEN, "deep/._a.jpg": HIDDEN, ".cache/a.jpg": HIDDEN, "_colorize/a.jpg": RESERVED, "_Colorize/deep/a.jpg": RESERVED,
    }  # fmt: skip
    for name in [*pictures, *others]:
        put(tmp_path / name, b"12345")
    listing = listed(tmp_path)
    assert [entry.path for entry in listing.pictures] == sorted(pictures)
    assert {entry.size for entry in listing.pictures} == {5}
    assert {entry.modified for entry in listing.pictures} == {(tmp_path / name).stat().st_mtime_ns for name in pictures}
    assert {row.path: row.reason for row in listing.rows} == others
    assert {(row.status, row.run_id) for row in listing.rows} == {("skipped", "run")}


def test_links_to_files_are_followed_and_links_to_folders_are_rows(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(tmp_path / "elsewhere" / "a.jpg", b"123")
    source.mkdir()
    (source / "a.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "round").symlink_to(source)
    (source / "lost.jpg").symlink_to(tmp_path / "gone.jpg")
    listing = listed(source)
    assert [(entry.path, entry.size) for entry in listing.pictures] == [("a.jpg", 3)]
    assert {(row.path, row.status) for row in listing.rows} == {("folder", "skipped"), ("round", "skipped"), ("lost.jpg", "failed")}
    assert {row.reason for row in listing.rows if row.status == "skipped"} == {LINKED_FOLDER}


def test_pipes_and_names_that_are_not_utf8_fail_without_being_opened(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    os.mkfifo(source / "pipe.jpg")
    for byte in (b"\xe9", b"\xe8"):
        Path(os.fsdecode(os.fsencode(source) + b"/caf" + byte + b".jpg")).write_bytes(b"x")
    listing = listed(source)
    assert listing.pictures == []
    assert {row.path: row.reason for row in listing.rows} == {
        "pipe.jpg": "is not a regular file, or a link to nothing",
        r"caf\xe9.jpg": "its name is not valid UTF-8: rename it",
        r"caf\xe8.jpg": "its name is not valid UTF-8: rename it",
    }


def test_a_name_that_is_written_as_another_is_called_has_a_path_of_its_own(tmp_path: Path) -> None:
    for name in (b"bad\xff\xfe.jpg", rb"bad\xff\xfe.jpg", b"bad\\xff\xfe.jpg", b"bad\xff.txt", rb"bad\xff.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    listing = listed(tmp_path)
    assert [entry.path for entry in listing.pictures] == [r"bad\xff\xfe.jpg"]
    assert sorted((row.path, row.status) for row in listing.rows) == [
        (r"bad\\\xff\\\xfe.jpg", "failed"), (r"bad\\xff.txt", "skipped"), (r"bad\\xff\\xfe.jpg", "failed"),
        (r"bad\xff.txt", "skipped"),
    ]  # fmt: skip


class Keys(LocalPlace):
    """A place with names that no disk has, as a bucket may hold them."""

    def __init__(self, *names: str) -> None:
        super().__init__(Path("nowhere"), "nowhere")
        self._names = names

    def walk(self):  # type: ignore[no-untyped-def]
        return iter([Found(path=name, size=1, modified=1) for name in self._names])


@pytest.mark.parametrize("name", ["../../etc/a.jpg", "a//b.jpg", "/etc/a.jpg", "a/../../b.jpg", "./a.jpg", "a/./b.jpg", "a\0.jpg"])
def test_a_key_that_leads_out_of_the_target_fails(name: str) -> None:
    listing = list_archive(Keys(name, "good.jpg"), "run")
    assert [entry.path for entry in listing.pictures] == ["good.jpg"]
    assert [(row.path, row.status) for row in listing.rows] == [(name, "failed")]


def test_a_folder_that_cannot_be_listed_is_a_row_and_the_source_itself_an_error() -> None:
    class Closed(Keys):
        def walk(self):  # type: ignore[no-untyped-def]
            return iter([Found(path="a.jpg", size=1), Found(path=self._names[0], problem="Permission denied")])

    listing = list_archive(Closed("deep"), "run")
    assert listing.unlisted == ["deep"]
    assert [(row.path, row.status, row.reason) for row in listing.rows] == [
        ("deep", "failed", "the folder cannot be listed: Permission denied")
    ]
    with pytest.raises(ArchiveError, match=r"^nowhere: cannot be listed \(Permission denied\)$"):
        list_archive(Closed(""), "run")
