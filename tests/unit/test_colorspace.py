"""The colour conversions against skimage and Pillow, and what `compose` promises."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor

from colorize.imaging import colorspace
from colorize.imaging.colorspace import compose, compose_float, lab_to_rgb, lab_to_ycbcr, lightness_of_grey, lightness_of_rgb, rgb_to_lab

L_BOUND = 0.27  # what `compose` documents
bytes_n3 = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(3)))
lab_n3 = st.lists(st.tuples(st.floats(0, 100), st.floats(-160, 160), st.floats(-160, 160)), min_size=1, max_size=40)


def planes(values_n3: object) -> Tensor:
    """Rows of three values as a picture (1, 3, 1, n)."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(values_n3).T))[None, :, None, :]


def every_color(reds: range) -> Tensor:
    level = np.arange(256, dtype=np.uint8)
    cube = np.stack(np.meshgrid(level[reds.start : reds.stop], level, level, indexing="ij"))
    return torch.from_numpy(cube.reshape(1, 3, -1, 256))


def difference_from_skimage(rgb_b3hw: Tensor) -> float:
    return float(np.abs(rgb_to_lab(rgb_b3hw).numpy() - rgb2lab(rgb_b3hw.numpy(), channel_axis=1)).max())


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 32, 32), (1, 3, 1, 70_000), (3, 3, 300, 301), (0, 3, 4, 4), (2, 3, 0, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_any_shape_agrees_with_skimage(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    rgb_b3hw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    lab_b3hw = rgb_to_lab(rgb_b3hw if dtype == torch.uint8 else rgb_b3hw.to(dtype) / 255)
    assert lab_b3hw.shape == shape
    assert lab_b3hw.dtype == torch.float32
    if rgb_b3hw.numel():
        np.testing.assert_allclose(lab_b3hw.numpy(), rgb2lab(rgb_b3hw.numpy(), channel_axis=1), atol=0.01)


def test_a_sample_of_all_colors_agrees_with_skimage_and_returns() -> None:
    rgb_b3hw = every_color(range(256))[:, :, ::97]
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    assert difference_from_skimage(rgb_b3hw) < 0.01
    assert torch.equal(compose(lab_b3hw[:, :1], lab_b3hw[:, 1:]), rgb_b3hw)


def test_all_colors_agree_with_skimage_and_return() -> None:
    for red in range(0, 256, 8):
        rgb_b3hw = every_color(range(red, red + 8))
        lab_b3hw = rgb_to_lab(rgb_b3hw)
        assert difference_from_skimage(rgb_b3hw) < 0.01
        assert torch.equal(compose(lab_b3hw[:, :1], lab_b3hw[:, 1:]), rgb_b3hw)
        assert torch.equal((lab_to_rgb(lab_b3hw) * 255).round().to(torch.uint8), rgb_b3hw)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_result_does_not_depend_on_threads_or_layout(threads: int) -> None:
    rgb_b3hw = torch.randint(0, 256, (2, 3, 200, 201), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    expected = rgb_to_lab(rgb_b3hw)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(rgb_to_lab(rgb_b3hw), expected)
        assert torch.equal(rgb_to_lab(rgb_b3hw.contiguous(memory_format=torch.channels_last)), expected)
        assert torch.equal(rgb_to_lab(rgb_b3hw[:, :, ::2]), expected[:, :, ::2])
    finally:
        torch.set_num_threads(before)


def test_autocast_changes_nothing() -> None:
    rgb_b3hw = every_color(range(100, 101))
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rgb_to_lab(rgb_b3hw), lab_b3hw)
        assert torch.equal(compose(lab_b3hw[:, :1], lab_b3hw[:, 1:]), rgb_b3hw)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_chroma_of_any_floating_type_is_composed_in_float32(dtype: torch.dtype) -> None:
    lab_b3hw = rgb_to_lab(every_color(range(100, 101)))
    ab_b2hw = lab_b3hw[:, 1:].to(dtype)
    assert torch.equal(compose(lab_b3hw[:, :1], ab_b2hw), compose(lab_b3hw[:, :1], ab_b2hw.float()))
    assert torch.equal(compose(lab_b3hw[:, :1].double(), ab_b2hw), compose(lab_b3hw[:, :1], ab_b2hw.float()))


def test_arguments_are_left_as_they_were_and_carry_no_gradient() -> None:
    L_b1hw = torch.full((1, 1, 4, 4), 50.0, requires_grad=True)
    ab_b2hw = torch.full((1, 2, 4, 4), 90.0, requires_grad=True)
    assert not compose(L_b1hw, ab_b2hw).requires_grad
    assert bool((L_b1hw == 50).all())
    assert bool((ab_b2hw == 90).all())


@given(bytes_n3)
def test_eight_bits_survive_the_round_trip(rgb_n3: np.ndarray) -> None:
    rgb_b3hw = planes(rgb_n3)
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    np.testing.assert_allclose((lab_to_rgb(lab_b3hw) * 255).numpy(), rgb_b3hw.numpy(), atol=0.01)
    assert torch.equal(compose(lab_b3hw[:, :1], lab_b3hw[:, 1:]), rgb_b3hw)


@given(lab_n3)
def test_compose_keeps_lightness_and_hue(values: list[tuple[float, float, float]]) -> None:
    lab_b3hw = planes(np.array(values, dtype=np.float32))
    result_b3hw = rgb_to_lab(compose(lab_b3hw[:, :1], lab_b3hw[:, 1:]))
    assert float((result_b3hw[:, 0] - lab_b3hw[:, 0]).abs().max()) <= L_BOUND
    asked, kept = lab_b3hw[:, 1:].norm(dim=1), result_b3hw[:, 1:].norm(dim=1)
    assert bool((kept <= asked + 3).all()), "rounding aside, chroma is only ever given up"
    cross = lab_b3hw[:, 1] * result_b3hw[:, 2] - lab_b3hw[:, 2] * result_b3hw[:, 1]
    assert float((cross / asked.clamp(min=1)).abs().max()) < 3, "the chroma's direction stays, but for the rounding of dark colours"


@given(lab_n3)
def test_compose_goes_to_the_border_and_not_inside_it(values: list[tuple[float, float, float]]) -> None:
    lab_b3hw = planes(np.array(values, dtype=np.float32))
    plain_b3hw = lab_to_rgb(lab_b3hw)
    result_b3hw = compose(lab_b3hw[:, :1], lab_b3hw[:, 1:])
    is_inside = ((plain_b3hw >= 0) & (plain_b3hw <= 1)).all(1, keepdim=True).expand_as(plain_b3hw)
    is_outside = ((plain_b3hw < -0.001) | (plain_b3hw > 1.001)).any(1)
    expected = (plain_b3hw * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    assert torch.equal(result_b3hw[is_inside], expected[is_inside])
    at_border = ((result_b3hw <= 1) | (result_b3hw >= 254)).any(1)
    assert bool(at_border[is_outside].all())


def test_sixteen_bits_are_composed_within_two_levels_of_full_scale() -> None:
    generator = torch.Generator().manual_seed(6)
    L_b1hw = torch.cat([torch.rand(1, 1, 300, 300, generator=generator) * high for high in (100, 5, 0.5)], dim=2)
    ab_b2hw = torch.randn(1, 2, 900, 300, generator=generator) * torch.rand(1, 1, 900, 300, generator=generator) * 60
    rgb_b3hw = compose(L_b1hw, ab_b2hw, bits=16)
    assert rgb_b3hw.dtype == torch.uint16
    lab_b3hw = torch.from_numpy(rgb2lab(rgb_b3hw.numpy().astype(np.float64) / 65535, channel_axis=1))
    assert float((lab_b3hw[:, :1] - L_b1hw).abs().max()) <= 100 * 2 / 65535
    assert float((rgb_to_lab(rgb_b3hw)[:, :1] - L_b1hw).abs().max()) <= 100 * 2 / 65535


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 40), st.just(3))))
def test_sixteen_bits_survive_the_round_trip(rgb_n3: np.ndarray) -> None:
    rgb_b3hw = planes(rgb_n3)
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    np.testing.assert_allclose(lab_b3hw[0, :, 0].numpy().T, rgb2lab(rgb_n3[None] / 65535.0)[0], atol=0.01)
    again_b3hw = compose(lab_b3hw[:, :1], lab_b3hw[:, 1:], bits=16)
    np.testing.assert_allclose(again_b3hw.numpy().astype(int), rgb_b3hw.numpy().astype(int), atol=2)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(0, 9), st.just(3))), st.booleans())
def test_lightness_of_rgb_is_that_of_lab(rgb_hwc: np.ndarray, deep: bool) -> None:
    pixels = rgb_hwc.astype(np.uint16) * 251 if deep else rgb_hwc
    lab_b3hw = rgb_to_lab(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None])
    np.testing.assert_allclose(lightness_of_rgb(pixels), lab_b3hw[0, 0].numpy(), atol=1e-4)


def test_composition_without_rounding_rounds_to_the_same() -> None:
    L_b1hw = torch.rand(2, 1, 50, 60, generator=torch.Generator().manual_seed(7)) * 100
    ab_b2hw = torch.randn(2, 2, 50, 60, generator=torch.Generator().manual_seed(8)) * 50
    rgb_b3hw = compose_float(L_b1hw, ab_b2hw)
    assert 0 <= float(rgb_b3hw.min()) <= float(rgb_b3hw.max()) <= 1
    rounded_b3hw = (rgb_b3hw * 255 + 0.5).to(torch.uint8)
    assert int((rounded_b3hw.int() - compose(L_b1hw, ab_b2hw).int()).abs().max()) <= 1  # the border is a little narrower


@pytest.mark.slow
def test_the_documented_bound_is_what_rounding_costs_the_worst_color() -> None:
    worst = 0.0
    for red in range(0, 256, 16):
        middle = every_color(range(red, red + 16)).float()
        lightness = [rgb_to_lab((middle + step).clamp(0, 255) / 255)[:, 0] for step in (-0.5, 0, 0.5)]
        worst = max(worst, float((lightness[2] - lightness[1]).max()), float((lightness[1] - lightness[0]).max()))
    assert 0.26 < worst < L_BOUND


def test_greys_are_neutral_and_keep_their_value() -> None:
    grey = np.arange(256, dtype=np.uint8)
    rgb_b3hw = torch.from_numpy(np.tile(grey, (3, 1)))[None, :, None, :]
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    assert float(lab_b3hw[:, 1:].abs().max()) < 1e-4
    np.testing.assert_allclose(lightness_of_grey(grey), lab_b3hw[0, 0, 0].numpy(), atol=1e-4)
    neutral_b2hw = torch.zeros(1, 2, 1, 256)
    assert torch.equal(compose(torch.from_numpy(lightness_of_grey(grey))[None, None, None], neutral_b2hw), rgb_b3hw)
    assert lightness_of_grey(grey)[[0, 255]].tolist() == [0, 100]


def test_black_and_white_stay_neutral_whatever_the_chroma() -> None:
    ab_b2hw = torch.tensor([[90.0, -80.0, 5.0], [-90.0, 60.0, 110.0]])[None, :, None]
    assert compose(torch.zeros(1, 1, 1, 3), ab_b2hw).flatten().tolist() == [0] * 9
    assert compose(torch.full((1, 1, 1, 3), 100.0), ab_b2hw).flatten().tolist() == [255] * 9


def test_lightness_of_grey_takes_any_shape() -> None:
    grey = np.random.default_rng(3).integers(0, 256, (7, 5), dtype=np.uint8)
    L_hw = lightness_of_grey(grey)
    assert L_hw.dtype == np.float32
    np.testing.assert_allclose(L_hw, rgb2lab(np.dstack([grey] * 3))[..., 0], atol=0.001)


@given(bytes_n3)
def test_ycbcr_is_that_of_jpeg_files(rgb_n3: np.ndarray) -> None:
    ycbcr_b3hw = lab_to_ycbcr(rgb_to_lab(planes(rgb_n3)))
    by_pillow = np.array(Image.fromarray(rgb_n3[None]).convert("YCbCr"))[0]
    np.testing.assert_allclose(ycbcr_b3hw[0, :, 0].numpy().T, by_pillow, atol=1.01)  # Pillow's own tables are rounded
    weights = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
    by_formula = rgb_n3 @ weights.T + [0, 128, 128]  # ITU-T T.871
    np.testing.assert_allclose(ycbcr_b3hw[0, :, 0].numpy().T, by_formula, atol=0.01)


def test_ycbcr_of_a_grey_is_its_value_and_neutral_chroma() -> None:
    grey = np.arange(256, dtype=np.uint8)
    ycbcr_b3hw = lab_to_ycbcr(rgb_to_lab(torch.from_numpy(np.tile(grey, (3, 1)))[None, :, None, :]))
    np.testing.assert_allclose(ycbcr_b3hw[0, 0, 0].numpy(), grey, atol=0.002)
    np.testing.assert_allclose(ycbcr_b3hw[0, 1:].numpy(), 128, atol=0.002)


def test_colors_outside_the_gamut_are_not_clipped() -> None:
    lab_b3hw = torch.tensor([50.0, 120.0, -120.0])[None, :, None, None]
    rgb_b3hw = lab_to_rgb(lab_b3hw)
    assert float(rgb_b3hw.min()) < 0
    assert float(rgb_b3hw.max()) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: rgb_to_lab(torch.zeros(1, 1, 4, 4)),
        lambda: rgb_to_lab(torch.zeros(3, 4, 4)),
        lambda: rgb_to_lab(torch.full((1, 3, 4, 4), 255.0)),
        lambda: rgb_to_lab(torch.full((1, 3, 4, 4), float("nan"))),
        lambda: rgb_to_lab(torch.zeros(1, 3, 4, 4, dtype=torch.int32)),
        lambda: lab_to_rgb(torch.zeros(1, 2, 4, 4)),
        lambda: lab_to_ycbcr(torch.zeros(1, 2, 4, 4)),
        lambda: compose(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 5)),
        lambda: compose(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4)),
        lambda: compose(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), bits=12),
        lambda: lightness_of_grey(np.zeros((4, 4), dtype=np.float32)),
        lambda: lightness_of_rgb(np.zeros((4, 4), dtype=np.uint8)),
        lambda: lightness_of_rgb(np.zeros((4, 4, 3), dtype=np.float32)),
    ],
)
def test_mistakes_of_the_caller_fail_an_assertion(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(AssertionError):
        wrong()


def test_strips_cover_every_pixel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colorspace, "STRIP_PIXELS", 7)
    monkeypatch.setattr(colorspace, "SERIAL_PIXELS", 7)
    rgb_b3hw = torch.randint(0, 256, (5, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    lab_b3hw = rgb_to_lab(rgb_b3hw)
    assert torch.equal(compose(lab_b3hw[:, :1], lab_b3hw[:, 1:]), rgb_b3hw)
    small_b3hw = rgb_b3hw[:, :, :1, :3]
    assert torch.equal(rgb_to_lab(small_b3hw), lab_b3hw[:, :, :1, :3])


@pytest.mark.parametrize("bits", [8, 16, None])
def test_a_picture_is_composed_in_a_batch_as_alone(bits: int | None) -> None:
    """Also where the colours outside the gamut wait for those of other strips: here 4 in 10 of 160,000."""
    made = torch.Generator().manual_seed(0)
    L_b1hw = 100 * torch.rand(40, 1, 64, 64, generator=made)
    ab_b2hw = 160 * torch.rand(40, 2, 64, 64, generator=made) - 80
    composed = compose_float if bits is None else partial(compose, bits=bits)
    together = composed(L_b1hw, ab_b2hw)
    for number in range(0, 40, 7):
        alone = composed(L_b1hw[number : number + 1], ab_b2hw[number : number + 1])
        assert torch.equal(alone[0], together[number])
