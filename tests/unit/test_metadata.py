"""XMP packets edited and read, JPEG segments stamped: nothing lost, nothing else touched, and garbage refused."""

import base64
import hashlib
import struct
import xml.etree.ElementTree as ET
from io import BytesIO
from xml.parsers import expat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colorize.errors import PictureError
from colorize.imaging.metadata import MAX_SEGMENT, exif_with, jpeg_metadata, orientation_of, read_note, resolution_of, stamp_jpeg
from colorize.imaging.note import Note
from colorize.imaging.xmp import NAMESPACE, SOURCE_TYPE, note_of, provenance_xmp, without_note
from colorize.imaging.xmp_packet import MAX_CUTS
from tests.pictures import encoded, grey_scene, rgb_scene

NOTE = Note(model="photos", model_sha256="ab" * 32, vividness=0.35)
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
OURS = "{" + NAMESPACE + "}"
PACKET = (
    b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<xap:xmpmeta xmlns:xap="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <!-- kept -->
 <r:Description r:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Model="Epson &gt; 1">
  <dc:creator><r:Seq><r:li>Frau M\xc3\xbcller</r:li></r:Seq></dc:creator>
 </r:Description>
</r:RDF></xap:xmpmeta>
"""
    + b" " * 2000
    + b'\n<?xpacket end="w"?>'
)
EXIF = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)


def properties(xmp: bytes) -> dict[str, str]:
    """All properties of a packet's descriptions, as attributes or as plain elements."""
    found: dict[str, str] = {}
    for description in ET.fromstring(xmp.decode()[xmp.decode().index("<", 1) if xmp.startswith(b"\xef") else 0 :]).iter(
        f"{RDF}Description"
    ):
        found |= description.attrib
        found |= {child.tag: child.text or "" for child in description if not len(child)}
    return found


# Packets


def test_a_new_packet_says_what_was_done() -> None:
    for nothing in (None, b"", b"\0\0"):
        xmp = provenance_xmp(nothing, NOTE)
        found = properties(xmp)
        assert found[f"{IPTC}DigitalSourceType"] == SOURCE_TYPE == "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
        assert (found[f"{OURS}Model"], found[f"{OURS}ModelSHA256"], found[f"{OURS}Vividness"]) == ("photos", "ab" * 32, "0.35")
        assert found[f"{OURS}Program"].startswith("colorize ")
        assert note_of(xmp) == NOTE


def test_everything_else_of_a_packet_stays_byte_for_byte() -> None:
    xmp = provenance_xmp(PACKET, NOTE)
    place = PACKET.index(b"</r:RDF>")
    assert xmp.startswith(PACKET[:place])
    assert xmp.endswith(PACKET[place:])
    assert note_of(xmp) == NOTE
    abouts = {description.get(f"{RDF}about") for description in ET.fromstring(xmp).iter(f"{RDF}Description")}
    assert abouts == {"uuid:1"}


def test_a_second_note_takes_the_place_of_the_first() -> None:
    other = Note(model='<other> & "more"\0', model_sha256="", vividness=1)
    xmp = provenance_xmp(provenance_xmp(PACKET, NOTE), other)
    assert xmp.count(b"DigitalSourceType=") == xmp.count(b"colorize:Model=") == 1
    assert b'tiff:Model="Epson &gt; 1"' in xmp
    assert note_of(xmp) == Note(model='<other> & "more"?', model_sha256="", vividness=1.0)


@pytest.mark.parametrize(
    "earlier",
    [
        b' i:DigitalSourceType = "urn:negative"/>',
        b"><i:DigitalSourceType>urn:negative</i:DigitalSourceType></r:Description>",
        b'><i:DigitalSourceType r:resource="urn:negative"/></r:Description>',
        b'><i:DigitalSourceType\nr:resource = "urn:negative" ></i:DigitalSourceType ></r:Description>',
    ],
)
def test_an_earlier_source_type_is_kept_in_the_note(earlier: bytes) -> None:
    source = (
        b'<r:Description xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:c="urn:other/" c:DigitalSourceType="mine"' + earlier
    )
    packet = PACKET.replace(b"</r:RDF>", source + b"</r:RDF>")
    once = provenance_xmp(packet, NOTE)
    twice = provenance_xmp(once, NOTE)
    for xmp in (once, twice):
        assert properties(xmp)[f"{IPTC}DigitalSourceType"] == SOURCE_TYPE
        assert properties(xmp)[f"{OURS}SourceTypeBefore"] == "urn:negative"
        assert properties(xmp)["{urn:other/}DigitalSourceType"] == "mine"
    assert once == twice


def test_a_note_survives_another_program_that_writes_the_packet_anew() -> None:
    xmp = ET.tostring(ET.fromstring(provenance_xmp(PACKET, NOTE)))
    assert note_of(xmp) == NOTE
    as_elements = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:z="urn:colorize:note:1.0/">
    <z:Model>photos</z:Model><z:ModelSHA256>cd</z:ModelSHA256><z:Vividness>x</z:Vividness></rdf:Description></rdf:RDF>"""
    assert note_of(as_elements) == Note(model="photos", model_sha256="cd", vividness=0)
    assert b"<z:Model>" not in provenance_xmp(as_elements, NOTE)


@pytest.mark.parametrize(
    "empty",
    [b'<a:RDF xmlns:a="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>', b'<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"  />'],
)
def test_an_empty_packet_is_filled(empty: bytes) -> None:
    assert note_of(provenance_xmp(empty, NOTE)) == NOTE
    assert note_of(empty) is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_become_utf_8(encoding: str) -> None:
    xmp = provenance_xmp(PACKET.decode().replace("\ufeff", "").encode(encoding), NOTE)
    assert note_of(xmp) == NOTE
    assert "Frau Müller" in xmp.decode()


BOMB = b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + PACKET[PACKET.index(b"<xap") :].replace(b"Epson", b"&b;")


@pytest.mark.parametrize(
    "broken", [PACKET[:200], b"no xml", BOMB, b"<a/>", PACKET.replace(b"M\xc3\xbc", b"M\xfc"), b"<a>" * 5000, b"\xff\xfe<\0"]
)
def test_a_packet_that_cannot_be_read_is_kept_whole(broken: bytes) -> None:
    assert note_of(broken) is None
    xmp = provenance_xmp(broken, NOTE)
    assert note_of(xmp) == NOTE
    assert base64.b64decode(properties(xmp)[f"{OURS}UnreadableXMP"]) == broken


def packet_of(inside: str) -> bytes:
    names = "xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns:e='http://iptc.org/std/Iptc4xmpExt/2008-02-29/'"
    return f"<x {names}><r:RDF><r:Description r:about=''>{inside}</r:Description></r:RDF></x>".encode()


def test_the_source_types_of_ingredients_stay() -> None:
    inner = "<r:Description><e:DigitalSourceType>urn:negative</e:DigitalSourceType></r:Description>"
    for inside in (
        f"<e:Ingredients><r:Bag><r:li>{inner}</r:li></r:Bag></e:Ingredients>",
        f"<e:DigitalSourceType>{inner}</e:DigitalSourceType>",
    ):
        xmp = provenance_xmp(packet_of(inside), NOTE)
        assert note_of(xmp) == NOTE
        assert f"{OURS}SourceTypeBefore" not in properties(xmp)
        assert without_note(xmp) == packet_of(inside)
    assert inner.encode() in provenance_xmp(packet_of(f"<e:Ingredients>{inner}</e:Ingredients>"), NOTE)


@pytest.mark.parametrize(
    "inside",
    [
        "<e:DigitalSourceType><r:RDF/></e:DigitalSourceType>",
        "<e:DigitalSourceType><r:RDF><r:Description e:DigitalSourceType='x'/></r:RDF></e:DigitalSourceType>",
        "<e:DigitalSourceType><e:DigitalSourceType/></e:DigitalSourceType>",
        "<e:Ingredients><r:RDF/></e:Ingredients>",
        """</r:Description><r:Description e:X=' e:DigitalSourceType="' e:Y="y" e:DigitalSourceType='z'>""",
        "</r:Description><e:DigitalSourceType/></r:RDF><r:RDF><r:Description>",
    ],
)
def test_what_is_nested_oddly_is_cut_whole_or_kept(inside: str) -> None:
    packet = packet_of(inside)
    xmp = provenance_xmp(packet, NOTE)
    ET.fromstring(xmp)
    assert note_of(xmp) == NOTE
    assert b"e:Ingredients><r:RDF/><" in xmp or b"e:Ingredients" not in packet, "the note belongs into the outermost"
    assert without_note(xmp) == packet


def test_a_packet_that_says_the_same_thousands_of_times_is_read_up_to_a_limit() -> None:
    for count in (9_000, MAX_CUTS + 2):
        packet = packet_of("<e:DigitalSourceType/>" * count)
        xmp = provenance_xmp(packet, NOTE)
        assert note_of(xmp) == NOTE
        assert (f"{OURS}UnreadableXMP" in properties(xmp)) == (count > MAX_CUTS)
        assert without_note(xmp) == packet


def test_padding_gives_way_and_what_has_no_room_is_refused() -> None:
    assert len(provenance_xmp(PACKET, NOTE)) > 2900
    assert len(provenance_xmp(PACKET, NOTE, room=1800)) < 1800
    with pytest.raises(
        PictureError, match=r"^x.jpg: has XMP metadata that leaves no room for a note .*\(\d+ bytes of 500\): take some out of it$"
    ):
        provenance_xmp(PACKET, NOTE, room=500, name="x.jpg")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5), st.floats(0, 1), st.booleans())
def test_any_bytes_are_a_packet_or_kept(changes: list[tuple[float, int]], kept: float, stamped: bool) -> None:
    data = bytearray(provenance_xmp(PACKET, NOTE) if stamped else PACKET)
    for place, value in changes:
        data[int(place * len(data))] = value
    data = data[: int(kept * len(data))] if kept < 0.5 else data
    xmp = provenance_xmp(bytes(data), NOTE)
    assert note_of(xmp) == NOTE
    expat.ParserCreate("UTF-8", " ").Parse(xmp, True)  # not ElementTree, which refuses namespaces with a }


# JPEG


def scan_of(data: bytes) -> bytes:
    return data[data.index(b"\xff\xda") :]


JPEG = encoded(grey_scene(), "JPEG", exif=EXIF, dpi=(300, 200), comment=b"kept", icc_profile=b"i" * 100)


def test_a_jpeg_is_stamped_and_nothing_else_changes() -> None:
    stamped = stamp_jpeg(JPEG, NOTE, b"p" * 150_000)
    assert scan_of(stamped) == scan_of(JPEG)
    image = Image.open(BytesIO(stamped))
    assert image.info["icc_profile"] == b"p" * 150_000
    assert image.info["exif"] == EXIF
    assert (image.info["comment"], image.info["dpi"]) == (b"kept", (300, 200))
    assert np.array_equal(np.array(image), np.array(Image.open(BytesIO(JPEG))))
    assert note_of(image.info["xmp"]) == NOTE == read_note(stamped)
    assert stamp_jpeg(stamped, NOTE, b"p" * 150_000) == stamped
    metadata = jpeg_metadata(stamped)
    assert (metadata.exif, metadata.dpi, metadata.orientation) == (EXIF[6:], (300, 200), 6)
    assert metadata.icc_profile == b"p" * 150_000
    bare = stamp_jpeg(stamped, None, None)
    assert "icc_profile" not in Image.open(BytesIO(bare)).info
    assert read_note(bare) == NOTE


def test_without_note_and_with_the_same_profile_a_jpeg_stays_as_it_is() -> None:
    assert stamp_jpeg(JPEG, None, b"i" * 100) == JPEG
    bare = encoded(rgb_scene(), "JPEG")
    assert stamp_jpeg(bare, None, None) == bare
    assert read_note(bare) is None


def test_a_jpeg_s_own_packet_and_iptc_are_kept() -> None:
    xmp = b"\xff\xe1" + struct.pack(">H", 31 + len(PACKET)) + b"http://ns.adobe.com/xap/1.0/\0" + PACKET
    iptc = b"\xff\xed" + struct.pack(">H", 2 + 14 + 32) + b"Photoshop 3.0\0" + b"8BIM\x03\xed\x03dpi\0\0\0\1-\0"
    iptc += b"8BIM\x04\x04\0\0\0\0\0\3\x1c\2\5\0"
    extended = b"\xff\xe1" + struct.pack(">H", 2 + 35 + 9) + b"http://ns.adobe.com/xmp/extension/\0" + b"long tail"
    bare = encoded(rgb_scene(), "JPEG")
    data = bare[:20] + b"\xff\xff" + iptc + xmp + extended + bare[20:]
    stamped = stamp_jpeg(data, NOTE, None)
    metadata = jpeg_metadata(stamped)
    assert metadata.iptc == b"\x1c\2\5"
    assert metadata.xmp == provenance_xmp(PACKET, NOTE)
    assert stamped.count(extended) == stamped.count(b"\xff\xff" + iptc) == 1
    assert len(list(Image.open(BytesIO(stamped)).applist)) == len(list(Image.open(BytesIO(data)).applist))


def in_two_parts(extension: bytes, size: int = 65_000, name: str = ' xmpNote:HasExtendedXMP="{}"') -> bytes:
    """A JPEG whose packet names an extension, with this extension."""
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    named = f'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"{name.format(digest)} xmlns:a="urn:a" a:one="1"/>'
    packet = b"http://ns.adobe.com/xap/1.0/\0" + f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{START}{named}</rdf:RDF></x:xmpmeta>'.encode()
    parts = [
        b"http://ns.adobe.com/xmp/extension/\0"
        + digest.encode()
        + struct.pack(">II", len(extension), start)
        + extension[start : start + size]
        for start in range(0, len(extension), size)
    ]
    segments = [b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in [packet, *reversed(parts)]]
    return JPEG[:20] + b"".join(segments) + JPEG[20:]


START = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
LONG = "".join(f"<rdf:li>xmp.did:{number:032}</rdf:li>" for number in range(4000))
EXTENSION = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:b="urn:b">
<rdf:Description rdf:about=""><b:old><rdf:Bag>{LONG}</rdf:Bag></b:old></rdf:Description><!-- > -->
<rdf:Description rdf:about="" xmlns:b="urn:c" b:two="2"/></rdf:RDF></x:xmpmeta>""".encode()


def test_xmp_of_two_parts_is_one_packet() -> None:
    for name in (' xmpNote:HasExtendedXMP="{}"', "><xmpNote:HasExtendedXMP>{}</xmpNote:HasExtendedXMP></rdf:Description><rdf:Description"):
        xmp = jpeg_metadata(in_two_parts(EXTENSION, name=name)).xmp
        assert xmp is not None
        (rdf,) = ET.fromstring(xmp)
        assert b"HasExtendedXMP" not in xmp
        assert {key: value for each in rdf for key, value in each.items() if key.startswith("{urn")} == {
            "{urn:a}one": "1",
            "{urn:c}two": "2",
        }
        assert len(rdf.findall(".//{urn:b}old//{*}li")) == 4000
        assert provenance_xmp(xmp, NOTE) != xmp


def test_an_extension_that_is_not_whole_or_no_packet_is_left_out() -> None:
    whole = in_two_parts(EXTENSION)
    place = whole.rindex(b"\xff\xe1", 0, whole.index(b"<x:xmpmeta", whole.index(b"/xmp/extension/")))
    (length,) = struct.unpack_from(">H", whole, place + 2)
    hostile = "".join(f' xmlns:n{number}="urn:{number}"' for number in range(5000))
    bomb = f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"{hostile}>{"<a/>" * 5000}</rdf:RDF>'.encode()
    others = (b"nonsense", b"<nonsense/>", EXTENSION[:-5], b"<!DOCTYPE x>" + EXTENSION, bomb)
    for data in (whole[:place] + whole[place + 2 + length :], *map(in_two_parts, others)):
        xmp = jpeg_metadata(data).xmp
        assert xmp is not None
        assert b"HasExtendedXMP" in xmp
        assert len(xmp) < 1000
    empty = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>'
    assert b"HasExtendedXMP" not in (jpeg_metadata(in_two_parts(empty)).xmp or b"HasExtendedXMP")


@given(st.binary(max_size=60), st.integers(0, 400))
def test_any_extension_is_taken_or_left(noise: bytes, where: int) -> None:
    short = EXTENSION.replace(LONG.encode(), b"")
    xmp = jpeg_metadata(in_two_parts(short[:where] + noise + short[where + len(noise) :], size=90)).xmp
    assert xmp is not None
    ET.fromstring(xmp)


def test_a_jpeg_with_too_much_to_hold_is_refused() -> None:
    with pytest.raises(PictureError, match=r"^x: has an ICC profile of 17000000 bytes, more than a JPEG holds$"):
        stamp_jpeg(JPEG, None, bytes(17_000_000), "x")
    full = PACKET.replace(b"kept", b"k" * (MAX_SEGMENT - len(PACKET) - 29))
    data = JPEG[:20] + b"\xff\xe1" + struct.pack(">H", 31 + len(full)) + b"http://ns.adobe.com/xap/1.0/\0" + full + JPEG[20:]
    assert read_note(stamp_jpeg(data, NOTE, None)) == NOTE, "its padding gives way"
    with pytest.raises(PictureError, match=r"^x: has XMP metadata that leaves no room"):
        stamp_jpeg(data.replace(b" " * 2000, b"<!--" + b"x" * 1993 + b"-->"), NOTE, None, "x")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", JPEG[:30], JPEG[:20] + b"\0" + JPEG[20:], b"\x89PNG"])
def test_damaged_segments_are_refused(data: bytes) -> None:
    with pytest.raises(PictureError, match=r"^x: is (no|a truncated or damaged) JPEG"):
        stamp_jpeg(data, NOTE, None, "x")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8), st.floats(0, 1))
def test_mutated_jpegs_are_stamped_or_refused(changes: list[tuple[float, int]], kept: float) -> None:
    data = bytearray(stamp_jpeg(JPEG, NOTE, b"p" * 300))
    for place, value in changes:
        data[int(place * len(data))] = value
    data = data[: int(kept * len(data))] if kept < 0.5 else data
    try:
        metadata = jpeg_metadata(bytes(data), "x")
        stamped = stamp_jpeg(bytes(data), NOTE, b"q" * 200, "x")
    except PictureError as error:
        message = str(error)
    else:
        message = "x: was stamped"
        assert metadata.orientation in range(1, 9)
        assert scan_of(stamped) == scan_of(bytes(data))
        assert read_note(stamped) == NOTE
    assert message.startswith("x: ")
    assert message.isprintable()


# EXIF


@pytest.mark.parametrize("field", ["3 H2x", "4 I"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_either_byte_order_and_size(order: str, field: str) -> None:
    kind, code = field.split()
    mark = b"II*\0" if order == "<" else b"MM\0*"
    for value in range(10):
        entries = struct.pack(order + "HHIHH", 0x0100, 3, 1, 99, 0) + struct.pack(order + "HHI" + code, 0x0112, int(kind), 1, value)
        tiff = mark + struct.pack(order + "IH", 8, 2) + entries + bytes(4)
        assert orientation_of(tiff) == orientation_of(b"Exif\0\0" + tiff) == (value if 1 <= value <= 8 else 1)


@given(st.binary(max_size=60), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_any_exif_has_an_orientation(data: bytes, mark: bytes) -> None:
    assert orientation_of(mark + data) in range(1, 9)


@given(st.binary(max_size=90), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II*\0", b""]))
def test_any_exif_has_a_resolution_or_none_and_takes_one(data: bytes, mark: bytes) -> None:
    block = mark + data
    assert resolution_of(block) is None or min(resolution_of(block)) > 0
    made = exif_with(block, 6, (300.0, 299.9994))
    assert made == block.removeprefix(b"Exif\0\0") or (resolution_of(made), orientation_of(made)) == ((300, 300), 6)


def test_what_an_exif_block_says_stays_where_its_resolution_changes() -> None:
    block = Image.Exif()
    block.update({0x010E: "a street in the rain", 0x011A: 72.0, 0x011B: 72.0, 0x0128: 2, 0x0112: 3})
    block.get_ifd(0x8769)[0x9003] = "1931:05:02 10:00:00"
    before = block.tobytes()
    assert resolution_of(before) == (72, 72)
    made = exif_with(before, dpi=(600, 300))
    assert (resolution_of(made), orientation_of(made), made[8 : len(before) - 6]) == ((600, 300), 3, before[14:])
    again = Image.Exif()
    again.load(made)
    assert (again[0x010E], again[0x011A], again.get_ifd(0x8769)[0x9003]) == ("a street in the rain", 600, "1931:05:02 10:00:00")
    centimetres = struct.pack("<HHIHHII", 0x0128, 3, 1, 3, 0, 0, 0)[:12]
    made = exif_with(None, dpi=(100, 50))
    assert resolution_of(made.replace(struct.pack("<HHIHH", 0x0128, 3, 1, 2, 0), centimetres)) == (254, 127)


@given(st.binary(max_size=80))
def test_any_image_resources_are_read(resources: bytes) -> None:
    segment = b"\xff\xed" + struct.pack(">H", 16 + len(resources)) + b"Photoshop 3.0\0" + resources
    found = jpeg_metadata(JPEG[:20] + segment + JPEG[20:]).iptc
    assert found is None or found in resources
