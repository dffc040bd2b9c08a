"""The demo's page: what it says, that it is whole, and that nothing in it is fetched or taken for markup."""

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from colorize.demo import report as report_module
from colorize.demo.chart import Baseline, line_chart, ticks
from colorize.demo.report import GREY, ROW_RATIO, ArchivePair, gallery_rows, write_report
from colorize.errors import PictureError
from tests.pictures import encoded, grey_scene, rgb_scene
from tests.reports import AT_GREY, NAME, SHIPPED, archive_pair, demo_report, epoch

VOID = {"img", "input", "meta", "link", "line", "path"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attributes}) == len(attributes), f"an attribute of {tag} comes twice"
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, f"{tag} cannot close itself"
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"{tag} is closed and was not open"
        assert self.stack.pop() == tag, f"{tag} is closed out of order"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.text += data
        if self.stack and {"td", "th"} & set(self.stack):
            self.cells[-1][-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for other, attributes in self.elements if other == tag and name in attributes]


def written(folder: Path, **changes: object) -> str:
    path = folder / "report.html"
    write_report(path, demo_report(**changes))
    assert [entry.name for entry in folder.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def embedded(uri: str) -> Image.Image:
    head, data = uri.split(",", 1)
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(BytesIO(base64.b64decode(data, validate=True)))


def test_the_page_nests_and_names_each_id_once(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for target in page.attributes("a", "href"):
        assert target.removeprefix("#") in ids
    for target in page.attributes("section", "aria-labelledby"):
        assert target in ids
    assert "lang" in dict(page.elements)["html"]


def test_nothing_is_fetched(tmp_path: Path) -> None:
    text = written(tmp_path)
    page = Page(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            assert attributes.get(name, "#").startswith(("data:", "#")), attributes
    assert not re.search(r"url\(|@import|https?:", text)
    assert {"script", "link"} & {tag for tag, _ in page.elements} == {"script", "link"}
    assert page.attributes("link", "href") == ["data:,"]


def test_the_policy_allows_the_script_of_the_page_and_no_other(tmp_path: Path) -> None:
    text = written(tmp_path)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(attributes["content"] for tag, attributes in Page(text).elements if "http-equiv" in attributes)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_what_comes_from_outside_is_text(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    assert NAME in page.text
    assert "<b>broken</b>.jpg" in page.text
    assert "the model <i>just</i> trained" in page.text
    assert "Colour & <light>" in page.text
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert f"{NAME}, the original" in page.attributes("img", "alt")


def test_names_that_no_page_can_show_are_shown_with_question_marks(tmp_path: Path) -> None:
    text = written(tmp_path, archive=[archive_pair("old\udcff\x00\u202egpj.jpg", 40, 50)])
    assert "old???gpj.jpg" in Page(text).text


def test_dollars_are_not_placeholders(tmp_path: Path) -> None:
    assert "$title and ${nothing}" in Page(written(tmp_path, lead="$title and ${nothing}")).text


def test_pictures_are_embedded_as_they_are(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    sources = page.attributes("img", "src")
    sizes = [embedded(uri).size for uri in sources if "jpeg" in uri]
    assert sizes == [(420, 300)] * 2 + [(300, 480)] * 2 + [(500, 200)] * 2
    tiles = [embedded(uri) for uri in sources if "png" in uri]
    assert len(tiles) == 2 * 4 * 3
    assert np.array_equal(np.array(tiles[2]), rgb_scene(32, 32))
    assert np.array_equal(np.array(tiles[1]), rgb_scene(32, 32) // 2)


def test_pictures_shrink_until_the_page_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise_hwc = np.random.default_rng(3).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    data = encoded(noise_hwc, "JPEG", quality=95)
    pairs = [ArchivePair(name=f"{i}.jpg", before=data, after=data, mean_confidence=0.5, width=600, height=400) for i in range(2)]
    full = len(written(tmp_path, archive=pairs))
    monkeypatch.setattr(report_module, "PAGE_BYTES", 400_000)
    text = written(tmp_path, archive=pairs)
    assert full > 600_000
    assert 200_000 < len(text.encode()) <= 400_000
    assert "600 × 400 pixels" in Page(text).text
    monkeypatch.setattr(report_module, "PAGE_BYTES", 1)
    smallest = [embedded(uri).size for uri in Page(written(tmp_path, archive=pairs)).attributes("img", "src") if "jpeg" in uri]
    assert set(smallest) == {(200, 133)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_exif_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(rgb_scene(40, 60), "PNG", exif=exif)
    pair = ArchivePair(name="x", before=data, after=data, mean_confidence=1, width=60, height=40)
    shown = embedded(Page(written(tmp_path, archive=[pair])).attributes("img", "src")[0])
    upright = Image.fromarray(rgb_scene(40, 60))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)  # Pillow's own numbers of the EXIF turns
    upright = upright if turn is None else upright.transpose(Image.Transpose(turn))
    assert shown.size == upright.size
    assert np.abs(np.array(shown).astype(int) - np.array(upright)).mean() < 8


def test_transparent_pictures_are_on_white(tmp_path: Path) -> None:
    data = encoded(np.dstack([rgb_scene(40, 60), np.zeros((40, 60), np.uint8)]), "PNG")
    pair = ArchivePair(name="x", before=encoded(grey_scene(40, 60), "PNG"), after=data, mean_confidence=1, width=60, height=40)
    before, after = (embedded(uri) for uri in Page(written(tmp_path, archive=[pair])).attributes("img", "src")[1::-1])
    assert before.mode == "L"
    assert np.array(after).min() > 250


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pair = replace(archive_pair("gone.jpg", 40, 50), after=tmp_path / "gone.jpg")
    with pytest.raises(PictureError, match=r"gone\.jpg: there is no such file"):
        write_report(tmp_path / "report.html", demo_report(archive=[pair]))
    pair = replace(pair, after=b"text")
    with pytest.raises(PictureError, match=r"gone\.jpg: is text"):
        write_report(tmp_path / "report.html", demo_report(archive=[pair]))
    assert not list(tmp_path.iterdir())


def test_a_page_of_an_earlier_run_is_replaced_and_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("earlier", encoding="utf-8")
    assert written(tmp_path).startswith("<!doctype html>")
    with pytest.raises(PictureError, match="none"):
        write_report(tmp_path / "none" / "report.html", demo_report())


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    assert written(tmp_path) == written(tmp_path)


def test_a_run_that_did_nothing_still_makes_a_page(tmp_path: Path) -> None:
    page = Page(written(tmp_path, archive=[], failures=[], sheets=[], history=[], scores=[], commands=[], facts={}))
    for sentence in ("No picture was coloured.", "No sheet was made.", "No epoch was finished.", "Nothing was evaluated."):
        assert sentence in page.text
    assert "not coloured" not in page.text.replace("No picture was coloured.", "")


def test_the_table_of_scores_marks_the_best_of_each_column(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    head, shipped, trained, grey, mean = page.cells[-5:]
    assert [len(row) for row in (head, shipped, trained, grey, mean)] == [10] * 5
    assert "truth: 32.0" in head[7]
    assert shipped[0] == "the model that ships"
    best = {column: [("(best)" in row[column]) for row in (shipped, trained, grey, mean)].index(True) for column in range(1, 10)}
    # 1.2 of the truth's colourfulness is nearer to it than 0.6.
    assert best == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 1, 8: 1, 9: 0}
    assert "0.9412" in shipped[1]
    assert "41.2" in shipped[9]
    assert "not measured" in mean[9]
    assert "grey alone scores 0.934 here" in page.text


def test_equal_scores_are_both_the_best_and_baselines_can_win(tmp_path: Path) -> None:
    scores = [("one", AT_GREY | {"ssim": 0.93361}), ("two", AT_GREY | {"ssim": 0.9}), (GREY, AT_GREY)]
    rows = Page(written(tmp_path, scores=scores)).cells[-3:]
    assert ["(best)" in row[1] for row in rows] == [True, False, True]


def test_the_highlights_sum_the_page_up(tmp_path: Path) -> None:
    text = Page(written(tmp_path)).text
    assert "+0.87 dB" in text
    assert "PSNR compared with grey: the model that ships" in text
    assert "epochs trained, 1,234 pictures a second" in text
    worse = Page(written(tmp_path, scores=[("m", SHIPPED | {"psnr_mean": 24.0}), (GREY, AT_GREY)])).text
    assert "−0.81 dB" in worse


def test_the_curves_have_a_table_beside_them(tmp_path: Path) -> None:
    page = Page(written(tmp_path))
    charts = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert charts == [
        "Loss by epoch: 3.300 at the last of 3",
        "SSIM by epoch: 0.9330 at the last of 3; grey alone scores 0.9300",
        "PSNR by epoch: 25.40 at the last of 3; grey alone scores 25.00",
    ]
    assert ["3", "3.300", "0.9330", "+0.0030", "25.40", "+0.40", "1,234", "60"] in page.cells
    assert ["1", "4.100", "0.9290", "−0.0010", "24.80", "−0.20", "1,234", "20"] in page.cells


def test_a_loss_that_is_not_finite_leaves_its_point_out(tmp_path: Path) -> None:
    text = written(tmp_path, history=[epoch(1), epoch(2) | {"loss": math.nan}, epoch(3) | {"loss": math.inf}])
    assert "Loss by epoch: 4.100 at the last of 1" in text


@given(
    st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 4)), min_size=1, max_size=60),
    st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda value: round(value, 4))),
)
def test_charts_stay_inside_their_frame(values: list[float], base: float | None) -> None:
    baseline = None if base is None else Baseline(label="grey", value=base)
    points = [(float(i), value) for i, value in enumerate(values, 1)]
    svg = line_chart(points, label="l", x_label="epoch", y_label="u", digits=2, baseline=baseline)
    page = Page(svg)
    for name, most in (("x", 421), ("x1", 420), ("x2", 420), ("cx", 420), ("y", 270), ("y1", 270), ("y2", 270), ("cy", 270)):
        for _, attributes in page.elements:
            assert 0 <= float(attributes.get(name, 0)) <= most
    assert sum(tag == "circle" for tag, _ in page.elements) == (len(values) if len(values) <= 40 else 1)


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_span_the_range(low: float, span: float, most: int) -> None:
    high = low + span
    values = ticks(low, high, most=most)
    assert 2 <= len(values) <= most + 2
    step = values[1] - values[0]
    assert values[0] <= low + 1e-3 * step
    assert values[-1] >= high - 1e-3 * step
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 5, 10)) < 1e-3


@given(st.lists(st.floats(0.05, 20), max_size=30))
def test_every_picture_is_in_one_row_in_order(ratios: list[float]) -> None:
    rows = gallery_rows(ratios)
    assert [index for row in rows for index in row] == list(range(len(ratios)))
    assert all(rows)
    assert all(len(row) == 1 or sum(ratios[index] for index in row) < 2 * ROW_RATIO for row in rows)


def test_rows_are_of_about_equal_height() -> None:
    assert gallery_rows([1.4, 1.4, 1.4, 1.4]) == [[0, 1], [2, 3]]
    assert gallery_rows([0.77, 1.43, 0.79, 1.37, 1.3]) == [[0, 1, 2], [3, 4]]
    assert gallery_rows([3.0, 0.8]) == [[0, 1]]
