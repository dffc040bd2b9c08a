"""Colours from frame to frame: steady on a moving, noisy, flickering picture; nothing left of the old scene after a cut."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from skimage.color import deltaE_ciede2000

from colorize.imaging.colorspace import rgb_to_lab
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings
from colorize.model.steady import Steadier

HEIGHT, WIDTH = 96, 128
"""Of what the network sees; it answers at a quarter."""

Planes = npt.NDArray[np.float32]


def photograph(name: str) -> torch.Tensor:
    """LAB (1, 3, h, w) of a photograph that comes with scikit-image."""
    rgb_hwc = getattr(data, name)()
    return rgb_to_lab(torch.from_numpy(np.ascontiguousarray(rgb_hwc)).permute(2, 0, 1)[None])


def view(lab_13hw: torch.Tensor, place: tuple[float, float, float], height: int = HEIGHT, width: int = WIDTH) -> Planes:
    """LAB (3, height, width) of the part of the scene around x, y (−1…1) that is `zoom` of its sides."""
    return F.grid_sample(lab_13hw, grid(place, height, width), align_corners=False)[0].numpy()


def grid(place: tuple[float, float, float], height: int, width: int) -> torch.Tensor:
    x, y, zoom = place
    return F.affine_grid(torch.tensor([[[zoom, 0.0, x], [0.0, zoom, y]]]), [1, 1, height, width], align_corners=False)


def places(count: int) -> list[tuple[float, float, float]]:
    """A pan of about five pixels a frame that zooms in."""
    return [(-0.35 + 0.7 * n / count, 0.1 * math.sin(n / 3), 0.5 - 0.12 * n / count) for n in range(count)]


def clip(lab_13hw: torch.Tensor, count: int, seed: int = 0) -> tuple[list[Planes], list[Planes]]:
    """The lightness of each frame, with noise and a light that flickers; and ab of a network that is unsure from frame to frame."""
    random = np.random.default_rng(seed)
    L_of_frames, ab_of_frames = [], []
    for place in places(count):
        L_hw = view(lab_13hw, place)[0] * (1 + 0.06 * random.standard_normal()) + 2 * random.standard_normal((HEIGHT, WIDTH))
        unsure_12hw = torch.from_numpy(random.standard_normal((1, 2, 6, 8)).astype(np.float32))
        unsure_2hw = F.interpolate(unsure_12hw, size=(HEIGHT // 4, WIDTH // 4), mode="bilinear")[0].numpy()
        L_of_frames.append(L_hw.clip(0, 100).astype(np.float32))
        ab_of_frames.append(view(lab_13hw, place, HEIGHT // 4, WIDTH // 4)[1:] + 6 * unsure_2hw)
    return L_of_frames, ab_of_frames


def between(lab_13hw: torch.Tensor, ab_of_frames: list[Planes]) -> float:
    """Mean CIEDE2000 between consecutive frames at the same points of the scene, at the scene's own lightness."""
    differences = []
    path = places(len(ab_of_frames))
    for n in range(1, len(path)):
        scene_1hw2 = grid(path[n], HEIGHT, WIDTH)
        before_1hw2 = (scene_1hw2 - torch.tensor(path[n - 1][:2])) / path[n - 1][2]
        is_seen_hw = (before_1hw2.abs() < 0.95).all(-1)[0].numpy()
        before, after = (
            F.grid_sample(torch.from_numpy(ab_2hw)[None], place_1hw2, align_corners=False)[0].numpy()
            for ab_2hw, place_1hw2 in ((ab_of_frames[n - 1], before_1hw2), (ab_of_frames[n], grid((0, 0, 1), HEIGHT, WIDTH)))
        )
        L_hw = view(lab_13hw, path[n])[0]
        pair = [np.stack([L_hw, *ab_2hw], -1) for ab_2hw in (before, after)]
        differences.append(deltaE_ciede2000(*pair)[is_seen_hw].mean())
    return float(np.mean(differences))


def error(lab_13hw: torch.Tensor, ab_of_frames: list[Planes]) -> float:
    """Mean distance from the true ab."""
    found = []
    for place, ab_2hw in zip(places(len(ab_of_frames)), ab_of_frames, strict=True):
        found.append(np.linalg.norm(ab_2hw - view(lab_13hw, place, *ab_2hw.shape[1:])[1:], axis=0).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_colors_stay_on_things_that_move(name: str) -> None:
    scene = photograph(name)
    L_of_frames, ab_of_frames = clip(scene, 24)
    steadier = Steadier()
    steadied, cuts = zip(*(steadier.steady(*frame) for frame in zip(L_of_frames, ab_of_frames, strict=True)), strict=True)
    assert cuts == (True, *[False] * 23), "the first frame begins a scene, and no other"
    assert between(scene, list(steadied)) < between(scene, ab_of_frames) / 2.5
    assert error(scene, list(steadied)[5:]) < error(scene, ab_of_frames[5:]), "and they are those of the things: nothing lags behind"


def test_the_colors_of_the_model_that_ships_are_steadied() -> None:
    scene = photograph("coffee")
    L_of_frames, _ = clip(scene, 10)
    colorizer, steadier = Colorizer(load_model("photo")), Steadier()
    predictions = [colorizer.predict([L_hw], DecodeSettings(vividness=0.5), working_size=HEIGHT)[0] for L_hw in L_of_frames]
    alone = [prediction.ab_n2hw[0].numpy() for prediction in predictions]
    steadied = [steadier.steady(*frame)[0] for frame in zip(L_of_frames, alone, strict=True)]
    assert between(scene, steadied) < between(scene, alone) / 2.5
    # Over the clip: at this size the model itself changes its mind by 15 ab units from the first frame to the last.
    over_clip, of_model = (np.mean([ab_2hw.mean((1, 2)) for ab_2hw in frames], axis=0) for frames in (steadied, alone))
    assert np.abs(over_clip - of_model).max() < 3, "the colours are still the model's"


def test_the_first_frame_is_what_the_network_says() -> None:
    L_of_frames, ab_of_frames = clip(photograph("coffee"), 1)
    ab_2hw, is_cut = Steadier().steady(L_of_frames[0], ab_of_frames[0])
    assert is_cut
    assert ab_2hw.shape == (2, HEIGHT // 2, WIDTH // 2)
    expected = F.interpolate(torch.from_numpy(ab_of_frames[0])[None], size=(HEIGHT // 2, WIDTH // 2), mode="bilinear")[0]
    assert np.allclose(ab_2hw, expected.numpy())


@pytest.mark.parametrize(("before", "after"), [("astronaut", "coffee"), ("coffee", "chelsea"), ("chelsea", "astronaut")])
def test_a_cut_leaves_no_old_color_behind(before: str, after: str) -> None:
    steadier = Steadier()
    for L_hw, ab_2hw in zip(*clip(photograph(before), 5), strict=True):
        steadier.steady(L_hw, ab_2hw)
    (L_hw,), (ab_2hw,) = clip(photograph(after), 1)
    ab_after, is_cut = steadier.steady(L_hw, ab_2hw)
    alone, _ = Steadier().steady(L_hw, ab_2hw)
    assert is_cut
    assert np.array_equal(ab_after, alone)


@pytest.mark.parametrize("change", ["the light goes", "the light comes", "noise", "a hand in front"])
def test_what_is_no_cut(change: str) -> None:
    random = np.random.default_rng(3)
    L_hw = view(photograph("astronaut"), (0, 0, 0.6))[0]
    changed_hw = {
        "the light goes": 0.5 * L_hw,
        "the light comes": (1.3 * L_hw + 5).clip(0, 100),
        "noise": (L_hw + 6 * random.standard_normal(L_hw.shape)).clip(0, 100),
        "a hand in front": np.where(np.arange(WIDTH) < WIDTH // 4, np.float32(60), L_hw),
    }[change].astype(np.float32)
    steadier, ab_2hw = Steadier(), np.zeros((2, HEIGHT // 4, WIDTH // 4), np.float32)
    steadier.steady(L_hw, ab_2hw)
    assert not steadier.steady(changed_hw, ab_2hw)[1]


def test_what_comes_into_the_picture_has_its_own_color_at_once() -> None:
    """And what was hidden is not painted in the colour of what hid it."""
    steadier = Steadier()
    background_hw = 0.6 * view(photograph("chelsea"), (0, 0, 0.6))[0]
    blue_2hw = np.broadcast_to(np.float32([0, -30])[:, None, None], (2, HEIGHT // 4, WIDTH // 4))
    for n in range(8):  # a bright ball, red, falls on a blue ground faster than anything tracks
        top = 8 + 10 * n
        L_hw, ab_2hw = background_hw.copy(), blue_2hw.copy()
        L_hw[top : top + 16, 50:74] = 98
        ab_2hw[:, top // 4 : top // 4 + 4, 50 // 4 : 74 // 4] = np.float32([60, 40])[:, None, None]
        steadied, _ = steadier.steady(L_hw, ab_2hw)
        now_2hw = F.interpolate(torch.from_numpy(ab_2hw)[None], size=steadied.shape[1:], mode="bilinear")[0].numpy()
        # Apart from the ball's rim, a few windows wide.
        assert np.abs(steadied - now_2hw)[:, (top + 4) // 2 : (top + 12) // 2, 28:34].mean() < 15
        if n > 2:
            assert np.abs(steadied - now_2hw)[:, : (top - 24) // 2].max() < 20, "no trail"


def test_another_size_begins_a_new_scene() -> None:
    steadier = Steadier()
    for height, width in ((HEIGHT, WIDTH), (WIDTH, HEIGHT)):
        _, is_cut = steadier.steady(np.full((height, width), 50, np.float32), np.zeros((2, height // 4, width // 4), np.float32))
        assert is_cut


@pytest.mark.parametrize("level", [0.0, 100.0, 37.0])
def test_a_frame_without_anything_in_it_has_finite_colors(level: float) -> None:
    steadier = Steadier()
    for _ in range(3):
        ab_2hw, _ = steadier.steady(np.full((32, 32), level, np.float32), np.full((2, 16, 16), 7, np.float32))
        assert np.allclose(ab_2hw, 7)


def test_what_it_is_given_stays_as_it_is() -> None:
    L_of_frames, ab_of_frames = clip(photograph("coffee"), 2)
    copies = [array.copy() for array in (*L_of_frames, *ab_of_frames)]
    for array in (*L_of_frames, *ab_of_frames):
        array.setflags(write=False)
    steadier = Steadier()
    for L_hw, ab_2hw in zip(L_of_frames, ab_of_frames, strict=True):
        steadier.steady(L_hw, ab_2hw)
    for array, copy in zip((*L_of_frames, *ab_of_frames), copies, strict=True):
        assert np.array_equal(array, copy)
