"""The service's page in a real browser, against the service's application with an API key: what users do, and a silent console.

tests/ray has the same routes behind Serve.
"""

import base64
import re
import urllib.error
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colorize.imaging.colorspace import rgb_to_lab
from colorize.imaging.formats import open_scan
from colorize.imaging.verify import verify
from tests.page import BOATS, CHROMIUM, KEY, PATIENCE_MS, SAMPLE, all_settled, shows_original
from tests.pictures import encoded, grey_scene

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'colorize[dev]'")
MOST_REQUESTS = 4

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


def pixels(page: playwright.Page, image: str) -> np.ndarray:
    """What an <img> of the page shows, (h, w, 3), in its natural size."""
    data = page.evaluate(
        """async image => {
            await image.decode();
            const canvas = document.createElement("canvas");
            canvas.width = image.naturalWidth;
            canvas.height = image.naturalHeight;
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL();
        }""",
        page.locator(image).element_handle(),
    )
    return np.array(Image.open(BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB"))


def saved(page: playwright.Page, button: str) -> tuple[str, bytes]:
    with page.expect_download(timeout=PATIENCE_MS) as download:
        page.locator(button).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def chroma_at(rgb_hwc: np.ndarray, across: float, down: float) -> np.ndarray:
    """The mean ab around a place."""
    height, width = rgb_hwc.shape[:2]
    y, x = int(down * height), int(across * width)
    part = np.ascontiguousarray(rgb_hwc[y - 6 : y + 6, x - 6 : x + 6].transpose(2, 0, 1))
    return rgb_to_lab(torch.from_numpy(part)[None])[0, 1:].mean(dim=(1, 2)).numpy()


def test_the_page_needs_no_key_and_lets_nothing_in(url: str) -> None:
    with urllib.request.urlopen(url) as response:
        policy, tag = response.headers["Content-Security-Policy"], response.headers["ETag"]
        document = response.read().decode()
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"<style|style=|<script(?! type=\"module\" src=\"static/)| on\w+=|https?://", document)
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(urllib.request.Request(url, headers={"If-None-Match": tag}))
    for path in ("static/../site.py", "static/%2e%2e/site.py", "static/nothing.js", "static/sample/acanthus-mollis.jpg"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/{path}")
    for name in set(re.findall(r"static/([\w/.-]+)", document)):
        with urllib.request.urlopen(f"{url}/static/{name}") as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "http://" not in response.read().decode().replace("http://www.w3.org/2000/svg", "")


def test_a_picture_is_coloured_compared_and_saved(page: playwright.Page) -> None:
    page.set_input_files("#pick-files", BOATS)
    shows_original(page)
    assert pixels(page, "#final").shape == (819, 1024, 3)

    divider = page.get_by_role("slider", name="Divider between before and after")
    divider.focus()
    page.keyboard.press("End")
    assert divider.get_attribute("aria-valuenow") == "100"
    assert divider.get_attribute("aria-valuetext") == "0 % in colour"
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "12"
    box, line = page.locator("#sheet").bounding_box(), divider.bounding_box()
    assert box
    assert line
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + line["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 40, steps=4)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "75"
    assert page.locator(".marker").count() == 0  # a drag is no click

    page.locator("#stage").focus()
    page.keyboard.press("1")
    assert page.locator("#zoom-level").inner_text() == "100 %"
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.locator("#sheet").bounding_box()["width"] == pytest.approx(1024 * 1.25**2, abs=1)
    left = page.locator("#sheet").bounding_box()["x"]
    page.keyboard.press("ArrowRight")
    assert page.locator("#sheet").bounding_box()["x"] == pytest.approx(left - 60, abs=1)
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -300)
    playwright.expect(page.locator("#zoom-level")).not_to_have_text("156 %")
    page.keyboard.press("0")
    assert page.locator("#sheet").bounding_box() == box

    name, data = saved(page, "#download")
    assert name == "nagasaki-boats-in-colour.jpg"
    assert verify(open_scan(BOATS), open_scan(data)).luma_identical


def test_a_hint_colours_where_it_is_placed_moves_and_goes(page: playwright.Page) -> None:
    page.set_input_files("#pick-files", BOATS)
    shows_original(page)
    box = page.locator("#sheet").bounding_box()
    assert box
    page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(".hint-bar").get_by_role("button", name="crimson").click()
    page.get_by_role("button", name=re.compile("^Hint 1, #b0283a, 70 % across, 50 % down")).wait_for()
    shows_original(page)
    assert chroma_at(pixels(page, "#final"), 0.7, 0.5)[0] > 20
    _, data = saved(page, "#download")
    assert chroma_at(np.array(Image.open(BytesIO(data)).convert("RGB")), 0.7, 0.5)[0] > 20

    page.locator(".marker").focus()
    page.keyboard.press("Shift+ArrowLeft")
    place = page.locator("#hint-list li span")
    playwright.expect(place).to_have_text("65 % across, 50 % down")
    grip = page.locator(".marker").bounding_box()
    assert grip
    page.mouse.move(grip["x"] + 22, grip["y"] + 22)
    page.mouse.down()
    page.mouse.move(grip["x"] + 22, grip["y"] + 22 + 0.2 * box["height"], steps=4)
    page.mouse.up()
    playwright.expect(place).to_have_text("65 % across, 70 % down")

    # While a hint is moved, only the small copy is asked about: its colours come, the original stays with the user.
    page.locator(".marker").focus()
    for _ in range(PATIENCE_MS // 300):
        page.keyboard.press("ArrowRight")
        if page.locator("#stage[data-after=copy][data-pending]").count():
            break
        page.wait_for_timeout(300)
    assert pixels(page, "#tint").shape == (614, 768, 3)

    page.keyboard.press("Delete")
    playwright.expect(page.locator(".marker, #hint-list li")).to_have_count(0)
    shows_original(page)
    assert abs(chroma_at(pixels(page, "#final"), 0.7, 0.5)[0]) < 10
    page.get_by_role("button", name="Add one in the middle").click()
    playwright.expect(place).to_have_text("50 % across, 50 % down")


def test_candidates_vividness_and_doubt_change_what_is_shown(page: playwright.Page) -> None:
    page.set_input_files("#pick-files", BOATS)
    shows_original(page)
    likeliest = pixels(page, "#final")
    choices = page.locator(".choice img[src]")
    playwright.expect(choices).to_have_count(6)
    page.get_by_role("radio", name="Colouring 4").check()
    shows_original(page)
    fourth = pixels(page, "#final")
    assert np.abs(fourth.astype(int) - likeliest).mean() > 0.5
    page.locator("#vividness").fill("1")
    shows_original(page)
    vivid = pixels(page, "#final")
    assert np.ptp(vivid, axis=2).mean() > np.ptp(fourth, axis=2).mean()
    page.get_by_role("switch", name="Show where the model is unsure").check()
    page.locator("#doubt[src]").wait_for()
    assert re.match(r"Mean confidence \d+ %", page.locator("#confidence").inner_text())


def test_a_folder_of_many_is_coloured_a_few_at_a_time_and_saved_as_a_zip(
    page: playwright.Page, tmp_path: Path, expected: list[str]
) -> None:
    expected.append("status of 422|status of 415")
    folder = tmp_path / "box"
    (folder / "deeper").mkdir(parents=True)
    for number in range(30):
        (folder / f"{number:02}.jpg").write_bytes(encoded(grey_scene(60 + number, 80), "JPEG"))
    (folder / "deeper" / "page.tif").write_bytes(encoded(grey_scene(90, 120), "TIFF"))
    (folder / "broken.png").write_bytes(encoded(grey_scene(), "PNG")[:200])
    (folder / "notes.txt").write_text("no picture")
    busy = most = 0

    def sent(request: playwright.Request) -> None:
        nonlocal busy, most
        busy += request.method == "POST"
        most = max(most, busy)

    def ended(request: playwright.Request) -> None:
        nonlocal busy
        busy -= request.method == "POST"

    page.on("request", sent)
    page.on("requestfinished", ended)
    page.set_input_files("#pick-folder", folder)
    playwright.expect(page.locator("#notice")).to_have_text("1 file left out: no picture by the name.")
    playwright.expect(page.locator(".card")).to_have_count(32)
    all_settled(page)
    assert 1 < most <= MOST_REQUESTS
    playwright.expect(page.locator("#tally")).to_have_text("31 pictures coloured, 1 failed")
    failed = page.locator(".card[data-state=failed]")
    assert failed.locator(".name").inner_text() == "broken.png"
    assert len(failed.locator(".why").inner_text()) > 10

    page.get_by_role("button", name=re.compile("^page.tif: coloured")).click()
    shows_original(page)
    assert pixels(page, "#before").shape == (90, 120, 3)
    assert np.ptp(pixels(page, "#before").astype(int), axis=2).max() <= 2
    page.keyboard.press("Escape")
    name, data = saved(page, "#download-all")
    assert name == "in-colour.zip"
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {f"box/{number:02}.jpg" for number in range(30)} | {"box/deeper/page.tif"}
        assert verify(open_scan(folder / "07.jpg"), open_scan(archive.read("box/07.jpg"))).luma_identical
        assert verify(open_scan(folder / "deeper/page.tif"), open_scan(archive.read("box/deeper/page.tif"))).is_faithful


def test_a_folder_is_dropped_and_a_picture_pasted(page: playwright.Page, tmp_path: Path) -> None:
    folder = tmp_path / "dropped"
    (folder / "below").mkdir(parents=True)
    for name in ("one.jpg", "below/two.jpg"):
        (folder / name).write_bytes(encoded(grey_scene(), "JPEG"))
    tools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tools.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    playwright.expect(page.locator(".card")).to_have_count(2)
    page.evaluate(
        """async bytes => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        list(encoded(grey_scene(), "PNG")),
    )
    playwright.expect(page.locator(".card")).to_have_count(3)
    all_settled(page)
    assert sorted(page.locator(".card .name").all_inner_texts()) == ["image.png", "one.jpg", "two.jpg"]
    assert page.locator(".card[data-state=done]").count() == 3


def test_a_full_service_is_asked_again_and_a_failure_can_be_tried_again(page: playwright.Page, expected: list[str]) -> None:
    expected.append("status of 503|status of 413")
    answers = [
        {"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": "the service is full; try again"}},
        {"status": 413, "json": {"error": "the body: is too large; up to 67,108,864 bytes are read"}},
    ]
    page.route("**/v1/colorize?*", lambda route: route.fulfill(**answers.pop(0)) if answers else route.continue_())
    files = [{"name": name, "mimeType": "image/jpeg", "buffer": encoded(grey_scene(), "JPEG")} for name in ("a.jpg", "b.jpg")]
    page.set_input_files("#pick-files", files)
    all_settled(page)
    assert not answers
    failed = page.locator(".card[data-state=failed]")
    playwright.expect(failed).to_have_count(1)
    assert failed.locator(".why").inner_text() == "It is too large; up to 64 MB are read"
    failed.get_by_role("button", name=re.compile("Try .* again")).click()
    playwright.expect(page.locator(".card[data-state=done]")).to_have_count(2)


def test_the_key_is_asked_for_once_and_kept_in_the_tab_only(page: playwright.Page, expected: list[str]) -> None:
    expected.append("status of 401")
    page.evaluate("sessionStorage.setItem('colorize-key', 'not-a-key-of-this-service')")
    page.set_input_files("#pick-files", sorted(SAMPLE.glob("a*.jpg")))
    dialog = page.locator("#key-dialog")
    playwright.expect(dialog).to_be_visible()
    assert page.locator("#key-reason").inner_text() == "The service does not accept this key."
    page.locator("#key").fill(KEY)
    page.keyboard.press("Enter")
    playwright.expect(dialog).to_be_hidden()
    all_settled(page)
    assert page.locator(".card[data-state=done]").count() == 3
    assert page.evaluate("[sessionStorage.getItem('colorize-key'), localStorage.length, document.cookie]") == [KEY, 0, ""]


@pytest.mark.parametrize("page", [{"width": 390, "height": 844}, {"width": 320, "height": 640}], ids=["phone", "small"], indirect=True)
def test_a_phone_shows_everything_without_scrolling_sideways(page: playwright.Page) -> None:
    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth === innerWidth"))

    assert fits()
    page.get_by_role("button", name="Boats at Nagasaki").tap()
    shows_original(page)
    assert fits()
    box = page.locator("#stage").bounding_box()
    assert box
    page.touchscreen.tap(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    playwright.expect(page.locator("#hint-bar")).to_be_visible()
    bar = page.locator("#hint-bar").bounding_box()
    assert bar
    assert bar["x"] >= 0
    assert bar["x"] + bar["width"] <= page.viewport_size["width"]
    page.get_by_role("button", name="Remove this hint").tap()
    page.get_by_role("button", name="All pictures").tap()
    playwright.expect(page.locator(".card")).to_have_count(1)
    assert fits()
    page.go_back()
    shows_original(page)
    page.get_by_role("button", name="Live").tap()
    assert fits()


def test_the_camera_is_coloured_live(page: playwright.Page) -> None:
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="Start the camera").click()
    playwright.expect(page.locator("#live-rate")).to_have_text(re.compile(r"^\d+\.\d$"))
    playwright.expect(page.locator("#live-delay")).to_have_text(re.compile(r"^\d+ ms$"))
    spread = """id => {
        const { data } = document.getElementById(id).getContext("2d").getImageData(0, 0, 320, 240);
        let most = 0;
        for (let at = 0; at < data.length; at += 4) most = Math.max(most, Math.abs(data[at] - data[at + 2]));
        return most;
    }"""
    assert page.evaluate(spread, "live-before") <= 2
    assert page.evaluate(spread, "live-after") > 10
    divider = page.locator("#live-divider")
    divider.focus()
    page.keyboard.press("Home")
    assert divider.get_attribute("aria-valuetext") == "100 % in colour"
    page.get_by_role("button", name="Stop the camera").click()
    playwright.expect(page.locator("#live-note")).to_have_text("The camera is off.")
