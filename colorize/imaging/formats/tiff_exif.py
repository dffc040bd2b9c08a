"""EXIF as TIFF has it, in tags and directories of its own, and as other formats have it, in a block that is itself a small TIFF.

What goes from one to the other: of the first directory the tags that say what the picture shows and where it comes from, and the EXIF and
GPS directories whole. What does not: orientation and resolution, for which every format has a place of its own; all that describes pixels,
which are stored anew; a block's thumbnail, which is of the old pixels; private tags, of which nobody knows whether they hold places in
their file. A maker note goes over byte for byte; one that does hold such places cannot be moved by anybody.

The values are never decoded: text of any encoding and maker notes stay as they are, and so the byte order stays too. Of a block what is
damaged is left out, and of one that is too large the largest values, which are maker notes as a rule. They are not even read then: a TIFF
may hold as much EXIF as it likes. Sources: TIFF 6.0, Exif 3.0 (4.6), Windows' own tags (XP…), TIFF/EP for the date of the first directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO

import numpy as np

from colorize.errors import PictureError
from colorize.imaging.formats.tiff_directory import SUB_IMAGES, Directory, Source, Tag, read_first
from colorize.imaging.formats.tiff_target import NewDirectory, NewTag, Target

MAX_EXIF = 1 << 20
"""Bytes of EXIF that are taken over, which are held in memory: sixteen times what a JPEG has room for."""

_DESCRIBING = frozenset(
    {
        *(269, 270, 285),  # DocumentName, ImageDescription, PageName
        *(271, 272, 305, 316),  # Make, Model, Software, HostComputer
        *(306, 36867),  # DateTime, DateTimeOriginal
        *(315, 33432),  # Artist, Copyright
        *(18246, 18249),  # Rating, RatingPercent
        *range(40091, 40096),  # XPTitle, XPComment, XPAuthor, XPKeywords, XPSubject
    }
)
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_BELOW: dict[int, tuple[int, ...]] = {_EXIF: (_INTEROPERABILITY,), _GPS: (), _INTEROPERABILITY: ()}
"""The directories that hang below each."""
_POINTER_TYPES = (13, 18)
_SMALL_TYPES = {16: (4, "u8", "u4"), 17: (9, "i8", "i4")}
"""Of BigTIFF: what they become, and NumPy's names of both."""
_OVERHEAD = 100
"""No fewer bytes than a block has besides its values: a header, and at most four directories without their entries."""
_ENTRY = 13
"""Bytes of a tag besides its value, which begins at an even place."""


def exif_block(source: Source, directory: Directory, room: int = MAX_EXIF) -> bytes | None:
    """The EXIF of a page of an opened source, as a block of at most so many bytes; None where it has none."""
    tags = exif_tags(source, directory, room)
    if not tags:
        return None
    buffer = BytesIO()
    Target(buffer, source, big=False).finish((NewDirectory(tags),))
    return buffer.getvalue()


def exif_tags(source: Source, directory: Directory, room: int = MAX_EXIF) -> tuple[NewTag, ...]:
    """The EXIF of a first directory in an opened source, as tags to be written, of at most so many bytes."""
    chosen = _chosen(tag for tag in directory.tags if tag.code in _DESCRIBING or tag.code in (_EXIF, _GPS))
    return _within(source, chosen, _largest_that_fits((tag.size for tag in _values(chosen)), room - _OVERHEAD))


def read_exif(block: bytes, name: str) -> tuple[Source, Directory | None]:
    """An EXIF block as the source of its tags, and its first directory; None where it is damaged from the start."""
    source = Source(BytesIO(block + bytes(4)), name)  # some programs leave out the last directory's link to the next one, which is 0
    try:
        with source.opened():
            return source, read_first(source)
    except PictureError:
        return source, None


def exif_within(block: bytes, room: int, name: str) -> bytes | None:
    """An EXIF block as one of at most so many bytes: as far as it describes, without its largest values. None where nothing is left."""
    source, directory = read_exif(block, name)
    if directory is None:
        return None
    with source.opened():
        return exif_block(source, directory, room)


def _chosen(tags: Iterable[Tag], below: tuple[int, ...] = (_EXIF, _GPS)) -> tuple[NewTag, ...]:
    """These tags, without pointers to other directories than those `below`; of a code that occurs again, the first counts."""
    made: dict[int, NewTag] = {}
    for tag in tags:
        if tag.code in made:
            continue
        if tag.code in below:
            inner = _chosen(tag.children[0].tags, _BELOW[tag.code]) if tag.children else ()
            if inner:
                made[tag.code] = NewTag(tag.code, 4, (NewDirectory(inner),))
        elif tag.size and tag.code not in (SUB_IMAGES, *_BELOW) and tag.type not in _POINTER_TYPES:
            made[tag.code] = NewTag(tag.code, tag.type, tag)
    return tuple(made.values())


def _values(tags: tuple[NewTag, ...]) -> Iterator[Tag]:
    """The values of these tags and of those in the directories below."""
    for tag in tags:
        if isinstance(tag.value, tuple):
            yield from (value for directory in tag.value for value in _values(directory.tags))
        elif isinstance(tag.value, Tag):
            yield tag.value


def _largest_that_fits(sizes: Iterable[int], room: int) -> int:
    """The size of a value up to which all together take no more than `room` bytes."""
    taken = 0
    for size in sorted(sizes):
        taken += size + _ENTRY
        if taken > room:
            return size - 1
    return room


def _within(source: Source, tags: tuple[NewTag, ...], largest: int) -> tuple[NewTag, ...]:
    """The tags whose values are no larger, of the types of a small TIFF, without directories in which nothing is left."""
    made = []
    for tag in tags:
        if isinstance(tag.value, tuple):
            inner = tuple(NewDirectory(left) for directory in tag.value if (left := _within(source, directory.tags, largest)))
            if inner:
                made.append(NewTag(tag.code, tag.type, inner))
        elif isinstance(tag.value, Tag) and tag.value.size <= largest:
            made += _small(source, tag.value)
    return tuple(made)


def _small(source: Source, tag: Tag) -> list[NewTag]:
    """A tag as a small TIFF can have it; none where its numbers are too large for that."""
    if tag.type not in _SMALL_TYPES:
        return [NewTag(tag.code, tag.type, tag)]
    kind, wide, narrow = _SMALL_TYPES[tag.type]
    numbers = np.frombuffer(source.value(tag), source.order + wide)
    small = numbers.astype(source.order + narrow)
    return [NewTag(tag.code, kind, small.tobytes())] if np.array_equal(small, numbers) else []
