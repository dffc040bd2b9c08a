"""The CIFAR-10 reader: every layout it takes, and every way in which an archive can be wrong."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from colorize.data import cifar10
from colorize.errors import DataError

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def members() -> Members:
    """Six files of the right size whose pixels say which record they are; they compress well."""
    made = {}
    for number, name in enumerate(cifar10.MEMBER_MD5):
        records = np.full((cifar10.RECORDS_A_FILE, cifar10.RECORD_BYTES), number, np.uint8)
        records[:, 0] = np.arange(cifar10.RECORDS_A_FILE) % 10
        records[:, 1] = np.arange(cifar10.RECORDS_A_FILE) % 251
        made[name] = records.tobytes()
    return made


@pytest.fixture
def known(members: Members, monkeypatch: pytest.MonkeyPatch) -> Members:
    """The made-up members pass for the published ones."""
    for name, data in members.items():
        monkeypatch.setitem(cifar10.MEMBER_MD5, name, hashlib.md5(data).hexdigest())
    return members


def pack(path: Path, members: Members, mode: str = "w:gz", folder: str = cifar10.FOLDER_NAME) -> Path:
    options = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **options) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            about = tarfile.TarInfo(f"{folder}/{name}")
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return path


def unpack(folder: Path, members: Members) -> Path:
    folder.mkdir(parents=True)
    for name, data in members.items():
        (folder / name).write_bytes(data)
    return folder


def check_whole(path: Path, members: Members) -> None:
    for split, names in cifar10.MEMBERS.items():
        found = list(cifar10.read_batches(path, split))  # type: ignore[arg-type]
        assert sorted(name for name, _ in found) == list(names)
        for name, records in found:
            assert records.shape == (10_000, 3073)
            assert records.dtype == np.uint8
            assert records.tobytes() == members[name]


def test_archive(tmp_path: Path, known: Members) -> None:
    check_whole(pack(tmp_path / "cifar-10-binary.tar.gz", known), known)


def test_archive_in_another_order_and_unpacked(tmp_path: Path, known: Members) -> None:
    check_whole(pack(tmp_path / "c.tar", dict(reversed(known.items())), "w"), known)


def test_folder_and_the_folder_around_it(tmp_path: Path, known: Members) -> None:
    unpack(tmp_path / cifar10.FOLDER_NAME, known)
    check_whole(tmp_path, known)
    check_whole(tmp_path / cifar10.FOLDER_NAME, known)


def first_test_bytes(members: Members) -> Members:
    return {"test_batch.bin": members["test_batch.bin"]}


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        list(cifar10.read_batches(tmp_path / "nowhere", "test"))


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.9, 0.99])
def test_truncated_archive(tmp_path: Path, known: Members, share: float) -> None:
    whole = pack(tmp_path / "whole.tar.gz", first_test_bytes(known)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut\.tar\.gz: truncated or damaged .*: download it again"):
        list(cifar10.read_batches(tmp_path / "cut.tar.gz", "test"))


def test_archive_that_ends_between_members(tmp_path: Path, known: Members) -> None:
    path = pack(tmp_path / "c.tar.gz", {"data_batch_1.bin": known["data_batch_1.bin"]})
    with pytest.raises(DataError, match=r"c\.tar\.gz: truncated or altered: it holds no test_batch\.bin"):
        list(cifar10.read_batches(path, "test"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_damaged_archive(tmp_path: Path, known: Members, share: float) -> None:
    data = bytearray(pack(tmp_path / "c.tar.gz", first_test_bytes(known)).read_bytes())
    middle = int(len(data) * share)
    data[middle : middle + 8] = os.urandom(8)
    (tmp_path / "c.tar.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"c\.tar\.gz: .*(damaged|altered|truncated)"):
        list(cifar10.read_batches(tmp_path / "c.tar.gz", "test"))


def put(at: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(5000 * 3073, 11), r"altered: a label is 11, not 0 to 9"),
        (put(5000 * 3073 + 77, 200), r"altered: its bytes are not the published ones \(MD5\)"),
        (lambda data: data[:-1], r"30,729,999 bytes, not 30,730,000"),
        (lambda data: data + b"\0", r"30,730,001 bytes, not 30,730,000"),
        (lambda _: b"", r"0 bytes, not 30,730,000"),
    ],
)
def test_altered_member(tmp_path: Path, known: Members, change: Callable[[bytes], bytes], message: str) -> None:
    altered = {"test_batch.bin": change(known["test_batch.bin"])}
    with pytest.raises(DataError, match=message):
        list(cifar10.read_batches(pack(tmp_path / "c.tar", altered, "w"), "test"))
    with pytest.raises(DataError, match=message) as caught:
        list(cifar10.read_batches(unpack(tmp_path / "folder", altered), "test"))
    assert str(tmp_path / "folder" / "test_batch.bin") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file\n" * 100, b"\x80\x04K\x01."])
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"c\.tar\.gz: not a tar\.gz archive"):
        list(cifar10.read_batches(tmp_path / "c.tar.gz", "train"))


def test_foreign_archive_and_folder(tmp_path: Path) -> None:
    path = pack(tmp_path / "c.tar.gz", {"holiday.jpg": b"1234"}, folder="mine")
    with pytest.raises(DataError, match=r"not the CIFAR-10 archive: it holds no data_batch_1\.bin"):
        list(cifar10.read_batches(path, "train"))
    with pytest.raises(DataError, match=r"no CIFAR-10 folder: test_batch\.bin is not in it"):
        list(cifar10.read_batches(tmp_path, "test"))


def test_python_version(tmp_path: Path) -> None:
    path = pack(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": b"1", "test_batch": b"2"}, folder="cifar-10-batches-py")
    unpack(tmp_path / "folder", {"data_batch_1": b"1"})
    for place in (path, tmp_path / "folder"):
        with pytest.raises(DataError, match=r"Python version, which is pickled: download the binary version"):
            list(cifar10.read_batches(place, "test"))


def test_folder_without_one_member(tmp_path: Path, known: Members) -> None:
    folder = unpack(tmp_path / "folder", first_test_bytes(known))
    with pytest.raises(DataError, match=r"folder/data_batch_1\.bin: missing from the CIFAR-10 folder"):
        list(cifar10.read_batches(folder, "train"))


@pytest.mark.parametrize(("split", "each"), [("train", 200), ("test", 50)])
def test_sample_is_balanced(split: cifar10.Split, each: int) -> None:
    records = cifar10.read_sample(split)
    assert records.shape == (10 * each, 3073)
    assert records.dtype == np.uint8
    assert np.bincount(records[:, 0]).tolist() == [each] * 10
    assert len(np.unique(records[:, 1:], axis=0)) == 10 * each


def test_damaged_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (cifar10.SAMPLE_FOLDER / "cifar10_test.webp").read_bytes()
    monkeypatch.setattr(cifar10, "SAMPLE_FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"cifar10_test\.webp: the bundled sample is missing or damaged"):
        cifar10.read_sample("test")
    (tmp_path / "cifar10_test.webp").write_bytes(whole[:100_000])
    with pytest.raises(DataError, match=r"cifar10_test\.webp: the bundled sample is .*damaged"):
        cifar10.read_sample("test")


@pytest.mark.needs_data
def test_sample_is_of_the_official_pictures(official_archive: Path) -> None:
    for split, each in (("train", 200), ("test", 50)):
        _, records = next(iter(cifar10.read_batches(official_archive, split)))
        chosen = np.stack([np.flatnonzero(records[:, 0] == label)[:each] for label in range(10)], axis=1).ravel()
        assert np.array_equal(cifar10.read_sample(split), records[chosen])


@pytest.mark.needs_data
def test_official_archive(official_archive: Path) -> None:
    records = np.concatenate([records for _, records in cifar10.read_batches(official_archive, "train")])
    assert np.bincount(records[:, 0]).tolist() == [5000] * 10
    means = records[:, 1:].reshape(-1, 3, 1024).mean(axis=(0, 2)) / 255
    assert np.allclose(means, [0.49140, 0.48216, 0.44653], atol=1e-5)


@pytest.fixture(scope="module")
def official_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive in its official layout, rebuilt from the data folder."""
    data = Path(os.environ.get("COLORIZE_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not (data / "unpack_cifar10.py").is_file():
        pytest.skip(f"{data} does not hold unpack_cifar10.py: set COLORIZE_TEST_DATA")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, data / "unpack_cifar10.py", folder], check=True, capture_output=True)
    return folder / "cifar-10-binary.tar.gz"
