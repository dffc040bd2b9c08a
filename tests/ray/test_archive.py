"""A bulk run on a local Ray: every input ends as one row, every output is whole, and nothing of the user's is touched."""

import hashlib
import os
import signal
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from skimage.color import rgb2lab

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import colorize_archive
from colorize.archive.manifest import Row, to_rows
from colorize.archive.painter import MOST_ATTEMPTS, Order, Painter
from colorize.archive.staging import Staging
from colorize.archive.summary import ArchiveSummary, Progress
from colorize.cluster import ClusterInfo
from colorize.errors import ClusterError
from colorize.model.card import read_card, resolve
from colorize.model.colorizer import Colorizer, Prediction
from tests.pictures import encoded, grey_scene, jpeg_claiming, png_header, rgb_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

EXIF = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)  # orientation 6
GREY_JPEG = encoded(grey_scene(), "JPEG", quality=90)
GREY_PNG = encoded(grey_scene(60, 41), "PNG")
MODEL = read_card(resolve("cifar10")).name


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(source: Path, target: Path, on_progress: Callable[[Progress], None] | None = None, **settings: Any) -> ArchiveSummary:
    return colorize_archive(ArchiveConfig(source=source, target=target, **settings), on_progress=on_progress)


def rows_of(target: Path) -> dict[str, Row]:
    """The rows of the only manifest in `target`, which has one for each path."""
    (manifest,) = (target / "_colorize" / "manifest").iterdir()
    rows = to_rows(pq.read_table(manifest))
    assert len({row.path for row in rows}) == len(rows)
    return {row.path: row for row in rows}


def outputs(target: Path) -> dict[str, bytes]:
    """Everything in the target but the run's own folder, in which nothing but manifests may be left."""
    assert [path.name for path in (target / "_colorize").iterdir()] == ["manifest"]
    files = [path for path in target.rglob("*") if path.is_file() and "_colorize" not in path.parts]
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


def test_the_tree_comes_out_in_color_with_a_row_for_every_file(tmp_path: Path) -> None:
    files = {
        "a.jpg": GREY_JPEG,
        "deep/er/a.jpg": encoded(grey_scene(90, 70), "JPEG", exif=EXIF, dpi=(300, 300)),
        "deep/ü ñ.PNG": GREY_PNG,
        "sepia.jpeg": encoded(rgb_scene(), "JPEG"),
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
        assert (row.status, row.reason, row.page, row.model, row.vividness) == ("coloured", None, 0, MODEL, 0.5)
        assert row.run_id == summary.run_id == summary.manifest.stem
        assert (row.source_sha256, row.target_sha256) == tuple(hashlib.sha256(data).hexdigest() for data in (files[name], written[name]))
        assert (row.source_bytes, row.target_bytes) == (len(files[name]), len(written[name]))
        assert (row.width, row.height) == Image.open(BytesIO(files[name])).size
        assert row.seconds is not None
        assert row.seconds > 0
        assert row.mean_confidence is not None
        assert 0 <= row.mean_confidence <= 1
    assert (summary.colored, summary.failed, summary.inputs, summary.skipped) == (7, 0, 7, {})
    assert summary.megapixels == pytest.approx(sum(row.megapixels for row in rows.values()))
    assert [progress.done for progress in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert {progress.total for progress in seen} == {7}
    assert seen[-1].seconds_left == 0


def test_a_bad_file_is_a_row_with_its_reason_and_stops_no_other(tmp_path: Path) -> None:
    bad = {
        "text.jpg": (b"hello\n", "is text, not a picture"),
        "empty.png": (b"", "is empty (zero bytes)"),
        "cut.jpg": (GREY_JPEG[:400], "is a truncated or damaged JPEG"),
        "cut.png": (GREY_PNG[:-40], "is a truncated PNG"),
        "bomb.jpg": (jpeg_claiming(60_000, 60_000), "has 60000×60000 pixels by its header; pictures of up to 200 megapixels are read"),
        "bomb.png": (png_header(60_000, 60_000), "has 60000×60000 pixels by its header"),
        "deep.png": (png_header(8, 8, depth=16), "is a 16-bit PNG"),
        "tiff.jpg": (b"II*\0" + bytes(40), "is a TIFF file"),
    }
    source = put(
        tmp_path / "in", {name: data for name, (data, _) in bad.items()} | {"good.jpg": GREY_JPEG, "notes.txt": b"x", "s.tif": b"x"}
    )
    summary = run(source, tmp_path / "out")
    assert list(outputs(tmp_path / "out")) == ["good.jpg"]
    rows = rows_of(tmp_path / "out")
    for name, (_, reason) in bad.items():
        assert (rows[name].status, rows[name].program_error, rows[name].model) == ("failed", False, None)
        assert rows[name].reason is not None
        assert rows[name].reason.startswith(reason)
    assert (rows["good.jpg"].status, rows["notes.txt"].status, rows["s.tif"].status) == ("coloured", "skipped", "skipped")
    assert (summary.colored, summary.failed, summary.program_errors) == (1, len(bad), 0)
    assert summary.skipped == {"not a picture by its name": 1, "format not supported yet": 1}
    assert [path for path, _ in summary.failures] == sorted(bad)


def test_the_same_again_does_only_what_is_missing_and_overwrites_nothing(tmp_path: Path) -> None:
    source, target = put(tmp_path / "in", {"a.jpg": GREY_JPEG, "b.jpg": GREY_JPEG}), tmp_path / "out"
    put(target, {"a.jpg": b"the user's own"})
    first = run(source, target)
    assert (first.colored, first.skipped) == (1, {"already in the target": 1})
    assert rows_of(target)["a.jpg"].status == "skipped"
    before = outputs(target)
    assert before["a.jpg"] == b"the user's own"
    put(source, {"c.jpg": GREY_JPEG})
    second = run(source, target)
    assert (second.colored, second.skipped) == (1, {"already in the target": 2})
    third = run(source, target)
    assert (third.colored, third.skipped, third.pictures_per_second) == (0, {"already in the target": 3}, 0)
    after = outputs(target)
    assert {name: after[name] for name in before} == before
    assert len(list((target / "_colorize" / "manifest").iterdir())) == 3


def test_an_interrupt_keeps_whole_files_and_a_manifest_that_knows_them(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{number:02}.jpg": GREY_JPEG for number in range(40)} | {"notes.txt": b"x"})

    def interrupt(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", interrupt)
    written, rows = outputs(tmp_path / "out"), rows_of(tmp_path / "out")
    assert {name for name, row in rows.items() if row.status == "coloured"} == set(written)
    assert rows["notes.txt"].status == "skipped"
    assert 3 <= len(written) < 40
    for name, data in written.items():
        assert hashlib.sha256(data).hexdigest() == rows[name].target_sha256
    again = run(source, tmp_path / "out")
    assert (again.colored, again.failed) == (40 - len(written), 0)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_every_input_still_has_its_one_row(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{number:02}.jpg": GREY_JPEG for number in range(24)})
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.done == 4:
            killed.extend(workers_of_this_process()[:1])
            os.kill(killed[0], signal.SIGKILL)

    summary = run(source, tmp_path / "out", kill, workers=1)
    assert len(killed) == 1
    assert (summary.colored, summary.failed, summary.skipped) == (24, 0, {})
    assert sorted(outputs(tmp_path / "out")) == sorted(rows_of(tmp_path / "out"))


def test_too_many_workers_are_refused_before_anything_starts(tmp_path: Path, ray_cluster: ClusterInfo) -> None:
    source = put(tmp_path / "in", {"a.jpg": GREY_JPEG})
    with pytest.raises(ClusterError, match="99 workers need 99 CPUs, the cluster has 2: use --workers 2 or fewer"):
        run(source, tmp_path / "out", workers=99)
    assert ray_cluster.cpus == 2
    assert not list((tmp_path / "out" / "_colorize" / "manifest").iterdir())


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


def painter_for(source: Path, target: Path) -> Painter:
    order = Order(source=str(source), target=str(target), run_id="run", vividness=0.0)
    Staging(target, "run").open()
    return Painter(order, ray.put(resolve("cifar10").read_bytes()))


def painted(painter: Painter, *paths: str) -> list[Row]:
    return [row for table in painter(pa.table({"path": list(paths)})) for row in to_rows(table)]


class Faulty(Colorizer):
    """A colorizer that fails over pictures of one size, as a bug would."""

    def predict(self, L_hw_list: Any, settings: Any = None) -> list[Prediction]:
        if any(L_hw.shape == (60, 41) for L_hw in L_hw_list):
            raise KeyError("bins")
        return super().predict(L_hw_list, settings)


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


def test_a_picture_that_brings_its_worker_down_again_and_again_fails(tmp_path: Path) -> None:
    source, target = put(tmp_path / "in", dict.fromkeys(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], GREY_JPEG)), tmp_path / "out"
    painter, staging = painter_for(source, target), Staging(target, "run")
    staging.begin("b.jpg")
    for _ in range(MOST_ATTEMPTS):
        staging.begin("c.jpg")
    done = Row(path="d.jpg", status="coloured", reason="as the worker left it before it died", run_id="run")
    staging.put(done, b"as it left it")
    rows = painted(painter, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert [(row.path, row.status) for row in rows] == [
        ("a.jpg", "coloured"), ("b.jpg", "coloured"), ("c.jpg", "failed"), ("d.jpg", "coloured"),
    ]  # fmt: skip
    assert rows[2].reason == "the worker process died over it 2 times (out of memory?)"
    assert rows[3] == done


def test_a_source_that_vanishes_and_a_target_that_appears_are_rows(tmp_path: Path) -> None:
    source, target = put(tmp_path / "in", {"a.jpg": GREY_JPEG, "b.jpg": GREY_JPEG}), tmp_path / "out"
    painter = painter_for(source, target)
    put(target, {"b.jpg": b"mine"})
    rows = painted(painter, "gone.jpg", "a.jpg", "b.jpg")
    assert [(row.path, row.status, row.reason) for row in rows] == [
        ("gone.jpg", "failed", "cannot be read: No such file or directory"),
        ("a.jpg", "coloured", None),
        ("b.jpg", "skipped", "its target appeared during the run"),
    ]
    assert (target / "b.jpg").read_bytes() == b"mine"


def test_pictures_of_a_batch_come_out_as_they_do_alone(tmp_path: Path) -> None:
    files = {f"{number}.png": encoded(grey_scene(40 + 7 * number, 50), "PNG") for number in range(4)}
    together, alone = painter_for(put(tmp_path / "in", files), tmp_path / "one"), painter_for(tmp_path / "in", tmp_path / "two")
    painted(together, *files)
    for name in files:
        painted(alone, name)
    for name in files:
        pixels = [np.array(Image.open(BytesIO((tmp_path / folder / name).read_bytes()))).astype(int) for folder in ("one", "two")]
        assert np.abs(pixels[0] - pixels[1]).max() <= 6  # bfloat16 rounds by the shape of the batch


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
