"""Raster files of every format: what is read, kept and refused, and how exactly lightness is kept."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colorize.errors import PictureError
from colorize.imaging.colorspace import lightness_of_grey
from colorize.imaging.formats.png import MAX_CHUNKS, png_chunks
from colorize.imaging.formats.raster import RasterFile, RasterScan
from colorize.imaging.guard import MAX_PARTS
from colorize.imaging.metadata import read_note
from colorize.imaging.note import Note
from colorize.imaging.profile import make_profile, parametric_curve
from colorize.imaging.space import SRGB_PROFILE, RgbSpace
from colorize.imaging.verify import verify
from colorize.imaging.xmp import note_of
from tests.pictures import encoded, grey_scene, png_chunk, png_header, rgb_scene

NOTE = Note(model="photos", model_sha256="ab" * 32, vividness=0.35)
EXIF = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="box 12"/></rdf:RDF></x:xmpmeta>"""
P3 = make_profile(np.array([[0.511, 0.286, 0.203], [0.229, 0.692, 0.079], [0.0, 0.041, 0.959]]), parametric_curve(2.2), "wide")
GREY, RGB = grey_scene(), rgb_scene()
GREY16 = (GREY.astype(np.uint16) * 257 + np.arange(64, dtype=np.uint16) * 3).clip(0, 65535)
ALPHA = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))


def in_16(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    return (pixels.astype(np.int64) * 257 - 41).clip(0, 65535).astype(np.uint16)


def png_of(pixels: npt.NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(pixels))


def jp2_of(pixels: npt.NDArray[Any], **options: object) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, **{"level": 0, "reversible": True, "codecformat": "jp2"} | options))


def heif_of(pixels: npt.NDArray[Any], mode: str, **options: object) -> bytes:
    buffer = BytesIO()
    pillow_heif.from_bytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes()).save(buffer, quality=95, **options)
    return buffer.getvalue()


def pnm(kind: bytes, maximum: int, pixels: npt.NDArray[Any]) -> bytes:
    header = b"%s\n# from box 12\n%d %d\n%d\n" % (kind, pixels.shape[1], pixels.shape[0], maximum)
    return header + pixels.astype(">u2" if maximum > 255 else np.uint8).tobytes()


def plain(kind: bytes, maximum: int, pixels: npt.NDArray[Any]) -> bytes:
    rows = b"\n".join(b" ".join(b"%d" % level for level in row.ravel()) for row in pixels)
    return b"%s %d %d %s\n%s\n" % (kind, pixels.shape[1], pixels.shape[0], b"" if kind == b"P1" else b"%d" % maximum, rows)


def packed_png(bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits."""
    levels = GREY >> (8 - bits)
    rows = [b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes() for row in levels]
    return png_header(64, 48, depth=bits, color_type=0) + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")


def palette_png(**options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(RGB).quantize(40).save(buffer, "PNG", **options)
    return buffer.getvalue()


def interlaced_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for left, top, across, down in passes for row in pixels[top::down, left::across] if row.size)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


LOSSLESS: dict[str, tuple[bytes, npt.NDArray[Any]]] = {
    "PNG grey": (encoded(GREY, "PNG"), GREY),
    "PNG RGB": (encoded(RGB, "PNG"), RGB),
    "PNG grey 16": (png_of(GREY16), GREY16),
    "PNG RGB 16": (png_of(in_16(RGB)), in_16(RGB)),
    "PNG grey alpha": (encoded(np.dstack([GREY, ALPHA]), "PNG"), GREY),
    "PNG grey alpha 16": (png_of(np.dstack([GREY16, in_16(ALPHA)])), GREY16),
    "PNG RGBA": (encoded(np.dstack([RGB, ALPHA]), "PNG"), RGB),
    "PNG RGBA 16": (png_of(np.dstack([in_16(RGB), in_16(ALPHA)])), in_16(RGB)),
    "PNG palette": (palette_png(), np.array(Image.fromarray(RGB).quantize(40).convert("RGB"))),
    "PNG palette alpha": (palette_png(transparency=3), np.array(Image.fromarray(RGB).quantize(40).convert("RGB"))),
    "PNG 1 bit": (packed_png(1), (GREY >> 7) * 255),
    "PNG 2 bits": (packed_png(2), (GREY >> 6) * 85),
    "PNG 4 bits": (packed_png(4), (GREY >> 4) * 17),
    "PNG interlaced": (interlaced_png(RGB), RGB),
    "WebP": (encoded(RGB, "WEBP", lossless=True), RGB),
    "WebP alpha": (encoded(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), RGB),
    "JP2 grey": (jp2_of(GREY), GREY),
    "JP2 RGB": (jp2_of(RGB), RGB),
    "JP2 grey 16": (jp2_of(GREY16), GREY16),
    "JP2 RGB 16": (jp2_of(in_16(RGB)), in_16(RGB)),
    "JP2 alpha": (encoded(np.dstack([RGB, ALPHA]), "JPEG2000"), RGB),
    "J2K": (jp2_of(GREY, codecformat="j2k"), GREY),
    "JP2 tiled": (encoded(RGB, "JPEG2000", tile_size=(16, 24)), RGB),
    "BMP grey": (encoded(GREY, "BMP"), np.dstack([GREY] * 3)),
    "BMP RGB": (encoded(RGB, "BMP"), RGB),
    "PGM": (pnm(b"P5", 255, GREY), GREY),
    "PGM 16": (pnm(b"P5", 65535, GREY16), GREY16),
    "PPM": (pnm(b"P6", 255, RGB), RGB),
    "PPM 16": (pnm(b"P6", 65535, in_16(RGB)), in_16(RGB)),
    "PGM plain": (plain(b"P2", 255, GREY), GREY),
    "PPM plain": (plain(b"P3", 255, RGB), RGB),
    "PBM": (b"P4 64 48\n" + np.packbits(GREY < 128, axis=1).tobytes(), (GREY >> 7) * 255),
    "PBM plain": (plain(b"P1", 1, (GREY < 128).astype(np.uint8)), (GREY >> 7) * 255),
}
LOSSY = {
    "WebP lossy": encoded(RGB, "WEBP", quality=90),
    "JP2 lossy": encoded(RGB, "JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[45]),
    "HEIF": heif_of(RGB, "RGB"),
    "HEIF grey": heif_of(GREY, "L"),
    "HEIF 12 bits": heif_of(in_16(RGB), "RGB;16", bit_depth=12),
    "HEIF grey 12 bits": heif_of(GREY16, "I;16", bit_depth=12),
    "HEIF grey 10 bits": heif_of(GREY16, "I;16", bit_depth=10),
    "HEIF alpha": heif_of(np.dstack([RGB, ALPHA]), "RGBA"),
}
GRADIENT = np.stack(np.meshgrid(np.linspace(-40, 40, 12), np.linspace(-50, 50, 9))).astype(np.float32)


def colored(data: bytes, ab_2hw: npt.NDArray[np.float32] = GRADIENT, note: Note | None = NOTE) -> bytes:
    target = BytesIO()
    RasterScan(data, "x").write(target, [ab_2hw], note)
    return target.getvalue()


def file_of(data: bytes) -> RasterFile:
    return RasterScan(data, "x")._file


def lightness_of(data: bytes) -> npt.NDArray[np.float32]:
    file = file_of(data)
    return file.space.lightness(file.decode()[0])


def refusal(data: bytes, name: str = "x") -> str:
    def ask() -> None:
        RasterScan(data, name).lightness(0, 8, 8)

    with pytest.raises(PictureError) as caught:
        ask()
    assert str(caught.value).isprintable()
    return str(caught.value)


# What is read and written


@pytest.mark.parametrize(("data", "pixels"), LOSSLESS.values(), ids=LOSSLESS.keys())
def test_lossless_files_keep_pixels_lightness_depth_and_alpha(data: bytes, pixels: npt.NDArray[Any]) -> None:
    file = file_of(data)
    decoded, alpha = file.decode()
    assert np.array_equal(decoded, pixels if decoded.ndim == pixels.ndim else pixels[..., 0])
    assert (file.width, file.height, file.bits) == (64, 48, 8 * pixels.dtype.itemsize)
    scan = RasterScan(data, "x")
    [page] = scan.pages
    assert (page.width, page.height, page.bits) == (64, 48, file.bits)
    made = colored(data)
    again = file_of(made)
    rgb, alpha_again = again.decode()
    assert (again.format, again.bits, rgb.shape) == (file.format, file.bits, (48, 64, 3))
    error = np.abs(lightness_of(made) - lightness_of(data)).max()
    assert error <= (100 / 255 if file.bits == 8 else 200 / 65535)
    if len(np.unique(pixels)) > 2:  # black and white hold no colour
        assert np.abs(again.space.lab(rgb)[1:]).max() > 20
    assert (alpha is None) == (alpha_again is None)
    if alpha is not None:
        assert np.array_equal(alpha, alpha_again)


@pytest.mark.parametrize("data", LOSSY.values(), ids=LOSSY.keys())
def test_lossy_files_stay_lossy_and_close(data: bytes) -> None:
    made = colored(data, np.full((2, 2, 2), 15, np.float32))
    before, after = file_of(data), file_of(made)
    assert (after.format, after.bits, after.width) == (before.format, before.bits, 64)
    assert np.abs(lightness_of(made) - lightness_of(data)).mean() < 1.0
    assert len(made) < 48 * 64 * 3
    if before.decode()[1] is not None:
        assert np.abs(before.decode()[1].astype(int) - after.decode()[1]).max() <= 6
    assert read_note(made) == NOTE


def test_colors_land_where_they_belong() -> None:
    ab_2hw = np.zeros((2, 3, 4), np.float32)
    ab_2hw[0, :, 3] = 30  # red on the right
    file = file_of(colored(encoded(np.full((300, 400), 128, np.uint8), "PNG"), ab_2hw))
    a_hw = file.space.lab(file.decode()[0])[1]
    assert np.abs(a_hw[:, :200]).max() < 1
    assert np.abs(a_hw[:, 360:] - 30).max() < 1
    ab_2hw[:] = 0
    ab_2hw[1, 0, :] = -30  # blue above
    file = file_of(colored(encoded(np.full((300, 400), 128, np.uint8), "PNG"), ab_2hw))
    b_hw = file.space.lab(file.decode()[0])[2]
    assert np.abs(b_hw[:40] + 30).max() < 1
    assert np.abs(b_hw[200:]).max() < 1


def test_neutral_chroma_returns_the_greys() -> None:
    for data, pixels in (LOSSLESS["PNG grey"], LOSSLESS["PNG grey 16"], LOSSLESS["PGM"]):
        rgb = file_of(colored(data, np.zeros((2, 1, 1), np.float32))).decode()[0]
        assert np.abs(rgb.astype(int) - pixels[..., None]).max() <= (0 if pixels.dtype == np.uint8 else 1)


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (13, 7), (1, 1), (200, 100)])
@pytest.mark.parametrize("shape", [(48, 64), (1000, 37), (301, 999)])
def test_small_planes_are_averages(size: tuple[int, int], shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    L_hw = RasterScan(encoded(grey, "PNG"), "x").lightness(0, *size)
    assert L_hw.shape == size
    assert L_hw.dtype == np.float32
    expected = np.array(Image.fromarray(lightness_of_grey(grey)).resize(size[::-1], Image.Resampling.BILINEAR))
    strength = expected.std() if size != (1, 1) else 5
    assert np.abs(L_hw - expected).mean() < 0.35 * strength + 0.1
    flat = RasterScan(encoded(np.full(shape, 100, np.uint8), "PNG"), "x").lightness(0, *size)
    assert np.abs(flat - lightness_of_grey(np.array([100], np.uint8))).max() < 1e-3


def test_small_planes_are_where_the_picture_is_and_do_not_alias() -> None:
    y, x = np.mgrid[0:900, 0:1203]
    smooth = (60 + 100 * x / 1202 + 60 * y / 899).astype(np.uint8)
    L_hw = RasterScan(encoded(smooth, "PNG"), "x").lightness(0, 90, 120)
    expected = lightness_of_grey(np.round(60 + 100 * (np.arange(120) + 0.5) / 120 + 60 * (45.5 / 90)).astype(np.uint8))
    assert np.abs(L_hw[45] - expected).max() < 0.6
    checkered = (255 * ((x + y) % 2)).astype(np.uint8)
    L_hw = RasterScan(encoded(checkered, "PNG"), "x").lightness(0, 50, 70)
    assert L_hw.std() < 1


def test_chroma_is_the_file_s_own_and_none_of_grey() -> None:
    assert RasterScan(LOSSLESS["PNG grey"][0], "x").chroma(0, 12, 16) is None
    scan = RasterScan(LOSSLESS["PNG RGB"][0], "x")
    ab_2hw = scan.chroma(0, 12, 16)
    assert ab_2hw is not None
    assert ab_2hw.shape == (2, 12, 16)
    lab = RgbSpace().lab(RGB).reshape(3, 12, 4, 16, 4).mean((2, 4))
    assert np.abs(ab_2hw - lab[1:]).mean() < 3
    assert np.abs(scan.lightness(0, 12, 16) - lab[0]).mean() < 2


def test_a_small_picture_is_decoded_once_and_a_large_one_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    for picture, side, times in ((RGB, 1024, 1), (RGB, 1025, 3), (GREY, 1025, 3)):
        pixels = np.tile(picture, (22, 17, 1)[: picture.ndim])[:side, :1024]
        scan = RasterScan(png_of(pixels), "x")
        decoded = []
        decode = scan._file.decode
        monkeypatch.setattr(scan._file, "decode", lambda decode=decode, decoded=decoded: decoded.append(1) or decode())
        assert (scan.chroma(0, 60, 80) is None) == (picture is GREY)
        L_hw = scan.lightness(0, 60, 80)
        assert np.abs(scan.lightness(0, 61, 80)[:60] - L_hw).mean() < 10
        target = BytesIO()
        scan.write(target, [np.zeros((2, 8, 8), np.float32)], None)
        assert len(decoded) == times, f"{side} rows"
        written = file_of(target.getvalue()).decode()[0]
        assert np.abs(RgbSpace().lightness(written) - RgbSpace().lightness(pixels)).max() < 0.4


def test_arguments_and_answers_are_not_shared() -> None:
    scan = RasterScan(LOSSLESS["PNG RGB"][0], "x")
    first = scan.lightness(0, 8, 8)
    first[:] = 0
    assert scan.lightness(0, 8, 8).max() > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (3, 5000), (3, 5000, 3), (5000, 3, 3)])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG2000", "PPM"])
def test_tiny_and_extreme_shapes(kind: str, shape: tuple[int, ...]) -> None:
    data = encoded(np.full(shape, 90, np.uint8), kind)
    assert RasterScan(data, "x").lightness(0, 4, 4).shape == (4, 4)
    assert file_of(colored(data)).decode()[0].shape == (*shape[:2], 3)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from(["grey", "RGB"]), st.booleans(), st.booleans())
def test_any_png_keeps_its_lightness(height: int, width: int, seed: int, kind: str, deep: bool, opaque: bool) -> None:
    generator = np.random.default_rng(seed)
    channels = {"grey": 1, "RGB": 3}[kind] + (0 if opaque else 1)
    pixels = generator.integers(0, 65536 if deep else 256, (height, width, channels)).astype(np.uint16 if deep else np.uint8)
    data = png_of(pixels.squeeze(-1) if channels == 1 else pixels)
    ab_2hw = generator.normal(0, 60, (2, generator.integers(1, 9), generator.integers(1, 9))).astype(np.float32)
    made = colored(data, ab_2hw)
    assert np.abs(lightness_of(made) - lightness_of(data)).max() <= (200 / 65535 if deep else 100 / 255)
    alpha = file_of(made).decode()[1]
    assert alpha is None if opaque else np.array_equal(alpha, pixels[..., -1])


def test_the_same_file_is_written_every_time() -> None:
    for data in (*(data for data, _ in LOSSLESS.values()), *LOSSY.values()):
        assert colored(data) == colored(data)


# What is kept


@pytest.mark.parametrize("profile", [None, P3, SRGB_PROFILE])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_metadata_is_kept_and_the_note_is_added(kind: str, profile: bytes | None) -> None:
    options: dict[str, Any] = {"exif": EXIF, "dpi": (300, 200)} | ({"icc_profile": profile} if profile else {})
    options |= {"xmp": XMP, "lossless": True} if kind == "WEBP" else {}
    data = encoded(RGB, kind, **options)
    if kind == "PNG":
        data = data[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + data[33:]
    scan = RasterScan(data, "x")
    assert scan.pages[0].orientation == 6
    made = colored(data)
    again = RasterScan(made, "x")
    assert (again.metadata.exif, again.metadata.icc_profile) == (EXIF[6:], profile)
    assert again.pages[0].orientation == 6
    assert again.metadata.xmp is not None
    assert b'dc:source="box 12"' in again.metadata.xmp
    assert note_of(again.metadata.xmp) == NOTE == read_note(made)
    assert scan.metadata.dpi == again.metadata.dpi
    image = Image.open(BytesIO(made))
    assert image.info.get("icc_profile") == profile
    assert image.getexif()[0x0112] == 6
    if kind == "PNG":
        assert image.info["dpi"] == pytest.approx((300, 200), abs=0.1)
    unmarked = RasterScan(colored(data, note=None), "x")
    assert unmarked.metadata.xmp == XMP


def test_a_profile_is_what_the_colors_are_computed_in() -> None:
    for data in (encoded(RGB, "PNG", icc_profile=P3), with_box(jp2_of(RGB), b"colr", b"\x02\0\0" + P3)):
        assert np.abs(lightness_of(data) - RgbSpace(P3).lightness(RGB)).max() == 0
        assert np.abs(lightness_of(data) - RgbSpace().lightness(RGB)).max() > 1
        made = colored(data)
        assert file_of(made).metadata.icc_profile == P3
        assert np.abs(lightness_of(made) - lightness_of(data)).max() <= 100 / 255


def test_a_grey_profile_becomes_one_of_rgb() -> None:
    trc = b"curv" + bytes(4) + struct.pack(">IH", 1, 461)
    header = struct.pack(">I4sI4s4s4s12s4s", 144 + len(trc), b"", 0x02400000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp") + bytes(88)
    grey_icc = header[:128] + struct.pack(">I4sII", 1, b"kTRC", 144, len(trc)) + trc
    data = encoded(GREY, "PNG", icc_profile=grey_icc)
    made = colored(data)
    profile = file_of(made).metadata.icc_profile
    assert profile is not None
    assert profile[16:20] == b"RGB "
    assert np.abs(lightness_of(made) - lightness_of(data)).max() <= 100 / 255


def test_a_damaged_profile_is_refused() -> None:
    assert refusal(encoded(GREY, "PNG", icc_profile=P3[:200])).startswith("x: has an ICC profile that is cut off")


def with_chunks(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        found[data[place + 4 : place + 8]] = data[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def test_chunks_that_hold_are_kept_and_others_are_not() -> None:
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    kept = [
        (b"tEXt", b"Title\0box 12"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"long")),
        (b"tIME", bytes(7)),
        (b"gAMA", struct.pack(">I", 45455)),
    ]
    kept += [(b"cHRM", srgb), (b"prVt", b"safe to copy"), (b"sCAL", b"\x010.1\x000.1"), (b"sTER", b"\0")]
    data = with_chunks(LOSSLESS["PNG grey"][0], *kept, (b"sBIT", b"\x08"), (b"prVT", b"not"), (b"bKGD", b"\0\x40"), (b"hIST", b"\0\0"))
    found = chunks_of(colored(data))
    assert {kind: found.get(kind) for kind, _ in kept} == dict(kept)
    assert found[b"bKGD"] == b"\0\x40" * 3
    assert not {b"sBIT", b"prVT", b"hIST"} & set(found)
    wide = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    assert b"cHRM" not in chunks_of(colored(with_chunks(LOSSLESS["PNG RGB"][0], (b"cHRM", wide))))
    palette = with_chunks(palette_png(), (b"bKGD", b"\x02"))
    assert len(chunks_of(colored(palette))[b"bKGD"]) == 6


def test_a_gamma_alone_is_obeyed_and_kept() -> None:
    data = with_chunks(LOSSLESS["PNG grey"][0], (b"gAMA", struct.pack(">I", 100_000)))  # linear light
    assert np.abs(lightness_of(data) - lightness_of_grey(GREY)).max() > 15
    made = colored(data)
    assert chunks_of(made)[b"gAMA"] == struct.pack(">I", 100_000)
    assert b"iCCP" not in chunks_of(made)
    assert np.abs(lightness_of(made) - lightness_of(data)).mean() < 0.2
    with_srgb = with_chunks(LOSSLESS["PNG grey"][0], (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000)))
    assert np.array_equal(lightness_of(with_srgb), lightness_of_grey(GREY))


def test_a_compressed_packet_is_read_and_bombs_are_not_inflated() -> None:
    chunk = (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    made = colored(with_chunks(LOSSLESS["PNG grey"][0], chunk))
    assert b'dc:source="box 12"' in made
    assert made.count(b"XML:com.adobe.xmp") == 1
    bomb = zlib.compress(bytes(40 << 20))
    for kind, head in ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"), (b"iCCP", b"x\0\0")):
        assert "a compressed chunk holds more than" in refusal(with_chunks(LOSSLESS["PNG grey"][0], (kind, head + bomb)))
    for kind, cut in ((b"iCCP", b"name"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0en")):
        assert f"its {kind.decode()} chunk is cut off" in refusal(with_chunks(LOSSLESS["PNG grey"][0], (kind, cut)))


def with_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A JP2 file with a box in its header's place of the same kind, or at the end of the header."""
    start = data.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", data, start)
    header, place = b"", start + 8
    while place < start + length:
        (size,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] != kind:
            header += data[place : place + size]
        place += size
    header += struct.pack(">I4s", 8 + len(content), kind) + content
    return data[:start] + struct.pack(">I4s", 8 + len(header), b"jp2h") + header + data[start + length :]


def test_jpeg_2000_keeps_boxes_resolution_and_exif() -> None:
    resolution = struct.pack(">I4s4H2b", 18, b"resc", 11811, 1, 23622, 2, 0, 0)
    data = with_box(jp2_of(GREY), b"res ", resolution)
    place = data.index(b"jp2c") - 4
    boxes = [
        (b"uuid", b"JpgTiffExif->JP2" + EXIF[6:]),
        (b"xml ", b"<kept/>"),
        (b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP),
    ]
    data = data[:place] + b"".join(struct.pack(">I4s", 8 + len(content), kind) + content for kind, content in boxes) + data[place:]
    scan = RasterScan(data, "x")
    assert scan.metadata.dpi == pytest.approx((300, 300), abs=0.1)
    assert scan.pages[0].orientation == 6
    made = colored(data)
    again = RasterScan(made, "x")
    assert (again.metadata.exif, again.metadata.dpi) == (EXIF[6:], scan.metadata.dpi)
    assert b"<kept/>" in made
    assert read_note(made) == NOTE
    assert made.count(b'dc:source="box 12"') == 1
    assert np.array(Image.open(BytesIO(made))).shape == (48, 64, 3)


def test_bmp_keeps_resolution_profile_and_alpha() -> None:
    made = colored(encoded(RGB, "BMP", dpi=(300, 200)))
    assert Image.open(BytesIO(made)).info["dpi"] == pytest.approx((300, 200), abs=0.1)
    assert len(made) == 54 + 48 * 64 * 3
    header = struct.pack("<IiiHHIIiiII", 124, 64, -48, 1, 32, 3, 0, 0, 0, 0, 0) + struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header += b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + 48 * 64 * 4, len(P3), 0)
    pixels = np.dstack([RGB[..., ::-1], ALPHA]).tobytes()
    data = struct.pack("<2sIHHI", b"BM", 138 + len(pixels) + len(P3), 0, 0, 138) + header + pixels + P3
    made = colored(data)
    again = file_of(made)
    assert again.metadata.icc_profile == P3
    rgb, alpha = again.decode()
    assert alpha is not None
    assert np.array_equal(alpha, ALPHA)
    assert np.abs(again.space.lightness(rgb) - RgbSpace(P3).lightness(RGB)).max() <= 100 / 255


def test_netpbm_keeps_comments() -> None:
    assert colored(pnm(b"P5", 255, GREY)).startswith(b"P6\n# from box 12\n64 48\n255\n")
    assert np.array_equal(
        file_of(plain(b"P1", 1, GREY[:1] >> 7).replace(b" ", b"").replace(b"P1641", b"P1 64 1\n")).decode()[0][0],
        255 - (GREY[0] >> 7) * 255,
    )


@pytest.mark.parametrize("maximum", [1, 15, 100, 254, 256, 1023, 4095])
def test_netpbm_of_any_maximum_keeps_its_lightness(maximum: int) -> None:
    data = pnm(b"P5", maximum, (GREY16.astype(int) * (maximum + 1) >> 16).astype(np.uint16 if maximum > 255 else np.uint8))
    made = colored(data)
    assert made.startswith(b"P6\n# from box 12\n64 48\n%d\n" % (255 if maximum < 256 else 65535))
    assert np.abs(lightness_of(made) - lightness_of(data)).max() <= (100 / 255 if maximum < 256 else 200 / 65535)
    assert verify(RasterScan(data, "x"), RasterScan(made, "y")).is_faithful


@pytest.mark.parametrize("depth", [4, 9, 10, 12, 15])
def test_jpeg_2000_of_other_depths(depth: int) -> None:
    levels = (GREY16 >> (16 - depth)).astype(np.uint16 if depth > 8 else np.uint8)
    data = jp2_of(levels, bitspersample=depth)
    file = file_of(data)
    assert file.bits == (16 if depth > 8 else 8)
    assert RasterScan(data, "x").pages[0].bits == max(8, depth)
    assert file.decode()[0].max() == np.round(levels.max() * ((2**file.bits - 1) / (2**depth - 1)))
    made = colored(data)
    assert imagecodecs.jpeg2k_decode(made).max() < 2 ** max(8, depth)
    assert np.abs(lightness_of(made) - lightness_of(data)).max() <= 100 / (2 ** max(8, depth) - 1)
    assert verify(RasterScan(data, "x"), RasterScan(made, "y")).is_faithful


def test_webp_keeps_chunks_of_unknown_kinds() -> None:
    data = encoded(RGB, "WEBP", lossless=True, xmp=b"<x:xmpmeta/>")
    others = b"teSt" + struct.pack("<I", 3) + b"abc\0" + b"more" + struct.pack("<I", 2) + b"de"
    others += b"teSt" + struct.pack("<I", 4) + b"wxyz"  # a second one of a kind
    data = b"RIFF" + struct.pack("<I", len(data) - 8 + len(others)) + data[8:] + others
    for note in (NOTE, None):
        made = colored(data, note=note)
        assert made.endswith(others)
        assert struct.unpack_from("<I", made, 4)[0] == len(made) - 8
        assert np.array(Image.open(BytesIO(made))).shape == RGB.shape
        assert colored(made, note=note).endswith(others)
        assert colored(made, note=note).count(others) == 1


def test_endless_chunks_and_boxes_are_refused() -> None:
    png, webp, jp2 = encoded(RGB, "PNG"), encoded(RGB, "WEBP"), jp2_of(RGB)
    empty = png_chunk(b"IDAT", b"")
    few, many = (png[:33] + empty * count + png[33:] for count in (90_000, 110_000))
    assert png_chunks(few, "x")[-1][0] == b"IEND"
    assert refusal(many) == f"x: is a PNG of more than {MAX_CHUNKS + len(many) // 1024} chunks; save it anew with a picture editor"
    kinds = b"".join(struct.pack("<4sI", b"%04x" % number, 0) for number in range(MAX_PARTS))
    webp = b"RIFF" + struct.pack("<I", len(webp) - 8 + len(kinds)) + webp[8:] + kinds
    assert refusal(webp) == f"x: is a WebP of more than {MAX_PARTS} chunks; save it anew with a picture editor"
    assert f"it has more than {MAX_PARTS} boxes" in refusal(jp2 + (struct.pack(">I", 8) + b"free") * MAX_PARTS)


def test_heif_keeps_what_it_holds() -> None:
    data = heif_of(RGB, "RGB", exif=EXIF[6:], xmp=XMP, icc_profile=P3)
    made = colored(data)
    file = pillow_heif.open_heif(BytesIO(made))
    assert file.info["icc_profile"] == P3
    assert b'dc:source="box 12"' in file.info["xmp"]
    assert file.info["exif"]
    assert read_note(made) == NOTE
    assert RasterScan(made, "x").pages[0].orientation == 1


@pytest.mark.parametrize(("kind", "bits"), [("HEIF", 8), ("HEIF 12 bits", 12), ("HEIF grey 12 bits", 12), ("HEIF grey 10 bits", 12)])
def test_heif_loses_no_bits(kind: str, bits: int) -> None:
    made = pillow_heif.open_heif(BytesIO(colored(LOSSY[kind])), convert_hdr_to_8bit=False)
    assert made.info["bit_depth"] == bits


def test_heif_without_its_extra_names_it() -> None:
    code = "import sys; sys.modules['pillow_heif'] = None\nfrom colorize.imaging.formats.raster import RasterScan\n"
    code += "try: RasterScan(sys.stdin.buffer.read(), 'x.heic')\nexcept ValueError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=LOSSY["HEIF"], capture_output=True, check=True, env=dict(os.environ, PYTHONPATH=str(Path.cwd()))
    )
    assert done.stdout.decode() == "x.heic: is a HEIF file, which needs an extra: pip install 'colorize[heif]'\n"


# What is refused


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(RGB // step) for step in (1, 2)]
    buffer = BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


PNG = LOSSLESS["PNG RGB"][0]
JP2 = LOSSLESS["JP2 RGB"][0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty (zero bytes)"),
        (bytes(99), "is no picture of a known format"),
        (encoded(GREY, "GIF"), "is a GIF file, which is not read; convert it to TIFF or PNG first"),
        (encoded(RGB, "AVIF"), "is an AVIF file, which is not read; convert it to TIFF or PNG first"),
        (encoded(RGB, "PDF"), "is a PDF file, which is not read; convert it to TIFF or PNG first"),
        (bytes(imagecodecs.jpegxl_encode(RGB)), "is a JPEG XL file, which is not read; convert it to TIFF or PNG first"),
        (b"8BPS" + bytes(40), "is a Photoshop file, which is not read; convert it to TIFF or PNG first"),
        (animated("PNG"), "is an animated PNG; still pictures are read"),
        (animated("WEBP"), "is an animated WebP; still pictures are read"),
        (with_chunks(LOSSLESS["PNG grey"][0], (b"cICP", b"\x09\x10\0\1")), "is a PNG of high dynamic range (PQ or HLG), "),
        (with_chunks(LOSSLESS["PNG grey"][0], (b"cICP", b"\x09\x12\0\1")), "is a PNG of high dynamic range (PQ or HLG), "),
        (PNG[:20], "is a truncated or damaged PNG: its header is incomplete"),
        (PNG[:-12], "is a truncated PNG: it ends after"),
        (PNG[:100] + b"\0\0" + PNG[102:], "is a damaged PNG: the checksum at byte"),
        (png_header(9, 9) + png_chunk(b"IEND", b""), "is a truncated or damaged PNG: "),
        (png_header(0, 9) + PNG[33:], "is a damaged picture: by its header it has 0×9 pixels"),
        (png_header(64, 49) + PNG[33:], "is a truncated or damaged PNG: "),
        (png_header(9, 9, color_type=5) + PNG[33:], "is a damaged PNG: there is no colour type 5 of 8 bits"),
        (png_header(9, 9, depth=3) + PNG[33:], "is a damaged PNG: there is no colour type 2 of 3 bits"),
        (png_header(50_000, 50_000) + PNG[33:], "has 50000×50000 pixels by its header; pictures of up to 200 megapixels are read"),
        (LOSSLESS["WebP"][0][:-10], "is a truncated WebP"),
        (b"RIFF\x04\0\0\0WEBP", "is a truncated or damaged WebP: there are no pixels in it"),
        (JP2[:-100], "is a truncated or damaged JPEG 2000"),
        (JP2[:60], "is a truncated or damaged JPEG 2000"),
        (with_box(JP2, b"colr", b"\1\0\0" + struct.pack(">I", 12)), "is a JPEG 2000 in CMYK; grey and RGB are read"),
        (with_box(JP2, b"pclr", bytes(9)), "is a JPEG 2000 with a palette, which is not read; convert it first"),
        (JP2 + JP2[JP2.index(b"jp2c") - 4 :], "is a"),
        (encoded(GREY, "BMP")[:20], "is a truncated BMP: it ends after 20 bytes"),
        (encoded(GREY, "BMP")[:-100], "is a truncated or damaged BMP"),
        (
            encoded(GREY, "BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + encoded(GREY, "BMP")[26:],
            "has 60000×60000 pixels by its header",
        ),
        (b"P5\n64", "is a truncated or damaged Netpbm file: its header is incomplete"),
        (b"P5 64 48 70000\n" + bytes(9000), "is a damaged Netpbm file: its maximal value is 70000"),
        (b"P5 99999 99999 255\n", "has 99999×99999 pixels by its header"),
        (pnm(b"P5", 255, GREY)[:-1], "is a truncated or damaged Netpbm file: 1 of 3072 bytes or values of pixels are missing"),
        (pnm(b"P5", 255, GREY) * 2, "is a truncated or damaged Netpbm file: 3099 bytes or values follow its pixels; files of several"),
        (pnm(b"P5", 100, GREY), "is a damaged Netpbm file: a value exceeds 100"),
        (b"P2 2 1 9\n3 10\n", "is a truncated or damaged Netpbm file: a value exceeds 9"),
        (b"P2 2 1 9\n3 x\n", "is a truncated or damaged Netpbm file: other characters than digits"),
        (LOSSY["HEIF"][:-500], "is a truncated or damaged HEIF"),
        (LOSSY["HEIF"][:40], "is a truncated or damaged HEIF"),
    ],
)
def test_what_is_refused_and_in_which_words(data: bytes, words: str) -> None:
    assert refusal(data).startswith(f"x: {words}")


def test_libpng_s_warnings_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    decoded, _ = file_of(LOSSLESS["PNG interlaced"][0]).decode()
    assert np.array_equal(decoded, RGB)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    wrong = png_header(64, 48, color_type=0) + png_chunk(b"IDAT", rows[:-4] + b"oops") + png_chunk(b"IEND", b"")
    assert refusal(wrong) == "x: is a truncated or damaged PNG: IDAT: incorrect data check"
    assert caplog.records == []


def test_a_heif_of_several_pictures_is_refused() -> None:
    several = pillow_heif.HeifFile()
    for pixels in (RGB, RGB[::-1]):
        several.add_frombytes("RGB", (64, 48), pixels.tobytes())
    buffer = BytesIO()
    several.save(buffer, quality=50)
    assert refusal(buffer.getvalue()) == "x: is a HEIF file of 2 pictures; files of one are read"


def test_a_name_keeps_to_one_line() -> None:
    assert refusal(b"", "two\nlines") == "two?lines: is empty (zero bytes)"


def test_a_jpeg_2000_header_is_judged_before_it_is_decoded() -> None:
    place = JP2.index(b"\xff\x4f\xff\x51")
    huge = JP2[: place + 8] + struct.pack(">II", 60_000, 60_000) + JP2[place + 16 :]
    assert "has 60000×60000 pixels by its header" in refusal(huge)


@pytest.mark.parametrize("kind", ["PNG grey", "PNG palette", "WebP", "JP2 grey", "BMP RGB", "PGM", "PBM"])
def test_a_file_cut_anywhere_is_refused_or_whole(kind: str) -> None:
    data, _ = LOSSLESS[kind]
    expected = file_of(data).decode()[0]
    for length in range(0, len(data), 1 + len(data) // 150):
        try:
            decoded = file_of(data[:length]).decode()[0]
        except PictureError:
            continue
        assert np.array_equal(decoded, expected), length


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """The file with some bytes changed, mostly near its beginning, some bits flipped, or cut, repeated or swapped."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 9)):
        place = int(generator.integers(0, min(len(changed), 400) if generator.random() < 0.6 else len(changed)))
        choice = generator.integers(4)
        if choice == 0:
            changed[place] = generator.integers(256)
        elif choice == 1:
            changed[place] ^= 1 << generator.integers(8)
        elif choice == 2:
            changed[place : place + 4] = struct.pack(">I", int(generator.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65_536, 30_000])))
        else:
            changed[place] = int(generator.choice([0, 255, 127]))
    if generator.random() < 0.15:
        changed = changed[: int(generator.integers(0, len(changed)))]
    return bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold now, so that damage reaches the decoder."""
    made, place = data[:8], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        length = min(length, len(data) - place - 12)
        made += png_chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return made


MUTATED: dict[str, tuple[list[bytes], Callable[[bytes], bytes]]] = {
    "PNG": (
        [data for kind, (data, _) in LOSSLESS.items() if kind.startswith("PNG")] + [encoded(RGB, "PNG", icc_profile=P3, exif=EXIF)],
        with_checksums,
    ),
    "PNG as it is": ([PNG, LOSSLESS["PNG grey 16"][0]], bytes),
    "WebP": (
        [LOSSLESS["WebP"][0], LOSSLESS["WebP alpha"][0], LOSSY["WebP lossy"], encoded(RGB, "WEBP", exif=EXIF, xmp=XMP, icc_profile=P3)],
        bytes,
    ),
    "JPEG 2000": ([data for kind, (data, _) in LOSSLESS.items() if kind.startswith("J")] + [LOSSY["JP2 lossy"]], bytes),
    "BMP": ([LOSSLESS["BMP grey"][0], LOSSLESS["BMP RGB"][0], colored(encoded(np.dstack([RGB, ALPHA]), "PNG"))], bytes),
    "Netpbm": ([data for kind, (data, _) in LOSSLESS.items() if kind.startswith("P") and not kind.startswith("PNG")], bytes),
    "HEIF": ([LOSSY["HEIF"], LOSSY["HEIF grey"], heif_of(RGB, "RGB", exif=EXIF[6:], xmp=XMP)], bytes),
}


@pytest.mark.parametrize("kind", MUTATED.keys())
def test_mutated_files_are_read_or_refused_and_nothing_else(kind: str) -> None:
    files, mended = MUTATED[kind]
    generator = np.random.default_rng(zlib.crc32(kind.encode()))
    read = 0
    for number in range(400 if kind != "HEIF" else 200):
        data = mended(damaged(files[number % len(files)], generator))
        try:
            scan = RasterScan(data, "x")
            [page] = scan.pages
            if page.width * page.height > 1 << 22:
                continue  # a header's lie that the limit allows: its pixels are missing, and the rest is a matter of seconds
            assert np.isfinite(scan.lightness(0, 9, 12)).all()
            scan.write(BytesIO(), [GRADIENT], NOTE)
        except PictureError as error:
            message = str(error)
            assert message.startswith("x: "), number
            assert message.isprintable(), number
        else:
            read += 1
    assert read < 400
