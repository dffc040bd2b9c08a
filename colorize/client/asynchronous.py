"""`colorize.AsyncClient`: the service from a program with an event loop, which is never blocked: files are read in threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, Self, TypeVar, Unpack

import httpx2

from colorize.client import SERVER, calls
from colorize.client.answers import Colored, Reply, RunStatus, ServedModel
from colorize.client.calls import ArchiveSettings, Call, Collector, OnPause, Pause, Picture, Read, Request, Settings, Step
from colorize.errors import ColorizeError

T = TypeVar("T")


class AsyncClient:
    """`Client`, to be awaited.

    async with AsyncClient("http://127.0.0.1:8000") as client:
        colored = await client.colorize(Path("scan.jpg"))
    """

    def __init__(
        self, server: str = SERVER, *, api_key: str | None = None, timeout: float = 150.0, attempts: int = 8, patience: float = 120.0
    ) -> None:
        """As `Client`. Raises ConfigError."""
        self._connection = calls.connection(server, api_key, timeout, attempts, patience)
        self._http = httpx2.AsyncClient(**self._connection.options())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.server!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def colorize(self, picture: Picture, **settings: Unpack[Settings]) -> Colored:
        """A picture in colour: same format, size and lightness. Raises RemoteError, PictureError (a file that cannot be read)."""
        return await self._run(self._connection.colorize(picture, settings))

    def colorize_many(
        self, pictures: Iterable[Picture] | AsyncIterable[Picture], *, concurrency: int = 8, **settings: Unpack[Settings]
    ) -> AsyncGenerator[Colored | ColorizeError, None]:
        """Pictures in colour, in order; where one fails, its error in its place.

        `pictures` may be a generator without end: at most `concurrency` of them are held, on their way or waiting for one before them.
        Raises ConfigError.
        """
        calls.check_many(concurrency, settings)
        source = pictures if isinstance(pictures, AsyncIterable) else _asynchronous(pictures)
        return self._colorize_many(aiter(source), concurrency, settings)

    async def _colorize_many(
        self, pictures: AsyncIterator[Picture], concurrency: int, settings: Settings
    ) -> AsyncGenerator[Colored | ColorizeError, None]:
        async def one(picture: Picture) -> Colored | ColorizeError:
            try:
                return await self._run(self._connection.colorize(picture, settings))
            except ColorizeError as error:
                return error

        under_way: deque[asyncio.Task[Colored | ColorizeError]] = deque()
        is_more = True
        try:
            while True:
                while is_more and len(under_way) < concurrency:
                    try:
                        under_way.append(asyncio.create_task(one(await anext(pictures))))
                    except StopAsyncIteration:
                        is_more = False
                if not under_way:
                    return
                yield await under_way.popleft()
        finally:  # also where the caller wants no more of them
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def models(self) -> list[ServedModel]:
        """The models that the service offers."""
        return await self._run(self._connection.models())

    async def submit_archive(
        self, source: str, target: str, *, on_pause: OnPause | None = None, **settings: Unpack[ArchiveSettings]
    ) -> AsyncArchiveRun:
        """Starts a bulk run: source and target are places as the service sees them, within the roots that its operator allows.

        on_pause is told why, in one line, where the service takes no run now and is to be asked again.
        """
        return self.archive(await self._run(self._connection.submit_archive(source, target, settings, on_pause)))

    async def archives(self) -> list[RunStatus]:
        """The runs that the service knows."""
        return await self._run(self._connection.archives())

    def archive(self, id: str) -> AsyncArchiveRun:
        """The run of this id; nothing is asked yet."""
        return AsyncArchiveRun(self, id)

    async def _run(self, call: Call[T]) -> T:
        """Carries a call out, step by step."""
        try:
            step = next(call)
            while True:
                try:
                    result = await self._perform(step)
                except httpx2.HTTPError as error:
                    step = call.throw(error)
                else:
                    step = call.send(result)
        except StopIteration as end:
            done: T = end.value
            return done

    async def _perform(self, step: Step) -> Any:
        match step:
            case Request():
                return await self._send(step)
            case Read():
                return await asyncio.to_thread(step.carry_out)
            case Pause():
                await asyncio.sleep(step.seconds)
        return None

    async def _send(self, request: Request) -> Reply:
        collector = Collector(request.seconds)
        async with self._http.stream(request.method, request.path, **request.options()) as response:
            async for chunk in response.aiter_bytes():
                collector.add(chunk)
        return collector.reply(response.status_code, response.headers)


class AsyncArchiveRun:
    """A bulk run on the service. It goes on there whatever becomes of this object."""

    def __init__(self, client: AsyncClient, id: str) -> None:
        self.id = id
        self._client = client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def status(self) -> RunStatus:
        """How far it is."""
        return await self._client._run(self._client._connection.archive(self.id))

    async def wait(
        self,
        timeout: float | None = None,
        on_status: Callable[[RunStatus], None] | None = None,
        on_pause: OnPause | None = None,
    ) -> RunStatus:
        """Waits until it is over, and says how it ended. on_status is called now and then with how far it is, on_pause as in
        `submit_archive`.

        Raises RemoteError after `timeout` seconds, of which the first answer has one at least; the run goes on.
        """
        return await self._client._run(self._client._connection.wait(self.id, timeout, on_status, on_pause))

    async def cancel(self) -> str:
        """Asks for its end; what it has done is kept, and the same run again does the rest.

        The status that it has now: pending or running, until it has ended; of a run that was over already, how it ended.
        """
        return await self._client._run(self._client._connection.cancel(self.id))


async def _asynchronous(pictures: Iterable[Picture]) -> AsyncIterator[Picture]:
    for picture in pictures:
        yield picture
