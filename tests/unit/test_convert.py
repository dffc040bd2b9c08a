"""Coloured files in another format than their original's: what goes over, and what a format cannot hold."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from colorize import Colorizer, ConfigError, PictureError, colorize_scan, open_scan
from colorize.cli.main import main
from colorize.imaging.colorspace import SRGB
from colorize.imaging.convert import SUFFIXES, Format, as_format, convert, converted_name
from colorize.imaging.metadata import read_note
from colorize.imaging.profile import make_profile, parametric_curve
from colorize.imaging.verify import verify
from tests.models import small_model
from tests.pictures import encoded, grey_scene, rgb_scene

COLORIZER = Colorizer(small_model(), device="cpu", precision="fp32")
PROFILE = make_profile(SRGB.xyz_from_rgb, parametric_curve(2.2), "gamma 2.2")
DEEP = encoded(grey_scene(40, 60).astype(np.uint16) * 257, "PNG")


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = "a street"
    return block


def converted(data: bytes, wanted: Format) -> bytes:
    target = BytesIO()
    convert(open_scan(data), wanted, target)
    return target.getvalue()


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
    data = encoded(grey_scene(40, 60), kind, exif=exif(6), dpi=(300, 300), icc_profile=PROFILE)
    if kind == "WEBP":  # which says nothing of resolution
        data = encoded(grey_scene(40, 60), kind, exif=exif(6), icc_profile=PROFILE)
    colored = colorize_scan(open_scan(data), COLORIZER)
    result = converted(colored, wanted)
    assert read_note(result) == read_note(colored) is not None
    image = Image.open(BytesIO(result))
    assert image.info["icc_profile"] == Image.open(BytesIO(colored)).info["icc_profile"]
    assert ImageOps.exif_transpose(image).size == (40, 60)
    if "TIFF" not in (kind, wanted.upper()):
        assert image.getexif()[0x010E] == "a street"
    if kind != "WEBP" and wanted != "webp":
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
