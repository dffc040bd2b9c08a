"""`POST /v1/colorize/batch`: many pictures, answered as one zip that is sent as they are done, in the order in which they came.

The upload waits in a file without a name, which the system takes back whatever becomes of this process. A few pictures are worked on at a
time, so that the network sees them together; of the answer, memory holds those few. The pictures of all batches wait for their share of
the bytes that may be held.
"""

import asyncio
import json
import logging
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from colorize.errors import printable
from colorize.serve.bundle import Names, UploadedZip, ZipStream, safe_name
from colorize.serve.codec import Wish
from colorize.serve.desk import Desk, OnDesk
from colorize.serve.form import KIND, FormReader, Part, is_form
from colorize.serve.schema import BINARY, BatchQuery, each_once, errors
from colorize.serve.upload import Refusal, full, receive
from colorize.serve.work import Done, colored

router = APIRouter(tags=["pictures"])

TOGETHER = 8
"""Pictures of one batch that are worked on at a time."""

INFLATED = 4
"""A zip may inflate to this many times `max_batch_bytes`: TIFFs of line art do."""

PATIENCE = 5
"""A batch may take this many times as long to arrive as a picture."""

WRITTEN_BYTES = 1 << 20
"""Of an upload, that are written at a time: in a thread, since a disk that is slow, or has much to write, would hold up all requests."""

_log = logging.getLogger("ray.serve")

_ZIPS = ("application/zip", "application/x-zip-compressed")

_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "The pictures."}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A zip of the pictures in colour, in the order in which they came; its last entry, `manifest.json`, tells of each.",
        "content": {"application/zip": BINARY},
    },
    **errors(400, 404, 408, 413, 415, 422, 503),
}


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A file of the batch."""

    name: str
    """As the client called it."""
    size: int
    """In bytes."""
    reason: str | None
    """Why it is not read; None: it is."""
    read: Callable[[], bytes]
    """Its bytes. Raises Refusal."""


@router.post(
    "/v1/colorize/batch",
    summary="Many pictures in colour",
    operation_id="colorize_batch",
    response_class=StreamingResponse,
    responses=_ANSWERS,
    dependencies=[Depends(each_once)],
    openapi_extra={"requestBody": {"required": True, "content": {KIND: _FORM, "application/zip": BINARY}}},
)
async def colorize_batch(request: Request, query: Annotated[BatchQuery, Query()], desk: OnDesk) -> StreamingResponse:
    """The body is a form with many parts called `file`, or a zip. A file that cannot be coloured is in the manifest and stops no other."""
    await desk.model(query.model)
    with _disk_told():
        return await _begun(request, query, desk)


async def _begun(request: Request, query: BatchQuery, desk: Desk) -> StreamingResponse:
    """The answer to an upload that has arrived, and lies on the disk as long as it is not over."""
    async with AsyncExitStack() as stack:
        stack.enter_context(desk.admitted())
        hold = stack.enter_context(desk.on_disk.hold())
        file = stack.enter_context(tempfile.TemporaryFile(prefix="colorize-"))  # noqa: SIM115 - the stack closes it
        items = await _received(request, desk, file, hold)
        if not items:
            raise Refusal(400, "the batch: has no files")
        if (bucket := request.scope.get("colorize.bucket")) is not None:
            bucket.take(len(items) - 1)
        kept = stack.pop_all()  # for the answer, which outlives this function
    return _Answer(_answer(desk, items, query.wish()), kept)


@contextmanager
def _disk_told() -> Iterator[None]:
    """Raises Refusal 503 where the disk does not take an upload: one that is full has room again when other batches have ended."""
    try:
        yield
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        _log.error("a batch cannot be kept on the disk: %s", cause)
        raise full(f"the service's disk does not take the batch ({cause}); try again") from error


class _Answer(StreamingResponse):
    """A zip that is sent, and what is kept for it until it ends, in whatever way: a generator that was never started has no `finally`."""

    def __init__(self, pieces: AsyncGenerator[bytes], kept: AsyncExitStack) -> None:
        super().__init__(pieces, media_type="application/zip")
        self._pieces, self._kept = pieces, kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._kept:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._pieces.aclose()


async def _received(request: Request, desk: Desk, file: BinaryIO, hold: Callable[[int], None]) -> list[_Item]:
    """The files of the upload, which lies in `file`. hold: is told of its bytes, and may refuse them."""
    config, kind = desk.config, request.headers.get("content-type", "")
    form = None
    if is_form(kind):
        form = FormReader(kind, file, fields=("file",), most=config.max_batch_files)
    elif kind.partition(";")[0].strip().lower() not in _ZIPS:
        raise Refusal(415, "the batch: must be a form with parts called file, or a zip with Content-Type application/zip")
    write: Callable[[bytes], object] = file.write if form is None else form.write
    waiting = bytearray()

    def held(chunk: bytes) -> None:
        hold(len(chunk))
        waiting.extend(chunk)

    async def written() -> None:
        data = bytes(waiting)
        waiting.clear()
        await asyncio.to_thread(write, data)

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk  # `held` has it when this goes on
            if len(waiting) >= WRITTEN_BYTES:
                await written()

    await receive(chunks(), request.headers.get("content-length"), config.max_batch_bytes, PATIENCE * config.upload_seconds, held)
    await written()
    await asyncio.to_thread(file.flush)
    if form is not None:
        return [_part(file, part, _most_bytes(desk)) for part in form.parts()]
    return await asyncio.to_thread(_unzipped, file, desk)


def _most_bytes(desk: Desk) -> int:
    """Of a file: what a picture may have, and no more than may be held."""
    return min(desk.config.max_body_bytes, desk.config.max_held_bytes)


def _part(file: BinaryIO, part: Part, most: int) -> _Item:
    def read() -> bytes:
        file.seek(part.start)
        return file.read(part.size)

    reason = f"is too large; files of up to {most:,} bytes are read" if part.size > most else None
    return _Item(name=part.file_name, size=part.size, reason=reason, read=read)


def _unzipped(file: BinaryIO, desk: Desk) -> list[_Item]:
    config = desk.config
    uploaded = UploadedZip(
        file, most_files=config.max_batch_files, most_bytes=INFLATED * config.max_batch_bytes, most_bytes_each=_most_bytes(desk)
    )
    return [
        _Item(name=member.name, size=member.size, reason=member.reason, read=partial(uploaded.read, member)) for member in uploaded.members
    ]


async def _answer(desk: Desk, items: Sequence[_Item], wish: Wish) -> AsyncGenerator[bytes]:
    """The zip, in pieces."""
    bundle, names, manifest = ZipStream(), Names(), []
    names.unique("manifest.json")
    reading = asyncio.Lock()  # of the upload's file, which has one position
    waiting = iter(items)
    tasks: deque[tuple[_Item, asyncio.Task[Done | str]]] = deque()

    def start_next() -> None:
        if (item := next(waiting, None)) is not None:
            tasks.append((item, asyncio.create_task(_colored(desk, item, wish, reading))))

    try:
        for _ in range(TOGETHER):
            start_next()
        while tasks:
            item, task = tasks[0]
            result = await task
            tasks.popleft()
            start_next()
            row: dict[str, Any] = {
                "file": printable(item.name), "status": "failed", "reason": None, "name": None, "model": None, "mean_confidence": None
            }  # fmt: skip
            if isinstance(result, str):
                row["reason"] = result
            else:
                row |= {"status": "coloured", "model": result.model, "mean_confidence": round(result.mean_confidence, 4)}
                for name, _, data in result.files:
                    given = names.unique(name)
                    row["name"] = row["name"] or given
                    for piece in bundle.add(given, data):
                        yield piece
            manifest.append(row)
        for piece in bundle.add("manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1).encode()):
            yield piece
        for piece in bundle.end():
            yield piece
    finally:
        for _, task in tasks:
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)


async def _colored(desk: Desk, item: _Item, wish: Wish, reading: asyncio.Lock) -> Done | str:
    """A file of the batch in colour, or why not."""
    try:
        if item.reason is not None:
            raise Refusal(422, item.reason)
        async with desk.held_of_batches.hold(item.size):
            async with reading:
                body = await desk.run(item.read)
            return await colored(desk, body, wish, safe_name(item.name, ""))
    except Refusal as refusal:
        desk.meter.failed("in a batch")
        return printable(refusal.reason)
    except Exception:  # noqa: BLE001 - a fault of this program costs one picture, and not those before and after it
        desk.meter.failed("fault")
        _log.exception("a picture of a batch")
        return "the service failed on this picture; its log says why"
