"""How a worker reads a picture's file: what is in memory, what is not read at all, and what a failure says."""

import errno
import hashlib
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from colorize.archive import original
from colorize.archive.journal import StopRunError
from colorize.archive.original import read_original
from colorize.errors import PictureError
from colorize.imaging.formats import open_scan
from colorize.storage.place import LocalPlace
from colorize.storage.remote import RemotePlace, open_place
from tests.pictures import encoded, grey_scene


class FullDisk:
    def __init__(self, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Counted:
    """A file that counts what is read of it."""

    read_bytes = 0

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        Counted.read_bytes += len(data)
        return data


@pytest.fixture(params=["disk", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalPlace | RemotePlace:
    monkeypatch.setattr(original, "LARGE_BYTES", 10_000)
    (tmp_path / "in").mkdir()
    found = open_place(tmp_path / "in" if request.param == "disk" else f"local://{tmp_path}/in")
    assert isinstance(found, LocalPlace | RemotePlace)
    return found


def test_a_small_file_comes_as_its_bytes(place: LocalPlace | RemotePlace) -> None:
    place.write("a.jpg", data := encoded(grey_scene(), "JPEG"))
    with ExitStack() as held:
        read = read_original(place, place.identity(), "a.jpg", len(data), held)
    assert (read.data, read.size, read.sha256) == (data, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_a_large_file_is_not_held_in_memory(place: LocalPlace | RemotePlace, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200), np.uint8)
    place.write("a.tif", data := encoded(pixels, kind))
    assert len(data) > 10_000
    with ExitStack() as held:
        read = read_original(place, place.identity(), "a.tif", len(data), held)
        assert not isinstance(read.data, bytes)
        assert (read.size, read.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        scan, same = open_scan(read.data, name="picture"), open_scan(data)
        np.testing.assert_array_equal(scan.lightness(0, 20, 20), same.lightness(0, 20, 20))
    if not isinstance(read.data, Path):
        assert read.data.closed


def test_of_a_large_file_that_is_no_picture_only_the_beginning_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "LARGE_BYTES", 10_000)
    place = open_place(f"local://{tmp_path}")
    place.write("film.jpg", b"\0\0\0\x18ftypmp42" + b"\0" * 3_000_000)
    opened = place.open
    monkeypatch.setattr(place, "open", lambda path: Counted(opened(path)))
    with ExitStack() as held, pytest.raises(PictureError, match=r"^picture: ") as raised:
        read_original(place, place.identity(), "film.jpg", 3_000_012, held)
    assert "\n" not in str(raised.value)
    assert Counted.read_bytes <= 512


def test_a_full_temporary_folder_is_not_taken_for_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "LARGE_BYTES", 100)
    place = open_place(f"local://{tmp_path}")
    place.write("a.jpg", data := encoded(grey_scene(), "JPEG"))
    monkeypatch.setattr(original, "TemporaryFile", FullDisk)
    reason = f"^cannot be read: {tempfile.gettempdir()}, the folder for temporary files: No space left on device$"
    with ExitStack() as held, pytest.raises(PictureError, match=reason):
        read_original(place, place.identity(), "a.jpg", len(data), held)


def test_a_file_that_has_gone_and_a_source_that_has_gone(place: LocalPlace | RemotePlace, tmp_path: Path) -> None:
    identity = place.identity()
    for size in (1, 20_000):
        with ExitStack() as held, pytest.raises(PictureError, match=r"^cannot be read: "):
            read_original(place, identity, "gone.jpg", size, held)
    (tmp_path / "in").rmdir()
    with ExitStack() as held, pytest.raises(StopRunError, match="the source has vanished"):
        read_original(place, identity, "gone.jpg", 1, held)
