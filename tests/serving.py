"""The service's application without Ray: the same routes, at a desk whose network is a model in this process, and requests to it."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx2
import uvicorn
from fastapi import FastAPI

from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.serve.api import create_app
from colorize.serve.catalog import Catalog
from colorize.serve.codec import Answer, Question
from colorize.serve.config import ServeConfig
from colorize.serve.desk import Desk
from colorize.serve.meter import Series

Result = TypeVar("Result")


class LocalNetwork:
    """A `Network` that is one model, or that fails with the errors that it is given first."""

    def __init__(self, model: ColorModel, *failures: Exception) -> None:
        self._colorizer, self._card = Colorizer(model), model.card
        self.failures = list(failures)
        self.asked: list[Question] = []
        self.together = 0
        self.most_together = 0

    async def predict(self, question: Question) -> Answer:
        self.asked.append(question)
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            await asyncio.sleep(0.02)  # others come meanwhile
            if self.failures:
                raise self.failures.pop(0)
            (prediction,) = self._colorizer.predict([question.lightness()], question.settings, [question.hints] if question.hints else None)
        finally:
            self.together -= 1
        return Answer(
            ab_n2hw=prediction.ab_n2hw.numpy(), confidence_hw=prediction.confidence_hw.numpy(), batch_size=1,
            model=question.model or self._card.name, model_sha256="0" * 64,
        )  # fmt: skip

    async def loaded(self) -> list[str]:
        return [self._card.name]

    async def measured(self) -> Mapping[str, list[Series]]:
        return {}


def with_service(
    network: LocalNetwork,
    model: ColorModel,
    work: Callable[[httpx2.AsyncClient, Desk], Awaitable[Result]],
    *,
    peer: str = "127.0.0.1",
    base_url: str = "http://127.0.0.1:8000",
    root_path: str = "",
    **settings: Any,
) -> Result:
    """What `work` makes of a client of the application with these settings. peer: where the client says that it is. root_path: a prefix."""

    async def run() -> Result:
        config = ServeConfig(**settings)
        desk = Desk(config, Catalog(model.card, config.models_dir), network)
        transport = httpx2.ASGITransport(create_app(desk), raise_app_exceptions=False, client=(peer, 40_000), root_path=root_path)
        async with httpx2.AsyncClient(transport=transport, base_url=base_url, timeout=120) as client:
            return await work(client, desk)

    return asyncio.run(run())


async def trickle(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body that stops in the middle and never ends."""
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


@contextmanager
def listening(model: ColorModel, **settings: Any) -> Iterator[str]:
    """The application behind a web server on the loopback interface; its address."""
    config, started = ServeConfig(**settings), threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            started.set()
            yield

        desk = Desk(config, Catalog(model.card, config.models_dir), LocalNetwork(model))
        app = create_app(desk)
        app.router.lifespan_context = lifespan
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            started.wait(60)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
