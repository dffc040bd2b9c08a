"""The report of an archive: its list holds every row, names stay text, and nothing is left that only an earlier page showed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colorize.archive import report
from colorize.archive.manifest import Row, to_table, write_manifest
from colorize.archive.status import read_status
from colorize.archive.thumbnails import SIDE, Thumbnail, fitting, sheet
from colorize.cli.main import main
from colorize.imaging.colorspace import rgb_to_lab
from colorize.imaging.formats import open_scan
from colorize.model.metrics import colorfulness
from colorize.storage.place import LocalPlace
from colorize.storage.remote import open_place
from tests.pictures import encoded, grey_scene, rgb_scene, sepia_scene

NAME = """</script><img src=x onerror="alert('1')">&amp;\u2028.jpg"""


def rows_of(target: Path) -> list[list[object]]:
    """What the page's scripts hand over."""
    page = (target / report.PAGE).read_text()
    names = re.findall(r'<script src="report/(index-[^"]+)"></script>', page)
    assert sorted(names) == sorted(path.name for path in (target / report.PARTS).iterdir() if path.name.startswith("index-"))
    rows = []
    for name in names:
        script = (target / report.PARTS / name).read_text()
        assert script.startswith("rows(")
        assert script.endswith(");\n")
        assert script.isascii()
        rows += json.loads(script[5:-3])
    return rows


def test_every_row_is_in_the_list_and_the_page_holds_no_names(tmp_path: Path) -> None:
    rows = [Row(path=f"{number}.jpg", status="coloured", mean_confidence=1 / 3, run_id="1") for number in range(report.PART_ROWS + 1)]
    rows.append(Row(path=NAME, status="failed", reason=NAME, run_id="1"))
    place = LocalPlace(tmp_path / "out", "<out>")
    report.write_report(place, to_table(rows), LocalPlace(tmp_path / "my scans", "<in>"), "run")
    listed = rows_of(tmp_path / "out")
    assert [row[0] for row in listed] == [row.path for row in rows]
    assert listed[0][8] == 0.333
    assert listed[-1][3:5] == ["failed", NAME]
    page = (tmp_path / "out" / report.PAGE).read_text()
    assert "&lt;in&gt;" in page
    assert "<in>" not in page
    assert 'data-originals="../../my%20scans/"' in page
    assert not re.search(r"\$\w|\$\{(scripts|source|target|run_id|originals)", page)
    assert not re.search(r"https?://", page)


def test_what_a_target_holds_is_counted_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of two pages has two rows; the least confident are named by page."""
    made = {"status": "coloured", "model": "m", "model_sha256": "ab", "vividness": 0.5, "run_id": "1"}
    pages = [Row(path="a.tif", page=page, pages=2, format="TIFF", mean_confidence=0.5 - 0.1 * page, **made) for page in (0, 1)]
    rows = to_table([*pages, Row(path="b.jpg", format="JPEG", mean_confidence=0.45, **made)])
    write_manifest(LocalPlace(tmp_path, "out"), rows, rows.slice(0, 0), "1")
    status = read_status(tmp_path)
    assert (status.files, status.statuses, status.formats) == (2, {"coloured": 2}, {"TIFF": 1, "JPEG": 1})
    assert [(path, page, pages) for path, page, pages, _ in status.doubtful] == [("a.tif", 1, 2), ("b.jpg", 0, None), ("a.tif", 0, 2)]
    assert main(["archive", "status", str(tmp_path)]) == 0
    assert re.search(r"a\.tif, page 2 +0\.40\s", capsys.readouterr().out)


@pytest.mark.parametrize(("reasons", "rest"), [(20, None), (22, "and 2 files for 2 other reasons: column `reason` in the manifest")])
def test_reasons_that_are_not_listed_are_counted(
    reasons: int, rest: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = to_table([Row(path=f"{number}.tif", status="failed", reason=f"reason {number}", run_id="1") for number in range(reasons)])
    write_manifest(LocalPlace(tmp_path, "out"), rows, rows.slice(0, 0), "1")
    assert main(["archive", "status", str(tmp_path)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "other reason" in line]
    assert told == ([] if rest is None else [rest])


def test_originals_in_a_bucket_have_no_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    report.write_report(LocalPlace(tmp_path, "out"), to_table([]), open_place(f"local://{tmp_path}/in"), "run")
    assert 'data-originals=""' in (tmp_path / report.PAGE).read_text()


def test_what_only_earlier_pages_showed_is_removed(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path, "out")
    for name in ("1/0.jpg", "2/0.jpg", "2/1.jpg"):
        place.write(f"{report.THUMBNAILS}/{name}", b"x")
    table = to_table([Row(path="a", status="coloured", thumbnail="2/1.jpg#0,160x120", run_id="2")])
    report.write_report(place, table, place, "1")
    report.write_report(place, table, place, "2")
    assert len(rows_of(tmp_path)) == 1
    left = [path.relative_to(tmp_path / report.THUMBNAILS).as_posix() for path in (tmp_path / report.THUMBNAILS).rglob("*.jpg")]
    assert left == ["2/1.jpg"]


def test_thumbnails_fit_and_are_never_enlarged() -> None:
    assert fitting(3000, 4000) == (120, 160)
    assert fitting(20_000, 3) == (160, 1)
    assert fitting(50, 40) == (50, 40)


def lab_of(rgb_hwc: np.ndarray) -> np.ndarray:
    return rgb_to_lab(torch.from_numpy(np.ascontiguousarray(rgb_hwc.transpose(2, 0, 1)))[None])[0].numpy()


def test_a_thumbnail_keeps_its_lightness_and_takes_the_colour() -> None:
    grey_hw = grey_scene(60, 80)
    before = Thumbnail.of(open_scan(encoded(grey_hw, "PNG")), 0)
    assert not before.is_colored
    made = before.in_color(torch.full((2, 5, 7), 20.0))
    assert (made.height, made.width) == (60, 80)
    assert np.array_equal(made.before_hwc, np.repeat(grey_hw[..., None], 3, axis=2))
    assert made.after_hwc is not None
    assert made.after_hwc[..., 0].mean() > made.after_hwc[..., 1].mean() + 10
    assert made.colorfulness > 10


def test_a_thumbnail_is_upright_and_knows_colours_when_it_sees_them() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scan = open_scan(encoded(rgb_scene(60, 80), "PNG", exif=exif))
    found = Thumbnail.of(scan, 0)
    assert (found.height, found.width) == (80, 60)
    assert np.array_equal(found.before_hwc, np.rot90(rgb_scene(60, 80), -1))
    assert found.is_colored
    assert not Thumbnail.of(open_scan(encoded(sepia_scene(60, 80), "PNG")), 0).is_colored


def test_colourfulness_is_that_of_the_metrics() -> None:
    rgb_hwc = rgb_scene(60, 80)
    one = Thumbnail(before_3hw=lab_of(rgb_hwc), after_hwc=rgb_hwc)
    expected = colorfulness(torch.from_numpy(rgb_hwc).permute(2, 0, 1)[None].float())
    assert abs(one.colorfulness - float(expected)) < 0.05


def test_a_sheet_has_a_column_a_picture(tmp_path: Path) -> None:
    thumbnails = [
        Thumbnail(before_3hw=lab_of(rgb_scene(h, w)), after_hwc=255 - rgb_scene(h, w)) for h, w in ((160, 100), (60, 160), (1, 1))
    ]
    (tmp_path / "sheet.jpg").write_bytes(sheet(thumbnails))
    pixels = np.array(Image.open(tmp_path / "sheet.jpg")).astype(int)
    assert pixels.shape == (2 * SIDE, 3 * SIDE, 3)
    assert np.abs(pixels[:60, SIDE : 2 * SIDE] - rgb_scene(60, 160)).mean() < 12
    assert np.abs(pixels[SIDE : SIDE + 60, SIDE : 2 * SIDE] - (255 - rgb_scene(60, 160).astype(int))).mean() < 12
