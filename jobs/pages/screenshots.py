"""The pictures of the web page in README.md, from a service that runs: `python -m jobs.pages.screenshots http://127.0.0.1:8000`.

Opens the page in chromium, has the pictures of the sample archive coloured, and writes docs/pictures/page.jpg and page-phone.jpg, each
of at most 200 KB. Apart from `make docs`, since it needs a service and a browser.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from colorize.errors import ConfigError
from colorize.imaging.files import write_whole

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
ARCHIVE = ("nagasaki-boats.jpg", "dust-bowl-home.jpg", "french-alpine-landscape.jpg", "black-canyon.jpg", "march-pastoral.jpg")
"""The first is shown, the others lie in the strip below it."""
SCREENS = {"page.jpg": (1280, 800, 1), "page-phone.jpg": (390, 844, 2)}
"""Width and height in CSS pixels, and pixels of the screen in each."""
LARGEST = 200_000
PATIENCE_MS = 120_000


def screenshot(browser: Browser, url: str, width: int, height: int, density: float) -> bytes:
    """The page with a picture half coloured, as a JPEG."""
    folder = Path(str(files("colorize") / "sample" / "archive"))
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=density, is_mobile=density > 1)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.set_input_files("#pick-files", [folder / name for name in ARCHIVE])
    page.locator(f".card[data-state=done] >> nth={len(ARCHIVE) - 1}").wait_for()
    page.locator(".card .open").first.click()
    page.locator("#stage[data-after=original]").wait_for()
    page.locator(".choices:not(.busy) img[src] >> nth=5").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)  # thumbnails fade in
    for quality in range(90, 30, -5):
        data = page.screenshot(type="jpeg", quality=quality)
        if len(data) <= LARGEST:
            break
    context.close()
    return data


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise ConfigError("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        for name, screen in SCREENS.items():
            data = screenshot(browser, sys.argv[1], *screen)
            write_whole(PICTURES / name, data)
            print(f"docs/pictures/{name}  {len(data):,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
