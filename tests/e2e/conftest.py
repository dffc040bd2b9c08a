"""The service's page in a browser, for the tests of several files.

The fixture `page` fails a test on any error in the console, any violation of the content security policy, any failed request and any
request to another host; answers of the service that a test provokes are named in `expected`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.page import CHROMIUM, KEY, PATIENCE_MS, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def expected() -> list[str]:
    """What the console may say: regular expressions that a test adds."""
    return []


@pytest.fixture(params=[{"width": 1280, "height": 860}], ids=["desktop"])
def page(request: pytest.FixtureRequest, browser: Browser, url: str, expected: list[str]) -> Iterator[Page]:
    is_phone = request.param["width"] < 500
    context = browser.new_context(viewport=request.param, has_touch=is_phone, is_mobile=is_phone, accept_downloads=True)
    context.add_init_script(f"sessionStorage.getItem('colorize-key') ?? sessionStorage.setItem('colorize-key', '{KEY}')")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda sent: trouble.append(sent.url) if not sent.url.startswith((url, "blob:")) else None)
    page.goto(url)
    yield page
    context.close()
    assert [text for text in trouble if not any(re.search(pattern, text) for pattern in expected)] == []
