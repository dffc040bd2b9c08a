"""An XMP packet as text: where some of its properties stand, and how it is edited there.

All that is not edited stays as it was, byte for byte: prefixes, comments, padding. The parser is expat; a document type declaration is
refused, so there are no entities to expand. Knows nothing of containers and nothing of what this program says in a packet (`xmp`). Source:
ISO 16684-1 (XMP).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

MAX_PACKET_BYTES = 16 << 20
MAX_CUTS = 10_000
"""Places of a packet that say what is looked for; real ones have a few, and more make it one that cannot be parsed."""

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

_EXTENSION = "http://ns.adobe.com/xmp/note/ HasExtendedXMP"
_PLACE_OF_PROPERTIES = [f"{RDF} RDF", f"{RDF} Description"]  # deeper down are those of ingredients and the like
_ATTRIBUTES = re.compile(rb"\s+([^\s=]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")  # one after the other: a value may look like one


@dataclass
class Packet:
    """What the parser found in a packet."""

    values: dict[str, str] = field(default_factory=dict)
    """The properties that were looked for: namespace, a space, name → value."""
    cuts: list[tuple[int, int]] = field(default_factory=list)
    """Where they stand, in bytes."""
    about: str = ""
    """What the packet's descriptions are about: all must say the same."""
    end: int = -1
    """Where rdf:RDF ends: the place of what is added."""
    close: bytes = b""
    """What must follow there: the end tag, if rdf:RDF was empty."""


def parse(text: bytes, wanted: Set[str]) -> Packet | None:
    """Where the properties `wanted` stand.

    None where the packet is not well-formed, declares a document type, has no rdf:RDF, one inside what is cut, or over `MAX_CUTS`.
    """
    packet = Packet()
    path: list[str] = []
    place_of_property, value_of_property = 0, ""
    in_property, in_rdf = False, 0
    empty: set[int] = set()  # where elements <…/> end, of those that matter
    parser = _parser()
    parser.buffer_text = True

    def start(named: str, attributes: dict[str, str]) -> None:
        nonlocal place_of_property, value_of_property, in_property, in_rdf
        name, place = _unprefixed(named), parser.CurrentByteIndex
        if len(packet.cuts) > MAX_CUTS or (in_property and name == f"{RDF} RDF"):
            raise _RefusedError
        if name == f"{RDF} Description" and path and path[-1] == f"{RDF} RDF":
            ours = [key for key in attributes if _unprefixed(key) in wanted]
            packet.values.update({_unprefixed(key): attributes[key] for key in ours})
            packet.about = packet.about or "".join(value for key, value in attributes.items() if _unprefixed(key) == f"{RDF} about")
            stop = _tag_end(text, place)
            others = [key for key in attributes if key not in ours and _unprefixed(key) != f"{RDF} about"]
            if ours and not others and text[stop - 2 : stop] == b"/>":  # it says nothing else
                packet.cuts.append((place, stop + text.startswith(b"\n", stop)))
            else:
                packet.cuts += [cut for key in ours for cut in _attribute(text, place, key)]
        elif name in wanted and path[-2:] == _PLACE_OF_PROPERTIES:
            resource = [value for key, value in attributes.items() if _unprefixed(key) == f"{RDF} resource"]
            place_of_property, value_of_property, in_property = place, "".join(resource), True
        if name in wanted or name == f"{RDF} RDF":
            stop = _tag_end(text, place)
            if text[stop - 2 : stop] == b"/>":
                empty.add(stop)  # which is where expat tells of its end
        in_rdf += name == f"{RDF} RDF"
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
        in_rdf -= name == f"{RDF} RDF"
        if name in wanted and path[-2:] == _PLACE_OF_PROPERTIES:
            in_property = False
            packet.values[name] = value_of_property.strip()
            packet.cuts.append((place_of_property, place if is_empty else _tag_end(text, place)))
        elif name == f"{RDF} RDF" and packet.end < 0 and not in_rdf:
            packet.end = place
            if is_empty:
                packet.end = place - 2
                prefix = named.split(" ")[2:]
                packet.close = b"</" + ":".join([*prefix, "RDF"]).encode() + b">"

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    return packet if _is_parsed(parser, text) and packet.end >= 0 else None


def edited(text: bytes, packet: Packet, description: bytes) -> bytes:
    """`text`, which `packet` was parsed from, without what was looked for, and with `description` at the end of its rdf:RDF."""
    added = b">" + description + packet.close if packet.close else description
    edits = [(start, end, b"") for start, end in packet.cuts]
    edits.append((packet.end, packet.end + (2 if packet.close else 0), added))
    return _spliced(text, sorted(edits), 0, len(text))


def joined_xmp(xmp: bytes, extensions: Mapping[str, bytes]) -> bytes:
    """A JPEG's packet with what is in that one of its extensions (by their digests) which it names, and without that name.

    As it is where it names none of them, or one of both cannot be parsed. Source: XMP specification, part 3, section 1.1.3.1.
    """
    text = as_utf8(xmp)
    packet = parse(text, {_EXTENSION})
    extension = None if packet is None else extensions.get(packet.values.get(_EXTENSION, ""))
    added = None if extension is None else _descriptions(as_utf8(extension))
    return xmp if packet is None or added is None else edited(text, packet, added)


def _descriptions(text: bytes) -> bytes | None:
    """What stands in a packet's rdf:RDF, each with the namespaces that hold there.

    None where the packet is not well-formed, too large, declares a document type, has no rdf:RDF, or too many namespaces.
    """
    namespaces: dict[str, str] = {}  # in force in rdf:RDF
    own: set[str] = set()  # of the element that begins
    depth, first, last = 0, 0, 0  # 0: outside of rdf:RDF
    edits: list[tuple[int, int, bytes]] = []
    size = 0
    parser = _parser()

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
                place = parser.CurrentByteIndex + len(prefixed.encode()) + 1
                edits.append((place, place, others.encode()))
            depth += 1
        elif not first and _unprefixed(named) == f"{RDF} RDF":
            depth, first = 1, _tag_end(text, parser.CurrentByteIndex)
        own.clear()

    def end(_: str) -> None:
        nonlocal depth, last
        depth -= depth > 0
        if not depth and first and not last:
            last = parser.CurrentByteIndex

    parser.StartNamespaceDeclHandler, parser.StartElementHandler, parser.EndElementHandler = declare, start, end
    return _spliced(text, edits, first, last) if _is_parsed(parser, text) and last else None


def _spliced(text: bytes, edits: Sequence[tuple[int, int, bytes]], first: int, last: int) -> bytes:
    """`text` from `first` to `last`, with something else from place to place, in their order."""
    parts, place = [], first
    for start, end, new in edits:
        parts += [text[place:start], new]
        place = end
    return b"".join([*parts, text[place:last]])


def _parser() -> expat.XMLParserType:
    """One that gives names as "namespace name prefix" and refuses a document type."""
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
    parser.namespace_prefixes = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    return parser


def _is_parsed(parser: expat.XMLParserType, text: bytes) -> bool:
    """Whether a packet is not too large, well-formed, and refused by no handler of the parser."""
    if len(text) > MAX_PACKET_BYTES:
        return False
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, _RefusedError, ValueError, RecursionError):
        return False
    return True


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


def as_utf8(xmp: bytes) -> bytes:
    """Packets in UTF-16 and UTF-32, which XMP allows, as UTF-8; trailing zeros, which some programs write, cut off."""
    for mark, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if xmp.startswith(mark):
            return xmp.decode(encoding, "replace").encode()
    if xmp.startswith((b"<\0?\0", b"<\0x\0")):
        return xmp.decode("utf-16-le", "replace").encode()
    return xmp.rstrip(b"\0")


def allowed(value: str) -> str:
    """A value without the characters that XML cannot hold."""
    return "".join(c if c in "\t\n\r" or 32 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE or ord(c) > 0xFFFF else "?" for c in value)
