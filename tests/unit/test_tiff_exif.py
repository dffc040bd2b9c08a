"""EXIF between TIFF, where it is tags and directories, and the formats that hold it as a block: what goes over, and what is left out."""

import struct
import tracemalloc
from collections import Counter
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from colorize import PictureError, open_scan
from colorize.imaging.convert import Format, convert
from colorize.imaging.formats.tiff import TiffScan
from colorize.imaging.formats.tiff_directory import MAX_EXIF_TAGS, Source, read_first
from colorize.imaging.formats.tiff_exif import MAX_EXIF, exif_tags, exif_within, read_exif
from colorize.imaging.formats.tiff_target import NewDirectory, Target
from colorize.imaging.metadata import orientation_of
from tests.pictures import encoded, grey_scene, png_chunk, rgb_scene

Entry = tuple[int, int, int, bytes]
"""Code, type, count, value."""

MAKER_NOTE = bytes(range(256)) + b"odd"
TEXTS = {269: "Box 12", 270: "Bahnhof, Gleis 3", 271: "Maker", 272: "Scanner 5", 305: "ScanSoft 2.1", 306: "1999:12:31 23:59:59",
         315: "Frau Müller", 316: "scan-3", 33432: "© 1999"}  # fmt: skip
TAKEN = {*TEXTS, 18246, 40091, 34665, 34853}


def texts(order: str) -> list[Entry]:
    """What describes a picture in the first directory."""
    made = [(code, 2, len(text.encode()) + 1, text.encode() + b"\0") for code, text in TEXTS.items()]
    title = "Gleis 3\0".encode("utf-16-le")
    return [*made, (18246, 3, 1, struct.pack(order + "H", 4)), (40091, 1, len(title), title)]


def exif_entries(order: str, big: bool) -> list[Entry]:
    """Of an EXIF directory: texts, a fraction, a maker note; in BigTIFF a number of 64 bits that fits into 32, and one that does not."""
    wide = [(0xA002, 16, 1, struct.pack(order + "Q", 60)), (0xA003, 16, 1, struct.pack(order + "Q", 1 << 40))] if big else []
    return [
        (0x829A, 5, 1, struct.pack(order + "II", 1, 250)),
        (0x9003, 2, 20, b"1931:05:02 10:00:00\0"),
        (0x927C, 7, len(MAKER_NOTE), MAKER_NOTE),
        (0x9286, 7, 15, b"ASCII\0\0\0caption"),
        *wide,
    ]


def gps_entries(order: str) -> list[Entry]:
    return [(1, 2, 2, b"N\0"), (2, 5, 3, struct.pack(order + "6I", 48, 1, 8, 1, 1, 2))]


def directory(entries: list[Entry], start: int, order: str, big: bool) -> bytes:
    """A directory for this place of a file, with the values that do not fit into it behind it."""
    inline, head, entry, word = (8, "Q", "HHQ", "Q") if big else (4, "H", "HHI", "I")
    end = start + struct.calcsize("<" + head) + len(entries) * struct.calcsize("<" + entry + word) + inline
    table, values = struct.pack(order + head, len(entries)), b""
    for code, kind, count, value in sorted(entries):
        field = value.ljust(inline, b"\0") if len(value) <= inline else struct.pack(order + word, end + len(values))
        table += struct.pack(order + entry, code, kind, count) + field
        values += value + bytes(len(value) % 2) if len(value) > inline else b""
    return table + bytes(inline) + values


def tiff(
    order: str = "<", big: bool = False, orientation: int = 1, exif: list[Entry] | None = None, first: list[Entry] | None = None
) -> bytes:
    """A colour TIFF by tifffile, with EXIF and GPS directories behind it."""
    buffer, kind = BytesIO(), {("<", False): 4, (">", False): 13, ("<", True): 16, (">", True): 18}[order, big]
    tags = [*(texts(order) if first is None else first), (274, 3, 1, struct.pack(order + "H", orientation)), (65001, 7, 5, b"other")]
    extra: list[Any] = [(code, type_, count, value, True) for code, type_, count, value in tags]
    extra += [(code + 1, kind, 1, 0, True) for code in (34665, 34853)]  # their own codes tifffile leaves out
    options: dict[str, Any] = {
        "photometric": "rgb",
        "resolution": (300, 200),
        "resolutionunit": "inch",
        "metadata": None,
        "software": False,
    }
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        writer.write(rgb_scene(40, 60), extratags=extra, **options)
    with tifffile.TiffFile(BytesIO(buffer.getvalue())) as file:
        pointers = {code: file.pages[0].aspage().tags[code + 1] for code in (34665, 34853)}
    data = bytearray(buffer.getvalue())
    for code, entries in ((34665, exif_entries(order, big) if exif is None else exif), (34853, gps_entries(order))):
        data += bytes(len(data) % 2)
        struct.pack_into(order + "H", data, pointers[code].offset, code)
        struct.pack_into(order + ("Q" if kind > 13 else "I"), data, pointers[code].valueoffset, len(data))
        data += directory(entries, len(data), order, big)
    return bytes(data)


def block(order: str = "<", orientation: int | None = None) -> bytes:
    """An EXIF block that says the same, with what no TIFF takes over: a thumbnail, a resolution, a private tag."""
    first = [
        *texts(order),
        (282, 5, 1, struct.pack(order + "II", 72, 1)),
        (531, 3, 1, struct.pack(order + "H", 1)),
        (65001, 7, 5, b"other"),
    ]
    first += [] if orientation is None else [(274, 3, 1, struct.pack(order + "H", orientation))]
    size = len(directory([*first, *((code, 4, 1, bytes(4)) for code in (34665, 34853))], 8, order, False))
    exif_place, exif = 8 + size, directory(exif_entries(order, False), 8 + size, order, False)
    gps = directory(gps_entries(order), exif_place + len(exif), order, False)
    pointers = [(34665, 4, 1, struct.pack(order + "I", exif_place)), (34853, 4, 1, struct.pack(order + "I", exif_place + len(exif)))]
    made = directory([*first, *pointers], 8, order, False)
    assert len(made) == size
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + made + exif + gps


def picture(kind: str, exif: bytes) -> bytes:
    """A small colour picture with this EXIF block, whatever it is."""
    if kind == "PNG":
        data = encoded(rgb_scene(40, 60), "PNG")
        return data[:33] + png_chunk(b"eXIf", exif) + data[33:]
    return encoded(rgb_scene(40, 60), kind, exif=b"Exif\0\0" + exif)


def converted(data: bytes, wanted: Format) -> bytes:
    target = BytesIO()
    convert(open_scan(data, name="x"), wanted, target)
    return target.getvalue()


def assert_says_it_all(data: bytes) -> None:
    """By Pillow."""
    exif = Image.open(BytesIO(data)).getexif()
    assert {code: exif[code].encode("latin-1").decode() for code in TEXTS} == TEXTS
    assert exif[18246] == 4
    assert bytes(exif[40091]).decode("utf-16-le") == "Gleis 3\0"
    inner = exif.get_ifd(0x8769)
    assert (float(inner[0x829A]), inner[0x9003], inner[0x9286]) == (1 / 250, "1931:05:02 10:00:00", b"ASCII\0\0\0caption")
    assert inner[0x927C] == MAKER_NOTE
    assert exif.get_ifd(0x8825) == {1: "N", 2: (48.0, 8.0, 0.5)}


def codes_of(exif: bytes) -> Counter[int]:
    """The tags of a block's first directory, each as often as it stands there."""
    order = "<" if exif[:1] == b"I" else ">"
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    return Counter(struct.unpack_from(order + "H", exif, start + 2 + 12 * number)[0] for number in range(count))


# Out of TIFF, and back


@pytest.mark.parametrize("wanted", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_what_a_tiff_says_goes_out_and_back(order: str, big: bool, wanted: Format) -> None:
    data = tiff(order, big, orientation=6)
    out = converted(data, wanted)
    back = converted(out, "tiff")
    for result in (out, back):
        assert_says_it_all(result)
        image = Image.open(BytesIO(result))
        assert ImageOps.exif_transpose(image).size == (40, 60)
    exif = open_scan(out).metadata.exif
    assert exif is not None
    resolution = {282, 283, 296} if wanted == "webp" else set()  # which has no other place for it
    assert codes_of(exif) == Counter([*TAKEN, *resolution, 274])
    inner = Image.open(BytesIO(out)).getexif().get_ifd(0x8769)
    assert (inner.get(0xA002), inner.get(0xA003)) == (60 if big else None, None)
    with tifffile.TiffFile(BytesIO(back)) as file:
        tags = file.pages[0].aspage().tags
        assert (file.byteorder, file.is_bigtiff) == (order, False)
        assert [tag.code for tag in tags].count(274) == 1
        assert (tags[274].value, tags[282].value, tags[283].value, tags[296].value) == (6, (300, 1), (200, 1), 2)
        assert 65001 not in tags
        assert tags[34665].dtype == tags[34853].dtype == 4
        assert (tags[34665].value["ExposureTime"], tags[34665].value["MakerNote"]) == ((1, 250), MAKER_NOTE)
        assert tags[34853].value["GPSLatitude"] == (48, 1, 8, 1, 1, 2)
    assert converted(out, "tiff") == back, "the same input gives the same bytes"


def test_a_tiff_that_says_nothing_has_no_block_but_where_it_is_turned() -> None:
    bare = BytesIO()
    tifffile.imwrite(bare, grey_scene(40, 60), metadata=None, software=False)
    assert open_scan(bare.getvalue()).metadata.exif is None
    assert open_scan(converted(bare.getvalue(), "jpeg")).metadata.exif is None
    turned = BytesIO()
    tifffile.imwrite(turned, grey_scene(40, 60), metadata=None, software=False, extratags=[(274, 3, 1, 6, True)])
    assert orientation_of(open_scan(converted(turned.getvalue(), "jpeg")).metadata.exif) == 6


def test_the_block_of_a_tiff_leaves_orientation_and_resolution_to_others() -> None:
    scan = open_scan(tiff(orientation=6))
    assert scan.metadata.exif is not None
    assert codes_of(scan.metadata.exif) == Counter(TAKEN)
    assert (scan.metadata.orientation, scan.pages[0].orientation, scan.metadata.dpi) == (1, 6, (300, 200))


def test_only_the_first_page_has_the_first_page_s_exif() -> None:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for description in ("first", "second"):
            writer.write(grey_scene(20, 30), metadata=None, software=False, description=description)
    with tifffile.TiffFile(BytesIO(converted(buffer.getvalue(), "tiff"))) as file:
        assert ["ImageDescription" in page.aspage().tags for page in file.pages] == [True, False]


def test_what_repeats_or_points_elsewhere_is_left_out() -> None:
    first = [(270, 2, 2, b"a\0"), (270, 2, 2, b"b\0")]
    inner = [(0x9003, 2, 2, b"c\0"), (0xA005, 4, 1, bytes(4)), (330, 4, 1, bytes(4)), (65002, 13, 1, bytes(4))]
    image = Image.open(BytesIO(converted(tiff(first=first, exif=inner), "png")))
    assert dict(image.getexif()) == {270: "a", 34665: image.getexif()[34665], 34853: image.getexif()[34853]}
    assert image.getexif().get_ifd(0x8769) == {0x9003: "c"}


# Too much


def test_a_tiff_with_hundreds_of_megabytes_of_exif_is_looked_at_without_reading_them() -> None:
    size = 200 << 20
    data = bytearray(tiff())
    place = data.index(struct.pack("<HHI", 0x927C, 7, len(MAKER_NOTE)))
    struct.pack_into("<II", data, place + 4, size, len(data))
    with TemporaryFile() as file:
        file.write(data)
        file.truncate(len(data) + size)
        tracemalloc.start()
        exif = TiffScan(file, "x").metadata.exif
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 << 20
    assert exif is not None
    assert set(codes_of(exif)) == TAKEN
    again = Image.Exif()
    again.load(exif)
    assert set(again.get_ifd(0x8769)) == {0x829A, 0x9003, 0x9286}


def test_what_a_jpeg_has_no_room_for_is_left_out_largest_first() -> None:
    notes = [(0x9003, 2, 2, b"c\0"), (0x927C, 7, 50_000, bytes(50_000)), (0x9286, 7, 30_000, b"u" * 30_000)]
    data = tiff(exif=notes, orientation=6)
    assert set(Image.open(BytesIO(converted(data, "png"))).getexif().get_ifd(0x8769)) == {0x9003, 0x927C, 0x9286}
    jpeg = Image.open(BytesIO(converted(data, "jpeg")))
    assert set(jpeg.getexif().get_ifd(0x8769)) == {0x9003, 0x9286}
    assert jpeg.getexif()[270] == TEXTS[270]
    assert (jpeg.getexif()[274], jpeg.getexif().get_ifd(0x8825)[1]) == (6, "N")


def test_a_png_s_block_that_is_too_long_for_a_jpeg_loses_its_largest_values() -> None:
    exif = block(orientation=3)
    place = exif.index(struct.pack("<HHI", 0x927C, 7, len(MAKER_NOTE)))
    exif = exif[: place + 4] + struct.pack("<II", 90_000, len(exif)) + exif[place + 12 :] + bytes(90_000)
    jpeg = Image.open(BytesIO(converted(picture("PNG", exif), "jpeg")))
    assert (jpeg.getexif()[274], jpeg.getexif()[270]) == (3, TEXTS[270])
    assert 0x927C not in jpeg.getexif().get_ifd(0x8769)
    assert "exif" not in Image.open(BytesIO(converted(picture("PNG", b"nonsense" * 9000), "jpeg"))).info


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40), st.integers(0, 20_000))
def test_a_block_has_the_size_that_is_asked_for(sizes: list[int], room: int) -> None:
    entries = [(100 + number, 7, size, bytes(size)) for number, size in enumerate(sizes)]
    whole = b"MM\0*" + struct.pack(">I", 26) + directory([(34665, 4, 1, struct.pack(">I", 26))], 8, ">", False)
    whole = whole[:4] + struct.pack(">I", 8) + whole[8:26] + directory(entries, 26, ">", False)
    made = exif_within(whole, room, "x")
    assert made is None or len(made) <= room
    least = min((size for size in sizes if size), default=0)  # of which all go, or none
    assert made is not None or least == 0 or room < 100 + sizes.count(least) * (least + 13)


# Into TIFF


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
def test_a_block_becomes_tags(kind: str, order: str) -> None:
    data = converted(picture(kind, block(order, orientation=6)), "tiff")
    assert_says_it_all(data)
    with tifffile.TiffFile(BytesIO(data)) as file:
        codes = [tag.code for tag in file.pages[0].aspage().tags]
        assert (file.byteorder, len(file.pages), file.pages[0].aspage().tags[274].value) == (order, 1, 6)
        assert np.abs(file.asarray().astype(int) - np.array(Image.open(BytesIO(picture(kind, block(order)))))).mean() < 3
    assert len(codes) == len(set(codes))
    assert set(codes) >= TAKEN
    assert not {531, 65001} & set(codes)


def test_the_byte_order_of_16_bits_is_that_of_the_block() -> None:
    deep = encoded(grey_scene(40, 60).astype(np.uint16) * 200, "PNG")
    for order in "<>":
        made = converted(deep[:33] + png_chunk(b"eXIf", block(order)) + deep[33:], "tiff")
        with tifffile.TiffFile(BytesIO(made)) as file:
            assert (file.byteorder, file.pages[0].dtype) == (order, np.uint16)
            assert np.array_equal(file.asarray()[..., 1], grey_scene(40, 60).astype(np.uint16) * 200)


def test_jpeg_2000_gives_its_exif_too() -> None:
    jpeg2000 = encoded(rgb_scene(40, 60), "JPEG2000")
    box = b"uuidJpgTiffExif->JP2" + block(">")
    place = jpeg2000.index(b"jp2c") - 4
    assert_says_it_all(converted(jpeg2000[:place] + struct.pack(">I", 4 + len(box)) + box + jpeg2000[place:], "tiff"))


@pytest.mark.parametrize("wanted", ["jpeg", "tiff", "webp"])
def test_a_jpeg_s_mark_before_a_block_elsewhere_is_no_damage(wanted: Format) -> None:
    png, marked = encoded(rgb_scene(40, 60), "PNG"), b"Exif\0\0" + block(">")
    result = converted(png[:33] + png_chunk(b"eXIf", marked) + png[33:], wanted)
    assert_says_it_all(result)
    assert result.count(b"Exif\0\0") == (wanted == "jpeg")


@pytest.mark.parametrize("wanted", ["jpeg", "png", "tiff", "webp"])
def test_heif_gives_its_exif_as_upright_as_its_pixels(wanted: Format) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    heif.from_bytes("RGB", (60, 40), rgb_scene(40, 60).tobytes()).save(buffer, exif=block("<", orientation=6))
    page = open_scan(buffer.getvalue()).pages[0]
    result = converted(buffer.getvalue(), wanted)
    assert_says_it_all(result)
    image = Image.open(BytesIO(result))
    assert (image.size, image.getexif().get(274, 1)) == ((page.width, page.height), 1)


# Damage


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"nonsense", block()[:40], b"MM\0*\0\0\0\x08\0\0" + bytes(8), b"II*\0\xff\xff\xff\xff" + bytes(9)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_block_that_is_no_block_is_left_out(kind: str, exif: bytes) -> None:
    data = converted(picture(kind, exif), "tiff")
    with tifffile.TiffFile(BytesIO(data)) as file:
        assert not TAKEN & {tag.code for tag in file.pages[0].aspage().tags}
        assert file.asarray().shape == (40, 60, 3)


def test_of_a_damaged_block_the_sound_tags_go_over() -> None:
    exif = bytearray(block())
    for code, kind in ((270, 2), (0x927C, 7)):  # a description that lies beyond the end, and a maker note
        place = exif.index(struct.pack("<HH", code, kind))
        struct.pack_into("<I", exif, place + 8, len(exif))
    place = exif.index(struct.pack("<HHI", 34853, 4, 1))
    struct.pack_into("<I", exif, place + 8, 5)  # and a GPS directory that is none
    image = Image.open(BytesIO(converted(picture("JPEG", bytes(exif)), "tiff")))
    assert set(image.getexif()) >= TAKEN - {270, 34853}
    assert not {270, 34853} & set(image.getexif())
    assert set(image.getexif().get_ifd(0x8769)) == {0x829A, 0x9003, 0x9286}
    without_link = block(">")
    last = without_link[: len(without_link) - 24 - 4]  # the GPS directory, whose values are inline but for the last
    assert Image.open(BytesIO(converted(picture("JPEG", last), "tiff"))).getexif()[270] == TEXTS[270]


def test_directories_that_form_a_loop_end() -> None:
    exif = bytearray(block())
    for code in (34665, 34853):
        struct.pack_into("<I", exif, exif.index(struct.pack("<HHI", code, 4, 1)) + 8, 8)
    codes = {tag.code for tag in _tags_of(bytes(exif))}
    assert codes == TAKEN - {34665, 34853}


def test_a_block_that_points_to_one_directory_again_and_again_is_read_up_to_a_limit() -> None:
    many = b"".join(struct.pack("<HHII", 60_000, 1, 1, 0) for _ in range(1000))
    start = 8 + 2 + 3000 * 12 + 4
    pointers = b"".join(struct.pack("<HHII", 34665, 13, 1, start) for _ in range(3000))
    exif = b"II*\0" + struct.pack("<IH", 8, 3000) + pointers + bytes(4) + struct.pack("<H", 1000) + many + bytes(4)
    source = Source(BytesIO(exif), "x")
    with source.opened():
        found = read_first(source)
    assert 10 < len(found.tags) <= MAX_EXIF_TAGS / 1000  # of 3,000, with 3,000,000 tags


def _tags_of(exif: bytes) -> tuple[Any, ...]:
    source, first = read_exif(exif, "x")
    assert first is not None
    with source.opened():
        return exif_tags(source, first)


changes = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 4, 8, 12, 13, 16, 127, 255])), min_size=1, max_size=6
)


@settings(max_examples=300)
@given(changes, st.floats(0.2, 2), st.sampled_from("<>"), st.sampled_from(["JPEG", "PNG"]))
def test_mutated_blocks_never_keep_a_picture_from_becoming_a_tiff(
    made: list[tuple[float, int]], kept: float, order: str, kind: str
) -> None:
    exif = bytearray(block(order, orientation=6))
    for place, value in made:
        exif[int(place * len(exif))] = value
    data = converted(picture(kind, bytes(exif[: int(kept * len(exif))])), "tiff")
    scan = open_scan(data, name="x")
    assert (scan.pages[0].width, scan.pages[0].height, len(scan.pages)) == (60, 40, 1)
    assert scan.metadata.exif is None or len(scan.metadata.exif) <= MAX_EXIF
    with tifffile.TiffFile(BytesIO(data)) as file:
        assert file.asarray().shape == (40, 60, 3)


TIFFS = [tiff("<"), tiff(">", big=True)]
PLACES = [data.index(TEXTS[270].encode()) for data in TIFFS]


@settings(max_examples=200)
@given(changes, st.integers(0, 1), st.sampled_from(["jpeg", "png"]))
def test_mutated_exif_of_a_tiff_is_converted_or_refused(made: list[tuple[float, int]], number: int, wanted: Format) -> None:
    data = bytearray(TIFFS[number])
    start = PLACES[number]
    for place, value in made:
        data[start + int(place * (len(data) - start))] = value
    try:
        result = converted(bytes(data), wanted)
    except PictureError as error:
        message, result = str(error), b""
    else:
        message = "x: was converted"
    assert message.startswith("x: ")
    assert message.isprintable()
    exif = open_scan(result).metadata.exif if result else None
    if exif is not None:  # it is a sound block
        source = Source(BytesIO(exif), "x")
        with source.opened():
            Target(BytesIO(), source, big=False).finish((NewDirectory(exif_tags(source, read_first(source))),))
