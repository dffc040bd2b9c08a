"""Batches that fill while the network is busy."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from colorize.serve.batcher import Batcher


class Network:
    """Doubles numbers, batch by batch, each when it is let go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Semaphore(0)

    async def work(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.go_on.acquire()
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(steps: Callable[[Network, Batcher[int, int]], Awaitable[None]], most: int = 4, wait_seconds: float = 0.0) -> None:
    async def inside() -> None:
        network = Network()
        await asyncio.wait_for(steps(network, Batcher(network.work, most, wait_seconds)), 20)

    asyncio.run(inside())


def test_a_question_alone_is_worked_on_at_once_and_the_next_batch_is_what_came_meanwhile() -> None:
    async def steps(network: Network, batcher: Batcher[int, int]) -> None:
        tasks = [asyncio.create_task(batcher.ask(0))]
        await settled()
        assert network.batches == [[0]]
        for number in range(1, 8):
            tasks.append(asyncio.create_task(batcher.ask(number)))
            await settled()
        assert network.batches == [[0]], "one batch at a time"
        network.go_on.release()
        await settled()
        assert network.batches == [[0], [1, 2, 3, 4]], "in order, four at most"
        network.go_on.release()
        network.go_on.release()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10, 12, 14]
        assert network.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]

    run(steps)


def test_it_starts_again_after_a_pause_and_waits_where_it_is_told_to() -> None:
    async def steps(network: Network, batcher: Batcher[int, int]) -> None:
        for _ in range(2):
            network.go_on.release()
            first = asyncio.create_task(batcher.ask(1))
            await settled()
            assert await asyncio.gather(first, batcher.ask(2)) == [2, 4]
        assert network.batches == [[1, 2], [1, 2]]

    run(steps, wait_seconds=0.05)


def test_a_failure_is_told_to_those_of_its_batch_alone() -> None:
    async def steps(network: Network, batcher: Batcher[int, int]) -> None:
        for _ in range(3):
            network.go_on.release()
        found = await asyncio.gather(*(batcher.ask(number) for number in (1, 13, 2, 3, 4)), return_exceptions=True)
        assert [type(one) for one in found] == [ValueError] * 4 + [int]
        assert await batcher.ask(5) == 10

    run(steps)


def test_a_question_whose_asker_has_gone_is_not_worked_on() -> None:
    async def steps(network: Network, batcher: Batcher[int, int]) -> None:
        tasks = [asyncio.create_task(batcher.ask(number)) for number in range(6)]
        await settled()
        tasks[5].cancel()
        tasks[1].cancel()
        for _ in range(2):
            network.go_on.release()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in found if isinstance(one, int)] == [0, 4, 6, 8]
        assert network.batches == [[0, 1, 2, 3], [4]]
        with pytest.raises(asyncio.CancelledError):
            tasks[5].result()

    run(steps)
