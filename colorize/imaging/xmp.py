"""XMP packets: the note of where a picture's colours come from, added to whatever a packet already says, and read again.

Knows nothing of containers, and edits a packet as text (`xmp_packet`). What is added is one rdf:Description:
`Iptc4xmpExt:DigitalSourceType`, the IPTC's term for media enhanced by an algorithm, and in a namespace of this program the model, its
SHA-256, the vividness and the program's version.

Nothing that was there is lost: a digital source type that a packet had (a scanned negative, say) is kept as
`colorize:SourceTypeBefore`, and a packet that cannot be parsed goes whole, as base64, into `colorize:UnreadableXMP` of a new one.
`without_note` takes the note out again. Where what it leaves would not be the packet of before byte for byte (a source type was there, the
packet was in UTF-16, or empty), that one is kept, compressed, as `colorize:XMPBefore`.
Sources: ISO 16684-1 (XMP), IPTC Photo Metadata Standard 2025.1.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from functools import cache
from importlib.metadata import version
from xml.sax.saxutils import quoteattr

from colorize.errors import PictureError
from colorize.imaging.note import Note
from colorize.imaging.xmp_packet import MAX_PACKET_BYTES, RDF, Packet, allowed, as_utf8, edited, parse

NAMESPACE = "urn:colorize:note:1.0/"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"

_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_HEAD = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
_HEAD += f'<rdf:RDF xmlns:rdf="{RDF}">\n'.encode()
_TAIL = b'</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
_OURS = {
    f"{NAMESPACE} {name}"
    for name in (
        *("Model", "ModelSHA256", "Vividness", "Program"),
        *("SourceTypeBefore", "UnreadableXMP", "XMPBefore", "GreyProfile", "AdobeTransform"),
    )
} | {f"{_IPTC} DigitalSourceType"}
_KEPT_WHOLE = ("UnreadableXMP", "XMPBefore")
_KEPT = (*_KEPT_WHOLE, "GreyProfile", "AdobeTransform")
_PADDING = re.compile(rb"\s{64,}(?=<\?xpacket end=)")


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
    packet: Packet | None = None
    has_note = False
    if xmp is not None and xmp.strip(b"\0 \r\n\t"):
        text = as_utf8(xmp)
        packet = parse(text, _OURS)
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
    text = as_utf8(xmp)
    packet = parse(text, _OURS)
    if packet is None or f"{NAMESPACE} Model" not in packet.values:
        return xmp
    left = edited(text, packet, b"")
    for name in _KEPT_WHOLE:
        before = _decoded(packet.values.get(f"{NAMESPACE} {name}", ""), is_compressed=name == "XMPBefore")
        if before is not None and _PADDING.sub(b"\n", left) == _PADDING.sub(b"\n", _bare(before)):
            return before
    if left == _HEAD + _TAIL:
        return None
    source_type = packet.values.get(f"{NAMESPACE} SourceTypeBefore")
    now = parse(left, _OURS) if source_type else None
    if source_type and now is not None:
        about, kind = quoteattr(now.about), quoteattr(allowed(source_type))
        named = f"xmlns:rdf={quoteattr(RDF)} xmlns:Iptc4xmpExt={quoteattr(_IPTC)}"
        left = edited(left, now, f"<rdf:Description rdf:about={about} {named} Iptc4xmpExt:DigitalSourceType={kind}/>\n".encode())
    return left


def grey_profile_of(xmp: bytes) -> bytes | None:
    """The grey ICC profile that a coloured file had before, if the note has kept it."""
    packet = parse(as_utf8(xmp), _OURS)
    return None if packet is None else _decoded(packet.values.get(f"{NAMESPACE} GreyProfile", ""), is_compressed=True)


def adobe_transform_of(xmp: bytes) -> int:
    """The colour transform 0…255 that the Adobe segment of a grey JPEG named before it was coloured; 0 where the note has kept none."""
    packet = parse(as_utf8(xmp), _OURS)
    kept = "" if packet is None else packet.values.get(f"{NAMESPACE} AdobeTransform", "")
    return int(kept) if re.fullmatch("[0-9]{1,3}", kept) and int(kept) < 256 else 0


def _made(text: bytes | None, packet: Packet | None, properties: dict[str, str], room: int) -> bytes:
    """The packet with the note; without its padding, where it does not fit."""
    if text is None or packet is None:
        return _HEAD + _description("", properties) + _TAIL
    made = edited(text, packet, _description(packet.about, properties))
    return made if len(made) <= room else _PADDING.sub(b"\n", made)


def _bare(xmp: bytes) -> bytes:
    """What is left of a packet when the note that it got is taken out."""
    text = as_utf8(xmp)
    packet = parse(text, _OURS)
    return _HEAD + _TAIL if packet is None else edited(text, packet, b"")


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
    packet = parse(as_utf8(xmp), _OURS)
    if packet is None or f"{NAMESPACE} Model" not in packet.values:
        return None
    values = packet.values
    try:
        vividness = float(values.get(f"{NAMESPACE} Vividness", "0"))
    except ValueError:
        vividness = 0.0
    return Note(model=values[f"{NAMESPACE} Model"], model_sha256=values.get(f"{NAMESPACE} ModelSHA256", ""), vividness=vividness)


def _description(about: str, properties: dict[str, str]) -> bytes:
    lines = [f"<rdf:Description rdf:about={quoteattr(about)} xmlns:rdf={quoteattr(RDF)}"]
    lines.append(f"  xmlns:Iptc4xmpExt={quoteattr(_IPTC)} Iptc4xmpExt:DigitalSourceType={quoteattr(SOURCE_TYPE)}")
    lines.append(f"  xmlns:colorize={quoteattr(NAMESPACE)}")
    lines += [f"  colorize:{name}={quoteattr(allowed(value))}" for name, value in properties.items()]
    return ("\n".join(lines) + "/>\n").encode()
