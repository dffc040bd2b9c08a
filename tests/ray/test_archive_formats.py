"""The bulk run over real formats: every one comes out as itself, pictures in colour are told apart, damage is a row."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image, ImageOps

from colorize.archive.config import ArchiveConfig
from colorize.archive.job import colorize_archive
from colorize.archive.manifest import Row, to_rows
from colorize.archive.summary import ArchiveSummary
from colorize.errors import ArchiveError
from colorize.imaging.formats import open_scan
from colorize.imaging.metadata import read_note
from colorize.imaging.verify import verify
from tests.mutants import mutants, whole_files
from tests.pictures import encoded, grey_scene, rgb_scene

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

DATA = Path(os.environ.get("COLORIZE_TEST_DATA", "../shared/data"))


@pytest.fixture(autouse=True)
def cluster(ray_cluster: object) -> None:
    """Every test here runs on the session's Ray."""


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(source: Path, target: Path, **settings: object) -> ArchiveSummary:
    return colorize_archive(ArchiveConfig(source=source, target=target, **settings))


def rows_of(target: Path) -> dict[tuple[str, int], Row]:
    rows = to_rows(pq.read_table(target / "_colorize" / "manifest"))
    found = {(row.path, row.page): row for row in rows}
    assert len(found) == len(rows), "one row an input and page"
    return found


def test_every_format_comes_out_as_itself_and_in_color(tmp_path: Path) -> None:
    files = {name: data for name, data in whole_files().items() if name != "color.png"}
    source, target = put(tmp_path / "in", files), tmp_path / "out"
    summary = run(source, target, confidence=True)
    assert (summary.colored, summary.failures, summary.skipped) == (len(files), [], {})
    rows = rows_of(target)
    assert sorted(rows) == sorted([*((name, 0) for name in files), ("pages.tif", 1)])
    for name, data in files.items():
        result = (target / name).read_bytes()
        before, after = open_scan(data), open_scan(result)
        assert (after.format, after.pages) == (before.format, before.pages)
        if name != "lossy.webp":
            assert verify(before, after).is_faithful, name
        if before.format not in ("BMP", "PPM"):
            note = read_note(result)
            assert note is not None, name
            assert (note.model, note.model_sha256) == (rows[name, 0].model, rows[name, 0].model_sha256)
        assert rows[name, 0].format == before.format
        with Image.open(target / "_colorize" / "confidence" / f"{name}.png") as map_:
            assert map_.mode == "L"
            assert map_.width / map_.height == pytest.approx(before.pages[0].width / before.pages[0].height, abs=0.02)
    first, second = rows["pages.tif", 0], rows["pages.tif", 1]
    assert (first.pages, second.pages) == (2, 2)
    assert (first.width, first.height, second.width, second.height) == (40, 30, 20, 20)
    assert first.target_sha256 == second.target_sha256
    assert (target / "_colorize" / "confidence" / "pages.tif.2.png").exists()
    with tifffile.TiffFile(target / "pages.tif") as colored:
        assert all(page.asarray().std(axis=2).max() > 3 for page in colored.pages)


@pytest.mark.slow
def test_pictures_in_color_are_listed_and_left_unless_told(tmp_path: Path) -> None:
    mixed = BytesIO()
    with tifffile.TiffWriter(mixed) as writer:
        writer.write(grey_scene(80, 100), photometric="minisblack", metadata=None)
        writer.write(rgb_scene(80, 100), photometric="rgb", metadata=None)
    files = {"color.jpg": encoded(rgb_scene(80, 100), "JPEG"), "mixed.tif": mixed.getvalue(), "grey.png": encoded(grey_scene(), "PNG")}
    source, target = put(tmp_path / "in", files), tmp_path / "out"
    summary = run(source, target)
    assert (summary.colored, summary.failed) == (1, 0)
    assert summary.skipped == {"in colour already": 1, "in colour already (pages 2 of 2)": 1}
    assert not (target / "color.jpg").exists()
    assert not (target / "mixed.tif").exists()
    before = rows_of(target)
    idle = run(source, target)
    assert (idle.colored, idle.kept, idle.skipped) == (0, 1, summary.skipped)
    assert rows_of(target) == before  # nothing was looked at, and nothing is lost
    os.utime(source / "color.jpg")
    touched = run(source, target)
    assert (touched.colored, touched.kept, touched.skipped) == (0, 1, summary.skipped)
    assert run(source, target).skipped == summary.skipped
    again = run(source, target, recolor=True)
    assert (again.colored, again.kept, again.skipped) == (2, 1, {})
    assert {row.status for row in rows_of(target).values()} == {"coloured"}


@pytest.mark.slow
def test_a_marked_run_shows_it_in_every_picture(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": encoded(np.full((200, 200), 128, np.uint8), "JPEG")})
    run(source, tmp_path / "plain")
    run(source, tmp_path / "marked", mark=True)
    plain, marked = (np.array(Image.open(tmp_path / name / "a.jpg")).astype(int) for name in ("plain", "marked"))
    assert np.abs(plain - marked)[:170].max() < 12
    assert np.abs(plain - marked)[190:, 190:].max() > 60
    assert verify(open_scan(source / "a.jpg"), open_scan(tmp_path / "marked" / "a.jpg")).luma_identical


def damaged(folder: Path, count: int) -> Path:
    return put(folder, dict(mutants(count)))


@pytest.mark.parametrize("count", [150, pytest.param(2_000, marks=pytest.mark.slow)])
def test_damaged_files_are_rows_and_nothing_else(tmp_path: Path, count: int) -> None:
    source, target = damaged(tmp_path / "in", count), tmp_path / "out"
    summary = run(source, target)
    rows = rows_of(target)
    assert {path for path, _ in rows} == {path.name for path in source.iterdir()}
    assert summary.program_errors == 0, [row for row in rows.values() if row.program_error][:3]
    assert summary.inputs == count
    for (path, _), row in rows.items():
        assert (row.status == "coloured") == (target / path).exists()
        assert row.status == "coloured" or (row.reason and row.reason.isprintable() and "died" not in row.reason), row
    assert {row.status for row in rows.values()} == {"coloured", "failed", "skipped"}


@pytest.mark.needs_data
def test_every_historical_scan_ends_in_color_with_all_that_it_was(tmp_path: Path) -> None:
    source, target = DATA / "archive_bw", tmp_path / "out"
    scans = [path for path in sorted(source.iterdir()) if path.suffix != ".csv"]
    summary = run(source, target)
    assert (len(scans), summary.colored, summary.failures) == (100, 100, [])
    for path in scans:
        before, after = (Image.open(BytesIO(file.read_bytes())) for file in (path, target / path.name))
        assert (after.format, after.size, after.mode) == (before.format, before.size, "RGBA" if before.mode == "RGBA" else "RGB")
        assert ImageOps.exif_transpose(after).size == ImageOps.exif_transpose(before).size
        assert after.getexif() == before.getexif()
        assert after.info.get("dpi") == before.info.get("dpi")
        if "icc_profile" in before.info and before.info["icc_profile"][16:20] == b"RGB ":
            assert after.info["icc_profile"] == before.info["icc_profile"]
        verdict = verify(open_scan(path), open_scan(target / path.name))
        assert verdict.is_faithful
        assert verdict.luma_identical or after.format != "JPEG"


@pytest.mark.slow
def test_all_results_in_one_format(tmp_path: Path) -> None:
    files = {"a.png": encoded(grey_scene(), "PNG"), "a.jpg": encoded(grey_scene(), "JPEG"), "b.tif": encoded(grey_scene(), "TIFF")}
    source, target = put(tmp_path / "in", files), tmp_path / "out"
    assert run(source, target, format="jpeg").colored == 3
    names = {"a.png": "a.png.jpg", "a.jpg": "a.jpg", "b.tif": "b.tif.jpg"}
    for (path, _), row in rows_of(target).items():
        assert row.target_path == names[path]
        assert open_scan(target / names[path]).format == "JPEG"
    again = run(source, target, format="jpeg")
    assert (again.colored, again.kept) == (0, 3)
    (source / "b.tif").write_bytes(encoded(grey_scene(30, 30), "TIFF"))
    assert run(source, target, format="jpeg").colored == 1
    assert open_scan(target / "b.tif.jpg").pages[0].width == 30
    with pytest.raises(ArchiveError, match=r"\.jpg: is in another format than each picture's own format: give another target$"):
        run(source, target)
