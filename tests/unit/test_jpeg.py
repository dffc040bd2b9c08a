"""JPEG files in colour: the luma bit by bit, the metadata as they were, colours where they are wanted, and damage survived."""

import os
import random
import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import imagecodecs
import jpeglib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from colorize.errors import PictureError
from colorize.imaging.colorspace import lightness_of_grey, rgb_to_lab
from colorize.imaging.formats.jpeg import JpegScan
from colorize.imaging.formats.jpeg_luma import luma_identical, restore_jpeg
from colorize.imaging.formats.jpeg_stream import MAX_SCANS, read_stream
from colorize.imaging.guard import MAX_PARTS
from tests.pictures import encoded, grey_scene, jpeg_claiming, rgb_scene

DATA = Path(os.environ.get("COLORIZE_TEST_DATA", "../shared/data"))
EXIF = b"Exif\0\0" + b"MM\0*\0\0\0\x08" + b"\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)  # orientation 6
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\x03abc"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

Ab = npt.NDArray[np.float32]


def chroma(seed: int = 3, shape: tuple[int, int] = (6, 8), spread: float = 25) -> Ab:
    return np.random.default_rng(seed).normal(0, spread, (2, *shape)).astype(np.float32)


def even_chroma(a: float, b: float) -> Ab:
    return np.float32([a, b])[:, None, None] * np.ones((1, 4, 5), np.float32)


def colored(data: bytes, ab_2hw: Ab | None = None) -> bytes:
    target = BytesIO()
    JpegScan(data, "x.jpg").write(target, [chroma() if ab_2hw is None else ab_2hw], None)
    return target.getvalue()


def rgb_of(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "RGB"
        return np.array(image)


def luma_pixels(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        image.draft("L", image.size)
        assert image.mode == "L"
        return np.array(image)


def source(height: int, width: int, kind: str, **options: object) -> bytes:
    """A JPEG file: "grey", "grey 2×2" (its only component with factors 2×2), or the subsampling of a colour one."""
    if kind in ("411", "440"):
        return bytes(imagecodecs.jpeg8_encode(rgb_scene(height, width), level=85, subsampling=kind))
    if kind.startswith("grey"):
        data = encoded(grey_scene(height, width), "JPEG", quality=85, **options)
        if kind == "grey":
            return data
        stream = read_stream(data, "x")
        return replace(stream, components=(replace(stream.components[0], across=2, down=2),)).encoded()
    return encoded(rgb_scene(height, width), "JPEG", quality=85, subsampling={"444": 0, "422": 1, "420": 2}[kind], **options)


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """The file with more segments, after those that it has."""
    stream = read_stream(data, "x")
    return replace(stream, metadata=stream.metadata + segments).encoded()


def assert_luma_kept(data: bytes, result: bytes, tmp_path: Path) -> None:
    """By another reader than the program's, coefficient by coefficient."""
    files = tmp_path / "source.jpg", tmp_path / "result.jpg"
    files[0].write_bytes(data)
    files[1].write_bytes(result)
    first, second = (jpeglib.read_dct(file) for file in files)
    np.testing.assert_array_equal(second.Y, first.Y)
    np.testing.assert_array_equal(second.qt[second.quant_tbl_no[0]], first.qt[first.quant_tbl_no[0]])
    assert (second.height, second.width) == (first.height, first.width)


KINDS = ["grey", "grey 2×2", "444", "422", "420", "411", "440"]
OPTIONS: list[dict[str, object]] = [
    {},
    {"optimize": True},
    {"progressive": True},
    {"restart_marker_blocks": 3},
    {"restart_marker_rows": 1, "progressive": True},
]


# The luma


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (33, 2), (8, 16), (61, 83)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind in KINDS[:5] for options in OPTIONS] + [(kind, {}) for kind in KINDS[5:]],
    ids=str,
)
def test_the_luma_is_kept_bit_by_bit(kind: str, size: tuple[int, int], options: dict[str, object], tmp_path: Path) -> None:
    data = source(*size, kind, **options)
    result = colored(data)
    assert_luma_kept(data, result, tmp_path)
    assert luma_identical(data, result)
    restored = restore_jpeg(result, "x")
    with Image.open(BytesIO(restored)) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.array(image), luma_pixels(data))
    if kind.startswith("grey"):
        assert [scan.data for scan in read_stream(restored, "x").scans] == [scan.data for scan in read_stream(data, "x").scans]


@settings(max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(KINDS[:5]), st.sampled_from(OPTIONS), st.integers(0, 99), st.integers(1, 40))
def test_any_size_and_chroma(height: int, width: int, kind: str, options: dict[str, object], seed: int, low: int) -> None:
    data = source(height, width, kind, **options)
    result = colored(data, chroma(seed, (low, 41 - low), 60))
    assert luma_identical(data, result)
    assert rgb_of(result).shape == (height, width, 3)
    np.testing.assert_array_equal(luma_pixels(restore_jpeg(result, "x")), luma_pixels(data))


def test_the_result_is_4_2_0_and_as_sequential_or_progressive_as_a_grey_source() -> None:
    for progressive, frame in ((False, 0xC0), (True, 0xC2)):
        stream = read_stream(colored(source(40, 50, "grey", progressive=progressive)), "x")
        assert stream.frame == frame
        assert [(plane.id, plane.across, plane.down) for plane in stream.components] == [(1, 2, 2), (2, 1, 1), (3, 1, 1)]


def test_a_colored_file_can_be_colored_again_without_growing() -> None:
    data = source(90, 120, "grey")
    first = colored(data)
    assert colored(first) == first


def test_every_decoder_at_hand_sees_the_same_pixels() -> None:
    for kind, options in (("grey", {}), ("grey", {"progressive": True}), ("422", {}), ("grey", {"restart_marker_blocks": 4})):
        result = colored(source(75, 90, kind, **options))
        np.testing.assert_array_equal(imagecodecs.jpeg8_decode(result), rgb_of(result))
        assert imagecodecs.jpegxl_encode_jpeg(result), "JPEG XL's transcoder takes none but well-formed files"


@pytest.mark.parametrize("kind", KINDS[:5])
@pytest.mark.parametrize("largest", [255, 256])
def test_quantization_tables_of_16_bits(kind: str, largest: int, tmp_path: Path) -> None:
    stream = read_stream(source(33, 47, kind), "x")
    tables = [struct.pack(">B64H", 1, *component.steps[:63], largest) for component in stream.components]
    components = tuple(replace(one, quantization=table) for one, table in zip(stream.components, tables, strict=True))
    data = replace(stream, frame=0xC1, components=components).encoded()
    result = colored(data)
    assert_luma_kept(data, result, tmp_path)
    assert luma_identical(data, result)
    np.testing.assert_array_equal(luma_pixels(restore_jpeg(result, "x")), luma_pixels(data))


def test_another_luma_is_told_apart() -> None:
    data = source(48, 64, "grey")
    other = encoded(np.roll(grey_scene(48, 64), 1, axis=1), "JPEG", quality=85)
    coarser = encoded(grey_scene(48, 64), "JPEG", quality=84)
    assert not luma_identical(data, colored(other))
    assert not luma_identical(data, colored(coarser))
    assert not luma_identical(data, colored(source(48, 65, "grey")))
    assert luma_identical(source(48, 64, "420"), colored(source(48, 64, "420")))
    assert not luma_identical(source(48, 64, "420"), colored(other))


# The colours


@pytest.mark.parametrize("a_b", [(20.0, 15.0), (-15.0, 20.0), (5.0, -25.0), (0.0, 0.0)])
@pytest.mark.parametrize("kind", ["grey", "420"])
def test_the_colors_are_those_that_were_asked_for(a_b: tuple[float, float], kind: str) -> None:
    ramp = np.repeat(np.linspace(70, 190, 128)[None], 64, axis=0).astype(np.uint8)
    data = encoded(ramp if kind == "grey" else np.dstack([ramp] * 3), "JPEG", quality=95)
    rgb_hwc = rgb_of(colored(data, even_chroma(*a_b)))
    lab_3hw = rgb_to_lab(torch.from_numpy(rgb_hwc.transpose(2, 0, 1).copy())[None])[0].numpy()
    np.testing.assert_allclose(lab_3hw[1:].mean(axis=(1, 2)), a_b, atol=0.7)
    assert np.abs(lab_3hw[1:] - np.float32(a_b)[:, None, None]).max() < 6


@pytest.mark.parametrize("level", [0, 3, 20, 128, 240, 253, 255])
def test_colors_stay_in_the_gamut(level: int) -> None:
    data = encoded(np.full((32, 32), level, np.uint8), "JPEG", quality=95)
    for angle in np.linspace(0, 2 * np.pi, 9):
        with Image.open(BytesIO(colored(data, even_chroma(90 * np.cos(angle), 90 * np.sin(angle))))) as image:
            image.draft("YCbCr", image.size)
            luma, cb, cr = np.moveaxis(np.array(image).astype(float), -1, 0)
        channels = luma + 1.402 * (cr - 128), luma - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), luma + 1.772 * (cb - 128)
        assert min(channel.min() for channel in channels) > -5
        assert max(channel.max() for channel in channels) < 260


def test_colors_are_where_they_belong() -> None:
    ab_2hw = np.zeros((2, 4, 6), np.float32)
    ab_2hw[0, :, :3], ab_2hw[0, :, 3:] = 40, -40
    for size in ((101, 207), (64, 65), (33, 200)):
        rgb_hwc = rgb_of(colored(encoded(np.full(size, 128, np.uint8), "JPEG"), ab_2hw)).astype(int)
        redness_w = (rgb_hwc[..., 0] - rgb_hwc[..., 1]).mean(axis=0)
        half = size[1] // 2
        assert (redness_w[: half - half // 3] > 40).all()
        assert (redness_w[half + half // 3 :] < -40).all()


def test_the_old_chroma_goes() -> None:
    rgb_hwc = rgb_of(colored(source(64, 64, "444"), even_chroma(0, 0)))
    assert np.abs(rgb_hwc.astype(int) - rgb_hwc[..., :1]).max() <= 1


# What the network sees


@pytest.mark.parametrize("size", [(64, 64), (16, 23), (300, 397), (700, 1001), (1, 90)])
@pytest.mark.parametrize("kind", ["grey", "420"])
def test_lightness_is_nearly_that_of_a_full_decode(size: tuple[int, int], kind: str) -> None:
    data = source(*size, kind)
    L_hw = JpegScan(data, "x").lightness(0, 16, 24)
    full = Image.fromarray(lightness_of_grey(luma_pixels(data)))
    reference_hw = np.array(full.resize((24, 16), Image.Resampling.BILINEAR))
    assert L_hw.shape == (16, 24)
    assert L_hw.dtype == np.float32
    assert np.abs(L_hw - reference_hw).mean() < 0.5
    assert np.abs(L_hw - reference_hw).max() < 5


def test_chroma_is_the_files_own() -> None:
    assert JpegScan(source(48, 64, "grey"), "x").chroma(0, 6, 8) is None
    sepia = np.uint8([[[150, 120, 90]]]).repeat(64, axis=0).repeat(80, axis=1)
    ab_2hw = JpegScan(encoded(sepia, "JPEG", quality=95), "x").chroma(0, 6, 8)
    assert ab_2hw is not None
    expected = rgb_to_lab(torch.from_numpy(sepia[:1, :1].transpose(2, 0, 1).copy())[None])[0, 1:].numpy()
    np.testing.assert_allclose(ab_2hw, np.broadcast_to(expected, (2, 6, 8)), atol=1.5)


@pytest.mark.parametrize("size", [(41, 83), (201, 333), (1001, 777), (1290, 2100)])
@pytest.mark.parametrize("kind", ["444", "420"])
def test_chroma_is_nearly_that_of_a_full_decode(size: tuple[int, int], kind: str) -> None:
    data = encoded(rgb_scene(*size), "JPEG", quality=95, subsampling=0 if kind == "444" else 2)
    scan = JpegScan(data, "x")
    ab_2hw = scan.chroma(0, 20, 30)
    assert ab_2hw is not None
    full_3hw = rgb_to_lab(torch.from_numpy(rgb_of(data)).movedim(-1, 0)[None])[0].numpy()
    resized = [Image.fromarray(plane_hw).resize((30, 20), Image.Resampling.BILINEAR) for plane_hw in full_3hw[1:]]
    assert np.abs(ab_2hw - np.stack([np.array(plane) for plane in resized])).mean() < 1.0
    # A luma that was decoded along with the chroma is the one that is decoded alone.
    np.testing.assert_array_equal(scan.lightness(0, 20, 30), JpegScan(data, "x").lightness(0, 20, 30))


def test_a_page_has_the_pictures_size_and_orientation() -> None:
    scan = JpegScan(encoded(grey_scene(31, 45), "JPEG", exif=EXIF), "x")
    (page,) = scan.pages
    assert (scan.format, page.width, page.height, page.bits, page.orientation) == ("JPEG", 45, 31, 8, 6)
    for exif in (EXIF[:20], EXIF[:10] + b"\xff\xff\xff\xff" + EXIF[14:], EXIF.replace(b"\0\x06", b"\0\x09"), b"Exif\0\0"):
        assert JpegScan(encoded(grey_scene(), "JPEG", exif=exif), "x").pages[0].orientation == 1


# What else is in the file


def test_metadata_stay_in_their_order() -> None:
    adobe = (0xEE, b"Adobe\0\x64\0\0\0\0\0")
    segments = ((0xE1, EXIF), (0xE1, XMP), (0xED, IPTC), (0xE2, b"ICC_PROFILE\0\1\1" + PROFILE), (0xFE, b"a comment"), (0xEB, b"own"))
    for kind in ("grey", "420"):
        data = with_segments(encoded(grey_scene() if kind == "grey" else rgb_scene(), "JPEG", dpi=(600, 600)), *segments, adobe)
        stream = read_stream(colored(data), "x")
        assert stream.metadata[0] == read_stream(data, "x").metadata[0]
        assert stream.metadata[1:-1] == segments
        assert stream.metadata[-1] == (0xEE, adobe[1][:11] + b"\1"), "the colours are YCbCr now"
        assert stream.icc_profile == PROFILE
        with Image.open(BytesIO(colored(data))) as image:
            assert image.info["dpi"] == (600, 600)
        restored = read_stream(restore_jpeg(colored(data), "x"), "x")
        assert restored.icc_profile is None, "no grey file may carry a profile of RGB"
        assert [content for _, content in restored.metadata[1:]] == [EXIF, XMP, IPTC, b"a comment", b"own", adobe[1]]


def test_a_profile_in_parts_is_put_together() -> None:
    half = len(PROFILE) // 2
    parts = ((0xE2, b"ICC_PROFILE\0\2\2" + PROFILE[half:]), (0xE2, b"ICC_PROFILE\0\1\2" + PROFILE[:half]))
    assert read_stream(with_segments(source(8, 8, "grey"), *parts), "x").icc_profile == PROFILE


def test_what_follows_the_end_is_left_out() -> None:
    data = source(48, 64, "grey")
    assert colored(data + b"another picture" + data) == colored(data)


def test_an_index_of_pictures_goes_with_the_pictures() -> None:
    first, second = Image.fromarray(rgb_scene(48, 64)), Image.fromarray(rgb_scene(20, 30))
    buffer = BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    data = buffer.getvalue()
    assert Image.open(BytesIO(data)).n_frames == 2
    result = colored(data)
    assert Image.open(BytesIO(result)).format == "JPEG"
    assert not any(content.startswith(b"MPF") for _, content in read_stream(result, "x").metadata)
    alone = with_segments(source(48, 64, "420"), (0xE2, b"MPF\0an index"))
    for padded in (alone, alone + bytes(100)):
        assert (0xE2, b"MPF\0an index") in read_stream(colored(padded), "x").metadata


def test_a_missing_end_is_mended_only_where_the_picture_is_whole() -> None:
    for kind, options in (("grey", {}), ("420", {}), ("grey", {"progressive": True})):
        data = source(61, 83, kind, **options)
        whole = colored(data)
        for length in range(len(data) - 1, len(data) - 200, -3):
            try:
                result = colored(data[:length])
            except PictureError as error:
                assert str(error).startswith("x.jpg: is a truncated or damaged JPEG: ")  # noqa: PT017
                continue
            assert length > len(data) - 8
            assert rgb_of(result).shape == rgb_of(whole).shape
            assert np.array_equal(luma_pixels(result), luma_pixels(data))


def test_red_green_and_blue_without_luma_are_encoded_anew() -> None:
    data = encoded(rgb_scene(), "JPEG", quality=95, keep_rgb=True)
    scan = JpegScan(data, "x")
    assert not scan.is_lossless
    assert JpegScan(source(48, 64, "420"), "x").is_lossless
    result = colored(data, even_chroma(10, 20))
    before, after = (rgb_to_lab(torch.from_numpy(rgb_of(file).transpose(2, 0, 1).copy())[None])[0].numpy() for file in (data, result))
    assert np.abs(after[0] - before[0]).mean() < 1
    assert np.abs(after[1:].mean(axis=(1, 2)) - [10, 20]).max() < 4
    np.testing.assert_allclose(
        scan.lightness(0, 12, 16), np.array(Image.fromarray(before[0]).resize((16, 12), Image.Resampling.BILINEAR)), atol=3
    )
    assert not luma_identical(data, result)
    with pytest.raises(PictureError, match="holds no grey picture"):
        restore_jpeg(data, "x")


def test_component_numbers_do_not_matter() -> None:
    stream = read_stream(source(48, 64, "444"), "x")
    number_of = {1: 82, 2: 71, 3: 66}  # R, G, B; but the file says JFIF, and so YCbCr
    odd = replace(
        stream,
        components=tuple(replace(component, id=number_of[component.id]) for component in stream.components),
        scans=tuple(
            replace(scan, components=tuple((number_of[number], table) for number, table in scan.components)) for scan in stream.scans
        ),
    ).encoded()
    assert JpegScan(odd, "x").is_lossless
    assert colored(odd) == colored(source(48, 64, "444"))


# What is refused


def altered(data: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    place = data.index(marker) + offset
    return data[:place] + value + data[place + len(value) :]


GREY = source(48, 64, "grey")
COLOR = source(48, 64, "444")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is a truncated or damaged JPEG: it does not begin as one"),
        (b"\xff\xd8\xff\xd9", "is a truncated or damaged JPEG: it ends after 4 bytes, before its pixels"),
        (GREY[:100], "is a truncated or damaged JPEG: it ends after 100 bytes, inside a segment"),
        (altered(GREY, b"\xff\xc0", 4, b"\x0c"), "is a 12-bit JPEG; "),
        (altered(GREY, b"\xff\xc0", 1, b"\xc3"), "is a lossless JPEG, "),
        (altered(GREY, b"\xff\xc0", 1, b"\xc9"), "is an arithmetic-coded JPEG, "),
        (altered(GREY, b"\xff\xc0", 1, b"\xc5"), "is a hierarchical JPEG, "),
        (altered(GREY, b"\xff\xc0", 5, b"\0\0"), "is a truncated or damaged JPEG: it has 64×0 pixels by its header"),
        (
            altered(GREY, b"\xff\xc0", 5, b"\0\0")[:-2] + b"\xff\xdc\0\4\0\x30\xff\xd9",
            "is a JPEG whose height comes after its pixels, which cannot be read; convert it to a usual JPEG first",
        ),
        (altered(GREY, b"\xff\xc0", 9, b"\x02"), "is a truncated or damaged JPEG: it has 2 components"),
        (altered(GREY, b"\xff\xc0", 12, b"\x03"), "is a truncated or damaged JPEG: a quantization table is missing"),
        (altered(GREY, b"\xff\xda", 5, b"\x07"), "is a truncated or damaged JPEG: a scan is of a component that the frame has not"),
        (jpeg_claiming(65_000, 65_000), "has 65000×65000 pixels by its header; pictures of up to 200 megapixels are read"),
        (altered(GREY, b"\xff\xd9", 0, GREY[GREY.index(b"\xff\xda") : -2]), "is a truncated or damaged JPEG: a component has two scans"),
    ],
)
def test_what_is_refused_by_its_header(data: bytes, words: str) -> None:
    with pytest.raises(PictureError) as caught:
        JpegScan(data, "x.jpg")
    assert str(caught.value).startswith(f"x.jpg: {words}")


@pytest.mark.parametrize("marker", [0x01, 0x5A, 0xD8, 0xF0])
def test_a_marker_that_cannot_be_is_refused(marker: int) -> None:
    place = GREY.index(b"\xff\xda") + 100
    with pytest.raises(PictureError, match=f"damaged JPEG: it has a marker {marker:02X}|inside a segment"):
        JpegScan(GREY[:place] + bytes([0xFF, marker]) + b"\0\x04ab" + GREY[place:], "x")


@pytest.mark.parametrize("segment", [(0xE0, b"JFIF"), (0xE0, b"JFIF\0\1\1"), (0xEE, b"Adobe\0\x64")])
def test_a_short_segment_that_decoders_stumble_over_is_refused(segment: tuple[int, bytes]) -> None:
    with pytest.raises(PictureError, match=r"damaged JPEG: its (JFIF|Adobe) segment is too short"):
        JpegScan(with_segments(GREY, segment), "x")


def test_cmyk_is_refused() -> None:
    buffer = BytesIO()
    Image.new("CMYK", (9, 9)).save(buffer, "JPEG")
    with pytest.raises(PictureError, match=r"^x: is a CMYK JPEG; .* convert it to RGB first$"):
        JpegScan(buffer.getvalue(), "x")


def test_a_luma_smaller_than_its_chroma_is_refused() -> None:
    stream = read_stream(COLOR, "x")
    planes = (stream.components[0], replace(stream.components[1], across=2), stream.components[2])
    with pytest.raises(PictureError, match=r"^x: is a JPEG whose luma is stored smaller"):
        JpegScan(replace(stream, components=planes).encoded(), "x")


def test_a_progressive_file_without_its_last_scans_is_refused() -> None:
    stream = read_stream(source(48, 64, "grey", progressive=True), "x")
    with pytest.raises(PictureError, match=r"its last scans are missing$"):
        JpegScan(replace(stream, scans=stream.scans[:-1]).encoded(), "x")


def test_endless_scans_are_refused() -> None:
    stream = read_stream(source(48, 64, "grey", progressive=True), "x")
    with pytest.raises(PictureError, match=f"is a JPEG of more than {MAX_SCANS} scans"):
        JpegScan(replace(stream, scans=stream.scans + stream.scans[-1:] * MAX_SCANS).encoded(), "x")


def test_endless_segments_are_refused() -> None:
    data = source(48, 64, "grey")
    with pytest.raises(PictureError, match=f"is a JPEG of more than {MAX_PARTS} segments of metadata"):
        JpegScan(data[:2] + b"\xff\xfe\0\2" * (MAX_PARTS + 1) + data[2:], "x")


def test_what_cannot_be_restored() -> None:
    with pytest.raises(PictureError, match=r"^x: is grey already$"):
        restore_jpeg(GREY, "x")
    with pytest.raises(PictureError, match=r"^x: is a truncated or damaged JPEG"):
        restore_jpeg(b"", "x")


# Damage


def damaged(rng: random.Random, sources: list[bytes]) -> bytes:
    """A file that is cut, or lies in its header, or has lost, gained or flipped bytes."""
    data = bytearray(rng.choice(sources))
    header = data.index(b"\xff\xda") + 14
    how = rng.random()
    if how < 0.15:
        del data[rng.randrange(len(data)) :]
    elif how < 0.5:
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(header)] = rng.randrange(256)
    elif how < 0.65:
        place = rng.randrange(len(data))
        data[place : place + rng.randrange(200)] = data[rng.randrange(len(data)) :][: rng.randrange(100)]
    else:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(header, len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_colored_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    sources = [source(61, 83, kind, **options) for kind in ("grey", "444", "420") for options in OPTIONS]
    sources += [colored(data) for data in sources] + [encoded(rgb_scene(61, 83), "JPEG", keep_rgb=True)]
    results = 0
    for _ in range(120):
        data = damaged(rng, sources)
        try:
            scan = JpegScan(data, "x.jpg")
            L_hw = scan.lightness(0, 16, 16)
            scan.chroma(0, 8, 8)
            result = colored(data)
        except PictureError as error:
            assert str(error).startswith("x.jpg: ")  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
            continue
        results += 1
        assert L_hw.shape == (16, 16)
        assert 0 <= L_hw.min() <= L_hw.max() <= 100
        assert rgb_of(result).shape == (scan.pages[0].height, scan.pages[0].width, 3)
        if scan.is_lossless:
            assert luma_identical(data, result)
            restore_jpeg(result, "x.jpg")
    assert 20 < results < 110


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8", GREY[:180], COLOR[: COLOR.index(b"\xff\xda") + 14]]))
def test_any_bytes_are_read_or_refused(tail: bytes, head: bytes) -> None:
    try:
        colored(head + tail)
    except PictureError as error:
        assert str(error).startswith("x.jpg: ")  # noqa: PT017


@pytest.mark.needs_data
def test_every_jpeg_of_the_archive_keeps_its_luma(tmp_path: Path) -> None:
    paths = sorted((DATA / "archive_bw").glob("*.jpg"))
    assert len(paths) > 80
    for path in paths:
        data = path.read_bytes()
        result = colored(data)
        assert_luma_kept(data, result, tmp_path)
        np.testing.assert_array_equal(luma_pixels(restore_jpeg(result, path.name)), luma_pixels(data))
