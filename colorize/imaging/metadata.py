"""What a picture file says besides its pixels, as far as it is the same in every container, and a JPEG's segments.

Knows nothing of pixels. EXIF, IPTC and ICC blocks go from file to file as they are; of EXIF only orientation and resolution are read, and
written where a file has no other place for them. A JPEG is stamped by inserting and replacing whole segments before its first scan, so
that entropy-coded data is never touched. Sources: Exif 3.0, IPTC-IIM 4.2, Adobe Photoshop File Formats (image resources).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Literal

from colorize.errors import PictureError
from colorize.imaging.note import Note
from colorize.imaging.xmp import NAMESPACE, adobe_transform_of, grey_profile_of, note_of, provenance_xmp, without_note
from colorize.imaging.xmp_packet import joined_xmp

MAX_SEGMENT = 65_533
"""Bytes of a JPEG segment's content: its length is 16 bits, and counts itself."""

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
MAX_XMP_IN_JPEG = MAX_SEGMENT - len(_XMP)
"""Bytes of the packet that a JPEG's one segment for it holds."""
_ICC = b"ICC_PROFILE\0"
_ICC_PART = MAX_SEGMENT - len(_ICC) - 2
_EXIF = b"Exif\0\0"
_ORIENTATION, _ACROSS, _DOWN, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_EMPTY_EXIF = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_RESOURCE = 0x0404
_IPTC_MARK = b"\x1c"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file says besides its pixels: blocks as its container holds them, without the container's own marks."""

    exif: bytes | None = None
    """EXIF, beginning with its TIFF header (`II*\\0` or `MM\\0*`)."""
    xmp: bytes | None = None
    """The XMP packet."""
    iptc: bytes | None = None
    """The data sets of IPTC-IIM."""
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in pixels an inch."""

    @property
    def orientation(self) -> int:
        """By EXIF, 1…8; 1 where it says nothing or nonsense."""
        return orientation_of(self.exif)


def exif_without_mark(block: bytes | None) -> bytes | None:
    """An EXIF block from its TIFF header on: some programs write a JPEG's mark before it in other formats too. None for an empty one."""
    return None if block is None else block.removeprefix(_EXIF) or None


def orientation_of(exif: bytes | None) -> int:
    """The orientation 1…8 of an EXIF block, with or without `Exif\\0\\0` before it; 1 where it is absent or damaged."""
    if exif is None:
        return 1
    tiff, order, entries = _first_directory(exif)
    for place in entries:
        tag, kind = struct.unpack_from(order + "HH", tiff, place)
        if tag == _ORIENTATION and kind in (3, 4):  # of 16 bits; some programs write 32, and others read them
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, place + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def resolution_of(exif: bytes | None) -> tuple[float, float] | None:
    """Pixels an inch, across and down, by an EXIF block; None where it says nothing of it, or is damaged."""
    if exif is None:
        return None
    tiff, order, entries = _first_directory(exif)
    unit, values = 2, {}
    for place in entries:
        tag, kind, _, value = struct.unpack_from(order + "HHII", tiff, place)
        if tag == _UNIT and kind == 3:
            (unit,) = struct.unpack_from(order + "H", tiff, place + 8)
        elif tag in (_ACROSS, _DOWN) and kind == 5 and value + 8 <= len(tiff):
            above, below = struct.unpack_from(order + "II", tiff, value)
            values[tag] = above / below if below else 0.0
    scale = {2: 1.0, 3: 2.54}.get(unit)
    if scale is None or min(values.get(_ACROSS, 0.0), values.get(_DOWN, 0.0)) <= 0:
        return None
    return values[_ACROSS] * scale, values[_DOWN] * scale


def exif_with(exif: bytes | None, orientation: int | None = None, dpi: tuple[float, float] | None = None) -> bytes:
    """An EXIF block, without `Exif\\0\\0` before it, that says these too; a new one where there is none.

    Its first directory is written anew behind all that was there, so that whatever the block points to stays in its place. A damaged block
    stays as it is.
    """
    tiff, order, entries = _first_directory(exif or _EMPTY_EXIF)
    if not order:
        return tiff
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    after = tiff[start + 2 + 12 * count :][:4].ljust(4, b"\0")  # where the next directory is
    new = {} if orientation is None else {_ORIENTATION: struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, orientation, 0)}
    behind = tiff + bytes(len(tiff) % 2)
    if dpi is not None:
        for tag, value in zip((_ACROSS, _DOWN), dpi, strict=True):
            new[tag] = struct.pack(order + "HHII", tag, 5, 1, len(behind))
            behind += struct.pack(order + "II", *Fraction(value).limit_denominator(100).as_integer_ratio())
        new[_UNIT] = struct.pack(order + "HHIHH", _UNIT, 3, 1, 2, 0)
    kept = [tiff[place : place + 12] for place in entries if struct.unpack_from(order + "H", tiff, place)[0] not in new]
    both = sorted([*kept, *new.values()], key=lambda entry: int(struct.unpack_from(order + "H", entry)[0]))
    directory = struct.pack(order + "H", len(both)) + b"".join(both) + after
    return behind[:4] + struct.pack(order + "I", len(behind)) + behind[8:] + directory


def iptc_of_tag(value: bytes) -> bytes:
    """The data sets of a TIFF's tag 33723. Programs that took them for numbers of 32 bits may have turned every four bytes round."""
    if value[:1] != b"\x1c" and value[3:4] == b"\x1c":
        return b"".join(value[place : place + 4][::-1] for place in range(0, len(value), 4))
    return value


def iptc_among(resources: bytes) -> bytes | None:
    """The data sets of IPTC-IIM among Photoshop's image resources; None where there are none, or what comes before them is damaged.

    As they are where they stand by themselves, as some programs write them in the place of those resources.
    """
    if resources.startswith(_IPTC_MARK):
        return resources
    place = 0
    while place + 12 <= len(resources):
        (kind,) = struct.unpack_from(">H", resources, place + 4)
        start = place + 6 + (resources[place + 6] | 1) + 1  # behind its name, which with its length is even
        if start + 4 > len(resources):
            return None
        (size,) = struct.unpack_from(">I", resources, start)
        if kind == _IPTC_RESOURCE:
            return resources[start + 4 : start + 4 + size] or None
        place = start + 4 + size + size % 2
    return None


def iptc_segments(iptc: bytes) -> bytes:
    """The APP13 segments of a JPEG that hold these data sets, as Photoshop writes them."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    size = MAX_SEGMENT - len(_PHOTOSHOP)
    return b"".join(_segment(0xED, _PHOTOSHOP + resource[start : start + size]) for start in range(0, len(resource), size))


def jpeg_metadata(data: bytes, name: str = "the picture") -> Metadata:
    """What a JPEG's segments say; of XMP in a main packet and an extension, both in one. Raises PictureError where they are damaged."""
    exif = xmp = None
    resources = b""
    extensions: dict[str, list[tuple[int, int, bytes]]] = {}
    dpi: tuple[float, float] | None = None
    for marker, content in _contents(data, name):
        if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, across, down = struct.unpack_from(">BHH", content, 7)
            if unit in (1, 2) and across and down:
                dpi = (across * (1 if unit == 1 else 2.54), down * (1 if unit == 1 else 2.54))
        elif marker == 0xE1 and content.startswith(_EXIF):
            exif = exif or content[len(_EXIF) :]
        elif marker == 0xE1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == 0xE1 and content.startswith(_EXTENDED_XMP) and len(content) >= len(_EXTENDED_XMP) + 40:
            digest, size, where = struct.unpack_from(">32sII", content, len(_EXTENDED_XMP))
            extensions.setdefault(digest.decode("latin-1"), []).append((where, size, content[len(_EXTENDED_XMP) + 40 :]))
        elif marker == 0xED and content.startswith(_PHOTOSHOP):
            resources += content[len(_PHOTOSHOP) :]  # what is too long for a segment goes on in the next
    if xmp is not None and extensions:
        xmp = joined_xmp(xmp, {digest: whole for digest, parts in extensions.items() if (whole := _whole(parts)) is not None})
    return Metadata(exif=exif, xmp=xmp, iptc=iptc_among(resources), icc_profile=_chained_profile(data, name), dpi=dpi)


def stamp_jpeg(data: bytes, note: Note | None, profile: bytes | None, name: str = "the picture", adobe_transform: int = 0) -> bytes:
    """A JPEG with the note in its XMP (None: no note) and `profile` as its ICC profile (None: none); all else is as it was.

    adobe_transform: what the Adobe segment of its grey original names, for the note.

    Extended XMP (packets above 64 KB, in segments of their own) stays as it is: the note goes into the main packet. Equal profiles are
    not written anew. Raises PictureError, beginning with `name`, where the segments are damaged or the note finds no room.
    """
    segments = list(_segments(data, name))
    existing = next((data[start + 4 + len(_XMP) : end] for marker, start, end in segments if _is(data, marker, start, 0xE1, _XMP)), None)
    stamp = b""
    old_profile = _chained_profile(data, name)
    is_new_profile = profile != old_profile
    has_profile = any(_is(data, marker, start, 0xE2, _ICC) for marker, start, _ in segments)  # whose place a new one takes
    if note is not None:
        grey = old_profile if old_profile is not None and is_new_profile and old_profile[16:20] == b"GRAY" else None
        stamp = _segment(0xE1, _XMP + provenance_xmp(existing, note, MAX_XMP_IN_JPEG, name, grey, adobe_transform))
    chain = b"".join(_segment(0xE2, part) for part in _profile_parts(profile, name)) if is_new_profile and profile is not None else b""
    parts, where = [data[:2]], 2
    for marker, start, end in segments:
        parts.append(data[where:start])  # fill bytes, if any
        where = end
        if _is(data, marker, start, 0xE1, _XMP) and stamp:
            parts.append(stamp)
            stamp = b""
            continue
        if _is(data, marker, start, 0xE2, _ICC) and is_new_profile:
            parts.append(chain)
            chain = b""
            continue
        is_leading = marker == 0xE0 or _is(data, marker, start, 0xE1, _EXIF)  # JFIF and EXIF come first
        if not is_leading:
            if existing is None:
                parts.append(stamp)
                stamp = b""
            if not has_profile:
                parts.append(chain)
                chain = b""
        parts.append(data[start:end])
    return b"".join([*parts, data[where:]])


def restored_segments(segments: Sequence[tuple[int, bytes]], name: str) -> tuple[list[tuple[int, bytes]], int]:
    """A coloured JPEG's metadata, (marker, content) each, as those of its grey original: without what `stamp_jpeg` put into them.

    With them what the Adobe segment of that original named, if there is one, for the caller to write.
    A profile of RGB, which no grey file may carry, makes place for the grey one of before, where the note has kept it.
    """
    first = next((content[14:] for kind, content in segments if kind == 0xE2 and content.startswith(_ICC) and content[12:13] == b"\1"), b"")
    is_rgb = first[16:20] == b"RGB "
    packets = [content[len(_XMP) :] for kind, content in segments if kind == 0xE1 and content.startswith(_XMP)]
    grey = grey_profile_of(packets[0]) if packets else None
    chain = [(0xE2, part) for part in _profile_parts(grey, name)] if grey else []
    restored: list[tuple[int, bytes]] = []
    for kind, content in segments:
        if kind == 0xE1 and content.startswith(_XMP):
            before = without_note(content[len(_XMP) :])
            restored += [(kind, _XMP + before)] if before is not None else []
        elif kind == 0xE2 and content.startswith(_ICC) and is_rgb:
            restored += chain
            chain = []
        else:
            restored.append((kind, content))
    return restored, adobe_transform_of(packets[0]) if packets else 0


def read_note(data: bytes) -> Note | None:
    """What a file of any format says of its colours, if this program has coloured it.

    By packet scanning (ISO 16684-1, annex A): a packet stands in every container as it is, with marks around it.
    """
    place = data.find(NAMESPACE.encode())
    while place >= 0:
        for head, tail in ((b"<?xpacket begin", b"<?xpacket end"), (b"<x:xmpmeta", b"</x:xmpmeta>"), (b"<rdf:RDF", b"</rdf:RDF>")):
            start, end = data.rfind(head, 0, place), data.find(tail, place)
            if start >= 0 and end >= 0:
                note = note_of(data[start : end if tail.startswith(b"<?") else end + len(tail)])
                if note is not None:
                    return note
        place = data.find(NAMESPACE.encode(), place + 1)
    return None


def _first_directory(exif: bytes) -> tuple[bytes, Literal["<", ">", ""], range]:
    """The block without `Exif\\0\\0`, its byte order and where the entries of its first directory are; no order where it is damaged."""
    tiff = exif.removeprefix(_EXIF)
    order: Literal["<", ">", ""] = "<" if tiff.startswith(b"II*\0") else ">" if tiff.startswith(b"MM\0*") else ""
    if not order or len(tiff) < 14:
        return tiff, "", range(0)
    (offset,) = struct.unpack_from(order + "I", tiff, 4)
    if offset + 2 > len(tiff):
        return tiff, "", range(0)
    (count,) = struct.unpack_from(order + "H", tiff, offset)
    return tiff, order, range(offset + 2, min(offset + 2 + 12 * count, len(tiff) - 11), 12)


def _is(data: bytes, marker: int, start: int, wanted: int, mark: bytes) -> bool:
    return marker == wanted and data.startswith(mark, start + 4)


def _segments(data: bytes, name: str) -> Iterator[tuple[int, int, int]]:
    """The segments before the first scan, and its header: marker, where it starts (with its marker), where it ends."""
    if not data.startswith(b"\xff\xd8"):
        raise PictureError(f"{name}: is no JPEG")
    place = 2
    while True:
        while data[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        if place + 4 > len(data) or data[place] != 0xFF:
            raise PictureError(f"{name}: is a truncated or damaged JPEG: there is no segment at byte {place}")
        marker, (length,) = data[place + 1], struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        if length < 2 or end > len(data):
            raise PictureError(f"{name}: is a truncated or damaged JPEG: the segment at byte {place} is longer than the file")
        yield marker, place, end
        if marker == 0xDA:
            return
        place = end


def _contents(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    for marker, start, end in _segments(data, name):
        yield marker, data[start + 4 : end]


def _whole(parts: list[tuple[int, int, bytes]]) -> bytes | None:
    """An extension of XMP, put together from its parts (place, size of the whole, bytes); None where one is missing."""
    parts = sorted(parts)
    whole = b"".join(part for _, _, part in parts)
    places = accumulate((len(part) for _, _, part in parts), initial=0)
    is_whole = all(where == place and size == len(whole) for (where, size, _), place in zip(parts, places, strict=False))
    return whole if is_whole else None


def _chained_profile(data: bytes, name: str) -> bytes | None:
    """The ICC profile of the APP2 segments, put together in their order; None where parts are missing."""
    parts = {
        content[12]: content[14:]
        for marker, content in _contents(data, name)
        if marker == 0xE2 and content[:12] == _ICC and len(content) > 14
    }
    if not parts or sorted(parts) != list(range(1, len(parts) + 1)):
        return None
    return b"".join(parts[number] for number in sorted(parts))


def _profile_parts(profile: bytes, name: str) -> list[bytes]:
    """The contents of the APP2 segments that hold a profile."""
    parts = [profile[start : start + _ICC_PART] for start in range(0, len(profile), _ICC_PART)]
    if len(parts) > 255:
        raise PictureError(f"{name}: has an ICC profile of {len(profile)} bytes, more than a JPEG holds")
    return [_ICC + bytes([number, len(parts)]) + part for number, part in enumerate(parts, 1)]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
