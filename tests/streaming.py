"""A live stream's other end: frames to send, and what comes back."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.pictures import encoded, grey_scene

SECONDS = 120
"""Long enough for a machine that has much else to do."""


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


@contextlib.contextmanager
def streaming(address: str, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    url = f"{address.replace('http', 'ws')}/v1/stream{query}"
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


def closed_with(connection: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as raised:
        connection.recv(SECONDS)
    return raised.value.rcvd.code if raised.value.rcvd else None
