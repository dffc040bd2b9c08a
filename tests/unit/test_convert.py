"""Coloured files in another format than their original's: what goes over, and what a format cannot hold."""

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, IptcImagePlugin

from colorize import Colorizer, ConfigError, DecodeSettings, PictureError, colorize_scan, open_scan
from colorize.cli.main import main
from colorize.imaging.colorspace import SRGB
from colorize.imaging.convert import SUFFIXES, Format, as_format, convert, converted_name
from colorize.imaging.formats import tiff_bands
from colorize.imaging.formats.png import png_chunks
from colorize.imaging.formats.tiff import TiffScan
from colorize.imaging.metadata import iptc_segments, read_note
from colorize.imaging.profile import make_profile, parametric_curve
from colorize.imaging.verify import verify
from colorize.imaging.xmp import SOURCE_TYPE
from colorize.model.coloring import note_of, paint, views
from tests.models import small_model
from tests.pictures import encoded, grey_scene, png_chunk, rgb_scene

COLORIZER = Colorizer(small_model(), device="cpu", precision="fp32")
NOTE = note_of(COLORIZER.model.card, DecodeSettings())
PROFILE = make_profile(SRGB.xyz_from_rgb, parametric_curve(2.2), "gamma 2.2")
DEEP = encoded(grey_scene(40, 60).astype(np.uint16) * 257, "PNG")
GREY = {kind: encoded(grey_scene(40, 60), kind) for kind in ("JPEG", "PNG", "TIFF", "BMP", "PPM", "JPEG2000")}
GREY |= {"PNG of 16 bits": DEEP, "PPM of 16 bits": encoded(grey_scene(40, 60).astype(np.uint16) * 257, "PPM")}
GREY |= {"WEBP": encoded(grey_scene(40, 60), "WEBP", lossless=True)}
GREY |= {"codestream": bytes(imagecodecs.jpeg2k_encode(grey_scene(40, 60), level=0, codecformat="j2k"))}
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<r:Description r:about="" xmlns:b="urn:b" b:title="urn:box"/></r:RDF></x:xmpmeta>"""
IPTC = b"\x1c\x02\x00\x00\x02\x00\x04" + b"\x1c\x02\x05\x00\x0bThe harbour" + b"\x1c\x02\x78\x00\x04Quay"


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = "a street"
    return block


def converted(data: bytes, wanted: Format) -> bytes:
    target = BytesIO()
    convert(open_scan(data), wanted, target)
    return target.getvalue()


def painted(data: bytes, wanted: Format) -> bytes:
    """What `--format` makes of a file."""
    scan, target = open_scan(data), BytesIO()
    predictions = COLORIZER.predict(views(scan, COLORIZER.model.card), DecodeSettings())
    paint(scan, predictions, target, NOTE, wanted=wanted)
    return target.getvalue()


def tiff(*pages: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], **options: object) -> bytes:
    """The first page with the options, the others as smaller copies of it."""
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number, page in enumerate(pages):
            kind = "rgb" if page.ndim == 3 else "minisblack"
            writer.write(page, photometric=kind, metadata=None, **({"subfiletype": 1} if number else options))
    return buffer.getvalue()


@pytest.mark.parametrize("wanted", list(SUFFIXES))
@pytest.mark.parametrize("kind", list(GREY))
def test_every_result_is_a_sound_file_with_the_lightness_and_the_note(kind: str, wanted: Format) -> None:
    result = painted(GREY[kind], wanted)
    scan = open_scan(result)
    assert scan.format == wanted.upper()
    assert read_note(result) == NOTE
    assert SOURCE_TYPE.encode() in result
    verdict = verify(open_scan(GREY[kind]), scan)
    is_near = kind == "JPEG" or wanted in ("jpeg", "webp")  # a JPEG keeps its luma, which in colour is nearly the lightness
    assert verdict.is_faithful or (is_near and verdict.max_lightness_error < 12 / 255)
    if wanted == "png":
        chunks = [chunk for chunk, _ in png_chunks(result, kind)]
        assert (chunks[0], chunks[-1]) == (b"IHDR", b"IEND")
        assert all(chunks.count(one) <= 1 for one in (b"IHDR", b"iCCP", b"pHYs", b"eXIf", b"iTXt"))
        assert imagecodecs.png_decode(result).shape == (40, 60, 3)


@pytest.mark.parametrize("wanted", list(SUFFIXES))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000"])
def test_pixels_go_over(kind: str, wanted: Format) -> None:
    data = encoded(rgb_scene(40, 60), kind)
    result = converted(data, wanted)
    before, after = (np.array(Image.open(BytesIO(one)).convert("RGB")).astype(int) for one in (data, result))
    assert Image.open(BytesIO(result)).format == wanted.upper()
    limit = 0 if wanted in ("png", "tiff") else 6
    assert np.abs(before - after).mean() <= limit


@pytest.mark.parametrize("wanted", list(SUFFIXES))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_is_said_goes_over(kind: str, wanted: Format) -> None:
    said = exif(6)
    if kind == "WEBP":  # which has no other place for the resolution
        said.update({0x011A: 300.0, 0x011B: 300.0, 0x0128: 2})
    data = encoded(grey_scene(40, 60), kind, exif=said, icc_profile=PROFILE, **({} if kind == "WEBP" else {"dpi": (300, 300)}))
    colored = colorize_scan(open_scan(data), COLORIZER)
    result = converted(colored, wanted)
    assert read_note(result) == read_note(colored) is not None
    image = Image.open(BytesIO(result))
    assert image.info["icc_profile"] == Image.open(BytesIO(colored)).info["icc_profile"]
    assert ImageOps.exif_transpose(image).size == (40, 60)
    assert image.getexif()[0x010E] == "a street"
    if wanted == "webp":
        assert [image.getexif()[tag] for tag in (0x011A, 0x011B, 0x0128)] == [300, 300, 2]
    else:
        assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 300], abs=0.1)


def test_16_bits_stay_where_they_can() -> None:
    colored = colorize_scan(open_scan(DEEP), COLORIZER)
    deep = tifffile.imread(BytesIO(converted(colored, "tiff")))
    assert (deep.dtype, deep.shape) == (np.uint16, (40, 60, 3))
    assert verify(open_scan(DEEP), open_scan(converted(colored, "tiff"))).is_faithful
    shallow = np.array(Image.open(BytesIO(converted(colored, "webp"))))
    assert shallow.dtype == np.uint8
    assert np.abs(shallow - deep / 257).mean() < 4


def test_transparency_goes_where_it_can() -> None:
    rgba_hwc = np.dstack([rgb_scene(20, 30), np.arange(600).reshape(20, 30) % 256]).astype(np.uint8)
    data = encoded(rgba_hwc, "PNG")
    for wanted in ("tiff", "webp"):
        found = np.array(Image.open(BytesIO(converted(data, wanted))))
        assert np.array_equal(found[..., 3], rgba_hwc[..., 3])
    with pytest.raises(PictureError, match=r"has transparency, which JPEG does not hold; PNG, TIFF and WebP do$"):
        converted(data, "jpeg")
    rgba_hwc[..., 3] = 255
    assert Image.open(BytesIO(converted(encoded(rgba_hwc, "PNG"), "jpeg"))).mode == "RGB"


@pytest.mark.parametrize(("wanted", "most"), [("jpeg", 65_500), ("webp", 16_383)])
def test_a_picture_that_is_too_long_is_refused_in_one_line(wanted: Format, most: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PictureError, match=rf"is {most + 1} pixels long, and {wanted.upper()} holds {most}; PNG and TIFF hold it$"):
        converted(tiff(np.zeros((most + 1, 1), np.uint8)), wanted)
    assert capfd.readouterr().err == "", "libjpeg would say it there"
    assert Image.open(BytesIO(converted(tiff(np.zeros((1, most), np.uint8)), wanted))).size == (most, 1)


def test_what_transparency_hides_is_not_painted_over() -> None:
    rgba_hwc = np.dstack([grey_scene(40, 60)] * 3 + [np.zeros((40, 60), np.uint8)])
    rgba_hwc[:, :20, 3] = 255
    found = np.array(Image.open(BytesIO(converted(encoded(rgba_hwc, "PNG"), "webp")))).astype(int)
    assert np.array_equal(found[..., 3], rgba_hwc[..., 3])
    assert np.abs(found[..., :3] - rgba_hwc[..., :3]).mean() < 3


def test_colours_that_were_multiplied_by_alpha_are_divided_by_it() -> None:
    rgb_hwc, alpha_hw = rgb_scene(20, 30), np.tile(np.linspace(0, 255, 30).round(), (20, 1))
    seen_hwc = rgb_hwc * (alpha_hw[..., None] / 255)  # on black
    for scale, dtype, limit in ((1, np.uint8, 0.5), (257, np.uint16, 0.002)):
        stored = (np.dstack([seen_hwc, alpha_hw]) * scale).round().astype(dtype)
        for wanted in ("png", "tiff", "webp"):
            rgba_hwc = (
                imagecodecs.webp_decode if wanted == "webp" else imagecodecs.png_decode if wanted == "png" else imagecodecs.tiff_decode
            )
            found = rgba_hwc(converted(tiff(stored, extrasamples=["assocalpha"]), wanted)) / (1 if wanted == "webp" else scale)
            assert np.array_equal(found[..., 3], alpha_hw)
            error = np.abs(found[..., :3] * (found[..., 3:] / 255) - seen_hwc).mean()
            assert error < (4 if wanted == "webp" else limit)


@pytest.mark.parametrize("wanted", list(SUFFIXES))
def test_what_a_png_says_of_its_gamma_goes_over(wanted: Format) -> None:
    for gamma in (55_556, 100_000):
        data = GREY["PNG"][:33] + png_chunk(b"gAMA", struct.pack(">I", gamma)) + GREY["PNG"][33:]
        verdict = verify(open_scan(data), open_scan(painted(data, wanted)))
        assert verdict.is_faithful or (wanted in ("jpeg", "webp") and verdict.max_lightness_error < 14 / 255)


@pytest.mark.parametrize(("kind", "wanted"), [("JPEG", "tiff"), ("TIFF", "jpeg")])
def test_iptc_goes_between_jpeg_and_tiff(kind: str, wanted: Format) -> None:
    for iptc in (IPTC, IPTC + b"\x1c\x02\x78\x80\x04" + struct.pack(">I", 70_000) + b"q" * 70_000):  # more than one segment holds
        padded = iptc + bytes(-len(iptc) % 4)
        jpeg = GREY["JPEG"][:20] + iptc_segments(iptc) + GREY["JPEG"][20:]
        other = tiff(grey_scene(40, 60), extratags=[(33723, 4, len(padded) // 4, padded, True)])
        result = painted(jpeg if kind == "JPEG" else other, wanted)
        assert open_scan(result).metadata.iptc == padded
        if iptc == IPTC:
            assert IptcImagePlugin.getiptcinfo(Image.open(BytesIO(result)))[2, 5] == b"The harbour"


def test_iptc_that_a_tiff_has_among_photoshop_s_resources_goes_over_too() -> None:
    resources = b"8BIM\x03\xed\x03dpi\0\0\0\1-\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    data = tiff(grey_scene(40, 60), extratags=[(34377, 1, len(resources), resources, True)])
    assert open_scan(painted(data, "jpeg")).metadata.iptc == IPTC


def raw_profile(kind: str, content: bytes, *, is_compressed: bool = True) -> bytes:
    """The chunk in which ImageMagick keeps a block that PNG has no place for."""
    digits = content.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    text = f"\n{kind}\n{len(content):8}\n{lines}\n".encode()
    keyword = f"Raw profile type {kind}\0".encode()
    return png_chunk(b"zTXt", keyword + b"\0" + zlib.compress(text)) if is_compressed else png_chunk(b"tEXt", keyword + text)


@pytest.mark.parametrize("wanted", ["jpeg", "tiff"])
def test_iptc_that_a_png_has_as_text_goes_over(wanted: Format) -> None:
    resources = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    for kind, content, is_compressed in (("iptc", resources, True), ("8bim", resources, False), ("iptc", IPTC, True)):
        data = GREY["PNG"][:33] + raw_profile(kind, content, is_compressed=is_compressed) + GREY["PNG"][33:]
        result = open_scan(painted(data, wanted))
        assert result.metadata.iptc == IPTC + (bytes(-len(IPTC) % 4) if wanted == "tiff" else b"")
        assert raw_profile(kind, content, is_compressed=is_compressed) in colorize_scan(open_scan(data), COLORIZER)


@pytest.mark.parametrize("wanted", ["jpeg", "tiff", "webp"])
def test_exif_and_xmp_that_a_png_has_as_text_go_over(wanted: Format) -> None:
    chunks = raw_profile("exif", b"Exif\0\0" + exif(6).tobytes().removeprefix(b"Exif\0\0")) + raw_profile("xmp", XMP)
    data = GREY["PNG"][:33] + chunks + GREY["PNG"][33:]
    result = Image.open(BytesIO(painted(data, wanted)))
    assert result.getexif()[0x010E] == "a street"
    assert ImageOps.exif_transpose(result).size == (40, 60)
    assert b"urn:box" in (open_scan(painted(data, wanted)).metadata.xmp or b"")


@pytest.mark.parametrize("text", [b"", b"\niptc", b"\niptc\n 9\n00", b"\niptc\n 1\nxy", b"\niptc\n x\n00", b"\niptc\n1\n\xff"])
def test_a_damaged_text_costs_no_picture(text: bytes) -> None:
    for chunk in (b"tEXt" + b"Raw profile type iptc\0" + text, b"zTXt" + b"Raw profile type exif\0" + text):
        data = GREY["PNG"][:33] + png_chunk(chunk[:4], chunk[4:]) + GREY["PNG"][33:]
        scan = open_scan(data)
        assert scan.metadata.iptc is scan.metadata.exif is None


@pytest.mark.parametrize("wanted", ["jpeg", "tiff"])
def test_iptc_that_a_jpeg_2000_has_in_a_box_goes_over(wanted: Format) -> None:
    identity = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
    box = struct.pack(">I4s", 24 + len(IPTC), b"uuid") + identity + IPTC
    place = GREY["JPEG2000"].index(b"jp2c") - 4
    data = GREY["JPEG2000"][:place] + box + GREY["JPEG2000"][place:]
    assert open_scan(painted(data, wanted)).metadata.iptc == IPTC + (bytes(-len(IPTC) % 4) if wanted == "tiff" else b"")
    assert box in colorize_scan(open_scan(data), COLORIZER)


def test_iptc_whose_bytes_were_turned_round_is_read() -> None:
    padded = IPTC + bytes(-len(IPTC) % 4)
    turned = np.frombuffer(padded, ">u4").astype("<u4").tobytes()
    assert open_scan(tiff(grey_scene(40, 60), extratags=[(33723, 4, len(padded) // 4, turned, True)])).metadata.iptc == padded


@pytest.mark.parametrize("wanted", ["jpeg", "png", "webp"])
def test_smaller_copies_of_a_page_are_left_out_where_there_is_one_page(wanted: Format) -> None:
    data = tiff(grey_scene(40, 60), grey_scene(10, 15), subifds=1)
    result = painted(data, wanted)
    assert Image.open(BytesIO(result)).size == (60, 40)
    verdict = verify(open_scan(data), open_scan(result))
    assert verdict.max_lightness_error < 12 / 255
    assert verdict.is_faithful or wanted != "png"
    assert Image.open(BytesIO(painted(tiff(grey_scene(40, 60), subfiletype=1), wanted))).size == (60, 40), "the only one it has"


@pytest.mark.parametrize("wanted", list(SUFFIXES))
def test_little_of_a_tiff_is_held_at_once(wanted: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_bands, "BAND_PIXELS", 1 << 15)
    deep = np.repeat(rgb_scene(1000, 1000).astype(np.uint16) * 257, 2, axis=1)
    with TemporaryFile() as file, TemporaryFile() as target:
        file.write(tiff(deep, rowsperstrip=16))
        scan = TiffScan(file, "x")
        tracemalloc.start()
        convert(scan, wanted, target)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < (6 if wanted in ("jpeg", "webp") else 2) * 2_000_000, "bytes a pixel, of the 6 that it has"


def test_pages_stay_together() -> None:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in (rgb_scene(20, 30), rgb_scene(10, 10)):
            writer.write(page, photometric="rgb", metadata=None)
    with pytest.raises(PictureError, match=r"has 2 pages, which JPEG does not hold; TIFF does$"):
        converted(buffer.getvalue(), "jpeg")
    with tifffile.TiffFile(BytesIO(converted(buffer.getvalue(), "tiff"))) as again:
        assert [page.shape for page in again.pages] == [(20, 30, 3), (10, 10, 3)]


@given(st.lists(st.text("ab.jpgtifn", min_size=1, max_size=8), unique_by=str.lower), st.sampled_from([*SUFFIXES, None]))
def test_no_two_names_become_one(names: list[str], wanted: Format | None) -> None:
    made = [converted_name(name, wanted) for name in names]
    # `a.tif` beside `a.tif.jpg` is a matter of the plan: test_archive_plan.py
    if not any(one + suffix == other for one in names for other in names for suffix in [".jpg", ".png", ".tif", ".webp"]):
        assert len(set(made)) == len(names)
    assert all(wanted is None or name.lower().endswith(SUFFIXES[wanted]) for name in made)
    assert all(new.startswith(old) for new, old in zip(made, names, strict=True))


def test_formats_are_named_as_people_write_them() -> None:
    assert (as_format("JPEG"), as_format("tiff"), as_format(None)) == ("jpeg", "tiff", None)
    with pytest.raises(ConfigError, match=r"^format gif: must be one of jpeg, png, tiff, webp$"):
        as_format("gif")


def test_the_command_writes_the_format_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(encoded(grey_scene(), "PNG"))
    (tmp_path / "b.jpg").write_bytes(encoded(grey_scene(), "JPEG"))
    command = ["picture", str(tmp_path / "a.png"), str(tmp_path / "b.jpg"), "-o", str(tmp_path / "out"), "--candidates", "2", "--format"]
    assert main([*command, "jpeg"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.png.jpg", "a.png.jpg", "b-2.jpg", "b.jpg"]
    assert verify(open_scan(tmp_path / "b.jpg"), open_scan(tmp_path / "out" / "b.jpg")).method == "dct"
    assert main([*command, "gif"]) == 1
    assert capsys.readouterr().err == "colorize: format gif: must be one of jpeg, png, tiff, webp\n"
