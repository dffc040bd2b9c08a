"""The service's page in a real browser when something goes wrong, and by keyboard alone: no key, an outage, pictures that go, a camera.

What the fixtures check besides is told in conftest.py.
"""

import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.page import CHROMIUM, KEY, PATIENCE_MS, all_settled, shows_original
from tests.pictures import encoded, grey_scene

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'colorize[dev]'")
COLORIZE = "**/v1/colorize?*"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


def give(page: playwright.Page, *names: str) -> None:
    """Gives the page a small picture of each name."""
    page.set_input_files("#pick-files", [{"name": name, "mimeType": "image/jpeg", "buffer": content(name)} for name in names])


def content(name: str) -> bytes:
    """The file of that name: each has other bytes."""
    return encoded(grey_scene(100, 150 + sum(name.encode())), "JPEG")


def state(page: playwright.Page, name: str) -> playwright.Locator:
    return page.locator(f".card[data-state={name}]")


def has_focus(locator: playwright.Locator) -> None:
    playwright.expect(locator).to_be_focused()


def test_a_picture_that_is_removed_during_a_download_does_not_stop_the_tab(page: playwright.Page) -> None:
    page.route(COLORIZE, lambda route: None if route.request.post_data_buffer == content("b.jpg") else route.continue_())
    give(page, "a.jpg", "b.jpg")
    state(page, "done").wait_for()
    with page.expect_download(timeout=PATIENCE_MS // 4) as download:
        page.locator("#download-all").click()
        playwright.expect(page.locator("#download-all")).to_have_text("1 of 2…")
        page.get_by_role("button", name="Remove b.jpg").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["a.jpg"]
    playwright.expect(page.locator("#notice")).to_have_text("1 picture in the zip.")


def test_a_key_that_is_not_given_is_asked_for_again_only_when_the_user_acts(page: playwright.Page, expected: list[str]) -> None:
    expected.append("status of 401")
    page.evaluate("sessionStorage.setItem('colorize-key', 'not-a-key-of-this-service')")
    page.reload()
    dialog, decline = page.locator("#key-dialog"), page.get_by_role("button", name="Not now")
    decline.click()
    playwright.expect(dialog).to_be_hidden()
    playwright.expect(page.locator("#model-choice")).to_be_hidden()
    give(page, *(f"{number}.jpg" for number in range(4)))
    decline.click()
    all_settled(page)  # three are asked for at a time; it would wait for an answer to another question
    playwright.expect(dialog).to_be_hidden()
    playwright.expect(state(page, "failed")).to_have_count(4)

    page.get_by_role("button", name="Try 4 again").click()
    page.locator("#key").fill(KEY)
    page.keyboard.press("Enter")
    playwright.expect(state(page, "done")).to_have_count(4)
    playwright.expect(page.locator("#retry-all")).to_be_hidden()
    playwright.expect(page.get_by_label("Model", exact=True).locator("option")).to_have_count(2)


def test_the_editor_recovers_from_an_outage(page: playwright.Page, expected: list[str]) -> None:
    expected.append("status of 500")
    give(page, "a.jpg")
    shows_original(page)
    playwright.expect(page.locator(".choice img[src]")).to_have_count(6)
    first = page.locator(".choice img").first.get_attribute("src")
    page.route(COLORIZE, lambda route: route.fulfill(status=500, json={"error": "the picture: is not to be had"}))
    page.get_by_role("slider", name="Vividness", exact=True).fill("1")
    playwright.expect(page.locator("#trouble-text")).to_have_text("It is not to be had")
    playwright.expect(page.locator("#stage-note")).to_have_text("This change could not be coloured.")
    playwright.expect(page.locator("#stage[data-pending], .choices.busy")).to_have_count(0)

    page.unroute(COLORIZE)
    page.get_by_role("button", name="Try again").click()
    has_focus(page.locator("#stage"))
    shows_original(page)
    playwright.expect(page.locator("#stage-note")).to_have_text("")
    playwright.expect(page.locator(".choice img").first).not_to_have_attribute("src", first or "")
    playwright.expect(page.locator(".choices.busy")).to_have_count(0)


def test_sliders_have_names_and_a_hint_gets_its_colour_by_keyboard(page: playwright.Page) -> None:
    for slider in ("#vividness-all", "#live-vividness"):
        assert page.locator(slider).get_attribute("aria-valuetext") == "50 %"
    give(page, "a.jpg")
    shows_original(page)
    vividness = page.get_by_role("slider", name="Vividness", exact=True)
    assert vividness.get_attribute("aria-valuetext") == "50 %"
    vividness.focus()
    page.keyboard.press("ArrowRight")
    assert vividness.get_attribute("aria-valuetext") == "51 %"

    page.get_by_role("button", name="Add one in the middle").focus()
    page.keyboard.press("Enter")
    has_focus(page.locator(".marker"))
    page.keyboard.press("Enter")
    has_focus(page.locator(".swatch").first)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("button", name=re.compile("^Hint 1, #5d7f3f")).wait_for()
    page.keyboard.press("Escape")
    has_focus(page.locator(".marker"))
    playwright.expect(page.locator("#hint-bar")).to_be_hidden()


def test_unsaved_work_is_not_lost_unasked_and_the_keyboard_keeps_its_place(page: playwright.Page) -> None:
    give(page, "a.jpg", "b.jpg", "c.jpg")
    playwright.expect(state(page, "done")).to_have_count(3)
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.locator("#clear").click()
    assert asked == ["Remove all? 3 pictures are not saved."]
    page.get_by_role("link", name="colorize").click()
    playwright.expect(page.locator(".card")).to_have_count(3)

    page.locator(".card .open").first.click()
    shows_original(page)
    would_ask = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert not page.evaluate(would_ask)
    page.locator("#vividness").fill("1")
    assert page.evaluate(would_ask)
    page.get_by_role("link", name="colorize").click()
    has_focus(page.locator(".card .open").first)
    page.go_back()
    assert page.evaluate("[history.state.view, document.body.dataset.view]") == ["welcome", "gallery"]

    for name, following in (("b", "c"), ("c", "a")):
        page.get_by_role("button", name=f"Remove {name}.jpg").press("Enter")
        has_focus(page.get_by_role("button", name=f"Remove {following}.jpg"))
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#clear").press("Enter")
    has_focus(page.get_by_role("button", name="Choose pictures"))


def test_a_card_and_the_strip_say_what_cannot_be_shown(page: playwright.Page, expected: list[str], tmp_path: Path) -> None:
    expected.append("status of 422")
    pages, target = [Image.fromarray(grey_scene(60, 80)) for _ in range(2)], BytesIO()
    pages[0].save(target, "TIFF", save_all=True, append_images=pages[1:])
    (tmp_path / "pages.tif").write_bytes(target.getvalue())
    (tmp_path / "broken.png").write_bytes(encoded(np.zeros((60, 80), np.uint8), "PNG")[:60])
    page.set_input_files("#pick-files", [tmp_path / "pages.tif", tmp_path / "broken.png"])
    playwright.expect(state(page, "done").locator(".why")).to_have_text("No preview: several pages")
    playwright.expect(state(page, "failed").locator(".why")).to_have_text(re.compile("^It is a truncated PNG"))
    signs = page.locator("#strip button").evaluate_all("buttons => buttons.map(button => button.dataset.sign)")
    assert signs == ["tif", "!"]
    assert page.locator("#strip img:not([src])").evaluate_all("images => images.every(({ offsetWidth }) => offsetWidth === 0)")


# Cameras are given when the test opens the gate; `ended` waits until so many were given, and all of them are off.
CAMERAS = """() => {
    const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices), tracks = [];
    const gate = new Promise(resolve => { window.openGate = resolve; });
    navigator.mediaDevices.getUserMedia = async wish => {
        await gate;
        const media = await given(wish);
        tracks.push(...media.getTracks());
        return media;
    };
    window.ended = async count => {
        const isEnded = () => tracks.length === count && tracks.every(({ readyState }) => readyState === "ended");
        for (let frame = 0; frame < 300 && !isEnded(); frame++) await new Promise(requestAnimationFrame);
        return tracks.map(({ readyState }) => readyState);
    };
}"""


def test_no_camera_stays_on_that_was_asked_for_before_it_was_stopped(page: playwright.Page) -> None:
    page.evaluate(CAMERAS)
    start = page.get_by_role("button", name="Start the camera")
    page.get_by_role("button", name="Live").click()
    start.click()
    page.get_by_role("button", name="Pictures", exact=True).click()
    page.evaluate("openGate()")
    assert page.evaluate("ended(1)") == ["ended"]

    page.evaluate(CAMERAS)
    page.get_by_role("button", name="Live").click()
    start.click()
    start.click()
    page.evaluate("openGate()")
    page.get_by_role("button", name="Stop the camera").click()
    assert page.evaluate("ended(2)") == ["ended"] * 2


def test_the_camera_is_coloured_with_the_model_that_is_chosen_while_it_runs(page: playwright.Page) -> None:
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="Start the camera").click()
    playwright.expect(page.locator("#live-note")).to_have_text("")
    with page.expect_websocket(lambda socket: "model=cifar10" in socket.url, timeout=PATIENCE_MS // 4):
        page.get_by_label("Model", exact=True).select_option("cifar10")
    playwright.expect(page.locator("#live-note")).to_have_text("")
