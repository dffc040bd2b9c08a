"""`colorize.Client`: the service from a program that waits for its answers. Safe to use from several threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Self, TypeVar, Unpack

import httpx2

from colorize.client import SERVER, calls
from colorize.client.answers import Colored, Reply, RunStatus, ServedModel
from colorize.client.calls import ArchiveSettings, Call, Collector, OnPause, Pause, Picture, Read, Request, Settings, Step
from colorize.errors import ColorizeError

T = TypeVar("T")


class Client:
    """A service, by its address.

        with Client("http://127.0.0.1:8000") as client:
            client.colorize(Path("scan.jpg"), vividness=0.6).save(Path("colour/scan.jpg"))

    Raises RemoteError, in one line, for what the service refuses and where it does not answer. 429, 503 and, of requests that may be sent
    twice, lost connections and replicas are tried again, as the service's Retry-After says and with growing pauses; no other answer is.
    """

    def __init__(
        self, server: str = SERVER, *, api_key: str | None = None, timeout: float = 150.0, attempts: int = 8, patience: float = 120.0
    ) -> None:
        """api_key: None takes that of COLORIZE_API_KEY, where it is set. timeout: seconds for the answer of one attempt. attempts: at
        most, the first one included; patience: seconds after which no further one begins. Raises ConfigError."""
        self._connection = calls.connection(server, api_key, timeout, attempts, patience)
        self._http = httpx2.Client(**self._connection.options())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.server!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def colorize(self, picture: Picture, **settings: Unpack[Settings]) -> Colored:
        """A picture in colour: same format, size and lightness. Raises RemoteError, PictureError (a file that cannot be read)."""
        return self._run(self._connection.colorize(picture, settings))

    def colorize_many(
        self, pictures: Iterable[Picture], *, concurrency: int = 8, **settings: Unpack[Settings]
    ) -> Generator[Colored | ColorizeError, None, None]:
        """Pictures in colour, in order; where one fails, its error in its place.

        `pictures` may be a generator without end: at most `concurrency` of them are held, on their way or waiting for one before them.
        Raises ConfigError.
        """
        calls.check_many(concurrency, settings)
        return self._colorize_many(iter(pictures), concurrency, settings)

    def _colorize_many(
        self, pictures: Iterator[Picture], concurrency: int, settings: Settings
    ) -> Generator[Colored | ColorizeError, None, None]:
        stop = threading.Event()

        def one(picture: Picture) -> Colored | ColorizeError:
            try:
                return self._run(self._connection.colorize(picture, settings), stop)
            except ColorizeError as error:
                return error

        with ThreadPoolExecutor(concurrency, thread_name_prefix="colorize") as threads:
            under_way: deque[Future[Colored | ColorizeError]] = deque()
            try:
                under_way.extend(threads.submit(one, picture) for picture in islice(pictures, concurrency))
                while under_way:
                    yield under_way.popleft().result()
                    under_way.extend(threads.submit(one, picture) for picture in islice(pictures, 1))
            finally:  # also where the caller wants no more of them
                stop.set()
                for future in under_way:
                    future.cancel()

    def models(self) -> list[ServedModel]:
        """The models that the service offers."""
        return self._run(self._connection.models())

    def submit_archive(
        self, source: str, target: str, *, on_pause: OnPause | None = None, **settings: Unpack[ArchiveSettings]
    ) -> ArchiveRun:
        """Starts a bulk run: source and target are places as the service sees them, within the roots that its operator allows.

        on_pause is told why, in one line, where the service takes no run now and is to be asked again.
        """
        return self.archive(self._run(self._connection.submit_archive(source, target, settings, on_pause)))

    def archives(self) -> list[RunStatus]:
        """The runs that the service knows."""
        return self._run(self._connection.archives())

    def archive(self, id: str) -> ArchiveRun:
        """The run of this id; nothing is asked yet."""
        return ArchiveRun(self, id)

    def _run(self, call: Call[T], stop: threading.Event | None = None) -> T:
        """Carries a call out, step by step. stop: ends its pauses early."""
        try:
            step = next(call)
            while True:
                try:
                    result = self._perform(step, stop)
                except httpx2.HTTPError as error:
                    step = call.throw(error)
                else:
                    step = call.send(result)
        except StopIteration as end:
            done: T = end.value
            return done

    def _perform(self, step: Step, stop: threading.Event | None) -> Any:
        match step:
            case Request():
                return self._send(step)
            case Read():
                return step.carry_out()
            case Pause():
                if stop is None:
                    time.sleep(step.seconds)
                elif stop.wait(step.seconds):
                    raise ColorizeError("stopped: nobody waits for this picture any more")
        return None

    def _send(self, request: Request) -> Reply:
        collector = Collector(request.seconds)
        with self._http.stream(request.method, request.path, **request.options()) as response:
            for chunk in response.iter_bytes():
                collector.add(chunk)
        return collector.reply(response.status_code, response.headers)


class ArchiveRun:
    """A bulk run on the service. It goes on there whatever becomes of this object."""

    def __init__(self, client: Client, id: str) -> None:
        self.id = id
        self._client = client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def status(self) -> RunStatus:
        """How far it is."""
        return self._client._run(self._client._connection.archive(self.id))

    def wait(
        self,
        timeout: float | None = None,
        on_status: Callable[[RunStatus], None] | None = None,
        on_pause: OnPause | None = None,
    ) -> RunStatus:
        """Waits until it is over, and says how it ended. on_status is called now and then with how far it is, on_pause as in
        `submit_archive`.

        Raises RemoteError after `timeout` seconds, of which the first answer has one at least; the run goes on.
        """
        return self._client._run(self._client._connection.wait(self.id, timeout, on_status, on_pause))

    def cancel(self) -> str:
        """Asks for its end; what it has done is kept, and the same run again does the rest.

        The status that it has now: pending or running, until it has ended; of a run that was over already, how it ended.
        """
        return self._client._run(self._client._connection.cancel(self.id))
