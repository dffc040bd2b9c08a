"""Upsampling of chroma along the edges of lightness."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize.imaging.upsample import ChromaUpsampler, Point

Plane = npt.NDArray[np.float32]
HEIGHT, WIDTH = 300, 400


def upsampled(ab_2hw: Plane, L_hw: Plane) -> Plane:
    height, width = L_hw.shape
    return ChromaUpsampler(ab_2hw, L_hw, height, width).rows(0, L_hw)


def shrunk(planes_chw: Plane, height: int, width: int) -> Plane:
    return F.interpolate(torch.from_numpy(planes_chw)[None], size=(height, width), mode="bilinear", antialias=True)[0].numpy()


def bilinear(planes_chw: Plane, height: int, width: int) -> Plane:
    return F.interpolate(torch.from_numpy(planes_chw)[None], size=(height, width), mode="bilinear")[0].numpy()


def disc() -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (y - 143) ** 2 + (x - 189) ** 2 < 97**2


def test_color_ends_where_things_end() -> None:
    inside = disc()
    L_hw = np.where(inside, 70, 30).astype(np.float32)
    ab_2hw = np.where(inside, np.float32([[[40]], [[30]]]), np.float32([[[-20]], [[10]]]))
    low_2hw = shrunk(ab_2hw, 30, 40)
    error = np.abs(upsampled(low_2hw, L_hw) - ab_2hw)
    usual = np.abs(bilinear(low_2hw, HEIGHT, WIDTH) - ab_2hw)
    assert error.mean() < 0.3 * usual.mean()
    assert (error > 10).mean() < 0.2 * (usual > 10).mean()


def test_what_has_no_color_of_its_own_in_the_prediction_takes_no_new_one() -> None:
    L_hw = np.where(disc(), 75, 35).astype(np.float32)
    L_hw[:, 280:282] = 0  # a crack in the plate
    L_hw[100:103] = 100  # a wire in the sun
    ab_2hw = np.where(disc(), np.float32([[[25]], [[60]]]), np.float32([[[0]], [[0]]]))
    low_2hw = shrunk(ab_2hw, 30, 40)
    result_2hw = upsampled(low_2hw, L_hw)
    assert result_2hw[1].min() > -1e-3, "no blue, which lies opposite the yellow"
    assert result_2hw[1].max() < 60.001


def test_grain_does_not_become_color() -> None:
    rng = np.random.default_rng(5)
    L_hw = (50 + rng.normal(0, 4, (HEIGHT, WIDTH))).astype(np.float32)
    low_2hw = bilinear(rng.normal(0, 25, (2, 4, 5)).astype(np.float32), 30, 40)
    difference = upsampled(low_2hw, L_hw) - bilinear(low_2hw, HEIGHT, WIDTH)
    assert difference.std() < 0.8, "of ab, where lightness has 4"


def test_where_lightness_is_flat_the_prediction_stays() -> None:
    low_2hw = np.random.default_rng(1).normal(0, 20, (2, 12, 16)).astype(np.float32)
    L_hw = np.full((HEIGHT, WIDTH), 61, np.float32)
    np.testing.assert_allclose(upsampled(low_2hw, L_hw), bilinear(low_2hw, HEIGHT, WIDTH), atol=0.01)


@pytest.mark.parametrize("rows", [1, 7, 64, 299])
def test_strips_are_parts_of_the_whole(rows: int) -> None:
    rng = np.random.default_rng(2)
    L_hw, low_2hw = rng.uniform(0, 100, (HEIGHT, WIDTH)).astype(np.float32), rng.normal(0, 20, (2, 24, 32)).astype(np.float32)
    upsampler = ChromaUpsampler(low_2hw, L_hw, HEIGHT, WIDTH)
    strips = [upsampler.rows(top, L_hw[top : top + rows]) for top in range(0, HEIGHT, rows)]
    np.testing.assert_array_equal(np.concatenate(strips, axis=1), upsampler.rows(0, L_hw))


def test_the_guide_may_be_small_where_the_picture_is_large() -> None:
    """As for strips of a TIFF: the model is made from a small lightness, the rows come later."""
    L_hw = np.where(disc(), 70, 30).astype(np.float32)
    low_2hw = shrunk(np.stack([L_hw, -L_hw]), 30, 40)
    small_hw = shrunk(L_hw[None], 60, 80)[0]
    result_2hw = ChromaUpsampler(low_2hw, small_hw, HEIGHT, WIDTH).rows(0, L_hw)
    np.testing.assert_allclose(result_2hw, upsampled(low_2hw, L_hw), atol=6)
    assert np.abs(result_2hw - upsampled(low_2hw, L_hw)).mean() < 0.5


@settings(max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_sizes_stay_within_the_colors_that_came(height: int, width: int, low_height: int, low_width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ab_2hw = rng.uniform(-100, 100, (2, low_height, low_width)).astype(np.float32)
    result_2hw = upsampled(ab_2hw, rng.uniform(0, 100, (height, width)).astype(np.float32))
    assert result_2hw.shape == (2, height, width)
    assert (result_2hw >= ab_2hw.min(axis=(1, 2), keepdims=True) - 1e-3).all()
    assert (result_2hw <= ab_2hw.max(axis=(1, 2), keepdims=True) + 1e-3).all()


@settings(max_examples=60)
@given(
    places=st.lists(st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)), min_size=1, max_size=30),
    height=st.integers(1, HEIGHT),
    top=st.integers(0, HEIGHT - 1),
)
def test_every_point_has_its_own_colour_to_the_pixel(places: list[tuple[int, int]], height: int, top: int) -> None:
    """Of several at one pixel the last one counts; rows that are asked for apart are those of the whole."""
    colors = {place: (float(number), float(-number)) for number, place in enumerate(places, 1)}
    points = [Point(across=(x + 0.5) / WIDTH, down=(y + 0.5) / HEIGHT, ab=(number, -number)) for number, (x, y) in enumerate(places, 1)]
    flat_hw = np.full((HEIGHT, WIDTH), 50, np.float32)
    upsampler = ChromaUpsampler(np.zeros((2, 6, 8), np.float32), flat_hw, HEIGHT, WIDTH, points)
    ab_2hw = upsampler.rows(0, flat_hw)
    for (x, y), ab in colors.items():
        assert tuple(ab_2hw[:, y, x]) == ab
    height = min(height, HEIGHT - top)
    assert np.array_equal(upsampler.rows(top, flat_hw[:height]), ab_2hw[:, top : top + height])
    for y, x in np.argwhere(ab_2hw[0]).tolist():
        assert min(np.hypot(x - column, y - row) for column, row in colors) <= 1.5
