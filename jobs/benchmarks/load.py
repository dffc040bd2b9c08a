"""Load for the service: HTTP over kept connections and frames over a web socket, from one asyncio process that does as little as it can.

Knows nothing of pictures and nothing of Ray. No HTTP library: its parsing would take time from the same two cores that are measured. An
answer is a head, a length and that many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

RETRIED = (429, 503)
"""What a client asks again about, as Retry-After says."""

_LOST = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer to one picture."""

    status: int
    """0: the connection was lost."""
    batch_size: int
    headers: bytes


@dataclass(kw_only=True)
class Answers:
    """What came of a load."""

    seconds: float = 0
    """How long it lasted."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of the pictures that were coloured, from when each was due."""
    statuses: Counter[int] = field(default_factory=Counter)
    batch_sizes: list[int] = field(default_factory=list)
    """The batch that each picture was in."""
    models: Counter[bytes] = field(default_factory=Counter)
    """Answers by the digest of the model that gave them."""

    @property
    def per_second(self) -> float:
        """Pictures coloured a second."""
        return self.statuses[200] / self.seconds

    @property
    def mean_batch_size(self) -> float:
        """Pictures a batch: a batch of n pictures is counted n times, by an n-th each."""
        return len(self.batch_sizes) / sum(1 / size for size in self.batch_sizes)

    @property
    def failed(self) -> int:
        """Answers that are neither a picture nor `try again`."""
        return sum(count for status, count in self.statuses.items() if status not in (200, *RETRIED))

    def add(self, reply: Reply, latency: float) -> None:
        """One more."""
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.latencies.append(latency)
            self.batch_sizes.append(reply.batch_size)
            self.models[value_of(reply.headers, b"x-colorize-model-sha256")] += 1


class Connection:
    """One kept connection, made anew when it is lost."""

    def __init__(self, url: str) -> None:
        """url: of the service, with path and query."""
        parts = urlsplit(url)
        assert parts.hostname is not None, f"{url} has no host"
        self._address = parts.hostname, parts.port or 80
        self._head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: ".encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> Reply:
        """The answer to one picture."""
        try:
            if self._streams is not None and self._streams[0].at_eof():  # closed by the service, for nothing was asked for a while
                await self.close()
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            writer.write(b"%b%d\r\n\r\n" % (self._head, len(body)) + body)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(value_of(headers, b"content-length") or 0))
        except _LOST:
            await self.close()
            return Reply(status=0, batch_size=1, headers=b"")
        if value_of(headers, b"connection") == b"close":
            await self.close()
        return Reply(status=int(headers[9:12]), batch_size=int(value_of(headers, b"x-colorize-batch-size") or 1), headers=headers)

    async def close(self) -> None:
        """Ends it; the next picture opens another."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(*_LOST):
                await writer.wait_closed()


def value_of(headers: bytes, name: bytes) -> bytes:
    """Of a header, in lower case; empty where there is none."""
    return headers.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


async def by_clients(url: str, bodies: Sequence[bytes], clients: int, seconds: float, *, retries: int = 0) -> Answers:
    """Clients that send their next picture when they have the last one's answer. retries: how often each asks again when told to."""
    answers, began = Answers(), time.perf_counter()

    async def client(number: int) -> None:
        connection = Connection(url)
        while time.perf_counter() - began < seconds:
            number += clients
            asked = time.perf_counter()
            reply = await connection.post(bodies[number % len(bodies)])
            for _ in range(retries):
                if reply.status not in (0, *RETRIED):
                    break
                await asyncio.sleep(float(value_of(reply.headers, b"retry-after") or 1))
                reply = await connection.post(bodies[number % len(bodies)])
            answers.add(reply, time.perf_counter() - asked)
        await connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    answers.seconds = time.perf_counter() - began
    return answers


async def at_rate(url: str, bodies: Sequence[bytes], per_second: float, seconds: float) -> Answers:
    """So many pictures a second, evenly, whatever becomes of them. A latency counts from when its picture was due."""
    answers, began = Answers(), time.perf_counter()
    idle: list[Connection] = []

    async def one(number: int, due: float) -> None:
        connection = idle.pop() if idle else Connection(url)
        reply = await connection.post(bodies[number % len(bodies)])
        answers.add(reply, time.perf_counter() - due)
        idle.append(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(round(per_second * seconds)):
            due = began + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(number, due))
    for connection in idle:
        await connection.close()
    answers.seconds = time.perf_counter() - began
    return answers


async def camera(url: str, frames: Sequence[bytes], per_second: float, seconds: float) -> tuple[float, list[float]]:
    """Frames coloured a second, and the delay of each in seconds, of a camera that sends `per_second`. The first second is not counted."""
    sent: dict[int, float] = {}
    came: list[tuple[float, float]] = []
    async with connect(url, max_size=None, compression=None) as socket:

        async def send() -> None:
            began = time.perf_counter()
            for number in range(round(per_second * seconds)):
                await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                sent[number] = time.perf_counter()
                await socket.send(frames[number % len(frames)])

        sending = asyncio.create_task(send())
        last = round(per_second * seconds) - 1
        while True:
            about = json.loads(await socket.recv())
            assert "error" not in about, about
            await socket.recv()
            came.append((time.perf_counter(), time.perf_counter() - sent[about["frame"]]))
            if about["frame"] == last:
                break
        await sending
    counted = [(when, delay) for when, delay in came if when - came[0][0] >= 1]
    return (len(counted) - 1) / (counted[-1][0] - counted[0][0]), [delay for _, delay in counted]
