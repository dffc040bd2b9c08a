"""The directories of a TIFF file and the tags in them, read with limits; knows nothing of pixels and of what tags mean.

A tag's value stays in the file as bytes until it is asked for or copied. So whatever an archive put into its files (EXIF and GPS
directories, texts of any encoding, private tags, megabytes of Photoshop resources) can be written again as it was, in the same
byte order, by `tiff_target`, without being understood. This is why tifffile is not used here: it decodes values, skips with a log message
those that it cannot, and its writer has no EXIF and GPS directories.

A damaged file is an error, never a smaller file: every value must lie inside the file, every directory must be reached once on its
way, and all directories and values together may claim twice the file's size and 64 MiB (pages may share a profile; a bomb shares
everything). Tags of a field type that there is not are left out, as TIFF 6.0 asks (page 16), unless pixels may hang on them; a
directory at byte 0 is none.

An EXIF block is a small TIFF too, but no pixels hang on it: `read_first` leaves out what is damaged and gives the rest.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError

Order = Literal["<", ">"]

MAX_PAGES = 10_000
MAX_DIRECTORIES = 4 * MAX_PAGES
"""With EXIF, GPS and interoperability a page has four."""
MAX_TAGS = 4096
"""Of one directory."""
MAX_ALL_TAGS = 500_000
"""Of all of them: each takes 150 bytes of memory and 4 µs, and a directory may be reached on many ways."""
MAX_EXIF_TAGS = 20_000
"""Of an EXIF block, which has some dozens as a rule: a hostile one of 64 KB must not take seconds."""
MAX_DEPTH = 5
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each field type, BigTIFF's included."""
NUMBER_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""NumPy's names of the unsigned field types."""
SUB_IMAGES = 330

_DIRECTORIES = {SUB_IMAGES, 34665, 34853, 40965}  # of images, EXIF, GPS, interoperability
_MATTERING = {*range(254, 533), 34675, *_DIRECTORIES}
"""On these hangs what the pixels are: TIFF 6.0's own, and the profile."""
_SHARED_CLAIM = 64 << 20


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a file that is read."""

    code: int
    type: int
    count: int
    offset: int
    """Where its value begins."""
    children: tuple[Directory, ...] = ()
    """The directories that it points to."""

    @property
    def size(self) -> int:
        """Bytes of its value."""
        return self.count * TYPE_SIZES[self.type]


@dataclass(frozen=True, slots=True)
class Directory:
    """Tags in the file's order; a code may occur more than once, and the first counts."""

    tags: tuple[Tag, ...]

    def find(self, code: int) -> Tag | None:
        return next((tag for tag in self.tags if tag.code == code), None)


class Source:
    """The bytes of a file that is read, at any place. A path is opened for as long as it is in use, and no longer."""

    def __init__(self, file: BinaryIO | Path, name: str) -> None:
        """Raises PictureError where there is no readable regular file."""
        self.name = name
        self.order: Order = "<"
        """The byte order, once the directories are read."""
        self._origin = file
        self._file: BinaryIO | None = None
        try:
            if isinstance(file, Path) and not stat.S_ISREG(file.stat().st_mode):
                raise PictureError(f"{name}: is not a regular file")
            with self.opened():
                assert self._file is not None
                self.size: int = self._file.seek(0, 2)
        except OSError as error:
            raise PictureError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}") from error

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within it the file can be read."""
        if self._file is not None:
            yield
            return
        try:
            self._file = self._origin.open("rb") if isinstance(self._origin, Path) else self._origin
        except OSError as error:
            raise PictureError(f"{self.name}: cannot be read: {(error.strerror or str(error)).lower()}") from error
        try:
            yield
        finally:
            if isinstance(self._origin, Path):
                self._file.close()
            self._file = None

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes. Raises PictureError where the file has fewer."""
        assert self._file is not None, "the file is not open"
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self.damaged(f"it ends after {self.size} bytes, and bytes {offset} to {offset + size} are asked for")
        try:
            self._file.seek(offset)
            parts = [self._file.read(size)]
            missing = size - len(parts[0])
            while missing and parts[-1]:  # an unbuffered file may give less than it has
                parts.append(self._file.read(missing))
                missing -= len(parts[-1])
        except OSError as error:
            raise PictureError(f"{self.name}: cannot be read: {(error.strerror or str(error)).lower()}") from error
        if missing:
            raise self.damaged(f"it has become shorter: {missing} bytes at byte {offset} are missing")
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def value(self, tag: Tag) -> bytes:
        """A tag's value as in the file."""
        return self.read(tag.offset, tag.size)

    def numbers(self, tag: Tag) -> npt.NDArray[np.uint64]:
        """A tag's value as unsigned numbers (n,), n at least 1. Raises PictureError where they are none."""
        if tag.type not in NUMBER_TYPES or tag.count == 0:
            raise self.damaged(f"tag {tag.code} holds no unsigned numbers")
        return np.frombuffer(self.value(tag), self.order + NUMBER_TYPES[tag.type]).astype(np.uint64)

    def damaged(self, what: str, where: str = "") -> PictureError:
        """The error that says so, of a page or of the whole file."""
        return PictureError(f"{self.name}: is a truncated or damaged TIFF: {where}{what}")


@dataclass(frozen=True, slots=True)
class Structure:
    """The directories of a file."""

    big: bool
    """BigTIFF: offsets of 64 bits."""
    chain: tuple[Directory, ...]
    """The main ones, one a page, in their order."""
    claimed: int
    """Bytes of all directories and values together."""


def read_structure(source: Source) -> Structure:
    """All directories of an opened source, whose byte order it sets. Raises PictureError for what is no TIFF file, or a damaged one."""
    return _Reader(source).structure()


def read_first(source: Source) -> Directory:
    """The first directory of an opened source and those below it, without the tags that are damaged; sets the source's byte order.

    Raises PictureError where there is none at all.
    """
    return _LenientReader(source).first()


def check_claim(source: Source, claimed: int) -> None:
    """PictureError where values and pixels together claim far more bytes than the file has."""
    if claimed > 2 * source.size + _SHARED_CLAIM:
        raise source.damaged(f"its directories claim {claimed} bytes of a file that has {source.size}")


class _Reader:
    most_tags = MAX_ALL_TAGS

    def __init__(self, source: Source) -> None:
        header = source.read(0, min(16, source.size))
        if not header:
            raise PictureError(f"{source.name}: is empty (zero bytes)")
        if header[:4] in (b"II*\0", b"II+\0"):
            source.order = "<"
        elif header[:4] in (b"MM\0*", b"MM\0+"):
            source.order = ">"
        else:
            raise PictureError(f"{source.name}: is not a TIFF file")
        order = source.order
        self._source = source
        self._big = b"+" in header[:4]
        if len(header) < (16 if self._big else 8):
            raise source.damaged(f"its header ends after {len(header)} bytes")
        if self._big:
            size, zero, self._first = struct.unpack(order + "HHQ", header[4:16])
            if (size, zero) != (8, 0):
                raise source.damaged(f"its offsets are of {size} bytes")
            self._entry, self._word = struct.Struct(order + "HHQQ"), struct.Struct(order + "Q")
        else:
            (self._first,) = struct.unpack(order + "I", header[4:8])
            self._entry, self._word = struct.Struct(order + "HHII"), struct.Struct(order + "I")
        self._directories = 0
        self._tags = 0
        self._claimed = 0

    def structure(self) -> Structure:
        if self._first == 0:
            raise self._source.damaged("it has no page")
        chain = self._chain(self._first, follow=True, above=frozenset(), limit=MAX_PAGES)
        return Structure(self._big, chain, self._claimed)

    def _chain(
        self, offset: int, follow: bool, above: frozenset[int], known: frozenset[int] = frozenset(), limit: int = MAX_DIRECTORIES
    ) -> tuple[Directory, ...]:
        """The directory at this offset and, with `follow`, those that it leads to, up to one that is `known`."""
        directories: list[Directory] = []
        seen: set[int] = set(above)
        while offset:
            if offset in seen:
                raise self._source.damaged(f"its directories form a loop at byte {offset}")
            if len(directories) == limit:
                raise PictureError(f"{self._source.name}: has more than {limit} pages, which is the limit; split it")
            seen.add(offset)
            directory, offset = self._directory(offset, above | {offset})
            directories.append(directory)
            if not follow or offset in known:
                break
        return tuple(directories)

    def _directory(self, offset: int, above: frozenset[int]) -> tuple[Directory, int]:
        self._directories += 1
        if self._directories > MAX_DIRECTORIES:
            raise self._source.damaged(f"it has more than {MAX_DIRECTORIES} directories")
        if len(above) > MAX_DEPTH:
            raise self._source.damaged(f"its directories are nested more than {MAX_DEPTH} deep")
        source, head = self._source, 8 if self._big else 2
        (count,) = struct.unpack(source.order + ("Q" if self._big else "H"), source.read(offset, head))
        if not 0 < count <= MAX_TAGS:
            raise source.damaged(f"the directory at byte {offset} has {count} tags")
        self._tags += count
        if self._tags > self.most_tags:
            raise source.damaged(f"it has more than {self.most_tags} tags")
        self._claimed += count * self._entry.size
        check_claim(source, self._claimed)
        table = source.read(offset + head, count * self._entry.size + self._word.size)
        tags = []
        for place in range(0, count * self._entry.size, self._entry.size):
            tag = self._tag(table[place : place + self._entry.size], offset + head + place, above)
            if tag is not None:
                tags.append(tag)
        if not tags:
            raise source.damaged(f"the directory at byte {offset} has no tag of a known type")
        return Directory(tuple(tags)), self._word.unpack_from(table, count * self._entry.size)[0]

    def _tag(self, entry: bytes, place: int, above: frozenset[int]) -> Tag | None:
        """The tag of an entry, which is at this place; None for one that is to be left out."""
        source = self._source
        code, kind, number, where = self._entry.unpack(entry)
        if kind not in TYPE_SIZES:
            if code not in _MATTERING:
                return None
            raise source.damaged(f"tag {code} is of type {kind}, which there is not")
        size = number * TYPE_SIZES[kind]
        tag = Tag(code, kind, number, place + len(entry) - self._word.size if size <= self._word.size else where)
        if tag.offset + size > source.size:
            raise source.damaged(f"tag {code} of {size} bytes at byte {tag.offset} lies outside of the file of {source.size} bytes")
        if size > self._word.size:
            self._claimed += size
            check_claim(source, self._claimed)
        return self._with_children(tag, above)

    def _with_children(self, tag: Tag, above: frozenset[int]) -> Tag:
        if tag.code not in _DIRECTORIES and tag.type not in (13, 18):
            return tag
        if tag.count > MAX_PAGES:
            raise self._source.damaged(f"tag {tag.code} points to {tag.count} directories")
        children: list[Directory] = []
        offsets = [offset for offset in self._source.numbers(tag).tolist() if offset]  # some programs write 0 for none
        known = frozenset(offsets)
        for offset in offsets:
            # pages below a page are listed, or linked as pages are, or both
            children += self._chain(offset, follow=tag.code == SUB_IMAGES, above=above, known=known)
        return Tag(tag.code, tag.type, tag.count, tag.offset, tuple(children))


class _LenientReader(_Reader):
    """Of a directory without pixels: what is damaged is left out, with all that is below it."""

    most_tags = MAX_EXIF_TAGS

    def first(self) -> Directory:
        return self._directory(self._first, frozenset({self._first}))[0]

    def _tag(self, entry: bytes, place: int, above: frozenset[int]) -> Tag | None:
        try:
            return super()._tag(entry, place, above)
        except PictureError:
            return None
