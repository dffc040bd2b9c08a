"""A bulk run on a local Ray: every input ends as one row, every output is whole, and nothing of the user's is touched."""

import hashlib
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from skimage.color import rgb2lab

from colorize.archive.config import ArchiveConfig
from colorize.archive.estimate import estimate
from colorize.archive.job import colorize_archive, prepare
from colorize.archive.journal import ALTERED, APPEARED, Journal
from colorize.archive.manifest import Row, to_rows
from colorize.archive.painter import MOST_ATTEMPTS, Order, Painter, to_block
from colorize.archive.plan import PRESENT, VANISHED, Task
from colorize.archive.status import read_status
from colorize.archive.summary import ArchiveSummary, Progress
from colorize.cluster import ClusterInfo
from colorize.errors import ClusterError
from colorize.model.card import DEFAULT_MODEL, read_card, resolve
from colorize.model.colorizer import Colorizer, Prediction
from colorize.storage.place import LocalPlace
from tests.pictures import encoded, grey_scene, jpeg_claiming, png_header, sepia_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

EXIF = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)  # orientation 6
GREY_JPEG = encoded(grey_scene(), "JPEG", quality=90)
GREY_PNG = encoded(grey_scene(60, 41), "PNG")
MODEL = read_card(resolve(DEFAULT_MODEL)).name


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(source: Path, target: Path, on_progress: Callable[[Progress], None] | None = None, **settings: Any) -> ArchiveSummary:
    return colorize_archive(ArchiveConfig(source=source, target=target, **settings), on_progress=on_progress)


def rows_of(target: Path) -> dict[str, Row]:
    """The rows of the manifest, which has one for each path."""
    rows = to_rows(pq.read_table(target / "_colorize" / "manifest"))
    assert len({row.path for row in rows}) == len(rows)
    return {row.path: row for row in rows}


def outputs(target: Path) -> dict[str, bytes]:
    """Everything in the target but this program's own folder, in which nothing of a run may be left."""
    own = {path.name for path in (target / "_colorize").iterdir()}
    assert own - {"history"} == {"lock", "manifest", "report", "report.html"}
    files = [path for path in target.rglob("*") if path.is_file() and "_colorize" not in path.parts]
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


def test_the_tree_comes_out_in_color_with_a_row_for_every_file(tmp_path: Path) -> None:
    files = {
        "a.jpg": GREY_JPEG,
        "a.png": GREY_PNG,
        "A.jpg": encoded(grey_scene(50, 50), "JPEG"),
        "deep/er/a.jpg": encoded(grey_scene(90, 70), "JPEG", exif=EXIF, dpi=(300, 300)),
        "deep/ü ñ.PNG": GREY_PNG,
        "line\nbreak.jpg": GREY_JPEG,
        "n" * 251 + ".jpg": GREY_JPEG,
        "sepia.jpeg": encoded(sepia_scene(), "JPEG"),
        "one.png": encoded(np.full((1, 1), 90, np.uint8), "PNG"),
        "strip.jpg": encoded(np.full((3, 20_000), 90, np.uint8), "JPEG"),
        "a png.jpg": GREY_PNG,
    }
    source, target = put(tmp_path / "in", files), tmp_path / "new" / "out"
    seen: list[Progress] = []
    summary = run(source, target, seen.append, vividness=0.5)
    written = outputs(target)
    assert sorted(written) == sorted(files)
    assert {name: (source / name).read_bytes() for name in files} == files

    for name, data in files.items():
        before, after = Image.open(BytesIO(data)), Image.open(BytesIO(written[name]))
        assert (after.format, after.size, after.mode) == (before.format, before.size, "RGB")
        assert after.getexif() == before.getexif()
        assert after.info.get("dpi") == before.info.get("dpi")
        if after.format == "PNG":
            error = rgb2lab(np.array(after))[..., 0] - rgb2lab(np.array(before.convert("RGB")))[..., 0]
            assert np.abs(error).max() < 0.3

    rows = rows_of(target)
    assert sorted(rows) == sorted(files)
    for name, row in rows.items():
        assert (row.status, row.reason, row.page, row.pages, row.model, row.vividness) == ("coloured", None, 0, 1, MODEL, 0.5)
        assert row.run_id == summary.run_id
        assert (row.source_sha256, row.target_sha256) == tuple(hashlib.sha256(data).hexdigest() for data in (files[name], written[name]))
        assert (row.source_bytes, row.target_bytes) == (len(files[name]), len(written[name]))
        assert row.source_modified == (source / name).stat().st_mtime_ns
        assert (row.width, row.height) == Image.open(BytesIO(files[name])).size
        for seconds in (row.seconds_read, row.seconds_decode, row.seconds_predict, row.seconds_encode, row.seconds_write):
            assert seconds is not None
            assert 0 < seconds < 60
        assert row.mean_confidence is not None
        assert 0 <= row.mean_confidence <= 1
        assert row.colorfulness is not None
        assert row.thumbnail is not None
        sheet, _, place = row.thumbnail.partition("#")
        with Image.open(target / "_colorize" / "report" / "thumbnails" / sheet) as image:
            assert image.height == 320
            assert image.width > 160 * int(place.partition(",")[0])
    assert (summary.colored, summary.failed, summary.inputs, summary.skipped, summary.kept) == (len(files), 0, len(files), {}, 0)
    assert summary.megapixels == pytest.approx(sum(row.megapixels for row in rows.values()))
    assert seen[-1].done == len(files)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert {progress.total for progress in seen} == {len(files)}
    assert seen[-1].seconds_left == 0
    assert summary.manifest == str(target / "_colorize" / "manifest" / "current.parquet")


def test_a_bad_file_is_a_row_with_its_reason_and_stops_no_other(tmp_path: Path) -> None:
    bad = {
        "text.jpg": (b"hello\n", "is text, not a picture"),
        "empty.png": (b"", "is empty (zero bytes)"),
        "cut.jpg": (GREY_JPEG[:400], "is a truncated or damaged JPEG"),
        "cut.png": (GREY_PNG[:-40], "is a truncated PNG"),
        "bomb.jpg": (jpeg_claiming(60_000, 60_000), "has 60000×60000 pixels by its header; pictures of up to 200 megapixels are read"),
        "bomb.png": (png_header(60_000, 60_000), "has 60000×60000 pixels by its header"),
    }
    source = put(
        tmp_path / "in", {name: data for name, (data, _) in bad.items()} | {"good.jpg": GREY_JPEG, "notes.txt": b"x", "s.psd": b"x"}
    )
    summary = run(source, tmp_path / "out")
    assert list(outputs(tmp_path / "out")) == ["good.jpg"]
    rows = rows_of(tmp_path / "out")
    for name, (_, reason) in bad.items():
        assert (rows[name].status, rows[name].program_error, rows[name].model) == ("failed", False, None)
        assert rows[name].reason is not None
        assert rows[name].reason.startswith(reason)
    assert (rows["good.jpg"].status, rows["notes.txt"].status, rows["s.psd"].status) == ("coloured", "skipped", "skipped")
    assert (summary.colored, summary.failed, summary.program_errors) == (1, len(bad), 0)
    assert summary.skipped == {"not a picture by its name": 1, "format not supported yet": 1}
    assert [path for path, _ in summary.failures] == sorted(bad)
    status = read_status(tmp_path / "out")
    assert (status.files, status.statuses) == (len(rows), {"failed": len(bad), "skipped": 2, "coloured": 1})
    assert [path for path, _ in status.failures] == sorted(bad)


def test_the_same_again_does_what_is_new_changed_or_failed_and_nothing_else(tmp_path: Path) -> None:
    files = {"a.jpg": GREY_JPEG, "b.jpg": GREY_JPEG, "c.jpg": GREY_JPEG, "d.jpg": b"broken", "gone.jpg": GREY_JPEG, "mine.jpg": GREY_JPEG}
    source, target = put(tmp_path / "in", files), tmp_path / "out"
    put(target, {"mine.jpg": b"the user's own"})
    first = run(source, target)
    assert (first.colored, first.failed, first.skipped) == (4, 1, {PRESENT: 1})
    before = outputs(target)

    os.utime(source / "a.jpg", (1, 1))  # touched, not changed
    put(source, {"b.jpg": encoded(grey_scene(40, 40), "JPEG"), "d.jpg": GREY_JPEG, "new.jpg": GREY_JPEG})
    put(target, {"c.jpg": before["c.jpg"][:-1] + b"!"})  # altered by somebody, of the same size: only a replacement would look at it
    put(source, {"c.jpg": encoded(grey_scene(30, 40), "JPEG")})
    (source / "gone.jpg").unlink()
    plan = prepare(ArchiveConfig(source=source, target=target))
    assert plan.work.counts == {"changed": 3, "failed before": 1, "new": 1}
    second = run(source, target)
    assert (second.colored, second.failed, second.skipped, second.kept) == (3, 0, {PRESENT: 1, ALTERED: 1}, 0)
    after, rows = outputs(target), rows_of(target)
    assert after["mine.jpg"] == b"the user's own"
    assert after["c.jpg"] == before["c.jpg"][:-1] + b"!"
    assert after["a.jpg"] == before["a.jpg"]
    assert Image.open(BytesIO(after["b.jpg"])).size == (40, 40)
    assert after["gone.jpg"] == before["gone.jpg"]
    assert {name: (row.status, row.reason) for name, row in rows.items()} == {
        "a.jpg": ("coloured", None), "b.jpg": ("coloured", None), "c.jpg": ("skipped", ALTERED), "d.jpg": ("coloured", None),
        "gone.jpg": ("coloured", VANISHED), "mine.jpg": ("skipped", PRESENT), "new.jpg": ("coloured", None),
    }  # fmt: skip
    assert (rows["a.jpg"].run_id, rows["b.jpg"].run_id) == (first.run_id, second.run_id)
    assert rows["a.jpg"].source_modified == 1_000_000_000
    history = to_rows(pq.read_table(target / "_colorize" / "history"))
    assert sorted(row.path for row in history) == ["b.jpg", "c.jpg", "d.jpg"]

    third = run(source, target)
    assert (third.colored, third.kept, third.pictures_per_second) == (0, 4, 0)
    assert outputs(target) == after
    (target / "a.jpg").unlink()
    assert run(source, target, retry_failed=True).colored == 0
    assert run(source, target).colored == 1
    assert outputs(target) == after


@pytest.mark.slow
def test_all_again_and_other_settings_only_when_told(tmp_path: Path) -> None:
    source, target = put(tmp_path / "in", {"a.jpg": GREY_JPEG, "b.jpg": GREY_JPEG}), tmp_path / "out"
    run(source, target, vividness=0.0)
    before = outputs(target)
    assert prepare(ArchiveConfig(source=source, target=target, vividness=1.0)).work.other_settings == 2
    assert run(source, target, vividness=1.0).kept == 2
    assert outputs(target) == before
    assert run(source, target, vividness=1.0, force=True).colored == 2
    assert all(data != before[name] for name, data in outputs(target).items())
    assert {row.vividness for row in rows_of(target).values()} == {1.0}
    assert run(source, target, vividness=0.0, force=True).colored == 2
    assert outputs(target) == before
    assert len(list((target / "_colorize" / "report" / "thumbnails").iterdir())) == 1


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    source = put(
        tmp_path / "in", {"a.jpg": encoded(grey_scene(100, 200), "JPEG"), "b.png": encoded(grey_scene(50, 100), "PNG"), "c.jpg": b"x"}
    )
    plan = prepare(ArchiveConfig(source=source, target=tmp_path / "out"))
    found = estimate(plan.source, [task.path for task in plan.work.tasks], plan.current, 2)
    assert (found.pictures, found.megapixels, found.unreadable, found.is_sampled) == (3, pytest.approx(0.025), 1, False)
    assert found.seconds > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # of the whole program: tests/e2e/test_archive_command.py
def test_an_interrupt_keeps_whole_files_and_a_manifest_that_knows_them(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{number:02}.jpg": GREY_JPEG for number in range(60)} | {"notes.txt": b"x"})

    def interrupt(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", interrupt)
    written, rows = outputs(tmp_path / "out"), rows_of(tmp_path / "out")
    assert {name for name, row in rows.items() if row.status == "coloured"} == set(written)
    assert rows["notes.txt"].status == "skipped"
    assert 3 <= len(written) < 60
    for name, data in written.items():
        assert hashlib.sha256(data).hexdigest() == rows[name].target_sha256
    again = run(source, tmp_path / "out")
    assert (again.colored, again.kept, again.failed) == (60 - len(written), len(written), 0)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_every_input_still_has_its_one_row(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{number:02}.jpg": GREY_JPEG for number in range(40)})
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.done >= 4 and not killed:
            killed.extend(workers_of_this_process()[:1])
            os.kill(killed[0], signal.SIGKILL)

    summary = run(source, tmp_path / "out", kill, workers=1)
    assert len(killed) == 1
    assert (summary.colored, summary.failed, summary.skipped) == (40, 0, {})
    assert sorted(outputs(tmp_path / "out")) == sorted(rows_of(tmp_path / "out"))


def test_too_many_workers_are_refused_before_anything_starts(tmp_path: Path, ray_cluster: ClusterInfo) -> None:
    source = put(tmp_path / "in", {"a.jpg": GREY_JPEG})
    with pytest.raises(ClusterError, match="99 workers need 99 CPUs, the cluster has 2: use --workers 2 or fewer"):
        run(source, tmp_path / "out", workers=99)
    assert ray_cluster.cpus == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_cpu_that_another_job_holds_is_done_without(tmp_path: Path) -> None:
    class Holder:
        def ready(self) -> bool:
            return True

    holder: Any = ray.remote(num_cpus=1)(Holder).remote()
    assert ray.get(holder.ready.remote())
    source = put(tmp_path / "in", {f"{number}.jpg": GREY_JPEG for number in range(9)})
    assert run(source, tmp_path / "out").colored == 9
    ray.kill(holder)


# The worker by itself


def painter_for(source: Path, target: Path, run_id: str = "run") -> Painter:
    place = LocalPlace(source, "in")
    order = Order(source=place, target=LocalPlace(target, "out"), source_identity=place.identity(), run_id=run_id, vividness=0.0)
    journal = Journal(order.target, run_id)
    journal.open()
    journal.release()
    return Painter(order, resolve(DEFAULT_MODEL).read_bytes())


def painted(painter: Painter, *paths: str, block: str = "0") -> list[Row]:
    return to_rows(painter(to_block(block, [Task(path=path, size=1, modified=1) for path in paths])))


class Faulty(Colorizer):
    """A colorizer that fails over pictures of one size, as a bug would."""

    def predict_batch(self, L_b1hw: Any, settings: Any, hints: Any = None) -> list[Prediction]:
        if L_b1hw.shape[2] > L_b1hw.shape[3]:
            raise KeyError("bins")
        return super().predict_batch(L_b1hw, settings, hints)


def test_an_error_of_the_program_is_one_failed_row_that_says_so(tmp_path: Path) -> None:
    source, target = put(tmp_path / "in", {"a.jpg": GREY_JPEG, "b.png": GREY_PNG, "c.jpg": GREY_JPEG}), tmp_path / "out"
    painter = painter_for(source, target)
    painter._colorizer = Faulty(painter._colorizer.model)
    rows = painted(painter, "a.jpg", "b.png", "c.jpg")
    assert [(row.path, row.status, row.program_error) for row in rows] == [
        ("a.jpg", "coloured", False), ("b.png", "failed", True), ("c.jpg", "coloured", False),
    ]  # fmt: skip
    assert rows[1].reason is not None
    assert rows[1].reason.startswith("an error of this program: KeyError: 'bins' (test_archive.py:")


def test_names_of_any_length_have_confidence_maps(tmp_path: Path) -> None:
    names = [f"deep/{'é' * 125}{letter}.jpg" for letter in "ab"]
    source, target = put(tmp_path / "in", dict.fromkeys([*names, "c.jpg"], GREY_JPEG)), tmp_path / "out"
    painter = painter_for(source, target)
    painter._order = replace(painter._order, confidence=True)
    assert [row.status for row in painted(painter, *names, "c.jpg")] == ["coloured"] * 3
    maps = [path.name for path in (target / "_colorize" / "confidence").rglob("*.png")]
    assert len(maps) == 3
    assert "c.jpg.png" in maps
    assert all(name.startswith("é" * 100) for name in maps if name != "c.jpg.png")


def test_a_picture_that_brings_its_worker_down_again_and_again_fails(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    source, target = put(tmp_path / "in", dict.fromkeys(names, GREY_JPEG)), tmp_path / "out"
    painter, journal = painter_for(source, target), Journal(LocalPlace(target, "out"), "run")
    (done,) = painted(painter, "d.jpg")  # the first worker's, before it died over the rest
    journal.begin(hashlib.sha256(b"c.jpg").hexdigest())  # the second one's, which died over it as well
    rows = painted(painter, *names)
    assert sorted((row.path, row.status) for row in rows) == [
        ("a.jpg", "coloured"), ("b.jpg", "coloured"), ("c.jpg", "failed"), ("d.jpg", "coloured"),
    ]  # fmt: skip
    by_path = {row.path: row for row in rows}
    assert by_path["c.jpg"].reason == f"the worker process died over it {MOST_ATTEMPTS} times (out of memory?)"
    assert by_path["d.jpg"] == done


def test_a_source_that_vanishes_and_a_target_that_appears_are_rows(tmp_path: Path) -> None:
    source, target = put(tmp_path / "in", {"a.jpg": GREY_JPEG, "b.jpg": GREY_JPEG}), tmp_path / "out"
    painter = painter_for(source, target)
    put(target, {"b.jpg": b"mine"})
    rows = painted(painter, "gone.jpg", "a.jpg", "b.jpg")
    assert [(row.path, row.status, row.reason) for row in rows] == [
        ("gone.jpg", "failed", "cannot be read: No such file or directory"), ("a.jpg", "coloured", None), ("b.jpg", "skipped", APPEARED),
    ]  # fmt: skip
    assert (target / "b.jpg").read_bytes() == b"mine"
    source.rename(tmp_path / "away")
    (stopped,) = painted(painter, "c.jpg", block="1")
    assert (stopped.status, stopped.reason) == ("stopped", "in: the source has vanished")


def test_an_output_does_not_depend_on_what_else_is_in_its_block(tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(grey_scene(40 + 7 * number, 50), "PNG") for number in range(6)}
    source = put(tmp_path / "in", files)
    painted(painter_for(source, tmp_path / "one"), *files)
    alone = painter_for(source, tmp_path / "two")
    for name in reversed(files):
        painted(alone, name, block=name)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def workers_of_this_process() -> list[int]:
    """Process ids of the actors below this process: other Rays on this machine are none of our business."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command, pid = (entry / "cmdline").read_bytes(), int(entry.name)
            while pid > 1 and pid != os.getpid():
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if pid == os.getpid() and b"MapWorker" in command:
            found.append(int(entry.name))
    return found
