"""What a client sends, before it is decoded: the body within its limit, the size it claims, and how many pixels are held at a time.

Knows nothing of Ray or of decoding. The header is looked at here because two answers depend on it before any pixel exists: a picture
that is too large is 413 and no damage (422), and decoding waits until its pixels fit into memory beside those already there.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from colorize.imaging.guard import MAX_PIXELS

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0…SOF15; the others there define tables
_BARE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}  # no length follows


class Refusal(Exception):  # noqa: N818 - an answer to a client, and no failure of this program
    """A request that is answered with an error status and one line that says why."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, reason, headers)
        self.status = status
        self.reason = reason
        self.headers = headers


async def read_body(chunks: AsyncIterator[bytes], declared: str | None, limit: int) -> bytes:
    """The body, of which at most `limit` bytes are kept. declared: the Content-Length header.

    Raises Refusal 413 where it is too large; where the header says more than twice the limit, before anything is read. A smaller excess
    is read and dropped, because a client that sends first and listens afterwards would see a closed connection and no reason.
    """
    too_large = Refusal(413, f"the picture: is too large; files of up to {limit:,} bytes are read")
    if declared is not None and declared.isdecimal() and int(declared) > 2 * limit:
        raise too_large
    body, size = bytearray(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size <= limit:
            body += chunk
        elif size <= 2 * limit:
            body.clear()
        else:
            break
    if size > limit:
        raise too_large
    return bytes(body)


def is_supported(body: bytes) -> bool:
    """Whether the body begins as a JPEG or a PNG does."""
    return body.startswith((_JPEG_SIGNATURE, _PNG_SIGNATURE))


def claimed_pixels(body: bytes) -> int:
    """Width × height as the header has them; 0 where there is none to decode.

    A JPEG whose frame header is not where it should be counts as MAX_PIXELS: decoders search further than this function does.
    """
    if body.startswith(_PNG_SIGNATURE):
        if len(body) < 24:
            return 0
        width, height = struct.unpack_from(">II", body, 16)
        return int(width * height)
    if not body.startswith(_JPEG_SIGNATURE):
        return 0
    position = 2
    while position + 9 <= len(body) and body[position] == 0xFF:
        marker = body[position + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", body, position + 5)
            return int(width * height)
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        else:
            position += 2 + int.from_bytes(body[position + 2 : position + 4])
    return MAX_PIXELS


class PixelBudget:
    """At most `limit` pixels are held at a time, first come, first served; a large picture is not passed by small ones for ever.

    The pixels of a picture take about 10 bytes each while it is coloured: its own, its lightness, its result.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        """Waits until `pixels`, at most the limit, are free, and holds them for the block."""
        async with self._turn:
            while self._free < pixels:
                self._returned.clear()
                await self._returned.wait()
            self._free -= pixels
        try:
            yield
        finally:
            self._free += pixels
            self._returned.set()
