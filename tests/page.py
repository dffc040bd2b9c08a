"""The service's page for tests: the application that a replica runs, in this process and without Ray, and what is read of the page.

tests/e2e/conftest.py opens it in a browser.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import uvicorn

from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.serve.api import create_app
from colorize.serve.catalog import Catalog
from colorize.serve.codec import Answer, Question
from colorize.serve.config import ServeConfig
from colorize.serve.desk import Desk
from colorize.serve.keys import digest_of
from colorize.serve.meter import Series
from colorize.serve.page import site

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 60_000
KEY = "0123456789abcdef0123456789abcdef"
SAMPLE = Path(site.__file__).parents[2] / "sample" / "archive"
BOATS = SAMPLE / "nagasaki-boats.jpg"


class Network:
    """The `Network` of a desk: the model that ships, in a thread of this process."""

    def __init__(self) -> None:
        self.model = load_model("photo")
        self._colorizer, self._thread = Colorizer(self.model), ThreadPoolExecutor(1)

    async def predict(self, question: Question) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, question)

    def _predict(self, question: Question) -> Answer:
        hints = [question.hints] if question.hints else None
        (prediction,) = self._colorizer.predict([question.lightness()], question.settings, hints, working_size=question.working_size)
        return Answer(
            ab_n2hw=prediction.ab_n2hw.numpy(), confidence_hw=prediction.confidence_hw.numpy(), batch_size=1,
            model=self.model.card.name, model_sha256=self.model.card.weights_sha256,
        )  # fmt: skip

    async def loaded(self) -> list[str]:
        return [self.model.card.name]

    async def measured(self) -> dict[str, list[Series]]:
        return {}

    def close(self) -> None:
        self._thread.shutdown()


@contextmanager
def serving() -> Iterator[str]:
    """The URL of the application, which wants `KEY`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as an ingress replica does: on busy cores, torch's threads wait for one another
    network = Network()
    desk = Desk(ServeConfig(api_keys=(digest_of(KEY),)), Catalog(network.model.card, None), network)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(desk), log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    network.close()
    torch.set_num_threads(threads)


def shows_original(page: Page) -> None:
    """Waits until the stage shows the coloured original, with the wishes of now."""
    page.locator("#stage[data-after=original]:not([data-pending])").wait_for()


def all_settled(page: Page) -> None:
    """Waits until every picture is coloured or has failed."""
    page.locator(".card:not([data-state=done], [data-state=failed])").first.wait_for(state="detached")
