"""The desk: what every route works with, and the only way from a route to the network.

A route takes it as a parameter, `desk: OnDesk`. What stands behind it is one ingress replica's: its configuration, the models, the
limits, the measurements, the threads of the codecs, and `ask`. It knows nothing of HTTP or Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, Protocol, TypeVar

import torch
from fastapi import Depends
from starlette.requests import HTTPConnection

from colorize.errors import ModelError
from colorize.serve.catalog import Catalog, Entry
from colorize.serve.codec import Answer, Question
from colorize.serve.config import ServeConfig
from colorize.serve.keys import ApiKeys
from colorize.serve.meter import IngressMeter, Series
from colorize.serve.upload import Budget, HeldBytes, Refusal, full

ATTEMPTS = 6
"""How often a question is asked whose replica is lost; with their pauses some 3 s, in which Serve notices and routes elsewhere."""

BATCHES_ON_DISK = 8
"""The uploads of all batches may take this many times `max_batch_bytes` on the disk."""

LARGE_PIXELS = 20_000_000
"""Above this a picture is large: painting one of 20 MP held a thread for 2 s (JPEG) to 19 s (PNG) on two busy cores, one of 100 MP for
11 to 148. All large ones together leave one codec thread to the small ones."""

SMALL_ONES = 2
"""Pictures of LARGE_PIXELS, for each codec thread, that may be held beside the large ones: one in the thread, one at the network."""

Result = TypeVar("Result")


class UnavailableError(Exception):
    """The network cannot be asked now: its replica is lost, or has its hands full. The same question will do, later."""


class Network(Protocol):
    """What answers questions: the model's replicas."""

    async def predict(self, question: Question) -> Answer:
        """One answer. Raises UnavailableError, and ModelError where the model is gone."""
        ...

    async def loaded(self) -> list[str]:
        """The names of the models in memory, of all replicas."""
        ...

    async def measured(self) -> Mapping[str, list[Series]]:
        """The measurements of all replicas, those of the ingress too."""
        ...


class Desk:
    """One ingress replica's means."""

    def __init__(self, config: ServeConfig, catalog: Catalog, network: Network) -> None:
        self.config = config
        self.catalog = catalog
        self.network = network
        self.keys = ApiKeys(config.api_keys, config.requests_per_second, config.burst)
        self.meter = IngressMeter()
        self.held = HeldBytes(config.max_held_bytes)
        self.held_of_batches = Budget(config.max_held_bytes)
        self.on_disk = HeldBytes(BATCHES_ON_DISK * config.max_batch_bytes)
        # Budgets apart: a picture that has all pixels of the large ones leaves the small ones theirs.
        self._pixels_of_large = Budget(config.max_pixels)
        self._pixels_of_small = Budget(min(config.max_pixels, SMALL_ONES * config.codec_threads * LARGE_PIXELS))
        self._large = asyncio.Semaphore(max(1, config.codec_threads - 1))
        self.streams = asyncio.Semaphore(config.max_streams)
        self._codecs = ThreadPoolExecutor(
            config.codec_threads, "codec", initializer=torch.set_num_threads, initargs=(1,)
        )  # beside one another
        self._questions = asyncio.Semaphore(config.max_requests)
        self._working = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A block for one request's work. Raises Refusal 503 where as many as may be are worked on already."""
        if self._working >= self.config.max_requests:
            raise full()
        self._working += 1
        self.meter.working(self._working)
        try:
            yield
        finally:
            self._working -= 1
            self.meter.working(self._working)

    async def model(self, name: str | None) -> Entry:
        """A model by a client's name for it; None: the service's own. Raises Refusal 404."""
        if name in (None, self.catalog.own.name):
            return self.catalog.own
        try:
            return await asyncio.to_thread(self.catalog.find, name)  # it looks at the disk
        except ModelError as error:
            raise Refusal(404, str(error)) from error

    async def ask(self, question: Question) -> Answer:
        """The network's answer, batched with what others ask.

        A question whose replica is lost, or that finds the queue full, is asked again: the network has no memory, so it may be asked twice.
        Raises Refusal 503 where that does not help, and 404 where the model is gone.
        """
        pause = 0.1
        async with self._questions:
            for attempt in range(ATTEMPTS):
                try:
                    return await self.network.predict(question)
                except UnavailableError as error:
                    if attempt == ATTEMPTS - 1:
                        raise full() from error
                    await asyncio.sleep(pause)
                    pause *= 2
                except ModelError as error:
                    raise Refusal(404, str(error)) from error
        raise AssertionError("the last attempt returns or raises")

    async def ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to several questions, asked together, in order. Raises as `ask`."""
        if len(questions) == 1:
            return [await self.ask(questions[0])]
        refusals: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self.ask(question)) for question in questions]
        except* Refusal as refused:
            refusals += refused.exceptions
        if refusals:  # raised in the block above, it would be in a group again
            raise refusals[0]
        return [task.result() for task in asked]

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Work of a codec, in a thread of the desk's own.

        A thread cannot be stopped: where the request is cancelled meanwhile, this waits for its end, so that what the work holds (pixels
        of the budget) is not given away while it is still held.
        """
        job = self._codecs.submit(work, *arguments)
        waiting = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not job.cancel():
                await asyncio.wait({waiting})
            raise

    @asynccontextmanager
    async def holding(self, pixels: int) -> AsyncIterator[None]:
        """A block in which so many pixels are in memory and worked on; waits for its turn.

        Large pictures wait for one another, and small ones not for them. Raises Refusal 413 where they are more than may be.
        """
        if pixels > self.config.max_pixels:
            raise Refusal(413, f"the picture: has {pixels:,} pixels by its header; pictures of up to {self.config.max_pixels:,} are read")
        if pixels <= LARGE_PIXELS:
            async with self._pixels_of_small.hold(pixels):
                yield
        else:
            async with self._large, self._pixels_of_large.hold(pixels):
                yield


async def desk_of(connection: HTTPConnection) -> Desk:
    """The desk of the application that a request or a web socket came to. Async, or every request would wait for a thread for it."""
    desk: Desk = connection.app.state.desk
    return desk


OnDesk = Annotated[Desk, Depends(desk_of)]
"""As the annotation of a route's parameter: `async def route(desk: OnDesk)`."""
