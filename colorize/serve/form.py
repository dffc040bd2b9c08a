"""multipart/form-data, parsed as it arrives: parts go into one sink, one behind the other; of names only text is kept.

Knows nothing of Ray or pictures. The framework's own parser writes every file above 1 MB to the disk and has no limit on files of its own
that fits: this one has, and a client's file name is never more than a string.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from colorize.errors import printable
from colorize.serve.upload import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

KIND = "multipart/form-data"

_LONGEST_NAME = 1000

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every damaged form, which is its sender's business


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part, and where in the sink it lies."""

    name: str
    """Of the form's field."""
    file_name: str
    """As the client sent it; "" where it did not."""
    start: int
    size: int


def is_form(content_type: str | None) -> bool:
    """Whether a Content-Type header says that the body is a form."""
    return (content_type or "").partition(";")[0].strip().lower() == KIND


class FormReader:
    """Takes a body in chunks and writes its parts into a sink."""

    def __init__(self, content_type: str, sink: BinaryIO, *, fields: tuple[str, ...], most: int) -> None:
        """fields: the names that parts may have. most: parts. Raises Refusal 400 where the header has no boundary."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        self._sink, self._fields, self._most = sink, fields, most
        self._parts: list[Part] = []
        self._headers: dict[str, str] = {}
        self._field, self._value = bytearray(), bytearray()
        self._start = 0
        self._is_whole = False
        if not boundary:
            raise Refusal(400, "the form: its Content-Type has no boundary")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise Refusal(400, "the form: its boundary is too long") from error

    def write(self, chunk: bytes) -> None:
        """The next bytes of the body. Raises Refusal 400 where they are no form, 413 where it has too many parts."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refusal(400, f"the form: is damaged: {' '.join(str(error).split())[:100]}") from error

    def parts(self) -> list[Part]:
        """All parts, in order, once the body has ended. Raises Refusal 400 where the form has not."""
        if not self._is_whole:
            raise Refusal(400, "the form: ends before its last boundary")
        return self._parts

    def _begin(self) -> None:
        self._headers = {}
        self._field.clear()
        self._value.clear()
        self._start = self._sink.tell()
        if len(self._parts) >= self._most:
            raise Refusal(413, f"the form: has more than {self._most:,} parts")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._sink.write(data[start:end])

    def _header(self) -> None:
        # As latin-1, which gives every byte back: names are UTF-8, and are decoded once they are apart.
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._field.clear()
        self._value.clear()

    def _end(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", ""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or name not in self._fields:
            raise Refusal(400, f"the form: has a part {printable(name[:40])!r}; it may have {' and '.join(self._fields)}")
        file_name = options.get(b"filename", b"")[:_LONGEST_NAME].decode("utf-8", "replace")
        self._parts.append(Part(name=name, file_name=file_name, start=self._start, size=self._sink.tell() - self._start))

    def _finish(self) -> None:
        self._is_whole = True
