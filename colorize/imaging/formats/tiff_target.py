"""A TIFF file that is written: pixels first, directories last. Knows nothing of pixels and of what tags mean.

Directories come at the end, when the file's size is known: it becomes BigTIFF where it must, and only then, although the pixels were
written before. Nothing is added, no time and no program's name, so that the same input gives the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from colorize.imaging.formats.tiff_directory import NUMBER_TYPES, TYPE_SIZES, Directory, Source, Tag

_COPIED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class NewTag:
    """A tag to be written: its value as bytes, as numbers of 32 bits or more, as what the source has, or the directories it points to."""

    code: int
    type: int
    value: bytes | npt.NDArray[np.uint64] | Tag | tuple[NewDirectory, ...]


@dataclass(frozen=True, slots=True)
class NewDirectory:
    """Tags to be written, in any order."""

    tags: tuple[NewTag, ...]


def copied(directory: Directory) -> NewDirectory:
    """A directory as it is, with those below it."""
    return NewDirectory(tuple(copied_tag(tag) for tag in directory.tags))


def copied_tag(tag: Tag) -> NewTag:
    """A tag as it is, with the directories below it."""
    return NewTag(tag.code, tag.type, tuple(copied(child) for child in tag.children) if tag.children else tag)


class Target:
    """The file: what is appended is written at once, and `finish` makes a TIFF file of it."""

    def __init__(self, file: BinaryIO, source: Source, big: bool) -> None:
        """`source` gives the byte order and what is copied; `big` asks for BigTIFF whatever the size."""
        self._file = file
        self._source = source
        self._order = source.order
        self._big = big
        self._end = 0
        self.append(bytes(16))  # the header of BigTIFF, or that of a small TIFF and 8 bytes that nobody reads

    def append(self, data: bytes, align: bool = True) -> int:
        """Writes bytes at the end of the file; returns where they begin, which is even where `align` asks for it."""
        if align and self._end % 2:
            self._file.write(b"\0")
            self._end += 1
        start = self._end
        self._file.write(data)
        self._end += len(data)
        return start

    def copy(self, offset: int, size: int) -> int:
        """Appends bytes of the source, a part at a time."""
        part = min(size, _COPIED_AT_ONCE)
        start = self.append(self._source.read(offset, part))
        while part < size:
            more = min(size - part, _COPIED_AT_ONCE)
            self._file.write(self._source.read(offset + part, more))
            self._end += more
            part += more
        return start

    def finish(self, chain: tuple[NewDirectory, ...]) -> None:
        """Writes the directories and the header."""
        self._big = self._big or self._end + sum(map(_weight, chain)) >= 1 << 32
        first = self._chain(chain)
        self._file.seek(0)
        mark = b"II" if self._order == "<" else b"MM"
        self._file.write(mark + struct.pack(self._order + ("HHHQ" if self._big else "HI"), *((43, 8, 0) if self._big else (42,)), first))
        self._file.seek(self._end)

    def _chain(self, chain: tuple[NewDirectory, ...]) -> int:
        starts = []
        link = 0
        for directory in chain:
            start, next_link = self._directory(directory)
            starts.append(start)
            if link:
                self._file.seek(link)
                self._file.write(self._word(start))
                self._file.seek(self._end)
            link = next_link
        return starts[0]

    def _directory(self, directory: NewDirectory) -> tuple[int, int]:
        """Where it begins, and where its link to the next one is, which is 0 as yet."""
        inline = 8 if self._big else 4
        entries = []
        for tag in sorted(directory.tags, key=lambda tag: tag.code):
            kind, size, value = self._value(tag)
            if isinstance(value, bytes) and size <= inline:
                field = value.ljust(inline, b"\0")
            else:
                field = self._word(self.append(value) if isinstance(value, bytes) else self.copy(value.offset, size))
            entries.append(struct.pack(self._order + ("HHQ" if self._big else "HHI"), tag.code, kind, size // TYPE_SIZES[kind]) + field)
        head = struct.pack(self._order + ("Q" if self._big else "H"), len(entries))
        table = head + b"".join(entries)
        start = self.append(table + self._word(0))
        return start, start + len(table)

    def _value(self, tag: NewTag) -> tuple[int, int, bytes | Tag]:
        """A tag's type, its size in bytes, and its value or where the source has it."""
        if isinstance(tag.value, tuple):
            offsets = np.array([self._chain((child,)) for child in tag.value], np.uint64)
            kind = {4: 16, 13: 18}.get(tag.type, tag.type) if self._big else tag.type
            return kind, len(offsets) * TYPE_SIZES[kind], self._packed(offsets, kind)
        if isinstance(tag.value, Tag):
            is_short = tag.value.size <= 8
            return tag.type, tag.value.size, self._source.value(tag.value) if is_short else tag.value
        if isinstance(tag.value, bytes):
            return tag.type, len(tag.value), tag.value
        kind = 16 if int(tag.value.max()) >= 1 << 32 else 4
        return kind, len(tag.value) * TYPE_SIZES[kind], self._packed(tag.value, kind)

    def _packed(self, numbers: npt.NDArray[np.uint64], kind: int) -> bytes:
        return numbers.astype(self._order + NUMBER_TYPES[kind]).tobytes()

    def _word(self, number: int) -> bytes:
        return struct.pack(self._order + ("Q" if self._big else "I"), number)


def _weight(directory: NewDirectory) -> int:
    """No fewer bytes than the directory takes, with those below it."""
    total = 32
    for tag in directory.tags:
        if isinstance(tag.value, tuple):
            total += sum(map(_weight, tag.value)) + 8 * len(tag.value)
        elif isinstance(tag.value, Tag):
            total += tag.value.size
        else:
            total += len(tag.value) if isinstance(tag.value, bytes) else 8 * len(tag.value)
        total += 24
    return total
