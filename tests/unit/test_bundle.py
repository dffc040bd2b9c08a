"""Zips in and out, and the names of what is in them."""

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize.serve.bundle import Names, UploadedZip, ZipStream, safe_name
from colorize.serve.upload import Refusal

LIMITS = {"most_files": 10, "most_bytes": 1 << 20, "most_bytes_each": 1 << 19}


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@given(files=st.lists(st.binary(max_size=1000), max_size=8))
@settings(max_examples=50)
def test_a_streamed_zip_is_a_zip_and_holds_no_more_than_an_entry(files: list[bytes]) -> None:
    stream, sent = ZipStream(), []
    for number, data in enumerate(files):
        pieces = list(stream.add(f"{number}.bin", data))
        assert len(b"".join(pieces)) == 30 + len(f"{number}.bin") + len(data), "all of the entry is given out with it"
        sent += pieces
    sent += stream.end()
    with zipfile.ZipFile(io.BytesIO(b"".join(sent))) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == files
        assert all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 8 for entry in archive.infolist())


def test_a_zip_is_read_in_its_order() -> None:
    uploaded = UploadedZip(io.BytesIO(zipped(b=b"1", a=b"2")), **LIMITS)
    assert [(member.name, uploaded.read(member)) for member in uploaded.members] == [("b", b"1"), ("a", b"2")]


def test_an_entry_without_a_name_is_a_file() -> None:
    stream = ZipStream()
    data = b"".join([*stream.add("", b"1"), *stream.end()])
    uploaded = UploadedZip(io.BytesIO(data), **LIMITS)
    assert [(member.name, uploaded.read(member)) for member in uploaded.members] == [("", b"1")]


def test_a_zip_in_a_longer_file_or_with_a_comment_is_read() -> None:
    data = zipped(a=b"1")
    assert UploadedZip(io.BytesIO(b"MZ..." + data), **LIMITS).members[0].name == "a"
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"a comment"
    assert UploadedZip(buffer, **LIMITS).members[0].name == "a"


def status_of(content: bytes) -> int:
    try:
        uploaded = UploadedZip(io.BytesIO(content), **LIMITS)
        for member in uploaded.members:
            if member.reason is None:
                uploaded.read(member)
    except Refusal as refusal:
        return refusal.status
    return 200


@given(data=st.binary(max_size=200), at=st.integers(0, 300), value=st.integers(0, 255))
@settings(max_examples=300)
def test_any_bytes_are_a_zip_or_refused(data: bytes, at: int, value: int) -> None:
    damaged = bytearray(zipped(a=b"12345", b=bytes(1000)))
    damaged[at % len(damaged)] = value
    for content in (data, bytes(damaged), bytes(damaged[: at % len(damaged)]), b"PK\5\6" + data):
        assert status_of(content) in (200, 400, 413, 422)


def test_a_directory_of_more_than_is_allowed_is_not_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(500):
            archive.writestr(str(number), b"")
    with pytest.raises(Refusal, match="413"):
        UploadedZip(buffer, **LIMITS)
    lying = bytearray(buffer.getvalue())
    lying[-14:-10] = b"\1\0\1\0"  # one entry, it says
    with pytest.raises(Refusal, match="413"):
        UploadedZip(io.BytesIO(bytes(lying)), **LIMITS)


def test_files_that_are_encrypted_or_too_large_are_not_read() -> None:
    encrypted = bytearray(zipped(a=b"1"))
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    assert UploadedZip(io.BytesIO(bytes(encrypted)), **LIMITS).members[0].reason == "is encrypted"
    large = UploadedZip(io.BytesIO(zipped(a=bytes(range(256)) * 3000)), **LIMITS).members[0].reason
    assert large is not None
    assert "too large" in large


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.jpg", "a.jpg"),
        ("folder/a.jpg", "folder/a.jpg"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\Windows\\a.jpg", "C_/Windows/a.jpg"),
        ("a\0b\n.jpg", "a_b_.jpg"),
        ("été 1.jpg", "été 1.jpg"),
        (" .. ", "picture"),
        ("", "picture"),
        ("a" * 500 + ".jpg", "a" * 60 + "a" * 56 + ".jpg"),
        ("NUL", "_NUL"),
        ("con.jpg", "_con.jpg"),
        ("x/Aux .tar.gz/lpt9", "x/_Aux .tar.gz/_lpt9"),
        ("COM¹.png", "_COM¹.png"),
        ("nul" + "." * 200 + "jpg", "_nul" + "." * 113 + "jpg"),
        ("console.jpg", "console.jpg"),
        ("com10", "com10"),
        ("a.con", "a.con"),
    ],
)
def test_a_name_is_made_safe(name: str, safe: str) -> None:
    assert safe_name(name).replace("?", "_") == safe


@given(
    st.text(max_size=300) | st.builds("{}{}{}".format, st.sampled_from(["con", "Com1"]), st.text(" .", max_size=130), st.text(max_size=3))
)
def test_a_safe_name_stays_where_it_is_put(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert not safe.startswith("/")
    assert ".." not in safe.split("/")
    assert "\\" not in safe
    assert safe.isprintable()
    assert safe_name(safe) == safe


@given(st.lists(st.sampled_from(["a.jpg", "A.JPG", "b", "a (2).jpg", "x/a.jpg", "x.y/a"]), max_size=12))
def test_names_are_given_once(names: list[str]) -> None:
    given_names = Names()
    found = [given_names.unique(name) for name in names]
    assert len({name.casefold() for name in found}) == len(names)
