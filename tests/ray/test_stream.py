"""The live stream on a local Ray: frames in order, the latest wins, cuts, bad frames, and no more streams than there may be."""

import contextlib
import json
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from colorize.cluster import ClusterInfo
from colorize.imaging.formats.jpeg_luma import luma_identical
from colorize.imaging.picture import read_picture
from tests.models import small_model
from tests.pictures import encoded, grey_scene, jpeg_claiming
from tests.streaming import SECONDS, asked, closed_with, free_port, jpeg, next_seen, numbered, scene, streaming

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from colorize.serve.config import ServeConfig
    from colorize.serve.run import running

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STREAMS = 2
FRAME_BYTES, FRAME_PIXELS = 1 << 18, 200_000


@pytest.fixture(scope="module")
def service(ray_cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    small_model(seed=3, working_size=32).save(path)
    config = ServeConfig(
        model=str(path), max_streams=STREAMS, max_frame_bytes=FRAME_BYTES, max_frame_pixels=FRAME_PIXELS,
        frames_per_second=100.0,
    )  # fmt: skip
    with running(config, port=free_port()) as service:
        yield service.url


def test_frames_come_back_in_color_with_their_luma(service: str) -> None:
    with streaming(service, "?vividness=1") as connection:
        for number, frame in enumerate(numbered(4)):
            seen = asked(connection, frame)
            assert seen.said["frame"] == number
            assert seen.said["ms"] > 0
            assert seen.frame is not None
            assert luma_identical(frame, seen.frame)
            pixels = read_picture(seen.frame).pixels.astype(int)
            assert np.ptp(pixels, axis=-1).mean() > 1, "it has colour"


def test_frames_faster_than_the_service_are_dropped_and_the_last_one_is_not(service: str) -> None:
    count = 120
    frame, last = jpeg(scene("coffee")), jpeg(grey_scene(60, 88))
    with streaming(service) as connection:
        for _ in range(count - 1):
            connection.send(frame)
        connection.send(last)
        seen = [next_seen(connection)]
        while seen[-1].said["frame"] < count - 1:
            seen.append(next_seen(connection))
    numbers = [one.said["frame"] for one in seen]
    assert numbers == sorted(set(numbers)), "in order, each once"
    assert len(numbers) < count
    assert seen[-1].said["dropped"] == count - len(numbers)
    assert seen[-1].frame is not None
    assert luma_identical(last, seen[-1].frame)


def test_a_cut_is_told_and_leaves_no_old_color_behind(service: str) -> None:
    first, second = jpeg(scene("astronaut")), jpeg(scene("coffee"))
    with streaming(service, "?vividness=1") as connection:
        before = [asked(connection, first) for _ in range(4)]
        after = [asked(connection, second) for _ in range(2)]
    with streaming(service, "?vividness=1") as connection:
        alone = asked(connection, second)
    assert [one.said["cut"] for one in (*before, *after)] == [True, False, False, False, True, False]
    assert alone.said["cut"]
    difference = np.abs(*[np.subtract(*(read_picture(one.frame or b"").pixels.astype(int) for one in (after[0], alone)))])
    assert difference.mean() < 0.5, "but for the rounding of bfloat16 in other batches"


def test_a_bad_frame_is_told_and_the_stream_goes_on(service: str) -> None:
    good = numbered(1)[0]
    bad: dict[bytes | str, str] = {
        b"": "not a JPEG",
        b"hello": "not a JPEG",
        encoded(grey_scene(), "PNG"): "not a JPEG",
        good[: len(good) // 2]: "damaged JPEG",
        good[:10]: "damaged JPEG",
        jpeg_claiming(20_000, 20_000): "pixels",
        jpeg(grey_scene(500, 500)): "500×500 pixels; up to 200,000",
        good + bytes(FRAME_BYTES): "262,144 are read",
        "hello": "is text",
    }
    with streaming(service) as connection:
        for number, (frame, reason) in enumerate(bad.items()):
            seen = asked(connection, frame)
            assert set(seen.said) == {"frame", "error"}
            assert seen.said["frame"] == number
            assert reason in seen.said["error"]
        assert asked(connection, good).said["frame"] == len(bad)


def test_more_streams_than_there_may_be_are_refused_until_one_ends(service: str) -> None:
    frame = numbered(1)[0]
    with contextlib.ExitStack() as stack:
        for _ in range(STREAMS):
            asked(stack.enter_context(streaming(service)), frame)
        with streaming(service) as one_too_many:
            assert f"{STREAMS} live streams" in json.loads(one_too_many.recv(SECONDS))["error"]
            assert closed_with(one_too_many) == 1013
    deadline = time.monotonic() + SECONDS
    while True:  # its place is free a moment after the other's end
        with streaming(service) as connection:
            if "frame" in asked(connection, frame).said:
                break
        assert time.monotonic() < deadline
