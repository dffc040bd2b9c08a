"""Reading the pixels of picture files: what is read, what is refused and in which words."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from colorize.errors import PictureError
from colorize.imaging.guard import MAX_PIXELS
from colorize.imaging.picture import read_picture
from tests.pictures import encoded, grey_scene, icc_profile, jpeg_claiming, png_chunk, png_header, rgb_scene

DATA = Path(os.environ.get("COLORIZE_TEST_DATA", "../shared/data"))
RGB_JPEG = encoded(rgb_scene(), "JPEG", quality=90)
GREY_JPEG = encoded(grey_scene(), "JPEG", quality=90)
PROGRESSIVE_JPEG = encoded(rgb_scene(), "JPEG", quality=90, progressive=True)
RGB_PNG = encoded(rgb_scene(), "PNG")
EXIF = b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)  # orientation 6
small_arrays = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([None, 2, 3, 4])).flatmap(
    lambda size: hnp.arrays(np.uint8, size[:2] if size[2] is None else size)
)


def refusal(source: Path | bytes, name: str | None = None) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(source, name=name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_read_or_refused(data: bytes) -> None:
    try:
        picture = read_picture(data)
    except PictureError as error:
        message = str(error)
    else:
        message = "the picture: was read"
        assert picture.pixels.size
    assert message.startswith("the picture: ")
    assert message.isprintable()


# What is read


def test_a_grey_jpeg_is_grey_and_its_lightness_a_table() -> None:
    picture = read_picture(GREY_JPEG, name="grey.jpg")
    assert (picture.name, picture.format, picture.height, picture.width) == ("grey.jpg", "JPEG", 48, 64)
    assert picture.pixels.shape == (48, 64)
    assert picture.alpha is picture.exif is picture.icc_profile is None


@pytest.mark.parametrize("data", [RGB_JPEG, PROGRESSIVE_JPEG, RGB_PNG])
def test_a_color_picture_has_its_pixels(data: bytes) -> None:
    assert np.array_equal(read_picture(data).pixels, np.array(Image.open(BytesIO(data))))


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    path.write_bytes(RGB_PNG)
    picture = read_picture(path)
    assert (picture.format, picture.name) == ("PNG", str(path))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (3, 20_000), (3, 20_000, 3), (20_000, 3, 3)])
def test_tiny_and_extreme_shapes_are_read(kind: str, shape: tuple[int, ...]) -> None:
    picture = read_picture(encoded(np.full(shape, 90, dtype=np.uint8), kind))
    assert picture.pixels.shape == shape


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 8), (9, 17)])
def test_an_interlaced_png_is_read_and_missed_rows_are_seen(size: tuple[int, int]) -> None:
    height, width = size
    rgb_hwc = rgb_scene(height, width)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [rgb_hwc[top::down, left::across] for left, top, across, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part if row.size)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    for pixels in (rows, rows[:-1]):
        data = RGB_PNG[:8] + header + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
        if pixels == rows:
            assert np.array_equal(read_picture(data).pixels, rgb_hwc)
        else:
            assert f"1 of {len(rows)} bytes of pixels are missing" in refusal(data)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_png_of_few_bits_is_expanded(bits: int) -> None:
    levels = np.arange(2**bits, dtype=np.uint8)
    rows = np.tile(levels, (2, 8 // bits))
    packed = [b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes() for row in rows]
    image = png_header(rows.shape[1], 2, depth=bits, color_type=0)
    data = image + png_chunk(b"IDAT", zlib.compress(b"".join(packed))) + png_chunk(b"IEND", b"")
    assert np.array_equal(read_picture(data).pixels, rows * (255 // (2**bits - 1)))
    keyed = image + png_chunk(b"tRNS", struct.pack(">H", 2**bits - 1)) + data[len(image) :]
    picture = read_picture(keyed)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, rows == 2**bits - 1)


def test_a_transparent_color_becomes_alpha() -> None:
    rgb_hwc = rgb_scene(8, 8)
    rgb_hwc[2, 3] = (1, 2, 3)
    picture = read_picture(encoded(rgb_hwc, "PNG", transparency=(1, 2, 3)))
    assert picture.alpha is not None
    assert np.argwhere(picture.alpha == 0).tolist() == [[2, 3]]
    assert np.array_equal(picture.pixels, rgb_hwc)


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_a_palette_is_expanded(transparency: int | bytes | None) -> None:
    indexed = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 1]))
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    buffer = BytesIO()
    indexed.save(buffer, "PNG", **({} if transparency is None else {"transparency": transparency}))
    picture = read_picture(buffer.getvalue())
    assert picture.pixels.tolist() == [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    expected = {None: None, 1: [[255, 0], [255, 0]], bytes([0, 128, 255]): [[0, 128], [255, 128]]}[transparency]
    assert (None if picture.alpha is None else picture.alpha.tolist()) == expected


@given(small_arrays)
def test_a_png_returns_exactly(pixels: np.ndarray) -> None:
    picture = read_picture(encoded(pixels, "PNG"))
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    colors = pixels[..., : channels - 1] if channels in (2, 4) else pixels
    assert np.array_equal(picture.pixels, colors.squeeze(-1) if channels == 2 else colors)
    assert (picture.alpha is None) == (channels in (1, 3))
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, pixels[..., -1])


# What is read besides


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_metadata_is_read_and_orientation_not_applied(kind: str) -> None:
    data = encoded(grey_scene(), kind, exif=EXIF, icc_profile=icc_profile(), dpi=(300, 200))
    picture = read_picture(data)
    assert picture.pixels.shape == (48, 64)
    assert (picture.exif, picture.icc_profile) == (EXIF, icc_profile())
    assert picture.dpi == pytest.approx((300, 200), abs=0.1)


def test_a_damaged_exif_block_is_kept_without_a_warning() -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + struct.pack("<HHII", 0x011A, 5, 9_000, 70_000) * 2
    picture = read_picture(encoded(grey_scene(), "JPEG", exif=broken))
    assert picture.exif == broken


# What is refused


def test_what_is_no_readable_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jpg"
    assert refusal(missing) == f"{missing}: there is no such file"
    assert refusal(tmp_path) == f"{tmp_path}: is a folder, not a picture"
    assert refusal(tmp_path / ("x" * 300)).endswith("cannot be read: file name too long")
    assert refusal(Path("a\0b")) == "a?b: cannot be read: embedded null byte"
    (tmp_path / "file").write_bytes(GREY_JPEG)
    assert refusal(tmp_path / "file" / "x.jpg").endswith("cannot be read: not a directory")
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").endswith("is not a regular file")


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(GREY_JPEG)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        message = refusal(path)
    finally:
        if root:
            os.seteuid(0)
    assert message == f"{path}: cannot be read: permission denied"


def test_names_that_would_break_the_line(tmp_path: Path) -> None:
    assert refusal(tmp_path / "two\nlines.jpg") == f"{tmp_path}/two?lines.jpg: there is no such file"
    assert refusal(Path(os.fsdecode(b"latin-\xe9.jpg"))) == "latin-?.jpg: there is no such file"
    assert refusal(b"", name="upload") == "upload: is empty (zero bytes)"
    assert refusal(b"") == "the picture: is empty (zero bytes)"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty (zero bytes)"),
        (b"Not a picture,\nonly its caption. \xc3\xa9", "is text, not a picture"),
        (bytes(100), "is no picture of a known format; JPEG and PNG are read so far"),
        (encoded(grey_scene(), "TIFF"), "is a TIFF file; JPEG and PNG are read so far"),
        (encoded(grey_scene(), "GIF"), "is a GIF file; JPEG and PNG are read so far"),
        (encoded(grey_scene(), "BMP"), "is a BMP file; JPEG and PNG are read so far"),
        (encoded(rgb_scene(), "WEBP"), "is a WebP file; JPEG and PNG are read so far"),
        (encoded(rgb_scene(), "JPEG2000"), "is a JPEG 2000 file; JPEG and PNG are read so far"),
        (encoded(rgb_scene(), "PDF"), "is a PDF file; JPEG and PNG are read so far"),
        (encoded(np.zeros((4, 4), dtype=np.uint16), "PNG"), "is a 16-bit PNG; PNGs of up to 8 bits are read so far"),
        (png_header(9, 9, depth=16), "is a 16-bit PNG; PNGs of up to 8 bits are read so far"),
        (RGB_JPEG[:100], "is a truncated or damaged JPEG: "),
        (RGB_JPEG[: len(RGB_JPEG) // 2], "is a truncated or damaged JPEG: image file is truncated"),
        (RGB_JPEG[:3], "is a truncated or damaged JPEG: "),
        (RGB_PNG[:20], "is a truncated or damaged PNG: its header is incomplete"),
        (RGB_PNG[: len(RGB_PNG) // 2], "is a truncated PNG: it ends after"),
        (RGB_PNG[:-12], "is a truncated PNG: it ends after"),
        (RGB_PNG[:100] + b"\0\0" + RGB_PNG[102:], "is a damaged PNG: the checksum at byte"),
        (png_header(9, 9) + png_chunk(b"IEND", b""), "is a truncated or damaged PNG: "),
        (png_header(0, 9) + RGB_PNG[33:], "is a truncated or damaged PNG: "),
        (png_header(64, 49) + RGB_PNG[33:], "is a truncated or damaged PNG: 193 of 9457 bytes of pixels are missing"),
        (png_header(9, 9, color_type=5) + RGB_PNG[33:], "is a truncated or damaged PNG: there is no colour type 5"),
        (png_header(9, 9, depth=3) + RGB_PNG[33:], "is a truncated or damaged PNG: "),
    ],
)
def test_what_is_no_picture_that_can_be_read(data: bytes, words: str) -> None:
    assert refusal(data, "x.jpg").startswith(f"x.jpg: {words}")


def test_cmyk_and_animation_are_named() -> None:
    buffer = BytesIO()
    Image.new("CMYK", (9, 9)).save(buffer, "JPEG")
    assert refusal(buffer.getvalue(), "x") == "x: is a CMYK JPEG; grey and RGB JPEGs are read so far"
    frames = [Image.fromarray(rgb_scene() // step) for step in (1, 2)]
    buffer = BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    assert refusal(buffer.getvalue(), "x") == "x: is an animated PNG; still pictures are read"


@pytest.mark.parametrize("data", [jpeg_claiming(65_000, 65_000), png_header(50_000, 50_000), png_header(2**32 - 1, 2**32 - 1)])
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    assert refusal(data, "bomb").endswith("pixels by its header; pictures of up to 200 megapixels are read")


def test_large_scans_below_the_limit_raise_no_warning_of_pillow() -> None:
    side = 10_000  # 100 megapixels: from 89 on Pillow's own function warns
    assert side * side < MAX_PIXELS
    picture = read_picture(encoded(np.zeros((side, side), dtype=np.uint8), "PNG", compress_level=1))
    assert picture.pixels.shape == (side, side)


@pytest.mark.parametrize("data", [RGB_JPEG, GREY_JPEG, PROGRESSIVE_JPEG])
def test_a_jpeg_cut_anywhere_is_refused_or_complete(data: bytes) -> None:
    whole = read_picture(data).pixels
    for length in range(1, len(data)):
        try:
            picture = read_picture(data[:length])
        except PictureError:
            continue
        assert length > len(data) - 8
        assert np.array_equal(picture.pixels, whole)


def test_a_png_cut_anywhere_is_refused() -> None:
    data = encoded(rgb_scene(12, 12), "PNG", exif=EXIF, icc_profile=icc_profile())
    for length in range(len(data)):
        refusal(data[:length])


@settings(max_examples=400)
@given(
    st.sampled_from([RGB_JPEG, GREY_JPEG, PROGRESSIVE_JPEG, RGB_PNG, encoded(rgb_scene(9, 9), "JPEG", exif=EXIF, dpi=(72, 72))]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans()), max_size=8),
    st.floats(0.5, 1),
)
def test_damage_is_read_or_refused_and_nothing_else(data: bytes, changes: list[tuple[float, int, bool]], kept: float) -> None:
    altered = bytearray(data[: int(len(data) * kept)])
    for place, value, in_header in changes:
        altered[int(place * (min(300, len(altered)) if in_header else len(altered)))] = value
    assert_read_or_refused(bytes(altered))


@settings(max_examples=300)
@given(st.binary(max_size=60), st.sampled_from([b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"zTXt", b"gAMA", b"acTL"]), st.integers(0, 6))
def test_damaged_png_chunks_with_right_checksums_are_read_or_refused(content: bytes, kind: bytes, color_type: int) -> None:
    pixels = zlib.compress(bytes(4 * (1 + 4 * 4)))
    data = png_header(4, 4, color_type=color_type) + png_chunk(kind, content) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    assert_read_or_refused(data)


# Whole archives


@pytest.mark.needs_data
def test_every_picture_of_the_archive_is_read() -> None:
    paths = [path for path in sorted((DATA / "archive_bw").iterdir()) if path.suffix != ".csv"]
    assert len(paths) == 100
    for path in paths:
        picture = read_picture(path)
        assert picture.pixels.shape[:2] == (picture.height, picture.width)
