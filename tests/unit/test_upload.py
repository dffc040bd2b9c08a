"""Uploads before they are decoded: the body's limit, the size that a header claims, and the pixels held at a time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from colorize.imaging.guard import MAX_PIXELS
from colorize.imaging.picture import read_picture
from colorize.serve.config import ServeConfig
from colorize.serve.upload import PixelBudget, Refusal, claimed_pixels, is_supported, read_body
from tests.pictures import encoded, grey_scene, jpeg_claiming, png_header, rgb_scene


class Chunks:
    """A body in pieces that counts how many of them were taken."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += 1
            yield chunk


def read(chunks: Chunks, declared: str | None, limit: int) -> bytes:
    return asyncio.run(read_body(aiter(chunks), declared, limit))


@pytest.mark.parametrize("declared", [None, "10", "not a number"])
def test_a_body_up_to_the_limit_is_read_whole(declared: str | None) -> None:
    assert read(Chunks(b"01234", b"", b"56789"), declared, 10) == b"0123456789"


@pytest.mark.parametrize(("declared", "taken"), [("21", 0), ("1000000000000", 0), ("11", 11), (None, 21), ("5", 21)])
def test_a_body_above_the_limit_is_refused_at_twice_the_limit_or_by_its_header(declared: str | None, taken: int) -> None:
    chunks = Chunks(*[b"x"] * (11 if declared == "11" else 1000))
    with pytest.raises(Refusal) as refused:
        read(chunks, declared, 10)
    assert (refused.value.status, chunks.taken) == (413, taken)
    assert "up to 10 bytes" in refused.value.reason


@given(height=st.integers(1, 70), width=st.integers(1, 70), kind=st.sampled_from(["JPEG", "PNG"]), grey=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_claim_of_a_whole_file_is_its_size(height: int, width: int, kind: str, grey: bool) -> None:
    data = encoded(grey_scene(height, width) if grey else rgb_scene(height, width), kind)
    assert is_supported(data)
    assert claimed_pixels(data) == height * width
    assert read_picture(data).pixels.shape[:2] == (height, width)


def test_a_claim_may_be_a_lie() -> None:
    assert claimed_pixels(jpeg_claiming(60_000, 50_000)) == 3_000_000_000
    assert claimed_pixels(png_header(2**31 - 1, 2**31 - 1)) == (2**31 - 1) ** 2


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_metadata_fill_bytes_and_bare_markers_has_a_size(progressive: bool) -> None:
    data = encoded(rgb_scene(20, 30), "JPEG", exif=b"Exif\0\0" + b"\xff\xc0" * 500, progressive=progressive)
    assert claimed_pixels(data) == 600
    assert claimed_pixels(data[:2] + b"\xff\x01\xff\xff" + data[2:]) == 600


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x89PNG\r\n\x1a\n")
@example(b"\xff\xd8\xff")
def test_any_bytes_have_a_claim(tail: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8\xff\xff\xff\xff"):
        assert claimed_pixels(start + tail) >= 0


def test_a_jpeg_whose_frame_is_hidden_counts_as_the_largest() -> None:
    data = encoded(rgb_scene(20, 30), "JPEG")
    assert claimed_pixels(data[:2] + b"\0garbage" + data[2:]) == 0, "no JPEG by its first bytes"
    first = data.index(b"\xff\xdb")
    assert claimed_pixels(data[:first] + b"\0garbage" + data[first:]) == MAX_PIXELS


def test_pixels_beyond_the_budget_wait_in_order() -> None:
    async def play() -> list[str]:
        budget, events = PixelBudget(10), []

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
        budget = PixelBudget(10)

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
    for wrong in ({"modle": "cifar10"}, {"batch_size": 0}, {"model_cpus": 0}, {"max_body_bytes": -1}, {"model_gpus": -1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ServeConfig.model_validate(wrong)


@given(batch_size=st.integers(1, 100), max_requests=st.integers(1, 500), ingress_replicas=st.integers(1, 5))
def test_a_model_replica_holds_enough_for_full_batches(batch_size: int, max_requests: int, ingress_replicas: int) -> None:
    config = ServeConfig(batch_size=batch_size, max_requests=max_requests, ingress_replicas=ingress_replicas)
    assert config.model_requests >= 2 * batch_size
    assert config.model_requests >= max_requests * ingress_replicas
