"""The live stream on a local Ray: frames in order, the latest wins, cuts, bad frames, limits, and nothing that outlives a connection."""

import contextlib
import json
import socket
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from colorize.cluster import ClusterInfo
from colorize.imaging.formats.jpeg_luma import luma_identical
from colorize.imaging.picture import read_picture
from tests.models import small_model
from tests.pictures import encoded, grey_scene, jpeg_claiming

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray Serve 2.60 defines its settings in a way that pydantic deprecates
    from colorize.serve.config import ServeConfig
    from colorize.serve.run import Service, running

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SECONDS, STREAMS, IDLE = 120, 2, 4.0
FRAME_BYTES, FRAME_PIXELS = 1 << 18, 200_000


@dataclass(frozen=True)
class Seen:
    """What the service said of a frame, and the frame."""

    said: dict[str, Any]
    frame: bytes | None


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encoded(pixels, "JPEG", quality=85)


def scene(name: str) -> npt.NDArray[np.uint8]:
    """A grey photograph (240, 320)."""
    return np.array(Image.fromarray(getattr(data, name)()).convert("L").resize((320, 240)))


def numbered(count: int) -> list[bytes]:
    """Frames of different widths, by which they can be told."""
    return [jpeg(grey_scene(60, 80 + 8 * n)) for n in range(count)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def service(ray_cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    small_model(seed=3, working_size=32).save(path)
    config = ServeConfig(
        model=str(path), max_streams=STREAMS, stream_idle_seconds=IDLE, max_frame_bytes=FRAME_BYTES, max_frame_pixels=FRAME_PIXELS,
        frames_per_second=100.0,
    )  # fmt: skip
    with running(config, port=free_port()) as service:
        yield service


@contextlib.contextmanager
def streaming(service: Service, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    url = f"{service.url.replace('http', 'ws')}/v1/stream{query}"
    with connect(url, open_timeout=SECONDS, close_timeout=SECONDS, **options) as connection:
        yield connection


def next_seen(connection: ClientConnection) -> Seen:
    text = connection.recv(SECONDS)
    assert isinstance(text, str)
    assert "\n" not in text
    said = json.loads(text)
    if "error" in said:
        return Seen(said, None)
    assert set(said) == {"frame", "ms", "cut", "dropped"}
    frame = connection.recv(SECONDS)
    assert isinstance(frame, bytes)
    return Seen(said, frame)


def asked(connection: ClientConnection, frame: bytes | str) -> Seen:
    connection.send(frame)
    return next_seen(connection)


def test_frames_come_back_in_color_with_their_luma(service: Service) -> None:
    with streaming(service, "?vividness=1") as connection:
        for number, frame in enumerate(numbered(4)):
            seen = asked(connection, frame)
            assert seen.said["frame"] == number
            assert seen.said["ms"] > 0
            assert seen.frame is not None
            assert luma_identical(frame, seen.frame)
            pixels = read_picture(seen.frame).pixels.astype(int)
            assert np.ptp(pixels, axis=-1).mean() > 1, "it has colour"


def test_frames_faster_than_the_service_are_dropped_and_the_last_one_is_not(service: Service) -> None:
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


def test_a_cut_is_told_and_leaves_no_old_color_behind(service: Service) -> None:
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


def test_a_bad_frame_is_told_and_the_stream_goes_on(service: Service) -> None:
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


def test_a_frame_that_is_stored_sideways_comes_back_sideways(service: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.fromarray(grey_scene(60, 90)).save(buffer, "JPEG", exif=exif)
    with streaming(service) as connection:
        for _ in range(2):
            seen = asked(connection, buffer.getvalue())
            assert seen.frame is not None
            assert luma_identical(buffer.getvalue(), seen.frame)
            assert Image.open(BytesIO(seen.frame)).getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?vividness=2", "vividness '2'"),
        ("?vividness=nan", "vividness 'nan'"),
        ("?vividnes=1", "vividnes '1'"),
        ("?model=../secret", "no such model"),
        ("?model=other", "no such model"),
    ],
)
def test_a_stream_that_may_not_be_is_told_why_and_closed(service: Service, query: str, reason: str) -> None:
    with streaming(service, query) as connection:
        said = json.loads(connection.recv(SECONDS))
        assert list(said) == ["error"]
        assert reason in said["error"]
        assert closed_with(connection) == 1008


def test_more_streams_than_there_may_be_are_refused_until_one_ends(service: Service) -> None:
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


def test_streams_side_by_side_keep_their_own_frames_and_colors(service: Service) -> None:
    first, second = jpeg(scene("astronaut")), jpeg(scene("coffee"))
    with streaming(service) as one, streaming(service) as other:
        for number in range(5):
            one.send(first)
            other.send(second)
            for connection, frame in ((one, first), (other, second)):
                seen = next_seen(connection)
                assert seen.frame is not None
                assert luma_identical(frame, seen.frame)
                assert seen.said["cut"] == (number == 0), "neither sees the other's scene"


def test_a_stream_without_frames_ends(service: Service) -> None:
    with streaming(service) as connection:
        assert asked(connection, numbered(1)[0]).said["frame"] == 0
        assert "no frame came for 4 s" in json.loads(connection.recv(SECONDS))["error"]
        assert closed_with(connection) == 1008


def test_a_flood_ends_the_stream(service: Service) -> None:
    with streaming(service) as connection, contextlib.suppress(ConnectionClosed):
        for _ in range(200_000):  # 1,000 a second may come, and 1,000 at once
            connection.send(b"no")
        raise AssertionError("it was never closed")


def closed_with(connection: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as raised:
        connection.recv(SECONDS)
    return raised.value.rcvd.code if raised.value.rcvd else None
