"""Zips in and out: many files in one upload, checked before anything is inflated, and many results in one answer, sent as they come.

Knows nothing of Ray, HTTP or pictures. A zip that comes in may be made to do harm: its directory is measured before it is read, what it
says that it inflates to is limited and then held to, file by file. The zip that goes out is never whole anywhere: each entry is complete
when its header is written, so no reader needs the directory at its end, and memory holds one entry.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from colorize.errors import printable
from colorize.serve.upload import Refusal

MOST_RATIO = 200
"""Of what a file inflates to and what it was deflated to; scans of blank paper come to 100."""

SMALL_BYTES = 1 << 20
"""Files up to this size may have any ratio."""

_END, _END_BYTES, _LONGEST_COMMENT = b"PK\x05\x06", 22, 65535
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_ENTRY_BYTES = 2000
"""Of the directory, for each file that is allowed."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9¹²³]) *(?:\..*)?", re.IGNORECASE)
_FOREIGN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of an upload."""

    name: str
    """As the client called it."""
    size: int
    """Bytes, inflated, by the directory; no more of them are read."""
    reason: str | None
    """Why it is not read; None: it is."""
    entry: zipfile.ZipInfo | None = None


class UploadedZip:
    """The files of a zip."""

    def __init__(self, file: BinaryIO, *, most_files: int, most_bytes: int, most_bytes_each: int) -> None:
        """file: seekable. most_bytes: that all of it may inflate to. most_bytes_each: above, a file is not read.

        Raises Refusal 400 where it is no zip, 413 where it has too many files or inflates to too much.
        """
        _check_directory(file, most_files)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, LookupError, struct.error, NotImplementedError) as error:
            raise Refusal(400, "the zip: is damaged") from error
        # Not by `is_dir`, which before Python 3.12 trips over an entry without a name.
        entries = [entry for entry in self._zip.infolist() if not entry.filename.endswith("/")]
        if len(entries) > most_files:
            raise Refusal(413, f"the zip: has more than {most_files:,} files")
        if sum(entry.file_size for entry in entries) > most_bytes:
            raise Refusal(413, f"the zip: inflates to more than {most_bytes:,} bytes")
        for entry in entries:
            if entry.file_size > SMALL_BYTES and entry.file_size > MOST_RATIO * max(1, entry.compress_size):
                raise Refusal(413, f"the zip: {printable(entry.filename)[:80]}: inflates more than {MOST_RATIO}-fold")
        self.members = [
            Member(name=entry.filename, size=entry.file_size, entry=entry, reason=_reason(entry, most_bytes_each)) for entry in entries
        ]

    def read(self, member: Member) -> bytes:
        """A file's bytes. Raises Refusal 422 where they are damaged."""
        assert member.entry is not None, "of this zip"
        try:
            return self._zip.read(member.entry)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error) as error:
            raise Refusal(422, "is damaged in the zip") from error


def _reason(entry: zipfile.ZipInfo, most_bytes: int) -> str | None:
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by another method than deflate"
    if entry.file_size > most_bytes:
        return f"is too large; files of up to {most_bytes:,} bytes are read"
    return None


def _check_directory(file: BinaryIO, most_files: int) -> None:
    """Refuses a directory that is larger than so many files need: reading it makes an object of each entry, before anyone has counted."""
    size = file.seek(0, io.SEEK_END)
    length = min(size, _END_BYTES + _LONGEST_COMMENT)
    file.seek(size - length)
    tail = file.read(length)
    # Where the reader will look for it: at the very end, or else behind a comment.
    at = length - _END_BYTES if tail[-_END_BYTES:].startswith(_END) and tail.endswith(b"\0\0") else tail.rfind(_END)
    if at < 0 or at + _END_BYTES > length:
        raise Refusal(400, "the zip: is no zip, or ends before its directory")
    if tail[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR):
        raise Refusal(400, "the zip: is of the 64-bit kind, which no upload of this size needs")
    count, directory = struct.unpack_from("<HI", tail, at + 10)
    if count > 2 * most_files or directory > most_files * _ENTRY_BYTES:  # folders are entries too
        raise Refusal(413, f"the zip: has more than {most_files:,} files")


def safe_name(name: str, fallback: str = "picture") -> str:
    """A client's file name as a relative path that no system takes for anything else: no `..`, no drive, no device of Windows."""
    parts = []
    for part in printable(name).replace("\\", "/").split("/"):
        if part := _shortened(_FOREIGN.sub("_", part).strip(" .")):
            parts.append(_shortened(f"_{part}") if _DEVICE.fullmatch(part) else part)
    return "/".join(parts[-8:]) or fallback


def _shortened(part: str) -> str:
    return part if len(part) <= _LONGEST_NAME else part[: _LONGEST_NAME // 2] + part[-_LONGEST_NAME // 2 :]


class Names:
    """Names that are given once each, whatever the case of their letters."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, name: str) -> str:
        """The name, or one like it that has not been given yet: `a.jpg`, then `a (2).jpg`."""
        stem, dot, suffix = name.rpartition(".")
        if not stem or "/" in suffix:
            stem, dot, suffix = name, "", ""
        number, found = 1, name
        while found.casefold() in self._taken:
            number += 1
            found = f"{stem} ({number}){dot}{suffix}"
        self._taken.add(found.casefold())
        return found


class ZipStream:
    """A stored zip, given out in pieces: pictures are compressed already."""

    def __init__(self) -> None:
        self._out = _Outbox()
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes) -> Iterator[bytes]:
        """An entry; the bytes to send now."""
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        self._zip.writestr(entry, data)
        yield from self._out.taken()

    def end(self) -> Iterator[bytes]:
        """The directory, after which nothing comes."""
        self._zip.close()
        yield from self._out.taken()


class _Outbox(io.RawIOBase):
    """A file of which only the end is in memory: the writer goes back to an entry's header, and never further."""

    def __init__(self) -> None:
        self._base, self._position = 0, 0
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET, "the writer knows where it is"
        assert offset >= self._base, "what was sent is gone"
        self._position = offset
        return offset

    def write(self, data: object) -> int:
        view = bytes(memoryview(data))  # type: ignore[arg-type]
        start = self._position - self._base
        self._held[start : start + len(view)] = view
        self._position += len(view)
        return len(view)

    def taken(self) -> Iterator[bytes]:
        """What is held, in pieces."""
        held, self._held = bytes(self._held), bytearray()
        self._base += len(held)
        for start in range(0, len(held), 1 << 18):
            yield held[start : start + (1 << 18)]
