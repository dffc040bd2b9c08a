"""A bulk run from bucket to bucket, on moto's S3 server on loopback: as on a disk, resuming and dead runs included."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import colorize_archive
from colorize.archive.journal import Journal
from colorize.archive.remote import open_place
from colorize.archive.status import read_status
from colorize.errors import ArchiveError
from tests.pictures import encoded, grey_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

FILES = {f"deep é/{number} +%20.jpg": encoded(grey_scene(40 + number, 60), "JPEG") for number in range(5)} | {"bad.jpg": b"text"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[str], str]]:
    """A function from a folder to its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    query = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < deadline, "the S3 server does not come up"
            assert server.poll() is None, "the S3 server has ended"
            time.sleep(0.1)
        store, _ = fs.FileSystem.from_uri(f"s3://user:word@pictures?{query}&allow_bucket_creation=true")
        store.create_dir("pictures")
        yield lambda folder: f"s3://user:word@pictures/{folder}?{query}"
    finally:
        server.kill()
        server.wait()


def found(url: str) -> dict[str, bytes]:
    """The coloured files in a bucket's folder."""
    place = open_place(url)
    return {one.path: place.read(one.path) for one in place.walk() if not one.path.startswith("_colorize/")}


def test_from_bucket_to_bucket_as_from_disk_to_disk(bucket: Callable[[str], str], tmp_path: Path) -> None:
    source, target = bucket("my scans"), bucket("in colour")
    place = open_place(source)
    for name, data in FILES.items():
        place.write(name, data)
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    first = colorize_archive(ArchiveConfig(source=source, target=target))
    assert (first.colored, first.failures) == (5, [("bad.jpg", "is text, not a picture")])
    assert first.manifest == "s3://pictures/in colour/_colorize/manifest/current.parquet"
    colorize_archive(ArchiveConfig(source=tmp_path / "in", target=tmp_path / "out"))
    on_disk = {name: (tmp_path / "out" / name).read_bytes() for name in FILES if name != "bad.jpg"}
    assert found(target) == on_disk
    assert pq.read_table(tmp_path / "out" / "_colorize" / "manifest").num_rows == read_status(target).files == len(FILES)
    assert open_place(target).names("_colorize") == ["manifest", "report", "report.html"]

    place.write("deep é/0 +%20.jpg", encoded(grey_scene(70, 60), "JPEG"))
    place.write("bad.jpg", encoded(grey_scene(), "JPEG"))
    open_place(target).write("deep é/1 +%20.jpg", b"altered")
    again = colorize_archive(ArchiveConfig(source=source, target=target))
    assert (again.colored, again.kept, again.failed) == (2, 3, 0)
    after = found(target)
    assert after["deep é/1 +%20.jpg"] == b"altered"
    assert after["deep é/0 +%20.jpg"] != on_disk["deep é/0 +%20.jpg"]
    assert "bad.jpg" in after


def test_what_a_dead_run_left_in_a_bucket_is_taken_up(bucket: Callable[[str], str]) -> None:
    source, target = bucket("scans"), bucket("dead")
    open_place(source).write("a.jpg", encoded(grey_scene(), "JPEG"))
    place = open_place(target)
    dead = Journal(place, "0")
    dead.open()
    place.write("_colorize/runs/0/open", json.dumps({"host": "elsewhere", "pid": 1}).encode())
    with pytest.raises(ArchiveError, match=r"s3://pictures/dead: another run \(0\) is writing there"):
        colorize_archive(ArchiveConfig(source=source, target=target))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    place.write("_colorize/runs/0/open", json.dumps({"host": socket.gethostname(), "pid": ended.pid}).encode())
    assert colorize_archive(ArchiveConfig(source=source, target=target)).colored == 1
    assert place.names("_colorize/runs") == []
