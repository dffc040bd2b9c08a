"""XMP packets: the note of where a picture's colours come from, added to whatever a packet already says, and read again.

Knows nothing of containers. A packet is edited as text, at places that a parser has found, so that all that is not this program's stays
as it was, byte for byte: prefixes, comments, padding. What is added is one rdf:Description: `Iptc4xmpExt:DigitalSourceType`, the IPTC's
term for media enhanced by an algorithm, and in a namespace of this program the model, its SHA-256, the vividness and the program's version.

Nothing that was there is lost: a digital source type that a packet had (a scanned negative, say) is kept as
`colorize:SourceTypeBefore`, and a packet that cannot be parsed goes whole, as base64, into `colorize:UnreadableXMP` of a new one.
`without_note` takes the note out again. Where what it leaves would not be the packet of before byte for byte (a source type was there, the
packet was in UTF-16, or empty), that one is kept, compressed, as `colorize:XMPBefore`.
The parser is expat; a document type declaration is refused, so there are no entities to expand. Sources: ISO 16684-1 (XMP), IPTC
Photo Metadata Standard 2025.1.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from colorize.errors import PictureError
from colorize.imaging.note import Note

NAMESPACE = "urn:colorize:note:1.0/"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
MAX_PACKET_BYTES = 16 << 20
MAX_CUTS = 10_000
"""Places of a packet that say what a note says; real ones have a few, and more make it one that cannot be parsed."""

_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_HEAD = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
_HEAD += f'<rdf:RDF xmlns:rdf="{_RDF}">\n'.encode()
_TAIL = b'</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
_EXTENSION = "http://ns.adobe.com/xmp/note/ HasExtendedXMP"
_OURS = {
    f"{NAMESPACE} {name}"
    for name in (
        *("Model", "ModelSHA256", "Vividness", "Program"),
        *("SourceTypeBefore", "UnreadableXMP", "XMPBefore", "GreyProfile", "AdobeTransform"),
    )
} | {f"{_IPTC} DigitalSourceType"}
_PLACE_OF_PROPERTIES = [f"{_RDF} RDF", f"{_RDF} Description"]  # deeper down are those of ingredients and the like
_KEPT_WHOLE = ("UnreadableXMP", "XMPBefore")
_KEPT = (*_KEPT_WHOLE, "GreyProfile", "AdobeTransform")
_ATTRIBUTES = re.compile(rb"\s+([^\s=]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")  # one after the other: a value may look like one
_PADDING = re.compile(rb"\s{64,}(?=<\?xpacket end=)")


@dataclass
class _Packet:
    """What the parser found in a packet."""

    values: dict[str, str] = field(default_factory=dict)
    """This program's properties and the digital source type: namespace, a space, name → value."""
    cuts: list[tuple[int, int]] = field(default_factory=list)
    """Where they stand, in bytes."""
    about: str = ""
    """What the packet's descriptions are about: all must say the same."""
    end: int = -1
    """Where rdf:RDF ends: the place of what is added."""
    close: bytes = b""
    """What must follow there: the end tag, if rdf:RDF was empty."""


@cache
def _version() -> str:
    """Read once: looking for it among the installed packages takes 8 ms."""
    return version("colorize")


def provenance_xmp(
    xmp: bytes | None,
    note: Note,
    room: int = MAX_PACKET_BYTES,
    name: str = "the picture",
    grey_profile: bytes | None = None,
    adobe_transform: int = 0,
) -> bytes:
    """The packet `xmp`, UTF-8, with the note in place of what it said of this program before; a new packet where there is none.

    grey_profile: the ICC profile that has to go, which the note keeps. It and padding are given up, if need be, for `room` bytes in all.
    adobe_transform: what a grey JPEG's Adobe segment said that it does not say in colour, which the note keeps too.
    Raises PictureError, beginning with `name`, where that is not enough.
    """
    properties = {"Model": note.model, "ModelSHA256": note.model_sha256, "Vividness": repr(float(note.vividness))}
    properties["Program"] = f"colorize {_version()}"
    if adobe_transform:
        properties["AdobeTransform"] = str(adobe_transform)
    text: bytes | None = None
    packet: _Packet | None = None
    has_note = False
    if xmp is not None and xmp.strip(b"\0 \r\n\t"):
        text = _as_utf8(xmp)
        packet = _parse(text)
        if packet is None:
            properties["UnreadableXMP"] = base64.b64encode(xmp).decode("ascii")
        else:
            before = packet.values.get(f"{_IPTC} DigitalSourceType", SOURCE_TYPE)
            if before == SOURCE_TYPE:
                before = packet.values.get(f"{NAMESPACE} SourceTypeBefore", "")
            if before:
                properties["SourceTypeBefore"] = before
            kept = {one: packet.values[f"{NAMESPACE} {one}"] for one in _KEPT if f"{NAMESPACE} {one}" in packet.values}
            properties |= kept
            has_note = f"{NAMESPACE} Model" in packet.values
    if grey_profile is not None:
        with_profile = properties | {"GreyProfile": _encoded(grey_profile)}
        properties = with_profile if len(_made(text, packet, with_profile, room)) <= room else properties
    made = _made(text, packet, properties, room)
    if packet is not None and xmp is not None and not has_note and without_note(made) != xmp:
        whole = properties | {"XMPBefore": _encoded(xmp)}
        longer = _made(text, packet, whole, room)
        made = longer if len(longer) <= room else made
    if len(made) > room:
        least = f"{len(made)} bytes of {room}"
        raise PictureError(f"{name}: has XMP metadata that leaves no room for a note on its colours ({least}): take some out of it")
    return made


def without_note(xmp: bytes) -> bytes | None:
    """What the packet was before `provenance_xmp`, without what it added; None where there was none. Without a note, the same.

    What another program has put into the packet since stays.
    """
    text = _as_utf8(xmp)
    packet = _parse(text)
    if packet is None or f"{NAMESPACE} Model" not in packet.values:
        return xmp
    left = _edited(text, packet, b"")
    for name in _KEPT_WHOLE:
        before = _decoded(packet.values.get(f"{NAMESPACE} {name}", ""), is_compressed=name == "XMPBefore")
        if before is not None and _PADDING.sub(b"\n", left) == _PADDING.sub(b"\n", _bare(before)):
            return before
    if left == _HEAD + _TAIL:
        return None
    source_type = packet.values.get(f"{NAMESPACE} SourceTypeBefore")
    now = _parse(left) if source_type else None
    if source_type and now is not None:
        about, kind = quoteattr(now.about), quoteattr(_allowed(source_type))
        named = f"xmlns:rdf={quoteattr(_RDF)} xmlns:Iptc4xmpExt={quoteattr(_IPTC)}"
        left = _edited(left, now, f"<rdf:Description rdf:about={about} {named} Iptc4xmpExt:DigitalSourceType={kind}/>\n".encode())
    return left


def joined_xmp(xmp: bytes, extensions: Mapping[str, bytes]) -> bytes:
    """A JPEG's packet with what is in that one of its extensions (by their digests) which it names, and without that name.

    As it is where it names none of them, or one of both cannot be parsed. Source: XMP specification, part 3, section 1.1.3.1.
    """
    text = _as_utf8(xmp)
    packet = _parse(text, {_EXTENSION})
    extension = None if packet is None else extensions.get(packet.values.get(_EXTENSION, ""))
    added = None if extension is None else _descriptions(_as_utf8(extension))
    return xmp if packet is None or added is None else _edited(text, packet, added)


def grey_profile_of(xmp: bytes) -> bytes | None:
    """The grey ICC profile that a coloured file had before, if the note has kept it."""
    packet = _parse(_as_utf8(xmp))
    return None if packet is None else _decoded(packet.values.get(f"{NAMESPACE} GreyProfile", ""), is_compressed=True)


def adobe_transform_of(xmp: bytes) -> int:
    """The colour transform 0…255 that the Adobe segment of a grey JPEG named before it was coloured; 0 where the note has kept none."""
    packet = _parse(_as_utf8(xmp))
    kept = "" if packet is None else packet.values.get(f"{NAMESPACE} AdobeTransform", "")
    return int(kept) if re.fullmatch("[0-9]{1,3}", kept) and int(kept) < 256 else 0


def _made(text: bytes | None, packet: _Packet | None, properties: dict[str, str], room: int) -> bytes:
    """The packet with the note; without its padding, where it does not fit."""
    if text is None or packet is None:
        return _HEAD + _description("", properties) + _TAIL
    made = _edited(text, packet, _description(packet.about, properties))
    return made if len(made) <= room else _PADDING.sub(b"\n", made)


def _bare(xmp: bytes) -> bytes:
    """What is left of a packet when the note that it got is taken out."""
    text = _as_utf8(xmp)
    packet = _parse(text)
    return _HEAD + _TAIL if packet is None else _edited(text, packet, b"")


def _encoded(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode("ascii")


def _decoded(value: str, *, is_compressed: bool) -> bytes | None:
    """What the note keeps whole; None where it keeps nothing, or nothing that can be read any more."""
    try:
        data = base64.b64decode(value, validate=True)
        return (zlib.decompressobj().decompress(data, MAX_PACKET_BYTES) if is_compressed else data) or None
    except (binascii.Error, ValueError, zlib.error):
        return None


def note_of(xmp: bytes) -> Note | None:
    """The note that `provenance_xmp` wrote, also after another program has written the packet anew; None where there is none."""
    packet = _parse(_as_utf8(xmp))
    if packet is None or f"{NAMESPACE} Model" not in packet.values:
        return None
    values = packet.values
    try:
        vividness = float(values.get(f"{NAMESPACE} Vividness", "0"))
    except ValueError:
        vividness = 0.0
    return Note(model=values[f"{NAMESPACE} Model"], model_sha256=values.get(f"{NAMESPACE} ModelSHA256", ""), vividness=vividness)


def _description(about: str, properties: dict[str, str]) -> bytes:
    lines = [f"<rdf:Description rdf:about={quoteattr(about)} xmlns:rdf={quoteattr(_RDF)}"]
    lines.append(f"  xmlns:Iptc4xmpExt={quoteattr(_IPTC)} Iptc4xmpExt:DigitalSourceType={quoteattr(SOURCE_TYPE)}")
    lines.append(f"  xmlns:colorize={quoteattr(NAMESPACE)}")
    lines += [f"  colorize:{name}={quoteattr(_allowed(value))}" for name, value in properties.items()]
    return ("\n".join(lines) + "/>\n").encode()


def _edited(text: bytes, packet: _Packet, description: bytes) -> bytes:
    added = b">" + description + packet.close if packet.close else description
    edits = [(start, end, b"") for start, end in packet.cuts]
    edits.append((packet.end, packet.end + (2 if packet.close else 0), added))
    parts, place = [], 0
    for start, end, new in sorted(edits):
        parts += [text[place:start], new]
        place = end
    return b"".join([*parts, text[place:]])


def _parse(text: bytes, wanted: Set[str] = frozenset(_OURS)) -> _Packet | None:
    """Where the properties `wanted` stand.

    None where the packet is not well-formed, declares a document type, has no rdf:RDF, one inside what is cut, or over `MAX_CUTS`.
    """
    if len(text) > MAX_PACKET_BYTES:
        return None
    packet = _Packet()
    path: list[str] = []
    place_of_property, value_of_property = 0, ""
    in_property, in_rdf = False, 0
    empty: set[int] = set()  # where elements <…/> end, of those that matter
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.namespace_prefixes = True  # names come as "namespace name prefix"

    def start(named: str, attributes: dict[str, str]) -> None:
        nonlocal place_of_property, value_of_property, in_property, in_rdf
        name, place = _unprefixed(named), parser.CurrentByteIndex
        if len(packet.cuts) > MAX_CUTS or (in_property and name == f"{_RDF} RDF"):
            raise _RefusedError
        if name == f"{_RDF} Description" and path and path[-1] == f"{_RDF} RDF":
            ours = [key for key in attributes if _unprefixed(key) in wanted]
            packet.values.update({_unprefixed(key): attributes[key] for key in ours})
            packet.about = packet.about or "".join(value for key, value in attributes.items() if _unprefixed(key) == f"{_RDF} about")
            stop = _tag_end(text, place)
            others = [key for key in attributes if key not in ours and _unprefixed(key) != f"{_RDF} about"]
            if ours and not others and text[stop - 2 : stop] == b"/>":  # it says nothing else
                packet.cuts.append((place, stop + text.startswith(b"\n", stop)))
            else:
                packet.cuts += [cut for key in ours for cut in _attribute(text, place, key)]
        elif name in wanted and path[-2:] == _PLACE_OF_PROPERTIES:
            resource = [value for key, value in attributes.items() if _unprefixed(key) == f"{_RDF} resource"]
            place_of_property, value_of_property, in_property = place, "".join(resource), True
        if name in wanted or name == f"{_RDF} RDF":
            stop = _tag_end(text, place)
            if text[stop - 2 : stop] == b"/>":
                empty.add(stop)  # which is where expat tells of its end
        in_rdf += name == f"{_RDF} RDF"
        path.append(name)

    def data(characters: str) -> None:
        nonlocal value_of_property
        if path and path[-1] in wanted and path[-3:-1] == _PLACE_OF_PROPERTIES:
            value_of_property += characters

    def end(named: str) -> None:
        nonlocal in_property, in_rdf
        path.pop()
        name, place = _unprefixed(named), parser.CurrentByteIndex
        is_empty = place in empty
        empty.discard(place)  # an end tag that follows at once ends there too
        in_rdf -= name == f"{_RDF} RDF"
        if name in wanted and path[-2:] == _PLACE_OF_PROPERTIES:
            in_property = False
            packet.values[name] = value_of_property.strip()
            packet.cuts.append((place_of_property, place if is_empty else _tag_end(text, place)))
        elif name == f"{_RDF} RDF" and packet.end < 0 and not in_rdf:
            packet.end = place
            if is_empty:
                packet.end = place - 2
                prefix = named.split(" ")[2:]
                packet.close = b"</" + ":".join([*prefix, "RDF"]).encode() + b">"

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, _RefusedError, ValueError, RecursionError):
        return None
    return packet if packet.end >= 0 else None


def _descriptions(text: bytes) -> bytes | None:
    """What stands in a packet's rdf:RDF, each with the namespaces that hold there.

    None where the packet is not well-formed, too large, declares a document type, has no rdf:RDF, or too many namespaces.
    """
    if len(text) > MAX_PACKET_BYTES:
        return None
    namespaces: dict[str, str] = {}  # in force in rdf:RDF
    own: set[str] = set()  # of the element that begins
    depth, first, last = 0, 0, 0  # 0: outside of rdf:RDF
    edits: list[tuple[int, bytes]] = []
    size = 0
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
    parser.namespace_prefixes = True

    def declare(prefix: str | None, uri: str | None) -> None:
        name = f"xmlns:{prefix}" if prefix else "xmlns"
        own.add(name)
        if not depth and not first:
            namespaces[name] = uri or ""

    def start(named: str, _: dict[str, str]) -> None:
        nonlocal depth, first, size
        if depth:
            if depth == 1:
                prefixed = ":".join(named.split(" ")[:0:-1]) or named
                others = "".join(f" {key}={quoteattr(uri)}" for key, uri in namespaces.items() if key not in own)
                size += len(others)
                if size > MAX_PACKET_BYTES:
                    raise _RefusedError
                edits.append((parser.CurrentByteIndex + len(prefixed.encode()) + 1, others.encode()))
            depth += 1
        elif not first and _unprefixed(named) == f"{_RDF} RDF":
            depth, first = 1, _tag_end(text, parser.CurrentByteIndex)
        own.clear()

    def end(_: str) -> None:
        nonlocal depth, last
        depth -= depth > 0
        if not depth and first and not last:
            last = parser.CurrentByteIndex

    parser.StartNamespaceDeclHandler, parser.StartElementHandler, parser.EndElementHandler = declare, start, end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, _RefusedError, ValueError, RecursionError):
        return None
    if not last:
        return None
    parts, place = [], first
    for where, declared in edits:
        parts += [text[place:where], declared]
        place = where
    return b"".join([*parts, text[place:last]])


class _RefusedError(Exception):
    """A document type declaration, which no XMP packet has, and entities would come with it; or cuts that are too many or hold others."""


def _refuse(*_: object) -> None:
    raise _RefusedError


def _attribute(text: bytes, place: int, key: str) -> list[tuple[int, int]]:
    """Where an attribute, by expat's name for it, stands in the start tag at `place`."""
    _, name, prefix = key.split(" ")
    tag = text[place : _tag_end(text, place)]
    named = f"{prefix}:{name}".encode()
    return [(place + found.start(), place + found.end()) for found in _ATTRIBUTES.finditer(tag) if found[1] == named]


def _unprefixed(named: str) -> str:
    return " ".join(named.split(" ")[:2])


def _tag_end(text: bytes, place: int) -> int:
    """Behind the start tag that begins at `place`; a > inside quotes does not end it."""
    found = re.compile(rb"(?:[^\"'>]|\"[^\"]*\"|'[^']*')*>").match(text, place)
    return found.end() if found else len(text)


def _as_utf8(xmp: bytes) -> bytes:
    """Packets in UTF-16 and UTF-32, which XMP allows, as UTF-8; trailing zeros, which some programs write, cut off."""
    for mark, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if xmp.startswith(mark):
            return xmp.decode(encoding, "replace").encode()
    if xmp.startswith((b"<\0?\0", b"<\0x\0")):
        return xmp.decode("utf-16-le", "replace").encode()
    return xmp.rstrip(b"\0")


def _allowed(value: str) -> str:
    """A value without the characters that XML cannot hold."""
    return "".join(c if c in "\t\n\r" or 32 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE or ord(c) > 0xFFFF else "?" for c in value)
