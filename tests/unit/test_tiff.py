"""TIFF files as scans: every kind of pixels, every page and every tag, in little memory, and what is refused in which words."""

import contextlib
import itertools
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin
from skimage.color import rgb2lab

from colorize.errors import PictureError
from colorize.imaging.formats import tiff_directory
from colorize.imaging.formats.tiff import TiffScan
from colorize.imaging.formats.tiff_codec import decode
from colorize.imaging.formats.tiff_directory import MAX_PAGES, Source, read_structure
from colorize.imaging.formats.tiff_pieces import CodecError, inflate, regrouped, unlzw, unpackbits
from colorize.imaging.note import Note
from colorize.imaging.space import RgbSpace
from tests.pictures import grey_scene, rgb_scene

HEIGHT, WIDTH = 75, 101
GREY = grey_scene(HEIGHT, WIDTH)
COLOR = rgb_scene(HEIGHT, WIDTH)
ALPHA = 255 - GREY
NOTE = Note(model="m", model_sha256="0" * 64, vividness=0.5)
CODES = {None: 1, "lzw": 5, "zlib": 8, "packbits": 32773}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in production; several threads on cores that others use wait for each other at every small operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """The bytes of a TIFF file of one page, by tifffile."""
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, software=False, **options)
    return buffer.getvalue()


def pillow_tiff(image: Image.Image, **options: Any) -> bytes:
    """The same by Pillow and libtiff."""
    buffer = BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def handmade(tags: list[tuple[int, int, int, bytes]], after: bytes = b"", link: int = 0) -> bytes:
    """A TIFF file of one directory behind the header; values that do not fit into their field lie behind it, then `after`."""
    end = 8 + 2 + len(tags) * 12 + 4
    entries, values = b"", b""
    for code, kind, count, value in tags:
        content = value if len(value) <= 4 else struct.pack("<I", end + len(values))
        values += b"" if len(value) <= 4 else value
        entries += struct.pack("<HHI", code, kind, count) + content.ljust(4, b"\0")
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", link) + values + after


def grey_tags(width: int = 4, height: int = 2, **changes: tuple[int, int, bytes] | None) -> list[tuple[int, int, int, bytes]]:
    """The tags of a plain grey page whose pixels are at byte 4 of the file, with some changed or taken away."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 4, 277: 1, 278: height, 279: width * height}
    tags = {code: (4, 1, struct.pack("<I", value)) for code, value in values.items()}
    tags |= {int(code[1:]): change for code, change in changes.items() if change}
    removed = {int(code[1:]) for code, change in changes.items() if change is None}
    return [(code, *tags[code]) for code in sorted(tags) if code not in removed]


def long(*values: int) -> tuple[int, int, bytes]:
    return 4, len(values), struct.pack(f"<{len(values)}I", *values)


def with_strips(tags: list[tuple[int, int, int, bytes]], *strips: bytes) -> bytes:
    """A handmade file of these strips behind its directory, which says where they are."""
    lengths = [len(strip) for strip in strips]
    size = len(handmade([(code, *rest) for code, *rest in tags if code not in (273, 279)]))
    start = size + 2 * 12 + (0 if len(strips) == 1 else 2 * 4 * len(strips))
    places = {273: long(*(start + sum(lengths[:index]) for index in range(len(strips)))), 279: long(*lengths)}
    others = [(code, *rest) for code, *rest in tags if code not in places]
    return handmade(sorted([*others, *((code, *value) for code, value in places.items())]), after=b"".join(strips))


def colored(data: bytes, ab: float = 0, note: Note | None = None, pages: int = 1) -> bytes:
    """The file in colour, of one colour over every page."""
    target = BytesIO()
    scan = TiffScan(BytesIO(data), "x.tif")
    assert len(scan.pages) == pages
    scan.write(target, [np.full((2, 5, 7), ab, np.float32)] * pages, note)
    return target.getvalue()


def pages_of(data: bytes) -> list[tifffile.TiffPage]:
    with tifffile.TiffFile(BytesIO(data)) as file:
        return [page.aspage() for page in file.pages]


def pixels_of(data: bytes, page: int = 0) -> np.ndarray:
    with tifffile.TiffFile(BytesIO(data)) as file:
        return file.pages[page].asarray()


def lightness(pixels: np.ndarray) -> np.ndarray:
    """L of grey or RGB, 8 or 16 bits, by skimage."""
    rgb_hwc = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels[..., :3]
    return rgb2lab(rgb_hwc / np.iinfo(pixels.dtype).max)[..., 0]


def used(data: bytes) -> None:
    """Everything that can be asked of a file."""
    scan = TiffScan(BytesIO(data), "x.tif")
    for page in range(len(scan.pages)):
        scan.lightness(page, 8, 8)
        scan.chroma(page, 8, 8)
    scan.write(BytesIO(), [np.zeros((2, 4, 4), np.float32)] * len(scan.pages), NOTE)


def refusal(data: bytes, use: bool = False) -> str:
    with pytest.raises(PictureError) as caught:
        used(data) if use else TiffScan(BytesIO(data), "x.tif")
    message = str(caught.value)
    assert message.startswith("x.tif: ")
    assert message.isprintable()
    return message.removeprefix("x.tif: ")


# What is read and written

COMBINATIONS = list(
    itertools.product((8, 16), ("grey", "alpha", "rgb", "rgba"), CODES, (None, (32, 48)), "<>", (False, True), (False, True), (False, True))
)[::11]


@pytest.mark.parametrize(("bits", "kind", "compression", "tile", "order", "separate", "predictor", "big"), COMBINATIONS)
def test_a_round_trip_keeps_lightness_alpha_and_layout(
    bits: int, kind: str, compression: str | None, tile: tuple[int, int] | None, order: str, separate: bool, predictor: bool, big: bool
) -> None:
    pixels = {"grey": GREY, "alpha": np.dstack([GREY, ALPHA]), "rgb": COLOR, "rgba": np.dstack([COLOR, ALPHA])}[kind]
    if bits == 16:
        grain = np.random.default_rng(3).integers(0, 257, pixels.shape)
        pixels = np.minimum(pixels.astype(np.uint16) * 257 + grain, 65535).astype(np.uint16)
    options: dict[str, Any] = {"extrasamples": ["unassalpha"]} if kind in ("alpha", "rgba") else {}
    separate = separate and pixels.ndim == 3
    predictor = predictor and compression in ("lzw", "zlib")
    if separate:
        options["planarconfig"] = "separate"
    data = tiff(
        np.moveaxis(pixels, -1, 0) if separate else pixels,
        photometric="rgb" if kind.startswith("rgb") else "minisblack",
        compression=compression,
        predictor=predictor or None,
        byteorder=order,
        bigtiff=big,
        **({"tile": tile} if tile else {"rowsperstrip": 20}),
        **options,
    )
    scan = TiffScan(BytesIO(data), "x.tif")
    assert (scan.format, scan.name, len(scan.pages)) == ("TIFF", "x.tif", 1)
    assert (scan.pages[0].width, scan.pages[0].height, scan.pages[0].bits) == (WIDTH, HEIGHT, bits)
    assert (scan.chroma(0, 9, 12) is None) == (not kind.startswith("rgb"))

    ab_2hw = np.random.default_rng(4).normal(0, 25, (2, 9, 12)).astype(np.float32)
    targets = BytesIO(), BytesIO()
    for target in targets:
        scan.write(target, [ab_2hw], None)
    result = targets[0].getvalue()
    assert result == targets[1].getvalue()
    with tifffile.TiffFile(BytesIO(result)) as file:
        page = file.pages[0].aspage()
        assert (file.is_bigtiff, file.byteorder) == (big, order)
    assert (page.photometric, page.planarconfig, page.compression, page.predictor) == (2, 1, CODES[compression], 2 if predictor else 1)
    assert (page.tile if tile else page.rowsperstrip) == (tile or 20)
    again = pixels_of(result)
    assert again.dtype == pixels.dtype
    limit = 100 / 255 if bits == 8 else 100 * 2 / 65535
    source = pixels[..., 0] if kind == "alpha" else pixels
    assert np.abs(lightness(source) - lightness(again)).max() <= limit
    assert np.ptp(again[..., :3].astype(int), axis=2).mean() > 5, "there is no colour"
    if options.get("extrasamples"):
        assert np.array_equal(again[..., 3], pixels[..., -1])
        assert page.extrasamples == (2,)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_few_bits_are_spread_and_white_is_zero_turned(bits: int, photometric: int) -> None:
    levels = np.random.default_rng(1).integers(0, 2**bits, (9, 13)).astype(np.uint8)
    rows = np.unpackbits(levels[..., None], axis=2)[..., -bits:].reshape(len(levels), -1)
    data = with_strips(grey_tags(13, 9, _258=long(bits), _262=long(photometric)), np.packbits(rows, axis=1).tobytes())
    expected = levels.astype(int) * 255 // (2**bits - 1)
    expected = 255 - expected if photometric == 0 else expected
    assert np.array_equal(pixels_of(colored(data)), np.dstack([expected] * 3))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("compression", [1, 8, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_packed_bits_above_8_become_16(bits: int, compression: int, channels: int) -> None:
    levels = np.random.default_rng(1).integers(0, 2**bits, (9, 13, channels)).astype(np.uint16)
    bits_hn = (levels[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).reshape(9, -1)
    packed = {1: bytes, 8: imagecodecs.zlib_encode, 5: imagecodecs.lzw_encode}[compression](np.packbits(bits_hn, axis=1).tobytes())
    kind = {"_262": long(1 if channels == 1 else 2), "_277": long(channels), "_258": long(*[bits] * channels)}
    data = with_strips(grey_tags(13, 9, _259=long(compression), **kind), bytes(packed))
    assert np.array_equal(pixels_of(data), levels.squeeze())
    expected = np.round(levels * (65535 / (2**bits - 1))).astype(np.uint16).squeeze()
    assert np.abs(lightness(pixels_of(colored(data))) - lightness(expected)).max() <= 100 * 2 / 65535
    assert TiffScan(BytesIO(data), "x.tif").pages[0].bits == 16


def test_sixteen_bits_of_white_is_zero() -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    again = pixels_of(colored(tiff(pixels, photometric="miniswhite")))
    assert np.abs(lightness(65535 - pixels) - lightness(again)).max() <= 200 / 65535


@pytest.mark.parametrize("divisor", [1, 256, 257])
def test_a_palette_is_expanded(divisor: int) -> None:
    colors = np.random.default_rng(2).integers(0, 256, (3, 256)).astype(np.uint16)
    data = tiff(GREY, photometric="palette", colormap=colors * np.uint16(divisor))
    scan = TiffScan(BytesIO(data), "x.tif")
    assert scan.chroma(0, 4, 4) is not None
    assert np.abs(scan.lightness(0, HEIGHT, WIDTH) - lightness(colors.T.astype(np.uint8)[GREY])).max() < 0.01
    page = pages_of(colored(data))[0]
    assert 320 not in page.tags
    assert page.photometric == 2


def test_a_palette_of_greys_has_no_colour() -> None:
    data = tiff(GREY, photometric="palette", colormap=np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1)))
    assert TiffScan(BytesIO(data), "x.tif").chroma(0, 4, 4) is None
    assert np.array_equal(pixels_of(colored(data))[..., 1], 255 - GREY)


@pytest.mark.parametrize("kind", ["group3", "group4", "tiff_ccitt"])
def test_ccitt_is_read_and_deflated(kind: str) -> None:
    bilevel = COLOR[..., 1] > 100
    data = pillow_tiff(Image.fromarray(bilevel), compression=kind)
    result = colored(data)
    assert np.array_equal(pixels_of(result)[..., 0], bilevel * np.uint8(255))
    assert pages_of(result)[0].compression == 8


@pytest.mark.parametrize("kind", ["group3", "group4", "tiff_ccitt"])
def test_a_ccitt_strip_that_ends_too_early_is_seen(kind: str) -> None:
    bilevel = COLOR[..., 1] > 100
    data = pillow_tiff(Image.fromarray(bilevel), compression=kind)
    scan = TiffScan(BytesIO(data), "x.tif")
    raster = scan._pictures[0].raster
    strip = data[int(raster.offsets[0]) :][: int(raster.counts[0])]
    whole = decode(strip, raster, "<", HEIGHT, WIDTH)
    for length in range(1, len(strip) - 4):
        try:
            pixels = decode(strip[:length], raster, "<", HEIGHT, WIDTH)
        except CodecError:
            continue
        assert length > 0.9 * len(strip)
        assert np.array_equal(pixels[:-1], whole[:-1]), f"cut after {length} of {len(strip)} bytes"


@pytest.mark.parametrize("pixels", [GREY, COLOR])
@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 16}, {"rowsperstrip": 80}])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_is_read_as_others_read_it_and_deflated(pixels: np.ndarray, layout: dict[str, Any], subsampling: tuple[int, int]) -> None:
    options = {"photometric": "ycbcr", "subsampling": subsampling} if pixels.ndim == 3 else {}
    data = tiff(pixels, compression="jpeg", **options, **layout)
    decoded = pixels_of(data)
    result = colored(data)
    page = pages_of(result)[0]
    assert (page.compression, page.predictor, page.photometric) == (8, 2, 2)
    assert page.is_tiled == ("tile" in layout)
    assert np.abs(lightness(decoded) - lightness(pixels_of(result))).max() <= 100 / 255


def test_jpeg_of_rgb_and_with_shared_tables() -> None:
    data = pillow_tiff(Image.fromarray(COLOR), compression="jpeg", quality=90)
    assert np.abs(lightness(np.array(Image.open(BytesIO(data)))) - lightness(pixels_of(colored(data)))).max() <= 100 / 255
    assert TiffScan(BytesIO(data), "x.tif").chroma(0, 4, 4) is not None
    as_rgb = tiff(COLOR, compression="jpeg", photometric="rgb", tile=(32, 48), compressionargs={"outcolorspace": "rgb"})
    assert np.abs(lightness(pixels_of(as_rgb)) - lightness(pixels_of(colored(as_rgb)))).max() <= 100 / 255


@pytest.mark.parametrize("compression", [1, 4, 5])
def test_fill_order_is_turned(compression: int) -> None:
    bilevel = COLOR[..., 1] > 100
    data = pillow_tiff(Image.fromarray(bilevel), compression={1: None, 4: "group4", 5: "tiff_lzw"}[compression])
    page = pages_of(data)[0]
    assert len(page.dataoffsets) == 1
    strip = imagecodecs.bitorder_decode(data[page.dataoffsets[0] :][: page.databytecounts[0]])
    tags = grey_tags(WIDTH, HEIGHT, _258=long(1), _259=long(compression), _262=long(page.photometric), _266=long(2))
    assert np.array_equal(pixels_of(colored(with_strips(tags, strip)))[..., 0], bilevel * np.uint8(255))


def test_missing_byte_counts_of_plain_strips_are_computed() -> None:
    data = handmade(grey_tags(4, 1, _279=None))
    assert pixels_of(colored(data)).shape == (1, 4, 3)


def test_a_strip_filled_up_and_data_behind_it_are_no_damage() -> None:
    full, filled = imagecodecs.zlib_encode(bytes(8)), imagecodecs.zlib_encode(bytes([9] * 8))  # of the second, one row is the page's
    data = with_strips(grey_tags(4, 3, _259=long(8), _278=long(2)), bytes(full) + b"??", bytes(filled))
    assert pixels_of(colored(data))[..., 0].tolist() == [[0] * 4, [0] * 4, [9] * 4]


# Lightness at a small size


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (20, 30), (7, 101), (75, 9), (1, 1), (150, 150)])
@pytest.mark.parametrize("pixels", [GREY, COLOR])
def test_small_lightness_is_the_antialiased_one(pixels: np.ndarray, size: tuple[int, int]) -> None:
    L_hw = TiffScan(BytesIO(tiff(pixels, rowsperstrip=9)), "x.tif").lightness(0, *size)
    assert (L_hw.dtype, L_hw.shape) == (np.float32, size)
    planes = torch.from_numpy(pixels.astype(np.float32).reshape(HEIGHT, WIDTH, -1)).movedim(2, 0)[None]
    reduced = F.interpolate(planes, size=size, mode="bilinear", antialias=True)[0].movedim(0, 2)
    expected = lightness((reduced * 257 + 0.5).clamp(0, 65535).expand(*size, 3).numpy().astype(np.uint16))
    assert np.abs(L_hw - expected).max() < 0.05


def test_lightness_at_full_size_is_exact_and_chroma_follows() -> None:
    scan = TiffScan(BytesIO(tiff(COLOR)), "x.tif")
    assert np.array_equal(scan.lightness(0, HEIGHT, WIDTH), RgbSpace().lightness(COLOR))
    ab_2hw = scan.chroma(0, HEIGHT, WIDTH)
    assert ab_2hw is not None
    assert np.abs(ab_2hw - rgb2lab(COLOR).transpose(2, 0, 1)[1:]).max() < 0.05


# What is kept


def test_tags_are_kept_byte_for_byte() -> None:
    exif = TiffImagePlugin.ImageFileDirectory_v2()
    exif[0x829A], exif[0x9286], exif[0x927C] = TiffImagePlugin.IFDRational(1, 250), b"ASCII\0\0\0caption", bytes(range(256))
    info = TiffImagePlugin.ImageFileDirectory_v2()
    texts = {270: "Bahnhof, Gleis 3", 271: "Maker", 305: "ScanSoft 2.1", 306: "1999:12:31 23:59:59", 315: "Müller", 33432: "© 1999"}
    for code, text in texts.items():
        info[code] = text.encode("latin-1") + b"\0"
        info.tagtype[code] = 2
    for code, blob in {33723: b"\x1c\x02\x05\0\4test", 34377: b"8BIM" + bytes(300), 65001: bytes(range(200)), 700: b"<x:xmpmeta/>"}.items():
        info[code] = blob
        info.tagtype[code] = 7
    info[34665], info[34853] = dict(exif), {1: "N", 2: (48.0, 8.0, 0.5)}
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = pillow_tiff(Image.fromarray(GREY), tiffinfo=info, dpi=(600, 300))
    data_rgb = pillow_tiff(Image.fromarray(COLOR), tiffinfo=info, dpi=(600, 300), icc_profile=srgb)
    for original in (data, data_rgb):
        result = colored(original)
        before, after = (_tags(each) for each in (original, result))
        described = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317}
        icc = {34675} if original is data_rgb else set()
        assert set(before) - described == set(after) - described
        for code in set(before) - described - icc:
            assert before[code] == after[code], code
        assert set(before) >= {700, 270, 282, 283, 296, 33723, 34377, 65001, 34665, 34853} | set(texts) | icc
        image = Image.open(BytesIO(result))
        assert image.getexif().get_ifd(34665)[0x927C] == bytes(range(256))
        assert image.getexif().get_ifd(34853)[2] == (48.0, 8.0, 0.5)
        assert image.info["dpi"] == (600, 300)
    assert Image.open(BytesIO(colored(data_rgb))).info["icc_profile"] == srgb


def test_tags_of_unknown_types_are_left_out_and_directories_at_byte_0_are_none() -> None:
    data = with_strips(grey_tags(_34665=long(0), _34853=long(0), _65001=(99, 1, b"abcd"), _65002=(7, 4, b"abcd")), bytes(range(8)))
    result = colored(data)
    assert np.array_equal(pixels_of(result)[..., 0], np.arange(8).reshape(2, 4))
    tags = pages_of(result)[0].tags
    assert 65001 not in tags
    assert tags[65002].value == b"abcd"
    for code in (258, 330, 34665, 34675):
        assert refusal(handmade(grey_tags(**{f"_{code}": (99, 1, b"")}))).endswith(f"tag {code} is of type 99, which there is not")
    assert refusal(handmade([(65001, 99, 1, b"")])).endswith("the directory at byte 8 has no tag of a known type")


def _tags(data: bytes) -> dict[int, Any]:
    """Type and bytes of every tag of the first page; of one that points to a directory, those of its tags."""
    source = Source(BytesIO(data), "x")
    with source.opened():

        def listed(directory: Any) -> dict[int, Any]:
            values = {tag.code: (tag.type, source.value(tag)) for tag in directory.tags if not tag.children}
            return values | {tag.code: [listed(child) for child in tag.children] for tag in directory.tags if tag.children}

        return listed(read_structure(source).chain[0])


def test_the_profile_of_a_grey_page_gives_way_to_one_of_rgb() -> None:
    profile = _gamma_profile()
    data = tiff(GREY, iccprofile=profile)
    result = colored(data)
    written = pages_of(result)[0].tags[34675].value
    assert written == RgbSpace(profile).output_profile
    assert written[16:20] == b"RGB "
    L_hw = TiffScan(BytesIO(data), "x.tif").lightness(0, HEIGHT, WIDTH)
    assert np.abs(L_hw - TiffScan(BytesIO(result), "x.tif").lightness(0, HEIGHT, WIDTH)).max() <= 100 / 255
    assert np.abs(L_hw - lightness(GREY)).max() > 2, "the profile is not heeded"


def _gamma_profile() -> bytes:
    """A grey ICC profile of gamma 1.6."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.6 * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"g\0" + bytes(78)
    parts, table, place = b"", b"", 128 + 4 + 3 * 12
    for name, content in ((b"kTRC", curve), (b"wtpt", white), (b"desc", text)):
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(parts), len(content))
        parts += content
    head = b"lcms\x02\x10\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061) + bytes(48)
    body = head + struct.pack(">I", 3) + table + parts
    return struct.pack(">I", len(body) + 4) + body


def test_a_damaged_profile_is_named() -> None:
    assert "profile" in refusal(tiff(GREY, iccprofile=b"no profile at all"))


def test_a_note_goes_into_xmp_and_nothing_else_does() -> None:
    assert 700 not in pages_of(colored(tiff(GREY)))[0].tags
    xmp = pages_of(colored(tiff(GREY), note=NOTE))[0].tags[700].value
    assert NOTE.model_sha256.encode() in xmp
    kept = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>'
    data = tiff(GREY, extratags=[(700, 1, len(kept), kept, True)])
    assert bytes(pages_of(colored(data))[0].tags[700].value) == kept
    assert NOTE.model_sha256.encode() in bytes(pages_of(colored(data, note=NOTE))[0].tags[700].value)
    assert {305, 306, 270} & set(pages_of(colored(tiff(GREY), note=NOTE))[0].tags.keys()) == set()


@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_is_told_and_kept(orientation: int) -> None:
    data = tiff(GREY, extratags=[(274, "H", 1, orientation, True)])
    scan = TiffScan(BytesIO(data), "x.tif")
    assert scan.pages[0].orientation == (orientation if 1 <= orientation <= 8 else 1)
    assert (scan.pages[0].width, scan.pages[0].height) == (WIDTH, HEIGHT)
    assert pages_of(colored(data))[0].tags[274].value == orientation


# Pages


def test_every_page_of_every_kind_is_coloured() -> None:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, metadata=None, software=False, photometric="minisblack", subfiletype=2)
        writer.write(COLOR[:30, :20], metadata=None, software=False, photometric="rgb", compression="zlib", subfiletype=1)
        third = {"photometric": "miniswhite", "tile": (16, 16), "description": "third"}
        writer.write(GREY.astype(np.uint16) * 257, metadata=None, software=False, **third)
    scan = TiffScan(BytesIO(buffer.getvalue()), "x.tif")
    assert [(page.width, page.height, page.bits) for page in scan.pages] == [(WIDTH, HEIGHT, 8), (20, 30, 8), (WIDTH, HEIGHT, 16)]
    target = BytesIO()
    scan.write(target, [np.full((2, 3, 3), ab, np.float32) for ab in (0, 20, -20)], NOTE)
    result = target.getvalue()
    assert [page.subfiletype for page in pages_of(result)] == [2, 1, 0]
    assert pages_of(result)[2].description == "third"
    assert np.abs(lightness(pixels_of(result, 2)) - lightness(65535 - GREY.astype(np.uint16) * 257)).max() <= 200 / 65535
    warm, cold = (pixels_of(result, page).astype(int) for page in (1, 2))
    assert (warm[..., 0] - warm[..., 2]).mean() > 5
    assert (cold[..., 0] - cold[..., 2]).mean() < -5
    assert all(700 in page.tags for page in pages_of(result))


def test_pages_below_a_page_are_coloured_and_stay_there() -> None:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, metadata=None, software=False, subifds=2)
        writer.write(GREY[::2, ::2], metadata=None, software=False, subfiletype=1)
        writer.write(GREY[::4, ::4], metadata=None, software=False, subfiletype=1)
        writer.write(COLOR, metadata=None, software=False, photometric="rgb")
    scan = TiffScan(BytesIO(buffer.getvalue()), "x.tif")
    assert [page.height for page in scan.pages] == [HEIGHT, 38, 19, HEIGHT]
    target = BytesIO()
    scan.write(target, [np.zeros((2, 3, 3), np.float32)] * 4, None)
    with tifffile.TiffFile(BytesIO(target.getvalue())) as file:
        assert len(file.pages) == 2
        assert [page.asarray().shape for page in file.pages[0].pages] == [(38, 51, 3), (19, 26, 3)]
        assert np.array_equal(file.pages[0].pages[1].asarray()[..., 0], GREY[::4, ::4])


def test_reduced_pages_are_known_by_the_old_tag_too() -> None:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number, kind in enumerate((1, 2, 3)):  # a full picture, a reduced one, a page of several
            writer.write(GREY[number:], metadata=None, software=False, extratags=[(255, "H", 1, kind, True)])
    assert [page.is_reduced for page in TiffScan(BytesIO(buffer.getvalue()), "x.tif").pages] == [False, True, False]


def test_a_mask_is_copied_and_no_page() -> None:
    mask = GREY > 128
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, metadata=None, software=False)
        writer.write(mask, metadata=None, software=False, subfiletype=4, rowsperstrip=9, compression="zlib")
    assert len(TiffScan(BytesIO(buffer.getvalue()), "x.tif").pages) == 1
    result = colored(buffer.getvalue())
    assert np.array_equal(pixels_of(result, 1), mask)
    assert pages_of(result)[1].rowsperstrip == 9
    only = tiff(mask, subfiletype=4)
    assert refusal(only) == "has no picture, only masks"


def test_a_file_object_stays_open_and_a_path_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(GREY))
    scan = TiffScan(path, "x.tif")
    assert scan.lightness(0, 5, 5).shape == (5, 5)
    with path.open("rb") as file:
        same = TiffScan(file, "x.tif").lightness(0, 5, 5)
        assert not file.closed
    assert np.array_equal(scan.lightness(0, 5, 5), same)
    path.unlink()
    with pytest.raises(PictureError, match="cannot be read: no such file"):
        scan.write(BytesIO(), [np.zeros((2, 3, 3), np.float32)], None)
    for missing in (path, tmp_path):
        with pytest.raises(PictureError, match=r"^x: (cannot be read: no such file|is not a regular file)"):
            TiffScan(missing, "x")


def test_a_full_disk_is_the_target_s_own_error() -> None:
    with open("/dev/full", "w+b", buffering=0) as full, pytest.raises(OSError, match="No space left on device"):  # noqa: PTH123
        TiffScan(BytesIO(tiff(GREY)), "x.tif").write(full, [np.zeros((2, 3, 3), np.float32)], None)


class _Sparse:
    """A file that keeps only what it is given first and last, and forgets the pixels: a target of many gigabytes."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.place = 0

    def write(self, data: bytes) -> int:
        if len(data) < 1000:
            self.parts[self.place] = bytes(data)
        self.place += len(data)
        return len(data)

    def seek(self, place: int) -> int:
        self.place = place
        return place


def test_a_result_above_four_gigabytes_becomes_bigtiff() -> None:
    from colorize.imaging.formats.tiff_target import NewDirectory, NewTag, Target

    source = Source(BytesIO(tiff(GREY)), "x")
    for size, expected in ((4 << 30, b"II+\0"), (1 << 20, b"II*\0")):
        file = _Sparse()
        target = Target(file, source, False)  # type: ignore[arg-type]
        for _ in range(size >> 20):
            place = target.append(bytes(1 << 20))
        target.finish((NewDirectory((NewTag(273, 4, np.array([place], np.uint64)),)),))
        header = file.parts[0]
        assert header[:4] == expected
        table = file.parts[struct.unpack("<Q" if expected == b"II+\0" else "<I", header[8:16] if expected == b"II+\0" else header[4:8])[0]]
        if expected == b"II+\0":
            assert struct.unpack("<QHHQQQ", table) == (1, 273, 4 if place < 1 << 32 else 16, 1, place, 0)
        else:
            assert struct.unpack("<HHHIII", table) == (1, 273, 4, 1, place, 0)


# What is refused


def _extra(photometric: str, **options: Any) -> bytes:
    return tiff(np.zeros((16, 16, 4), np.uint8), photometric=photometric, **options)


REFUSED: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "is empty (zero bytes)"),
    (lambda: b"II", "is not a TIFF file"),
    (lambda: b"II*\0", "is a truncated or damaged TIFF: its header ends after 4 bytes"),
    (lambda: b"II*\0" + bytes(4), "is a truncated or damaged TIFF: it has no page"),
    (lambda: b"\x89PNG\r\n\x1a\n", "is not a TIFF file"),
    (lambda: _extra("separated"), "is a TIFF whose pixels are CMYK; grey, RGB and palettes are read: convert it"),
    (lambda: tiff(COLOR, photometric="cielab"), "is a TIFF whose pixels are CIE LAB"),
    (lambda: tiff(COLOR, photometric="icclab"), "is a TIFF whose pixels are ICC LAB"),
    (lambda: tiff(GREY, photometric="cfa"), "is a TIFF whose pixels are raw camera data"),
    (lambda: tiff(GREY.astype(np.float32)), "is a TIFF whose pixels are floating-point numbers"),
    (lambda: tiff(GREY.astype(np.float16)), "is a TIFF whose pixels are floating-point numbers"),
    (lambda: tiff(GREY.astype(np.int16)), "is a TIFF whose pixels are signed numbers"),
    (lambda: tiff(GREY.astype(np.complex64)), "is a TIFF whose pixels are complex numbers"),
    (lambda: tiff(GREY.astype(np.uint32)), "is a TIFF of 32 bits a channel; convert it to 8 or 16"),
    (lambda: tiff(GREY, compression="zstd"), "is a TIFF compressed by Zstandard; rewrite it with LZW or deflate"),
    (lambda: tiff(GREY, compression="jpeg2000"), "is a TIFF compressed by JPEG 2000"),
    (lambda: handmade(grey_tags(_259=long(6))), "is a TIFF compressed by old-style JPEG"),
    (lambda: handmade(grey_tags(_32997=long(4))), "is a TIFF of 4 slices in one page, which is not read"),
    (lambda: handmade(grey_tags(_259=long(77))), "is a TIFF compressed by compression 77"),
    (lambda: handmade(grey_tags(_262=long(6))), "is a TIFF whose pixels are YCbCr without JPEG"),
    (lambda: handmade(grey_tags(_262=long(99))), "is a TIFF whose pixels are of photometric interpretation 99"),
    (lambda: handmade(grey_tags(_258=long(6))), "is a TIFF of 6 bits a channel"),
    (lambda: handmade(grey_tags(_258=long(12), _317=long(2), _259=long(8))), "is a TIFF of predictor 2 with 12 bits a channel"),
    (lambda: handmade(grey_tags(_262=long(2), _277=long(3), _258=long(5, 6, 5))), "is a TIFF of channels of different depths"),
    (lambda: handmade(grey_tags(_277=long(200))), "is a TIFF of 200 channels"),
    (lambda: handmade(grey_tags(_262=None)), "is a truncated or damaged TIFF: PhotometricInterpretation is missing"),
    (lambda: handmade(grey_tags(_256=None)), "is a truncated or damaged TIFF: ImageWidth is missing"),
    (lambda: handmade(grey_tags(_273=None)), "is a truncated or damaged TIFF: it does not say where its pixels are"),
    (lambda: handmade(grey_tags(_256=long(0))), "is a truncated or damaged TIFF: it has 0×2 pixels"),
    (lambda: handmade(grey_tags(_278=long(0))), "is a truncated or damaged TIFF: its strips or tiles are of no size"),
    (lambda: handmade(grey_tags(_278=long(1))), "is a truncated or damaged TIFF: it has 1 of 2 strips or tiles"),
    (lambda: handmade(grey_tags(_273=long(10**6))), "is a truncated or damaged TIFF: segment 1 of 1, 8 bytes at byte 1000000, is not in"),
    (lambda: handmade(grey_tags(_279=long(0))), "is a truncated or damaged TIFF: segment 1 of 1, 0 bytes at byte 4, is not in"),
    (lambda: handmade(grey_tags(_256=(2, 2, b"4\0"))), "is a truncated or damaged TIFF: tag 256 holds no unsigned numbers"),
    (lambda: handmade(grey_tags(_256=(4, 0, b""))), "is a truncated or damaged TIFF: tag 256 holds no unsigned numbers"),
    (lambda: handmade(grey_tags(_258=(99, 1, b""))), "is a truncated or damaged TIFF: tag 258 is of type 99, which there is not"),
    (lambda: handmade([]), "is a truncated or damaged TIFF: the directory at byte 8 has 0 tags"),
    (lambda: handmade(grey_tags(30_000, 30_000)), "has 30000×30000 pixels by its header; pictures of up to 200 megapixels are read"),
    (lambda: handmade(grey_tags(_256=long(2**32 - 1), _257=long(2**32 - 1))), "has 4294967295×4294967295 pixels by its header"),
    (lambda: handmade(grey_tags(2_000_000, 1)), "has 2000000×1 pixels by its header; pictures of up to 1000000 pixels a side are read"),
    (lambda: handmade(grey_tags(), link=8), "is a truncated or damaged TIFF: its directories form a loop at byte 8"),
    (lambda: handmade(grey_tags(_330=long(8))), "is a truncated or damaged TIFF: its directories form a loop at byte 8"),
    (lambda: handmade(grey_tags(_34665=long(8))), "is a truncated or damaged TIFF: its directories form a loop at byte 8"),
    (lambda: handmade(grey_tags(_34665=long(9_999))), "is a truncated or damaged TIFF: it ends after"),
    (lambda: handmade(grey_tags(_65000=(1, 2**31, bytes(9)))), "is a truncated or damaged TIFF: tag 65000 of 2147483648 bytes at byte"),
    (lambda: handmade(grey_tags(_322=long(2**20), _323=long(2**20))), "has 1 strips or tiles of 1048576 rows; at most 640 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words[:60] for _, words in REFUSED])
def test_what_is_refused(make: Callable[[], bytes], words: str) -> None:
    assert refusal(make()).startswith(words)


def test_a_page_is_named_by_its_number() -> None:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY.astype(np.float32), metadata=None)
    assert refusal(buffer.getvalue()).startswith("page 2: is a TIFF whose pixels are floating-point numbers")


def test_more_pages_than_the_limit() -> None:
    tags = grey_tags()
    size = len(handmade(tags)) - 8
    pages = [handmade(tags, link=8 + size * (page + 1))[8:] for page in range(MAX_PAGES + 1)]
    message = refusal(handmade(tags)[:8] + b"".join(pages))
    assert message == f"has more than {MAX_PAGES} pages, which is the limit; split it"


def test_directories_that_claim_more_than_the_file_has_are_a_bomb() -> None:
    size = 1 << 20
    entries = b"".join(struct.pack("<HHII", 60_000 + index, 7, size, 100) for index in range(200))  # all share one value
    data = handmade([])[:8] + struct.pack("<H", 200) + entries + bytes(size + 100)
    assert refusal(data).startswith("is a truncated or damaged TIFF: its directories claim 70256992 bytes of a file that has")


def test_a_directory_that_is_reached_on_many_ways_is_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_directory._Reader, "most_tags", 20_000)
    place = len(handmade(grey_tags(_34665=long(*[0] * 100))))
    for count, is_bomb in ((100, False), (300, True)):
        below = struct.pack("<H", count) + struct.pack("<HHII", 60_000, 1, 1, 0) * count + bytes(4)  # values of one byte, in their fields
        data = handmade(grey_tags(_34665=long(*[place] * 100)), after=below)
        if is_bomb:
            assert refusal(data) == "is a truncated or damaged TIFF: it has more than 20000 tags"
        else:
            assert len(TiffScan(BytesIO(data), "x.tif").pages) == 1, "directories may be shared"


def test_masks_that_share_the_file_s_bytes_are_a_bomb() -> None:
    def masked(*lengths: int) -> bytes:
        count = len(lengths)
        tags = grey_tags(_254=long(4), _262=long(4), _273=long(*[8] * count), _279=long(*lengths))
        mask = handmade(tags)
        page = handmade(grey_tags(_330=long(len(handmade(grey_tags(_330=long(0)))))))
        return page + mask_at(mask, len(page))

    def mask_at(mask: bytes, place: int) -> bytes:
        """The directory of a handmade file, moved so that it begins there; its offsets of values too."""
        (count,) = struct.unpack_from("<H", mask, 8)
        moved = bytearray(mask[8:])
        for entry in range(2, 2 + 12 * count, 12):
            kind, number, value = struct.unpack_from("<2xHII", moved, entry)
            if kind == 4 and number > 1:
                struct.pack_into("<I", moved, entry + 8, value - 8 + place)
        return bytes(moved)

    size = len(masked(*[1] * 20_000))
    used(masked(*[1] * 20_000))
    assert ": its directories claim " in refusal(masked(*[size - 8] * 20_000))
    empty = masked(*[0] * 2_000_000)
    assert ": its directories claim " in refusal(empty)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "jpeg", None])
def test_a_file_cut_anywhere_is_refused(compression: str | None) -> None:
    data = tiff(GREY[:24, :32], compression=compression, rowsperstrip=8, extratags=[(65000, 7, 40, bytes(40), True)])
    for length in range(len(data)):
        with pytest.raises(PictureError):
            used(data[:length])


@pytest.mark.parametrize("compression", [8, 5, 32773, 7])
def test_a_strip_that_is_shorter_than_promised_is_damage(compression: int) -> None:
    pixels = np.tile(np.arange(64, dtype=np.uint8), (40, 1))
    encode = {
        8: imagecodecs.zlib_encode,
        5: imagecodecs.lzw_encode,
        32773: imagecodecs.packbits_encode,
        7: lambda raw: imagecodecs.jpeg8_encode(np.frombuffer(raw, np.uint8).reshape(-1, 64)),
    }[compression]
    packed = bytes(encode(pixels[:39].tobytes()))
    message = refusal(with_strips(grey_tags(64, 40, _259=long(compression)), packed), use=True)
    assert message.startswith("is a truncated or damaged TIFF: strip 1 of 1: ")
    assert "64 of 2560 bytes of pixels are missing" in message or "instead of 64×40" in message


def test_a_jpeg_strip_without_an_end_is_damage() -> None:
    data = tiff(GREY, compression="jpeg", rowsperstrip=80)
    end = data.rindex(b"\xff\xd9")
    assert refusal(data[:end] + b"\0\0" + data[end + 2 :], use=True).endswith("strip 1 of 1: its JPEG has no end")


def test_a_deflated_strip_is_inflated_bit_by_bit_and_checked() -> None:
    raw = np.random.default_rng(0).integers(0, 9, 3000, dtype=np.uint8).tobytes()
    packed = bytes(imagecodecs.zlib_encode(raw))

    def inflated(data: bytes, rows: int = 30) -> bytes:
        return b"".join(inflate(iter([data[i : i + 7] for i in range(0, len(data), 7)]), 100, rows, 4))

    assert inflated(packed) == raw
    for bad in (packed[:-1], packed[: len(packed) // 2], packed[:-4] + b"1234", b""):
        with pytest.raises(CodecError):
            inflated(bad)
    with pytest.raises(CodecError, match="more pixels than promised"):
        inflated(packed, 29)
    with pytest.raises(CodecError, match="100 bytes of pixels are missing"):
        inflated(packed, 31)


def in_parts(data: bytes, size: int) -> Iterator[bytes]:
    return iter([data[i : i + size] for i in range(0, len(data), size)])


def runs(seed: int, size: int) -> bytes:
    """Bytes that compress like pictures: some runs, some noise, some that repeat."""
    made = np.random.default_rng(seed)
    pieces = [made.integers(0, 256, made.integers(1, 300), dtype=np.uint8).tobytes() for _ in range(30)]
    pieces += [bytes([made.integers(0, 256)]) * int(made.integers(1, 20_000)) for _ in range(30)]
    return b"".join(pieces[index] for index in made.integers(0, 60, 400))[:size]


@settings(max_examples=60)
@given(
    st.one_of(st.binary(max_size=4000), st.builds(runs, st.integers(0, 1000), st.integers(0, 600_000))),
    st.sampled_from([1, 7, 1000, 1 << 20]),
)
def test_lzw_and_packbits_in_pieces_are_what_they_are_whole(raw: bytes, size: int) -> None:
    if len(raw) > 10_000:
        size = max(size, 1000)
    assert b"".join(unlzw(in_parts(bytes(imagecodecs.lzw_encode(raw)), size))) == raw if raw else True
    assert b"".join(unpackbits(in_parts(bytes(imagecodecs.packbits_encode(raw)), size))) == raw


@settings(max_examples=200)
@given(st.integers(0, 50), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=3), st.integers(0, 1 << 16))
def test_damaged_lzw_is_a_part_or_an_error_and_never_a_crash(seed: int, changes: list[tuple[int, int]], cut: int) -> None:
    raw = runs(seed, 20_000)
    data = bytearray(imagecodecs.lzw_encode(raw))
    del data[1 + cut % len(data) :]
    assert raw.startswith(b"".join(unlzw(in_parts(bytes(data), 1000)))) if len(data) > 1 else True
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(CodecError):
        assert len(b"".join(unlzw(in_parts(bytes(data), 1000)))) <= 12_000_000


def test_lzw_whose_first_code_is_none_of_a_byte_is_refused() -> None:
    """imagecodecs reads memory that is not its own then, and the process dies."""
    codes = [256, 451, *range(100)]
    data = int("".join(format(code, "09b") for code in codes) + "00", 2).to_bytes(115)
    with pytest.raises(CodecError, match="not in its dictionary"):
        list(unlzw(iter([data])))
    for rows in (1, 3000):  # small and large
        tags = grey_tags(3000, rows, _259=long(5))
        assert refusal(with_strips(tags, data), use=True).endswith("it has a code that is not in its dictionary")


def test_lzw_that_was_made_to_waste_time_or_memory_is_refused() -> None:
    clears = int("100000000" + "000000001100000000" * 40_000 + "0" * 7, 2).to_bytes(90_002)
    with pytest.raises(CodecError, match="cleared all the time"):
        list(unlzw(iter([clears])))
    widths = [9] * 254 + [10] * 512 + [11] * 1024 + [12] * 6000
    codes = "100000000" + "".join(format(1, f"0{width}b") for width in widths)
    with pytest.raises(CodecError, match="dictionary overflows"):
        list(unlzw(iter([int(codes + "0" * (-len(codes) % 8), 2).to_bytes(-(-len(codes) // 8))])))
    with pytest.raises(CodecError, match="does not begin as LZW"):
        list(unlzw(iter([b"\1\xfe" * 9])))
    with pytest.raises(CodecError, match="it is empty"):
        list(unlzw(iter([])))


def test_decoded_pieces_become_rows() -> None:
    pieces = [b"abc", b"defghij", b"kl", b"mnopqr"]
    assert list(regrouped(iter(pieces), 3, 5, 2)) == [b"abcdef", b"ghijkl", b"mno"]
    with pytest.raises(CodecError, match="3 of 21 bytes of pixels are missing"):
        list(regrouped(iter(pieces), 3, 7, 2))


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("compression", ["lzw", "packbits"])
def test_a_large_strip_in_pieces_has_its_pixels_and_its_damage_is_seen(compression: str, is_reversed: bool) -> None:
    noise = np.random.default_rng(1).integers(0, 9, (3000, 3000), dtype=np.uint8)
    pixels = np.add.outer(np.arange(3000) // 40, np.arange(3000) // 50).astype(np.uint8) + noise
    encode = {"lzw": imagecodecs.lzw_encode, "packbits": imagecodecs.packbits_encode}[compression]
    strip = bytes(encode((imagecodecs.delta_encode(pixels, axis=1) if compression == "lzw" else pixels).tobytes()))
    strip = bytes(imagecodecs.bitorder_decode(strip)) if is_reversed else strip
    changes = {"_317": long(2)} if compression == "lzw" else {}
    tags = grey_tags(3000, 3000, _259=long(CODES[compression]), _266=long(2 if is_reversed else 1), **changes)
    scan = TiffScan(BytesIO(with_strips(tags, strip)), "x")
    assert np.array_equal(np.concatenate([rgb_hwc[..., 0] for rgb_hwc, _ in scan.bands(0)]), pixels)
    assert "bytes of pixels are missing" in refusal(with_strips(tags, strip[: len(strip) // 2]), use=True)


def test_large_strips_are_read_and_divided() -> None:
    height, width = 2900, 3000
    grey = np.add.outer(np.arange(height) // 40, np.arange(width) // 50).astype(np.uint8)
    for bits, predictor in ((8, True), (16, False)):
        pixels = grey if bits == 8 else grey.astype(np.uint16) * 257
        data = tiff(pixels, compression="zlib", rowsperstrip=height, predictor=predictor or None, compressionargs={"level": 1})
        result = colored(data)
        page = pages_of(result)[0]
        assert page.rowsperstrip == (16 << 20) // (width * 3 * bits // 8)
        assert np.array_equal(pixels_of(result)[..., 1], pixels)


# Damage


def _bases() -> list[bytes]:
    small, color = GREY[:40, :50], COLOR[:40, :50]
    pages = BytesIO()
    Image.fromarray(small).save(pages, "TIFF", save_all=True, append_images=[Image.fromarray(color), Image.fromarray(small).convert("P")])
    return [
        tiff(small, compression="lzw", predictor=True, rowsperstrip=7),
        tiff(color, compression="zlib", tile=(16, 16), photometric="rgb"),
        tiff(color, compression="jpeg", tile=(16, 16), photometric="rgb"),
        tiff(color.astype(np.uint16) * 257, bigtiff=True, byteorder=">", photometric="rgb", compression="packbits"),
        tiff(np.moveaxis(color, -1, 0), planarconfig="separate", photometric="rgb"),
        *(pillow_tiff(Image.fromarray(small > 100), compression=kind) for kind in ("group3", "group4", "tiff_ccitt")),
        pages.getvalue(),
    ]


BASES = _bases()


def assert_read_or_refused(data: bytes) -> None:
    try:
        used(data)
    except PictureError as error:
        message = str(error)
    else:
        message = "x.tif: was read"
    assert message.startswith("x.tif: ")
    assert message.isprintable()


@pytest.mark.parametrize("base", range(len(BASES)))
def test_mutated_files_are_read_or_refused(base: int) -> None:
    rng = np.random.default_rng(base)
    for _ in range(80):
        data = bytearray(BASES[base])
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(0, len(data)))
            data[place : place + 4] = [
                lambda: bytes([int(rng.integers(0, 256))]),
                lambda: b"\xff\xff\xff\xff",
                lambda: bytes(4),
                lambda: b"",
            ][int(rng.integers(0, 4))]()
        assert_read_or_refused(bytes(data[: int(rng.integers(1, len(data)))] if rng.random() < 0.2 else data))


FIELDS = [*range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 317, 320, *range(322, 326), 330, 338, 339, 347, 700, 34665]
numbers = st.one_of(st.integers(0, 20), st.sampled_from([255, 256, 65535, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.tuples(st.sampled_from([1, 2, 3, 4, 7, 13, 16]), st.lists(numbers, max_size=4)),
        max_size=4,
    ),
    st.sampled_from([1, 2, 3, 4, 5, 7, 8, 32773]),
    st.binary(max_size=64),
)
def test_header_fields_of_any_value_are_read_or_refused(fields: dict[int, tuple[int, list[int]]], compression: int, pixels: bytes) -> None:
    changes = {f"_{code}": (kind, len(values), struct.pack(f"<{len(values)}I", *values)) for code, (kind, values) in fields.items()}
    tags = grey_tags(**({"_259": long(compression)} | changes))
    assert_read_or_refused(handmade(tags, after=pixels))


# Memory

MEASURE = """
import re, sys
from pathlib import Path
import numpy as np, torch, ray.data
torch.set_num_threads(1)
from colorize.imaging.formats import tiff_directory
from colorize.imaging.formats.tiff import TiffScan

def peak():  # getrusage would tell of the process that started this one
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

before = peak()
scan = TiffScan(Path(sys.argv[1]), "x")
scan.lightness(0, 384, 512)
ab_2hw = np.random.default_rng(0).normal(0, 15, (2, 192, 256)).astype(np.float32)
with open(sys.argv[2], "w+b") as target:
    scan.write(target, [ab_2hw], None)
print(peak(), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("grey8", {"rowsperstrip": 64}),
        ("grey8", {"rowsperstrip": 10_000, "compression": "zlib"}),
        ("grey16", {"rowsperstrip": 16, "compression": "lzw", "predictor": True}),
        ("rgb8", {"tile": (256, 256), "compression": "jpeg"}),
        ("rgb16", {"rowsperstrip": 10_000, "compression": "zlib", "predictor": True}),
        ("rgb16", {"rowsperstrip": 10_000, "compression": "lzw", "predictor": True}),
        ("rgb16", {"rowsperstrip": 10_000, "compression": "packbits"}),
        ("rgb16", {"tile": (512, 512), "compression": "zlib", "predictor": True}),
    ],
)
def test_100_megapixels_take_little_memory(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    line = np.random.default_rng(1).normal(128, 30, 10_000).clip(0, 255)
    plane = np.add.outer(np.sin(np.arange(10_000) / 500) * 60, line).clip(0, 255).astype(np.uint8)
    pixels = plane if kind.startswith("grey") else np.dstack([plane] * 3)
    if kind.endswith("16"):
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    if options.get("compression") == "zlib":
        options = options | {"compressionargs": {"level": 1}}
    tifffile.imwrite(tmp_path / "in.tif", pixels, metadata=None, photometric="rgb" if kind.startswith("rgb") else "minisblack", **options)
    del pixels, plane
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "in.tif"), str(tmp_path / "out.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, above = map(int, done.stdout.split())
    for name in ("in.tif", "out.tif"):
        (tmp_path / name).unlink()
    assert above < 350, f"{above} MB above the imports"  # one LZW strip has come near 300, much of it the allocator's
    assert peak < 1500
