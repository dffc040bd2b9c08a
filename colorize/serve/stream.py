"""`WS /v1/stream`: frames of a camera in, the same frames in colour out, in order, as many as the machine can colour.

Each connection has an inbox with one place: a frame that comes while another waits takes its place, so the delay never grows, whatever
a client sends. While one frame is steadied, grafted and sent, the network works on the next. A frame is shown to the network with
VIEW pixels on its short side, together with what other streams ask. Nothing of a connection is kept after its end: its whole memory is
one frame that waits, two that are worked on, and the `Steadier`.

Frames are coloured as every JPEG is: their luma stays bit for bit. What is wrong with a frame is said in a text message, and the stream
goes on; what is wrong with a stream is said in a text message without a number, and the connection ends.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from colorize.errors import PictureError, printable
from colorize.imaging.formats.jpeg import JpegScan
from colorize.model.card import DEFAULT_VIVIDNESS, ModelCard
from colorize.model.coloring import note_of, views
from colorize.model.settings import DecodeSettings
from colorize.model.steady import Steadier
from colorize.serve.catalog import Entry
from colorize.serve.codec import Answer, Question, packed
from colorize.serve.desk import Desk, OnDesk
from colorize.serve.gate import accepted_protocol
from colorize.serve.keys import TokenBucket
from colorize.serve.schema import each_once
from colorize.serve.upload import Refusal

VIEW = 128
"""The short side, in pixels, at which the network sees a frame, where its own working size is not smaller.

A frame takes half the time that it takes at 192, and nothing is lost on the frames of a camera: on the three clips that
`steady` was measured with, CIEDE2000 to the truth is 5.76, 10.03, 6.72 at 128 and 7.32, 12.03, 7.38 at 192, and colours move less.
"""

FLOOD = 10
"""A client that sends more than this many times the frames that may be coloured is no camera."""

POLICY, TRY_AGAIN = 1008, 1013
"""Close codes (RFC 6455 and IANA): what was asked may not be; the service is full."""

_JPEG = b"\xff\xd8\xff"

router = APIRouter()


class StreamQuery(BaseModel):
    """The query of the stream; other parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, max_length=100)
    vividness: float = Field(default=DEFAULT_VIVIDNESS, ge=0, le=1, allow_inf_nan=False)


@router.websocket("/v1/stream")
async def stream(socket: WebSocket, desk: OnDesk) -> None:
    """Frames as binary messages; for each that is coloured a text message about it, and the frame."""
    await socket.accept(subprotocol=accepted_protocol(socket.scope.get("subprotocols", ())))
    try:
        await each_once(socket)
        query = StreamQuery.model_validate(dict(socket.query_params))
        entry = await desk.model(query.model)
    except ValidationError as error:
        first = error.errors()[0]
        await _end(socket, POLICY, f"{'.'.join(map(str, first['loc']))[:40]} {str(first['input'])[:40]!r}: {first['msg'].lower()}")
    except Refusal as refusal:
        await _end(socket, POLICY, refusal.reason)
    else:
        if desk.streams.locked():
            desk.meter.failed("full")
            await _end(socket, TRY_AGAIN, f"the service has {desk.config.max_streams} live streams already; try again later")
            return
        async with desk.streams:
            await Stream(socket, desk, entry, DecodeSettings(vividness=query.vividness)).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A message of the client's."""

    number: int
    """0 is the first; those that are dropped count too."""
    data: bytes | None
    """None: it was text."""
    came: float
    """When, by the monotonic clock."""


class Inbox:
    """A place for one frame: the latest."""

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._came = asyncio.Event()
        self.dropped = 0
        """Frames whose place a later one took."""

    def put(self, frame: Frame) -> None:
        """Takes the place of the frame that waits, if one does."""
        self.dropped += self._frame is not None
        self._frame = frame
        self._came.set()

    async def take(self) -> Frame:
        """The latest frame, once there is one."""
        await self._came.wait()
        self._came.clear()
        frame, self._frame = self._frame, None
        assert frame is not None, "the event is set by a frame"
        return frame


class Stream:
    """One connection: its inbox, its memory of colours, its two tasks."""

    def __init__(self, socket: WebSocket, desk: Desk, entry: Entry, settings: DecodeSettings) -> None:
        self._socket, self._desk, self._entry, self._settings = socket, desk, entry, settings
        self._inbox, self._steadier = Inbox(), Steadier()

    async def run(self) -> None:
        """Until the client goes, or goes too far."""
        receiving, coloring = asyncio.create_task(self._receive()), asyncio.create_task(self._color())
        tasks = (receiving, coloring)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not coloring.cancelled():
            coloring.result()  # it never ends but by a fault of this program
        if (reason := receiving.result()) is not None:
            await _end(self._socket, POLICY, reason)

    async def _receive(self) -> str | None:
        """Why the stream is to end; None: the client has ended it."""
        config = self._desk.config
        allowed = TokenBucket(FLOOD * config.frames_per_second, FLOOD * config.frames_per_second)
        number = 0
        while True:
            try:
                async with asyncio.timeout(config.stream_idle_seconds):
                    message = await self._socket.receive()
            except TimeoutError:
                return f"no frame came for {config.stream_idle_seconds:g} s"
            if message["type"] == "websocket.disconnect":
                return None
            if allowed.seconds_to_wait():
                return f"more than {FLOOD * config.frames_per_second:g} frames a second came"
            allowed.take(1)
            self._inbox.put(Frame(number=number, data=message.get("bytes"), came=time.monotonic()))
            number += 1

    async def _color(self) -> None:
        """Frame after frame: the network has the next one while the last one is painted and sent."""
        painting: asyncio.Task[None] | None = None
        work: Callable[[], Coroutine[Any, Any, None]]
        pause = 1 / self._desk.config.frames_per_second
        try:
            while True:
                frame = await self._inbox.take()
                began = time.monotonic()
                try:
                    work = partial(self._paint, frame, *await self._ask(frame))
                except PictureError as error:
                    work = partial(self._complain, frame, "damaged", str(error))
                except Refusal as refusal:
                    work = partial(self._complain, frame, "full" if refusal.status == 503 else "unknown", refusal.reason)
                if painting is not None:
                    await painting
                painting = asyncio.create_task(work())
                await asyncio.sleep(max(0.0, began + pause - time.monotonic()))
        finally:
            if painting is not None:
                painting.cancel()
                await asyncio.gather(painting, return_exceptions=True)

    async def _ask(self, frame: Frame) -> tuple[JpegScan, Question, Answer]:
        """The frame opened, and what the network says of it. Raises PictureError and Refusal."""
        scan, question = await self._desk.run(self._opened, frame.data)
        return scan, question, await self._desk.ask(question)

    def _opened(self, data: bytes | None) -> tuple[JpegScan, Question]:
        config, card = self._desk.config, self._entry.card
        if data is None:
            raise PictureError("the frame: is text; frames are JPEG files in binary messages")
        if len(data) > config.max_frame_bytes:
            raise PictureError(f"the frame: has {len(data):,} bytes; up to {config.max_frame_bytes:,} are read")
        if not data.startswith(_JPEG):
            raise PictureError("the frame: is not a JPEG")
        scan = JpegScan(data, "the frame")
        (page,) = scan.pages
        if page.width * page.height > config.max_frame_pixels:
            raise PictureError(f"the frame: has {page.width}×{page.height} pixels; up to {config.max_frame_pixels:,} are read")
        size = min(VIEW, card.working_size)
        (L_hw,) = views(scan, replace(card, working_size=size))
        name = None if self._entry.path is None else self._entry.name
        return scan, Question(L16_hw=packed(L_hw), settings=self._settings, model=name, working_size=size)

    async def _paint(self, frame: Frame, scan: JpegScan, question: Question, answer: Answer) -> None:
        """Sends the frame in colour, or says what is wrong with it."""
        card = replace(self._entry.card, name=answer.model, weights_sha256=answer.model_sha256)
        try:
            colored, is_cut = await self._desk.run(self._painted, scan, question, answer, card)
        except PictureError as error:
            await self._complain(frame, "damaged", str(error))
            return
        (page,) = scan.pages
        self._desk.meter.colored(answer.model, page.width * page.height)
        milliseconds = 1000 * (time.monotonic() - frame.came)
        await self._say(frame=frame.number, ms=round(milliseconds, 1), cut=is_cut, dropped=self._inbox.dropped)
        await self._socket.send_bytes(colored)

    def _painted(self, scan: JpegScan, question: Question, answer: Answer, card: ModelCard) -> tuple[bytes, bool]:
        ab_2hw, is_cut = self._steadier.steady(question.lightness(), answer.ab_n2hw[0])
        (page,) = scan.pages
        target = BytesIO()
        scan.write(target, [np.ascontiguousarray(page.as_stored(ab_2hw))], note_of(card, self._settings))
        return target.getvalue(), is_cut

    async def _complain(self, frame: Frame, cause: str, reason: str) -> None:
        self._desk.meter.failed(cause)
        await self._say(frame=frame.number, error=printable(reason))

    async def _say(self, **about: Any) -> None:
        await self._socket.send_text(json.dumps(about, ensure_ascii=False))


async def _end(socket: WebSocket, code: int, reason: str) -> None:
    await socket.send_text(json.dumps({"error": printable(reason)}, ensure_ascii=False))
    await socket.close(code)
