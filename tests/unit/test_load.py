"""The benchmark's load: what it sends, what it counts, and that it counts what is lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from jobs.benchmarks.load import Answers, Connection, Reply, at_rate, by_clients

OK = b"HTTP/1.1 200 OK\r\nX-Colorize-Batch-Size: 4\r\nX-Colorize-Model-SHA256: abc\r\nContent-Length: 5\r\n\r\nhello"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\nno"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
LEAVING = OK.replace(b"hello", b"later")
"""After which the server closes the connection, as it does with those that ask nothing for a while."""
LOST = b""


def against(replies: list[bytes], work: Callable[[str], Awaitable[Answers]]) -> tuple[Answers, list[bytes]]:
    """What `work` makes of a server that gives these answers, the last one over and over; and the bodies that it got."""
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                assert head[0] == "POST /v1/colorize?vividness=0.5 HTTP/1.1"
                length = next(int(line.split(": ")[1]) for line in head if line.startswith("Content-Length"))
                bodies.append(await reader.readexactly(length))
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                writer.write(reply)
                if reply in (LOST, CLOSING, LEAVING):
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()
        await writer.wait_closed()

    async def run() -> Answers:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            return await work(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/colorize?vividness=0.5")

    return asyncio.run(run()), bodies


def test_the_mean_batch_is_that_of_batches_and_not_of_pictures() -> None:
    answers = Answers()
    for size in (1, 3, 3, 3):
        answers.add(Reply(status=200, batch_size=size, headers=b""), 0.1)
    assert answers.mean_batch_size == pytest.approx(2)


def test_clients_send_one_picture_after_the_other() -> None:
    answers, bodies = against([OK], lambda url: by_clients(url, [b"one", b"two!"], 3, 0.2))
    assert set(answers.statuses) == {200}
    assert answers.statuses.total() == len(answers.latencies) == len(bodies)
    assert set(bodies) == {b"one", b"two!"}
    assert set(answers.batch_sizes) == {4}
    assert answers.models.keys() == {b"abc"}
    assert answers.per_second == pytest.approx(len(bodies) / answers.seconds)


def test_what_is_refused_or_lost_is_asked_again_only_by_who_retries() -> None:
    patient, _ = against([FULL, LOST, CLOSING, OK], lambda url: by_clients(url, [b"one"], 1, 0.05, retries=3))
    assert set(patient.statuses) == {200}
    hasty, _ = against([FULL, LOST, OK], lambda url: by_clients(url, [b"one"], 1, 0.05))
    assert hasty.statuses[503] == hasty.statuses[0] == 1
    assert hasty.failed == 1, "a lost connection is a failure, a refusal is none"


def test_a_connection_that_was_closed_while_idle_is_made_anew() -> None:
    async def twice(url: str) -> Answers:
        answers, connection = Answers(), Connection(url)
        for _ in range(2):
            answers.add(await connection.post(b"one"), 0.1)
            await asyncio.sleep(0.1)
        await connection.close()
        return answers

    answers, _ = against([LEAVING, OK], twice)
    assert answers.statuses == {200: 2}


def test_a_rate_does_not_wait_for_answers() -> None:
    answers, bodies = against([FULL, OK], lambda url: at_rate(url, [b"one"], 100, 0.3))
    assert len(bodies) == 30
    assert answers.statuses == {200: 29, 503: 1}
    assert len(answers.latencies) == 29
