"""Places: a folder, one in a bucket (moto's S3 server on loopback), and one behind fsspec hold files in the same way."""

import errno
import os
import pickle
import pwd
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from pyarrow import fs

from colorize.archive.listing import check_places
from colorize.auth import token_file
from colorize.data.download import cache_folder
from colorize.data.files import find_files
from colorize.data.sources import check_apart
from colorize.errors import ArchiveError, StorageError
from colorize.schedule.store import default_path
from colorize.storage import remote
from colorize.storage.place import LocalPlace, Place, cause, local_path, with_suffix
from colorize.storage.remote import RemotePlace, open_place
from colorize.storage.url import has_secret, redacted, without_secrets

NAMES = ["a.jpg", "A.jpg", "deep/ü ñ/b c.png", "deep/e\u0301.jpg", "deep/\u00e9.jpg", "100%25 #?&+.jpg", "x" * 250]


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is staged for a bucket and never put there stays in the temporary folder: in one of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.fixture(params=["disk", "bucket", "fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "bucket":
        return open_place(request.getfixturevalue("bucket")(f"my scans/{tmp_path.name}"))
    return open_place(tmp_path / "place" if request.param == "disk" else f"local://{tmp_path}/place")


def staged(place: Place, data: bytes) -> Path:
    if isinstance(place, LocalPlace):
        (place.root / "scratch").mkdir(parents=True, exist_ok=True)
    path = place.scratch("scratch") / "staged"
    path.write_bytes(data)
    return path


def test_what_was_written_is_found_and_read(place: Place) -> None:
    for name in NAMES:
        place.write(name, name.encode())
    found = {one.path: one for one in place.walk()}
    assert sorted(found) == sorted(NAMES)
    for name in NAMES:
        assert place.read(name) == name.encode()
        assert found[name].size == len(name.encode())
        assert (found[name].modified or 0) > 1e18
        assert place.look(name) == found[name]
    assert place.names("deep") == sorted(["ü ñ", "e\u0301.jpg", "\u00e9.jpg"])
    assert place.names("nowhere") == []
    assert place.look("nowhere") is None
    sizes = place.sizes()
    assert [sizes("a.jpg"), sizes("nowhere"), sizes("no/where")] == [5, None, None]


def test_a_file_is_read_at_any_place(place: Place) -> None:
    data = os.urandom(300_000)
    place.write("a", data)
    with place.open_seekable("a") as file:
        for at in (0, 299_990, 1000):
            file.seek(at)
            assert file.read(10) == data[at : at + 10]
        assert file.seek(0, os.SEEK_END) == len(data)
    with pytest.raises(FileNotFoundError):
        place.open_seekable("b")


def test_a_missing_file_is_an_os_error(place: Place) -> None:
    place.write("a", b"x")
    with pytest.raises(FileNotFoundError):
        place.read("b.jpg")


def test_put_never_overwrites_unless_it_is_told_to(place: Place) -> None:
    file = staged(place, b"first")
    place.put(file, "deep/a.jpg", replace=False)
    assert not file.exists()
    again = staged(place, b"second")
    with pytest.raises(FileExistsError):
        place.put(again, "deep/a.jpg", replace=False)
    assert place.read("deep/a.jpg") == b"first"
    place.put(again, "deep/a.jpg", replace=True)
    assert place.read("deep/a.jpg") == b"second"


def test_what_is_removed_is_gone(place: Place) -> None:
    for name in ("deep/a", "deep/er/b", "c"):
        place.write(name, b"x")
    place.remove("deep")
    place.remove("nowhere")
    assert [found.path for found in place.walk()] == ["c"]
    place.remove("c")
    assert list(place.walk()) == [] or place.look("") is None


def test_a_place_travels_to_a_worker(place: Place) -> None:
    place.write("a", b"x")
    assert pickle.loads(pickle.dumps(place)).read("a") == b"x"


def test_a_large_file_goes_up_whole(place: Place) -> None:
    data = os.urandom(20_000_000)
    place.put(staged(place, data), "large.tif", replace=False)
    assert place.read("large.tif") == data


def test_a_home_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/photos") == tmp_path / "photos"
    for opened in (open_place, lambda text: find_files(text, text), lambda text: check_apart([f"folder:{text}", "folder:b"])):
        with pytest.raises(StorageError, match=r"^~nobody-here/a: there is no such home folder; write \./ before a name that begins"):
            opened("~nobody-here/a")


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "COLORIZE_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for place in (lambda: open_place("~/scans"), cache_folder, default_path, token_file):
        with pytest.raises(StorageError, match=r"^~: there is no home folder: name one in the variable HOME$"):
            place()


def test_a_folder_is_told_from_one_that_came_in_its_place(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "in", "in")
    assert place.identity() is None
    (tmp_path / "in").mkdir()
    before = place.identity()
    (tmp_path / "in").rename(tmp_path / "away")
    (tmp_path / "in").mkdir()
    assert before is not None
    assert place.identity() not in (before, None)


def test_a_disk_without_hard_links_overwrites_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)  # as FAT and some network file systems do
    place = LocalPlace(tmp_path, "out")
    place.put(staged(place, b"first"), "a.jpg", replace=False)
    with pytest.raises(FileExistsError):
        place.put(staged(place, b"second"), "a.jpg", replace=False)
    assert place.read("a.jpg") == b"first"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_a_folder_on_another_disk_is_written_in_the_same_way(tmp_path: Path, elsewhere: Path) -> None:
    place = LocalPlace(tmp_path, "out")
    (tmp_path / "deep").symlink_to(elsewhere)
    place.put(staged(place, b"first"), "deep/a.jpg", replace=False)
    with pytest.raises(FileExistsError):
        place.put(staged(place, b"second"), "deep/a.jpg", replace=False)
    assert place.read("deep/a.jpg") == b"first"
    file = staged(place, b"second")
    place.put(file, "deep/a.jpg", replace=True)
    assert (place.read("deep/a.jpg"), file.exists()) == (b"second", False)
    with pytest.raises(FileNotFoundError):
        place.put(file, "deep/b.jpg", replace=False)
    assert [path.name for path in elsewhere.iterdir()] == ["a.jpg"]


class Breaking(LocalFileSystem):  # type: ignore[misc]
    """An fsspec file system whose streams break in the second chunk, and are whole when they are closed."""

    cachable = False

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        if "w" not in mode:
            return file
        return _Breaking(file)


class _Breaking:
    def __init__(self, file: Any) -> None:
        self._file, self._writes = file, 0

    def write(self, data: bytes) -> int:
        self._writes += 1
        if self._writes > 1:
            raise OSError(errno.EIO, "the line is cut")
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("whole_uploads", [True, False])
def test_an_upload_that_breaks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_uploads: bool) -> None:
    monkeypatch.setattr(remote, "CHUNK", 1000)
    filesystem = fs.PyFileSystem(fs.FSSpecHandler(Breaking(auto_mkdir=True)))
    place = RemotePlace(filesystem, str(tmp_path / "out"), "out", whole_uploads=whole_uploads)
    place.write("manifest", b"old")
    with pytest.raises(OSError, match="the line is cut"):
        place.put(staged(place, b"x" * 3000), "deep/a.jpg", replace=False)
    with pytest.raises(OSError, match="the line is cut"):
        place.write("manifest", b"x" * 3000)
    assert [(found.path, found.size) for found in place.walk()] == [("manifest", 3)]


def test_a_large_file_of_the_programs_own_goes_up_aside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 1000)
    for data in (b"x" * 3000, b"y" * 4000):
        place.write("deep/manifest", data)
        assert place.read("deep/manifest") == data
    assert [found.path for found in place.walk()] == ["deep/manifest"]


def test_missing_buckets_are_told_in_one_line(bucket: Callable[[str], str]) -> None:
    url = bucket("x").replace("pictures", "no-such-bucket")
    with pytest.raises(ArchiveError, match=r"^s3://no-such-bucket/x: there is no such folder$"):
        check_places(open_place(url), LocalPlace(Path("out"), "out"))


@pytest.mark.parametrize(
    "url",
    ["xyz://user:topsecret@h/y?token=abcdef", "s3://user:topsecret@b/y?wrong=abcdef", "s3://", "s3://user:top/topsecret@b/y?x=abcdef"],
)
def test_a_url_that_makes_no_sense_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_place(url)
    told = str(caught.value)
    assert ": cannot be opened: " in told
    assert "\n" not in told
    assert "topsecret" not in told
    assert "abcdef" not in told


def test_what_is_shown_of_a_url() -> None:
    assert redacted("s3://key:word@bucket/my scans?region=x&secret=y") == "s3://bucket/my scans"
    assert redacted("in/a@b?c\n") == "in/a@b?c?"
    assert redacted("s3://key:wo/rd?x@bucket/my scans?region=x") == "s3://bucket/my scans"
    assert redacted("sftp://me@host:22/a@b") == "sftp://host:22/a@b"
    assert redacted("hdfs://host:8020/a@b") == "hdfs://host:8020/a@b"
    shown = open_place("s3://key:word@bucket/my scans/é?region=us-east-1&endpoint_override=127.0.0.1:1&scheme=http")
    assert isinstance(shown, RemotePlace)
    assert (shown.shown, shown.root) == ("s3://bucket/my scans/é", "bucket/my scans/é")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x s3://KEY:WORD@bucket/a@b 's3://c/d'", "x s3://…@bucket/a@b 's3://c/d'"),
        ("folder:s3://KEY:WO/RD@bucket/a?region=x", "folder:s3://…@bucket/a?region=x"),
        ("abfs://c@x/b?account_key=abc&tls=1", "abfs://c@x/b?account_key=…&tls=1"),
        ("s3://b/c?region=x&Secret_Key=abc", "s3://b/c?region=x&Secret_Key=…"),
    ],
)
def test_a_secret_in_a_url_is_seen_and_left_out(text: str, shown: str) -> None:
    assert has_secret(text)
    assert without_secrets(text) == shown


@pytest.mark.parametrize("text", ["s3://b/a@2:3?region=x&endpoint_override=m:9000", "abfs://c@x/b", "hdfs://h:80/a@b", "/in/a:b@c", "a"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert not has_secret(text)
    assert without_secrets(text) == text


def test_a_file_url_and_a_name_with_a_colon_are_local(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/my%20scans")
    assert isinstance(place, LocalPlace)
    assert place.root == tmp_path / "my scans"
    assert isinstance(open_place("box: 1"), LocalPlace)


def test_a_name_with_a_suffix_is_short_enough() -> None:
    assert with_suffix("deep/a.jpg", ".2.png") == "deep/a.jpg.2.png"
    assert with_suffix("x" * 251, ".png") == "x" * 251 + ".png"
    made = {with_suffix(f"deep/{'é' * 125}{letter}.jpg", suffix) for letter in "ab" for suffix in (".png", ".2.png")}
    assert len(made) == 4
    assert all(len(name.encode()) <= len("deep/") + 255 and name.startswith(f"deep/{'é' * 100}") for name in made)


def test_a_cause_is_one_short_line() -> None:
    assert cause(OSError(28, "No space left on device")) == "No space left on device"
    assert cause(ValueError("a\n  b\x1b[31m")) == "a b?[31m"
    assert cause(KeyError()) == "KeyError"
    assert len(cause(ValueError("x" * 999))) == 300


def test_a_full_temporary_folder_is_not_taken_for_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place(f"local://{tmp_path}/place")
    told = re.escape(f"{tempfile.gettempdir()}, the folder for temporary files: No space left on device")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=told) as raised, place.staging():
        full()
    assert raised.value.errno == errno.ENOSPC
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "NamedTemporaryFile", full)
        with pytest.raises(OSError, match=told):
            place.write("a.jpg", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(OSError, match=told):
            place.scratch("scratch")
