"""Palettes and references: what is taken and refused, and that colours follow them where the network is in doubt."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from colorize.errors import ConfigError, HintError, PictureError
from colorize.imaging.colorspace import lightness_of_grey
from colorize.model.coloring import load_reference, load_settings
from colorize.model.colorizer import Colorizer
from colorize.model.reference import Reference
from colorize.model.settings import DecodeSettings
from colorize.model.swatches import Swatches, load_swatches, parse_swatches, shipped_palettes
from tests.models import constant_model, small_model
from tests.pictures import encoded, grey_scene, rgb_scene

L_HW = lightness_of_grey(grey_scene(48, 64))


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(small_model(), device="cpu", precision="fp32")


def mean_ab(colorizer: Colorizer, **asked: object) -> torch.Tensor:
    (prediction,) = colorizer.predict([L_HW], DecodeSettings(**asked))  # type: ignore[arg-type]
    return prediction.ab_n2hw[0].mean((1, 2))


def painted(red: int, green: int, blue: int) -> np.ndarray:
    """A scene in one colour, lighter and darker."""
    grey_hw = grey_scene(96, 128).astype(np.float32) / 255
    return (grey_hw[..., None] * np.array([red, green, blue])).astype(np.uint8)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[]", "p.json: must look like"),
        ('{"colors": {}}', "p.json: must look like"),
        ('{"colors": []}', "p.json: has 0 colors: 1 to 256 are taken"),
        (json.dumps({"colors": [{"color": "#000000"}] * 257}), "has 257 colors"),
        ('{"colors": ["#000000"]}', "p.json: color 1: must look like"),
        ('{"colors": [{"color": "blue"}]}', 'p.json: color 1: color "blue": must look like #c04020'),
        ('{"colors": [{"color": "#000000", "weight": 0}]}', "color 1: weight 0: must be above 0"),
        ('{"colors": [{"color": "#000000", "weight": 1e7}]}', "color 1: weight 1e+07: must be above 0 and at most 1,000,000"),
        ('{"colors": [{"color": "#000000", "weight": null}]}', "color 1: weight null: must be a number"),
        ('{"colors": [{"color": "#000000", "wieght": 1}]}', "color 1: must look like"),
        ('{"colours": [], "colors": []}', 'has an unknown field "colours"'),
        ('{"about": 3, "colors": [{"color": "#000000"}]}', "about: must be a string"),
        ("{", "p.json: is not JSON"),
    ],
)
def test_what_is_no_palette_is_one_line(document: str, message: str) -> None:
    with pytest.raises(HintError) as caught:
        parse_swatches(document, name="p.json")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


NESTED = st.recursive(st.none() | st.floats() | st.text(), lambda one: st.lists(one) | st.fixed_dictionaries({"colors": one}))


@given(st.text() | st.binary() | NESTED.map(json.dumps))
def test_any_document_gives_a_palette_or_one_line(document: str | bytes) -> None:
    try:
        assert parse_swatches(document).lab
    except HintError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_the_palettes_that_ship_can_be_read() -> None:
    assert shipped_palettes() == ["autochrome", "faded", "kodachrome", "technicolor"]
    for name in shipped_palettes():
        assert len(load_swatches(name).about) > 20
    with pytest.raises(HintError, match=r"none: no such file; the palettes that ship: autochrome, faded, kodachrome, technicolor"):
        load_swatches("none")


def test_a_folder_is_no_palette(tmp_path: Path) -> None:
    with pytest.raises(HintError, match=f"^{re.escape(str(tmp_path))}: is not a regular file$"):
        load_swatches(tmp_path)


def test_colours_lean_to_the_palette(colorizer: Colorizer, tmp_path: Path) -> None:
    plain = mean_ab(colorizer)
    for color, axis, sign in (("#c02020", 0, 1), ("#20a040", 0, -1), ("#c0b020", 1, 1), ("#2040c0", 1, -1)):
        (tmp_path / "own.json").write_text(json.dumps({"colors": [{"color": color}]}))
        leant = mean_ab(colorizer, palette=load_swatches(tmp_path / "own.json"))
        assert sign * (leant - plain)[axis] > 2, color


def test_a_palette_forbids_nothing_that_the_network_is_sure_of() -> None:
    sure = Colorizer(constant_model(-30, 20), device="cpu", precision="fp32")
    found = mean_ab(sure, palette=parse_swatches('{"colors": [{"color": "#ff0000"}]}'))
    assert found.tolist() == pytest.approx([-30, 20], abs=0.1)


def test_a_swatch_counts_for_its_own_lightness(colorizer: Colorizer) -> None:
    palette = parse_swatches('{"colors": [{"color": "#401010"}, {"color": "#d0ffd0"}]}')
    dark, light = (palette.bias(colorizer.model.palette, torch.full((1, 1, 1), L))[0, :, 0, 0] for L in (10.0, 95.0))
    a_k = colorizer.model.palette.bins_k2[:, 0]
    assert (dark - light)[a_k > 0].mean() > 0.5
    assert (dark - light)[a_k < 0].mean() < -0.5


def test_colours_follow_the_reference(colorizer: Colorizer) -> None:
    plain = mean_ab(colorizer)
    red, blue = (mean_ab(colorizer, reference=Reference.from_rgb(painted(*rgb))) for rgb in ((255, 90, 80), (90, 130, 255)))
    assert red[0] - plain[0] > 2
    assert blue[1] - plain[1] < -2


def test_a_picture_does_not_notice_a_reference_of_the_colours_it_gets(colorizer: Colorizer) -> None:
    guessed = mean_ab(colorizer)
    assert (mean_ab(colorizer, reference=Reference.from_rgb(painted(255, 90, 80))) - guessed).norm() > 2
    again = mean_ab(colorizer)
    assert torch.equal(guessed, again), "the reference of one call is not the next one's"


def test_a_reference_is_read_upright_and_must_have_colour(tmp_path: Path) -> None:
    rgb_hwc = painted(255, 90, 80)
    path = tmp_path / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb_hwc).save(path, exif=exif.tobytes())
    reference = load_reference(path)
    assert reference.L_hw.shape == (128, 96)
    assert reference.ab_2hw.shape == (2, 128, 96)
    assert reference.ab_2hw[0].mean() > 10
    Image.fromarray(painted(255, 235, 210)).save(tmp_path / "sepia.jpg")
    (tmp_path / "grey.png").write_bytes(encoded(grey_scene(20, 30), "PNG"))
    for name in ("grey.png", "sepia.jpg"):
        with pytest.raises(HintError, match=rf"{name}: is grey or of one tint, as a toned print is: a reference is a picture in several"):
            load_reference(tmp_path / name)
    scene_hwc = rgb_scene(96, 128)
    Image.fromarray((0.1 * scene_hwc + 0.9 * scene_hwc.mean(2, keepdims=True)).astype(np.uint8)).save(tmp_path / "pale.jpg")
    assert np.hypot(*load_reference(tmp_path / "pale.jpg").ab_2hw).max() < 20
    with pytest.raises(PictureError, match="there is no such file"):
        load_reference(tmp_path / "gone.png")


def test_options_become_settings_and_a_number_is_refused_before_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "colour.png"
    path.write_bytes(encoded(painted(255, 90, 80), "PNG"))
    numbers = {"vividness": 0.3, "temperature": 0.5}
    assert load_settings(**numbers, palette="faded", reference=None) == DecodeSettings(**numbers, palette=load_swatches("faded"))
    expected = DecodeSettings(**numbers, candidates=2, reference=load_reference(path))
    assert load_settings(**numbers, palette=None, reference=str(path), candidates=2) == expected
    with pytest.raises(ConfigError, match="vividness 2"):
        load_settings(vividness=2, temperature=None, palette="none", reference="none")
    with pytest.raises(HintError, match="none: no such file"):
        load_settings(vividness=1, temperature=None, palette="none", reference=None)


def test_settings_travel_and_say_what_they_are() -> None:
    assert DecodeSettings(vividness=1).control is None
    palette = load_swatches("faded")
    asked = DecodeSettings(temperature=0.25, palette=palette)
    assert asked.control == f"temperature 0.25, palette faded {palette.digest}"
    again = pickle.loads(pickle.dumps(asked))
    assert again == asked
    assert hash(again) == hash(asked)
    reference = Reference.from_rgb(painted(255, 90, 80))
    assert pickle.loads(pickle.dumps(DecodeSettings(reference=reference))) == DecodeSettings(reference=reference)
    assert DecodeSettings(reference=reference) != DecodeSettings(reference=Reference.from_rgb(painted(90, 130, 255)))
    with pytest.raises(ConfigError, match="palette and reference"):
        DecodeSettings(palette=palette, reference=reference)
    assert isinstance(palette, Swatches)
    assert isinstance(reference, Reference)
