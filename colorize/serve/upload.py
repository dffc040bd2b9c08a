"""What a client sends, before it is decoded: the body within its limits of size and time, and how much is held at a time.

Knows nothing of Ray or of decoding. A body is pushed, chunk by chunk, to whoever takes it: a single picture into memory, a batch into a
file without a name.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

RETRY_SECONDS = 1
"""What Retry-After says when the service is full."""


PARAMETER = "parameter"
"""The cause by which a 422 is counted that the picture has no part in."""


class Refusal(Exception):  # noqa: N818 - an answer to a client, and no failure of this program
    """A request that is answered with an error status and one line that says why."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None, cause: str | None = None) -> None:
        """cause: by which it is counted, where that of its status does not say it."""
        super().__init__(status, reason, headers, cause)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.cause = cause


def full(reason: str = "the service is full; try again") -> Refusal:
    """503 with Retry-After."""
    return Refusal(503, reason, {"Retry-After": str(RETRY_SECONDS)})


async def receive(chunks: AsyncIterator[bytes], declared: str | None, limit: int, seconds: float, take: Callable[[bytes], object]) -> None:
    """Gives `take` the body, at most `limit` bytes of it. declared: the Content-Length header.

    Raises Refusal 408 where it takes longer than `seconds`, 413 where it is too large; where the header says more than twice the limit,
    before anything is read. A smaller excess is read and dropped, because a client that sends first and listens afterwards would see a
    closed connection and no reason.
    """
    too_large = Refusal(413, f"the body: is too large; up to {limit:,} bytes are read")
    if declared is not None and declared.isdecimal() and int(declared[:20]) > 2 * limit:
        raise too_large
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                size += len(chunk)
                if size <= limit:
                    take(chunk)
                elif size > 2 * limit:
                    break
    except TimeoutError as error:
        raise Refusal(408, f"the body: did not arrive within {seconds:g} s", {"Connection": "close"}) from error
    if size > limit:
        raise too_large


class HeldBytes:
    """At most `limit` bytes of bodies are in memory, or on the disk, at a time; what does not fit is refused at once."""

    def __init__(self, limit: int) -> None:
        self._free = limit

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """A block that adds bytes as they come; they are given back at its end. Adding raises Refusal 503."""
        held = 0

        def add(size: int) -> None:
            nonlocal held
            if size > self._free:
                raise full("the service holds as many bytes of pictures as it may; try again")
            self._free -= size
            held += size

        try:
            yield add
        finally:
            self._free += held


class Budget:
    """At most `limit` pixels, or bytes, are held at a time, first come, first served; a large picture is not passed by small ones for ever.

    The pixels of a picture take about 10 bytes each while it is coloured: its own, its lightness, its result.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Waits until `amount`, at most the limit, is free, and holds it for the block."""
        async with self._turn:
            while self._free < amount:
                self._returned.clear()
                await self._returned.wait()
            self._free -= amount
        try:
            yield
        finally:
            self._free += amount
            self._returned.set()
