"""Hints: what is taken and refused, obeyed at their points, spread to what belongs to them, and no one else's business."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colorize.errors import HintError
from colorize.imaging.colorspace import lightness_of_grey
from colorize.model.colorizer import Colorizer
from colorize.model.hints import MOST_HINTS, Hint, hint_planes, parse_hints
from colorize.model.settings import DecodeSettings
from tests.models import small_model
from tests.pictures import grey_scene

MODEL = small_model()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "color", "z"]), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(MODEL, device="cpu", precision="fp32")


def test_a_hint_lies_at_the_middle_of_its_pixel() -> None:
    (red, grey) = parse_hints('[{"x": 0, "y": 2, "color": "#ff0000"}, {"x": 9.9, "y": 0, "color": "#808080"}]', width=10, height=4)
    assert (red.across, red.down) == (0.05, 0.625)
    assert red.ab == pytest.approx((80.1, 67.2), abs=0.1)
    assert (grey.across, grey.down) == (0.95, 0.125)
    assert grey.ab == pytest.approx((0, 0), abs=0.01)
    assert parse_hints(b"[]", width=1, height=1) == ()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "h.json: is not JSON: Expecting value in line 1, column 1"),
        ("[\n]]", "h.json: is not JSON: Extra data in line 2, column 2"),
        (b"\xff\xfe\x00", "h.json: is not JSON: it is not UTF-8"),
        ("{}", "not an object"),
        ("7", "not a number"),
        ("[[]]", "h.json: hint 1: must be an object"),
        ('[{"x": 1, "y": 1}]', "h.json: hint 1: has no color"),
        ('[{"x": 1, "y": 1, "color": "#aabbcc", "size": 3}]', 'hint 1: has an unknown field "size"'),
        ('[{"x": 1, "y": 1, "color": "red"}]', 'hint 1: color "red": must look like #c04020'),
        ('[{"x": 1, "y": 1, "color": "#aabbc٣"}]', "must look like #c04020"),
        ('[{"x": true, "y": 1, "color": "#aabbcc"}]', "hint 1: x true: must be a number"),
        ('[{"x": "1", "y": 1, "color": "#aabbcc"}]', 'hint 1: x "1": must be a number'),
        ('[{"x": NaN, "y": 1, "color": "#aabbcc"}]', "h.json: is not JSON: a number of it is out of range"),
        ('[{"x": 1e999, "y": 1, "color": "#aabbcc"}]', "hint 1: x inf: must be a number"),
        (f'[{{"x": 1{"0" * 400}, "y": 1, "color": "#aabbcc"}}]', "hint 1: x 1"),
        (f'[{{"x": 1{"0" * 9000}, "y": 1, "color": "#aabbcc"}}]', "a number of it is out of range"),
        ('[{"x": 10, "y": 1, "color": "#aabbcc"}]', "hint 1: (10, 1) lies outside the picture, which is 10×4 upright"),
        ('[{"x": 1, "y": -0.5, "color": "#aabbcc"}]', "lies outside the picture"),
        ("[" * 100_000, "is nested too deeply"),
        (json.dumps([{"x": 0, "y": 0, "color": "#aabbcc"}] * (MOST_HINTS + 1)), "has 1,001 hints: at most 1,000 are taken"),
        (" " * 1_000_001, "is 1,000,001 bytes long"),
    ],
)
def test_what_is_no_hint_is_one_line(document: str | bytes, message: str) -> None:
    with pytest.raises(HintError) as caught:
        parse_hints(document, width=10, height=4, name="h.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("h.json: ")
    assert len(str(caught.value).splitlines()) == 1


@given(st.one_of(JSON.map(json.dumps), st.lists(JSON, max_size=3).map(json.dumps), st.text(), st.binary()))
def test_any_document_gives_hints_within_the_picture_or_one_line(document: str | bytes) -> None:
    try:
        hints = parse_hints(document, width=7, height=3)
    except HintError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    for hint in hints:
        assert 0 < hint.across < 1
        assert 0 < hint.down < 1


@given(
    st.lists(st.tuples(st.integers(0, 639), st.integers(0, 479), st.tuples(*[st.integers(0, 255)] * 3)), max_size=5),
    st.booleans(),
)
def test_whole_hints_are_read_as_they_are(points: list[tuple[int, int, tuple[int, int, int]]], upper: bool) -> None:
    def color(rgb: tuple[int, int, int]) -> str:
        text = bytes(rgb).hex()
        return "#" + (text.upper() if upper else text)

    document = json.dumps([{"x": x, "y": y, "color": color(rgb)} for x, y, rgb in points])
    found = parse_hints(document, width=640, height=480)
    assert [(int(hint.across * 640), int(hint.down * 480)) for hint in found] == [(x, y) for x, y, _ in points]


def test_the_network_is_shown_each_hint_in_its_pixel() -> None:
    hints = [Hint(across=0.3, down=0.9, ab=(10, -20)), Hint(across=1.0, down=1.0, ab=(5, 6)), Hint(across=0.99, down=0.99, ab=(7, 8))]
    planes_3hw = hint_planes(hints, 4, 8)
    assert planes_3hw[2].sum() == 2
    assert planes_3hw[:, 3, 2].tolist() == [10, -20, 1]
    assert planes_3hw[:, 3, 7].tolist() == [7, 8, 1]


def test_without_hints_nothing_changes(colorizer: Colorizer) -> None:
    L_hw_list = [lightness_of_grey(grey_scene(48, 64)), lightness_of_grey(grey_scene(64, 48)), lightness_of_grey(grey_scene(48, 48))]
    plain = colorizer.predict(L_hw_list)
    empty = colorizer.predict(L_hw_list, None, [(), [], ()])
    one = colorizer.predict(L_hw_list, None, [[Hint(across=0.5, down=0.5, ab=(30, 30))], (), ()])
    for before, after in zip(plain + plain[1:], empty + one[1:], strict=True):
        assert torch.equal(before.ab_n2hw, after.ab_n2hw)
        assert torch.equal(before.confidence_hw, after.confidence_hw)
    assert one[0].ab_n2hw.shape != plain[0].ab_n2hw.shape


def test_every_candidate_obeys_its_hints(colorizer: Colorizer) -> None:
    L_hw = lightness_of_grey(grey_scene(48, 64))
    hints = [Hint(across=0.2, down=0.3, ab=(40, 30)), Hint(across=0.8, down=0.6, ab=(-30, 20))]
    for vividness in (0.0, 1.0):
        (prediction,) = colorizer.predict([L_hw], DecodeSettings(vividness=vividness, candidates=3), [hints])
        assert prediction.ab_n2hw.shape[:2] == (3, 2)
        for hint in hints:
            height, width = prediction.ab_n2hw.shape[-2:]
            found_n2 = prediction.ab_n2hw[:, :, int(hint.down * height), int(hint.across * width)]
            assert (found_n2 - torch.tensor(hint.ab)).norm(dim=1).max() < 6


def test_of_two_hints_at_one_point_the_later_one_counts(colorizer: Colorizer) -> None:
    L_hw = lightness_of_grey(grey_scene(48, 64))
    red, blue = (Hint(across=0.4, down=0.6, ab=ab) for ab in ((40, 30), (10, -50)))
    other = Hint(across=0.9, down=0.1, ab=(0, 40))
    last, alone = colorizer.predict([L_hw, L_hw], None, [[red, other, blue], [other, blue]])
    torch.testing.assert_close(last.ab_n2hw, alone.ab_n2hw)


def test_the_mirror_image_gets_mirrored_hints(colorizer: Colorizer) -> None:
    L_hw = lightness_of_grey(grey_scene(48, 64))
    hints = [Hint(across=0.22, down=0.3, ab=(40, 30))]
    mirrored = [Hint(across=0.78, down=0.3, ab=(40, 30))]
    one, other = colorizer.predict([L_hw, np.ascontiguousarray(L_hw[:, ::-1])], None, [hints, mirrored])
    torch.testing.assert_close(other.ab_n2hw, one.ab_n2hw.flip(-1), atol=0.05, rtol=1e-3)
