"""A bulk run from bucket to bucket, on moto's S3 server on loopback: as on a disk, resuming and dead runs included."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import colorize_archive
from colorize.archive.journal import Journal
from colorize.archive.status import read_status
from colorize.errors import ArchiveError
from colorize.storage.remote import open_place
from tests.pictures import encoded, grey_scene
from tests.processes import PROGRAM, environment, left_behind, marked

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

FILES = {f"deep é/{number} +%20.jpg": encoded(grey_scene(40 + number, 60), "JPEG") for number in range(5)} | {"bad.jpg": b"text"}


def found(url: str) -> dict[str, bytes]:
    """The coloured files in a bucket's folder."""
    place = open_place(url)
    return {one.path: place.read(one.path) for one in place.walk() if one.problem is None and not one.path.startswith("_colorize/")}


@pytest.mark.slow
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


@pytest.mark.e2e
@pytest.mark.slow
def test_a_driver_that_is_killed_between_buckets(bucket: Callable[[str], str], tmp_path: Path) -> None:
    """kill -9 of the driver in the middle; the same command again: each input one row and one whole output, as of an undisturbed run."""
    source, target, undisturbed = bucket("many"), bucket("killed"), bucket("undisturbed")
    place, out = open_place(source), open_place(target)
    names = [f"box {number % 2}/{number:02}.jpg" for number in range(60)]
    for number, name in enumerate(names):
        place.write(name, encoded(grey_scene(200 + 7 * (number % 11), 300 + 13 * (number % 7)), "JPEG"))
    mark = uuid.uuid4().hex
    command = [PROGRAM, "archive", source, target, "--model", "cifar10"]
    process = subprocess.Popen(command, env=environment(mark), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not found(target):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "nothing comes into the bucket"
            time.sleep(0.1)
        process.kill()
        process.communicate()
        left_behind(mark, 120)  # Ray's own end by themselves, its agents some minutes later
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    left = found(target)
    assert 0 < len(left) < len(names)
    assert len(out.names("_colorize/runs")) == 1
    again = colorize_archive(ArchiveConfig(source=source, target=target, model="cifar10"))
    assert again.failures == []
    assert again.colored + again.kept == len(names)
    colorize_archive(ArchiveConfig(source=source, target=undisturbed, model="cifar10"))
    whole = found(target)
    assert whole == found(undisturbed)
    assert left.items() <= whole.items()
    with out.open("_colorize/manifest/current.parquet") as file:
        table = pq.read_table(pa.BufferReader(file.read()))
    assert table["path"].to_pylist() == sorted(names)
    assert set(table["status"].to_pylist()) == {"coloured"}
    assert dict(zip(table["path"].to_pylist(), table["target_sha256"].to_pylist(), strict=True)) == {
        path: hashlib.sha256(data).hexdigest() for path, data in whole.items()
    }
    assert out.names("_colorize/runs") == []


@pytest.mark.slow
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
