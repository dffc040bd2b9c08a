"""The live stream without Ray, over real sockets: what is refused, what ends it, and that streams do not touch one another."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from io import BytesIO

import pytest
import uvicorn
from PIL import Image
from websockets.exceptions import ConnectionClosed

from colorize.imaging.formats.jpeg_luma import luma_identical
from colorize.serve.api import create_app
from colorize.serve.catalog import Catalog
from colorize.serve.config import ServeConfig
from colorize.serve.desk import Desk
from tests.models import small_model
from tests.pictures import grey_scene
from tests.serving import LocalNetwork
from tests.streaming import SECONDS, asked, closed_with, free_port, jpeg, next_seen, numbered, scene, streaming

IDLE = 4.0


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """Where it is."""
    model, port = small_model(seed=3, working_size=32), free_port()
    config = ServeConfig(stream_idle_seconds=IDLE, frames_per_second=100.0)
    app = create_app(Desk(config, Catalog(model.card, None), LocalNetwork(model)))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_a_frame_that_is_stored_sideways_comes_back_sideways(service: str) -> None:
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
        ("?vividness=1&vividness=0", "vividness: is in the query more than once"),
        ("?model=../secret", "no such model"),
        ("?model=other", "no such model"),
    ],
)
def test_a_stream_that_may_not_be_is_told_why_and_closed(service: str, query: str, reason: str) -> None:
    with streaming(service, query) as connection:
        said = json.loads(connection.recv(SECONDS))
        assert list(said) == ["error"]
        assert reason in said["error"]
        assert closed_with(connection) == 1008


def test_streams_side_by_side_keep_their_own_frames_and_colors(service: str) -> None:
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


def test_a_stream_without_frames_ends(service: str) -> None:
    with streaming(service) as connection:
        assert asked(connection, numbered(1)[0]).said["frame"] == 0
        assert "no frame came for 4 s" in json.loads(connection.recv(SECONDS))["error"]
        assert closed_with(connection) == 1008


def test_a_flood_ends_the_stream(service: str) -> None:
    with streaming(service, max_queue=None) as connection:  # what it is told meanwhile waits here, and not before the end of the stream
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200_000):  # 1,000 a second may come, and 1,000 at once
                connection.send(b"no")
        said = []
        with contextlib.suppress(ConnectionClosed):
            for text in connection:
                said.append(json.loads(text))
    assert said[-1] == {"error": "more than 1000 frames a second came"}
    assert connection.close_code == 1008
