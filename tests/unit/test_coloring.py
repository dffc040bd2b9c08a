"""A scan and a network brought together: upright for the network, as stored for the file, in every format."""

import errno
import json
import os
import tempfile
from io import BytesIO

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps
from skimage.color import rgb2lab

from colorize import Colorizer, DecodeSettings, PictureError, colorize_scan, open_scan
from colorize.imaging.metadata import read_note
from colorize.imaging.note import Note
from colorize.model.coloring import confidence_png, note_of, paint, views
from colorize.model.colorizer import Prediction
from colorize.model.hints import parse_hints
from tests.models import constant_model, small_model
from tests.pictures import encoded, grey_scene

MODEL = small_model()


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(MODEL, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def olive() -> Colorizer:
    return Colorizer(constant_model(-10, 20), device="cpu", precision="fp32")


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def tiff(*pages: np.ndarray) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", metadata=None)
    return buffer.getvalue()


class FullDisk(BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writelines = write


def test_a_full_temporary_folder_is_not_taken_for_the_target(colorizer: Colorizer, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = open_scan(encoded(grey_scene(), "PNG"), name="a.png")
    predictions = colorizer.predict(views(scan, MODEL.card), DecodeSettings())
    with pytest.raises(OSError, match="No space left"):
        paint(scan, predictions, FullDisk(), None)
    monkeypatch.setattr("colorize.model.coloring.TemporaryFile", FullDisk)
    folder = tempfile.gettempdir()
    reason = f"^a.png: cannot be converted: {folder}, the folder for temporary files: No space left on device$"
    with pytest.raises(PictureError, match=reason):
        paint(scan, predictions, BytesIO(), None, wanted="tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_network_sees_every_picture_upright(orientation: int, kind: str) -> None:
    grey_hw = grey_scene(48, 80)
    data = encoded(grey_hw, kind, exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    (seen_hw,) = views(open_scan(data), MODEL.card)
    (expected_hw,) = views(open_scan(encoded(np.array(upright), "PNG")), MODEL.card)
    assert seen_hw.shape == expected_hw.shape
    assert np.abs(seen_hw - expected_hw).max() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colors_land_where_the_network_saw_their_place(orientation: int, kind: str) -> None:
    """The upper left quarter of the upright picture turns red, however the file stores it."""
    scan = open_scan(encoded(np.full((64, 96), 128, np.uint8), kind, exif=exif(orientation)))
    height, width = scan.pages[0].upright_shape
    ab_12hw = torch.zeros(1, 2, height // 8, width // 8)
    ab_12hw[0, 0, : height // 16, : width // 16] = 40
    target = BytesIO()
    paint(scan, [Prediction(ab_n2hw=ab_12hw, confidence_hw=torch.ones(height // 8, width // 8))], target, None)
    colored = Image.open(BytesIO(target.getvalue()))
    assert colored.getexif().get(0x0112, 1) == orientation
    a_hw = rgb2lab(np.array(ImageOps.exif_transpose(colored).convert("RGB")))[..., 1]
    assert a_hw.shape == (height, width)
    assert a_hw[: height // 2 - 12, : width // 2 - 12].min() > 30
    assert np.abs(a_hw[height // 2 + 12 :]).max() < 5
    assert np.abs(a_hw[:, width // 2 + 12 :]).max() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "apart"), [("JPEG", 6), ("PNG", 1), ("TIFF", 1)])
def test_hints_side_by_side_are_each_obeyed(kind: str, apart: int, orientation: int) -> None:
    """Nearer to each other than any map tells apart. (A JPEG's decoder mixes each cell of chroma, 2×2 pixels, with those beside it.)"""
    scan = open_scan(encoded(np.full((480, 640), 128, np.uint8), kind, exif=exif(orientation)))
    height, width = scan.pages[0].upright_shape
    places = [(100, 120), (100 + apart, 120), (100, 120 + apart)]
    colors = ["#a05050", "#5060a0", "#508050"]
    document = json.dumps([{"x": x, "y": y, "color": color} for (x, y), color in zip(places, colors, strict=True)])
    hints = parse_hints(document, width=width, height=height)
    target = BytesIO()
    paint(scan, [Prediction(ab_n2hw=torch.zeros(1, 2, 8, 8), confidence_hw=torch.ones(8, 8))], target, None, hints=hints)
    lab_hwc = rgb2lab(np.array(ImageOps.exif_transpose(Image.open(BytesIO(target.getvalue()))).convert("RGB")))
    assert lab_hwc.shape == (height, width, 3)
    for hint, (x, y) in zip(hints, places, strict=True):
        assert np.linalg.norm(lab_hwc[y, x, 1:] - hint.ab) < (4 if kind == "JPEG" else 1)
    lab_hwc[110:140, 90:120] = 0
    assert np.abs(lab_hwc[..., 1:]).max() < 3, "the map's own colour elsewhere"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_every_format_comes_out_as_itself_in_color(olive: Colorizer, kind: str) -> None:
    data = encoded(grey_scene(48, 64), kind)
    colored = Image.open(BytesIO(colorize_scan(open_scan(data), olive)))
    assert (colored.format, colored.size, colored.mode) == (kind, (64, 48), "RGB")
    lab_hwc = rgb2lab(np.array(colored))
    inside = (lab_hwc[..., 0] > 25) & (lab_hwc[..., 0] < 85)
    assert np.abs(np.median(lab_hwc[inside], axis=0)[1:] - (-10, 20)).max() < 3


def test_every_page_gets_its_own_colors(colorizer: Colorizer) -> None:
    pages = grey_scene(40, 60), grey_scene(30, 30).T
    scan = open_scan(tiff(*pages))
    seen = views(scan, MODEL.card)
    assert len(seen) == 2
    with tifffile.TiffFile(BytesIO(colorize_scan(scan, colorizer))) as colored:
        for page, alone in zip(colored.pages, pages, strict=True):
            with tifffile.TiffFile(BytesIO(colorize_scan(open_scan(tiff(alone)), colorizer))) as expected:
                assert np.array_equal(page.asarray(), expected.pages[0].asarray())


def test_the_result_says_what_made_it(colorizer: Colorizer) -> None:
    colored = colorize_scan(open_scan(encoded(grey_scene(), "JPEG")), colorizer, DecodeSettings(vividness=0.25))
    assert read_note(colored) == note_of(MODEL.card, DecodeSettings(vividness=0.25))
    assert read_note(colored) == Note(model="small", model_sha256=MODEL.card.weights_sha256, vividness=0.25)


def test_the_same_scan_becomes_the_same_file(colorizer: Colorizer) -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        data = encoded(grey_scene(100, 75), kind)
        assert colorize_scan(open_scan(data), colorizer) == colorize_scan(open_scan(data), colorizer)


def test_candidates_are_different_files(colorizer: Colorizer) -> None:
    scan = open_scan(encoded(grey_scene(), "JPEG"))
    predictions = colorizer.predict(views(scan, MODEL.card), DecodeSettings(candidates=3))
    found = set()
    for candidate in range(3):
        target = BytesIO()
        paint(scan, predictions, target, None, candidate=candidate)
        found.add(target.getvalue())
    assert len(found) == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_mark_is_three_stripes_in_a_corner_and_no_change_of_lightness(olive: Colorizer, kind: str) -> None:
    scan = open_scan(encoded(np.full((240, 320), 128, np.uint8), kind))
    predictions = olive.predict(views(scan, olive.model.card))
    files = []
    for mark in (False, True):
        target = BytesIO()
        paint(scan, predictions, target, None, mark=mark)
        files.append(rgb2lab(np.array(Image.open(BytesIO(target.getvalue())))))
    plain_hwc, marked_hwc = files
    assert np.abs(marked_hwc[..., 0] - plain_hwc[..., 0]).max() < (0.6 if kind == "PNG" else 25), "in a JPEG the luma stays instead"
    moved_hw = np.hypot(*(marked_hwc - plain_hwc)[..., 1:].transpose(2, 0, 1)) > 20
    rows, columns = np.nonzero(moved_hw)
    assert rows.min() >= 212
    assert columns.min() >= 292
    corner_hwc = marked_hwc[222:, 304:312, 1:].mean(axis=1)
    red, green, blue = corner_hwc[1], corner_hwc[8], corner_hwc[-3]
    assert red[0] > 30
    assert green[0] < -25
    assert blue[1] < -30


def test_a_confidence_map_is_white_where_the_network_is_certain() -> None:
    confidence_hw = torch.zeros(4, 4)
    confidence_hw[:, 2:] = 1
    prediction = Prediction(ab_n2hw=torch.zeros(1, 2, 4, 4), confidence_hw=confidence_hw)
    image = Image.open(BytesIO(confidence_png(prediction, 40, 60)))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (60, 40))
    map_hw = np.array(image)
    assert (map_hw[:, :15] == 0).all()
    assert (map_hw[:, -15:] == 255).all()
