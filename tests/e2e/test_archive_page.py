"""The archive's report in a real browser, from a disk: pages, filter, search, order, keyboard, and a silent console."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from colorize.archive import report
from colorize.archive.manifest import Row, to_table
from colorize.archive.thumbnails import Thumbnail, sheet
from colorize.imaging.colorspace import rgb_to_lab
from colorize.storage.place import LocalPlace
from tests.pictures import rgb_scene

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'colorize[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 120_000

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]

NAME = """<img src=x onerror="document.title='no'">&amp; #?%.jpg"""
PICTURES = 130


@pytest.fixture(scope="module")
def page_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "out"
    place = LocalPlace(folder, "out")
    before_3hw = rgb_to_lab(torch.from_numpy(rgb_scene(90, 160).transpose(2, 0, 1).copy() // 2)[None])[0].numpy()
    picture = Thumbnail(before_3hw=before_3hw, after_hwc=rgb_scene(90, 160))
    place.write(f"{report.THUMBNAILS}/1/0 é.jpg", sheet([picture] * 3))
    rows = [
        Row(
            path=f"box/{number:03}.jpg", status="coloured", format="JPEG", width=1600, height=900, mean_confidence=number / PICTURES,
            colorfulness=float(PICTURES - number), thumbnail=f"1/0 é.jpg#{number % 3},160x90",
            target_path=f"box/{number:03}.jpg", run_id="1",
        )
        for number in range(PICTURES)
    ]  # fmt: skip
    rows += [
        *(
            Row(
                path="letter.tif",
                page=page,
                pages=2,
                status="coloured",
                format="TIFF",
                width=9,
                height=9,
                target_path="letter.tif",
                run_id="1",
            )
            for page in (0, 1)
        ),
        Row(path=NAME, status="failed", reason="is <b>text</b>", run_id="1"),
        Row(path="z.txt", status="skipped", reason="no", run_id="1"),
    ]
    report.write_report(place, to_table(rows), LocalPlace(folder.with_name("in"), "in"), "1")
    return folder / report.PAGE


@pytest.fixture
def page(page_at: Path) -> Iterator[playwright.Page]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("requestfailed", lambda request: trouble.append(request.url))
        page.on("request", lambda request: trouble.append(request.url) if not request.url.startswith(("data:", "file:")) else None)
        page.goto(page_at.as_uri())
        yield page
        browser.close()
        assert not trouble


def names(page: playwright.Page) -> list[str]:
    return page.locator(".card .name").all_inner_texts()


def where(page: playwright.Page) -> str:
    return page.locator("#where").inner_text()


def test_failures_come_first_and_names_are_text(page: playwright.Page) -> None:
    assert names(page)[0] == NAME
    assert page.locator(".card").first.locator(".why").inner_text() == "FAILED\nis <b>text</b>"
    assert where(page) == "page 1 of 3, 134 shown"
    assert page.locator(".card").count() == 60
    assert page.locator("#filters button").all_inner_texts() == ["all 133", "coloured 131", "failed 1", "skipped 1"], "files, not pages"
    assert page.locator("#total").inner_text() == "133 files"


def test_the_keyboard_turns_pages_filters_and_searches(page: playwright.Page) -> None:
    page.keyboard.press("ArrowRight")
    assert where(page) == "page 2 of 3, 134 shown"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert where(page) == "page 3 of 3, 134 shown"
    assert names(page)[-1] == "z.txt"
    page.keyboard.press("3")
    assert where(page) == "page 1 of 1, 1 shown"
    page.keyboard.press("1")
    page.keyboard.press("/")
    page.keyboard.type("BOX/01")
    playwright.expect(page.locator("#where")).to_have_text("page 1 of 1, 10 shown")
    page.reload()
    assert where(page) == "page 1 of 1, 10 shown"
    page.locator("#search").fill("nothing like it")
    playwright.expect(page.locator("#nothing")).to_be_visible()


def test_the_least_confident_and_the_most_colourful_come_first(page: playwright.Page) -> None:
    page.select_option("#sort", "most")
    assert names(page)[0].endswith("129.jpg")
    page.select_option("#sort", "least")
    assert names(page)[0].endswith("000.jpg")
    page.select_option("#sort", "dull")
    assert names(page)[0].endswith("129.jpg")


def test_a_card_shows_both_pictures_and_leads_to_the_files(page: playwright.Page, page_at: Path) -> None:
    page.keyboard.press("2")
    card = page.locator(".card").nth(1)
    halves = card.locator(".pair span")
    assert halves.evaluate_all("halves => halves.map(half => getComputedStyle(half).backgroundPosition)") == ["-160px 0px", "-160px -160px"]
    assert halves.first.evaluate("half => [half.offsetWidth, half.offsetHeight]") == [160, 90]
    links = card.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert links == [(page_at.parents[1] / "box" / "001.jpg").as_uri(), (page_at.parents[2] / "in" / "box" / "001.jpg").as_uri()]


@pytest.mark.parametrize("width", [320, 390, 768, 2200])
def test_no_width_scrolls_sideways(page: playwright.Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width
