"""The demo's page in a real browser: the slider, the dialog, the widths, the themes, and a silent console."""

import os
import shutil
from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image

from colorize.demo.report import write_report
from tests.reports import NAME, demo_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'colorize[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 120_000
"""A busy machine takes its time; nothing here is about speed."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    # Chromium's sandbox refuses to run as root, as in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, demo_report())
    return path.as_uri()


@pytest.fixture
def page(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    """The page on a desktop; the test fails for any message, error or request beside the page itself."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce") as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        trouble: list[str] = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if not request.url.startswith(("data:", address)) else None)
        page.goto(address)
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        yield page
        assert not trouble


def cut(compare: playwright.Locator) -> float:
    """Where the original ends, in per cent of the width, as the browser lays it out."""
    return compare.evaluate("""element => {
        const probe = document.createElement("div");
        probe.style.cssText = "position:absolute;height:1px;width:var(--cut)";
        element.append(probe);
        const share = 100 * probe.getBoundingClientRect().width / element.getBoundingClientRect().width;
        probe.remove();
        return share;
    }""")


def color_at(page: playwright.Page, compare: playwright.Locator, share: float) -> tuple[int, int, int]:
    """The pixel that is shown at `share` of the width, a quarter down."""
    image = Image.open(BytesIO(compare.screenshot())).convert("RGB")
    pixel = image.getpixel((int(share * image.width), image.height // 4))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


def is_grey(pixel: tuple[int, int, int]) -> bool:
    return max(pixel) - min(pixel) < 8


def test_the_mouse_moves_the_cut_to_where_it_is(page: playwright.Page) -> None:
    compare = page.locator(".compare").first
    assert cut(compare) == pytest.approx(50, abs=0.2)
    assert is_grey(color_at(page, compare, 0.4))
    assert not is_grey(color_at(page, compare, 0.85))
    box = compare.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    for share in (0.45, 0.3, 0.2):
        page.mouse.move(box["x"] + share * box["width"], middle)
        assert cut(compare) == pytest.approx(100 * share, abs=0.8)
    page.mouse.up()
    page.mouse.move(0, 0)
    assert not is_grey(color_at(page, compare, 0.4))
    page.mouse.click(box["x"] + 0.9 * box["width"], middle)
    assert cut(compare) == pytest.approx(90, abs=0.8)
    assert is_grey(color_at(page, compare, 0.85))
    assert cut(page.locator(".compare").nth(1)) == pytest.approx(50, abs=0.2)


def test_the_keyboard_moves_the_cut(page: playwright.Page) -> None:
    compare = page.locator(".compare").first
    slider = compare.get_by_role("slider")
    slider.focus()
    for key, expected in (
        ("ArrowRight", 52), ("ArrowUp", 54), ("ArrowLeft", 52), ("ArrowDown", 50), ("Shift+ArrowRight", 60), ("Home", 0), ("ArrowLeft", 0),
        ("End", 100), ("ArrowRight", 100), ("PageDown", 90),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert cut(compare) == pytest.approx(expected, abs=0.2), key
    assert slider.get_attribute("aria-valuetext") == "90 % original, 10 % colour"


def test_everything_is_reached_by_the_tab_key_in_order(page: playwright.Page) -> None:
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.className || document.activeElement.type || document.activeElement.tagName"))
        if seen[-1] == "BODY":
            break
    assert seen[0] == "skip"
    assert seen.count("range") == seen.count("enlarge") == seen.count("copy") == 3
    assert seen.index("range") < seen.index("SUMMARY") < seen.index("copy")


def test_names_are_spoken_as_they_are(page: playwright.Page) -> None:
    slider = page.get_by_role("slider").first
    assert slider.get_attribute("aria-label") == f"How much of {NAME} is shown as the original"
    assert page.locator(".pair .name").first.inner_text() == NAME
    assert page.get_by_role("heading", level=1).inner_text() == "Colour & <light>"
    assert page.locator("table.scores").get_by_role("rowheader").count() == 4


def test_a_picture_opens_large_and_closes_again(page: playwright.Page) -> None:
    pair = page.locator(".pair").nth(1)
    small = pair.locator(".compare").bounding_box()
    button = pair.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    playwright.expect(dialog).to_be_visible()
    large = dialog.locator(".compare").bounding_box()
    assert small
    assert large
    assert large["height"] > 1.2 * small["height"]
    assert large["x"] >= 0
    assert large["x"] + large["width"] <= 1280
    assert large["y"] + large["height"] <= 900
    dialog.get_by_role("slider").focus()
    page.keyboard.press("Home")
    assert cut(dialog.locator(".compare")) == pytest.approx(0, abs=0.2)
    page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.className") == "enlarge"


def test_a_command_is_copied(page: playwright.Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".copy").nth(1).click()
    playwright.expect(page.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "colorize archive scans colored"


@pytest.mark.parametrize("width", [320, 360, 768, 1001, 1440, 2200])
def test_no_width_scrolls_sideways(page: playwright.Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cells = page.locator("table.scores td").evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().right)")
    assert max(cells) <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(page: playwright.Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    contrasts = page.evaluate("""() => {
        const channels = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const luminance = color => channels(color).map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
            .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
        const paper = luminance(getComputedStyle(document.body).backgroundColor);
        const against = color => {
            const ink = luminance(color);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        };
        const colors = [...document.querySelectorAll("h1, p, dd, dt, th, td, summary, .name, .details")]
            .map(element => getComputedStyle(element).color);
        const drawn = [...document.querySelectorAll(".chart text, .chart .dot")].map(element => getComputedStyle(element).fill);
        const lines = [...document.querySelectorAll(".chart .line, .chart .base")].map(element => getComputedStyle(element).stroke);
        return [...colors, ...drawn, ...lines].map(against);
    }""")
    assert len(contrasts) > 100
    assert min(contrasts) >= 4.5


def test_small_pictures_are_enlarged_by_whole_factors(page: playwright.Page) -> None:
    tile = page.locator(".tiles img").first
    assert tile.evaluate("image => [image.naturalWidth, image.width, getComputedStyle(image).imageRendering]") == [32, 96, "pixelated"]


def test_without_scripts_both_pictures_are_shown(browser: playwright.Browser, address: str) -> None:
    with browser.new_context(java_script_enabled=False, viewport={"width": 900, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        before, after = (page.locator(f".compare .{kind}").first.bounding_box() for kind in ("before", "after"))
        assert before
        assert after
        assert before["x"] + before["width"] <= after["x"] + 1
        assert before["y"] == after["y"]
