"""Uploads before they are decoded: the body's limits of size and time, and what is held at a time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from colorize.serve.config import ServeConfig
from colorize.serve.upload import Budget, HeldBytes, Refusal, receive


class Chunks:
    """A body in pieces that counts how many of them were taken."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += 1
            yield chunk


def read(chunks: AsyncIterator[bytes], declared: str | None, limit: int, seconds: float = 60) -> bytes:
    body = bytearray()
    asyncio.run(receive(chunks, declared, limit, seconds, body.extend))
    return bytes(body)


@pytest.mark.parametrize("declared", [None, "10", "not a number"])
def test_a_body_up_to_the_limit_is_read_whole(declared: str | None) -> None:
    assert read(aiter(Chunks(b"01234", b"", b"56789")), declared, 10) == b"0123456789"


@pytest.mark.parametrize(("declared", "taken"), [("21", 0), ("1000000000000", 0), ("9" * 5000, 0), ("11", 11), (None, 21), ("5", 21)])
def test_a_body_above_the_limit_is_refused_at_twice_the_limit_or_by_its_header(declared: str | None, taken: int) -> None:
    chunks = Chunks(*[b"x"] * (11 if declared == "11" else 1000))
    with pytest.raises(Refusal) as refused:
        read(aiter(chunks), declared, 10)
    assert (refused.value.status, chunks.taken) == (413, taken)
    assert "up to 10 bytes" in refused.value.reason


def test_a_body_that_does_not_arrive_is_refused() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield b"0"
        await asyncio.Event().wait()

    with pytest.raises(Refusal) as refused:
        read(trickle(), "10", 10, seconds=0.01)
    assert refused.value.status == 408


def test_bytes_beyond_what_is_held_are_refused_and_given_back() -> None:
    held = HeldBytes(10)
    with held.hold() as add:
        add(6)
        with held.hold() as other:
            other(4)
            with pytest.raises(Refusal) as refused:
                other(1)
        assert refused.value.status == 503
        assert refused.value.headers == {"Retry-After": "1"}
        add(4)
    with held.hold() as add:
        add(10)


def test_pixels_beyond_the_budget_wait_in_order() -> None:
    async def play() -> list[str]:
        budget, events = Budget(10), []

        async def work(name: str, pixels: int, done: asyncio.Event) -> None:
            async with budget.hold(pixels):
                events.append(f"{name} in")
                await done.wait()
            events.append(f"{name} out")

        ends = {name: asyncio.Event() for name in "abcd"}
        tasks = [asyncio.create_task(work(name, pixels, ends[name])) for name, pixels in zip("abcd", (6, 10, 1, 1), strict=True)]
        await asyncio.sleep(0)
        for name in "acbd":  # c is small enough to fit beside a, and yet waits for the large b before it
            ends[name].set()
            for _ in range(10):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return events

    events = asyncio.run(play())
    assert events[:5] == ["a in", "a out", "b in", "b out", "c in"]
    assert set(events[5:]) == {"c out", "d in", "d out"}


def test_pixels_of_a_cancelled_request_are_given_back() -> None:
    async def play() -> None:
        budget = Budget(10)

        async def forever(pixels: int) -> None:
            async with budget.hold(pixels):
                await asyncio.Event().wait()

        holding, waiting = asyncio.create_task(forever(10)), asyncio.create_task(forever(10))
        await asyncio.sleep(0)
        for task in (waiting, holding):
            task.cancel()
        await asyncio.gather(holding, waiting, return_exceptions=True)
        async with budget.hold(10):
            pass

    asyncio.run(asyncio.wait_for(play(), 60))


def test_the_settings_refuse_what_they_do_not_know_and_what_is_out_of_range() -> None:
    for wrong in (
        {"modle": "cifar10"}, {"batch_size": 0}, {"model_cpus": 0}, {"max_body_bytes": -1}, {"model_gpus": -1}, {"models_dir": ""},
        {"archive_roots": ("",)},
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ServeConfig.model_validate(wrong)


@given(batch_size=st.integers(1, 100), max_requests=st.integers(1, 500), ingress_replicas=st.integers(1, 5))
def test_a_model_replica_holds_enough_for_full_batches(batch_size: int, max_requests: int, ingress_replicas: int) -> None:
    config = ServeConfig(batch_size=batch_size, max_requests=max_requests, ingress_replicas=ingress_replicas)
    assert config.model_requests >= 2 * batch_size
    assert config.model_requests >= max_requests * ingress_replicas
