"""What counts as a picture's own colours, and what as the tint of a print."""

import csv
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from colorize.imaging.space import RgbSpace
from colorize.imaging.tint import is_colored

DATA = Path(os.environ.get("COLORIZE_TEST_DATA", "../shared/data"))
SPACE = RgbSpace()


def scene(side: int = 128) -> npt.NDArray[np.float32]:
    """The lightness (side, side) of a made-up picture: a sky, hills, houses and grain."""
    y, x = np.mgrid[0:side, 0:side] / side
    L_hw = 85 - 40 * y + 12 * np.sin(9 * x) * (y > 0.4)
    for left, top, level in [(0.15, 0.5, 20), (0.4, 0.55, 62), (0.62, 0.45, 35), (0.8, 0.6, 8)]:
        L_hw[(x > left) & (x < left + 0.16) & (y > top) & (y < 0.85)] = level
    return np.clip(L_hw + np.random.default_rng(1).normal(0, 3, L_hw.shape), 1, 99).astype(np.float32)


def through_jpeg(L_hw: npt.NDArray[np.float32], ab_2hw: npt.NDArray[np.float64], quality: int = 60) -> npt.NDArray[np.float32]:
    """LAB of a picture that has been a JPEG file."""
    buffer = BytesIO()
    Image.fromarray(SPACE.compose(L_hw, ab_2hw.astype(np.float32), 8)).save(buffer, "JPEG", quality=quality)
    return SPACE.lab(np.array(Image.open(buffer)))


def tint(L_hw: npt.NDArray[np.float32], hue: float, chroma: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    angle = np.radians(hue)
    return np.stack([np.cos(angle) * chroma, np.sin(angle) * chroma])


def of_file(source: Path | BytesIO) -> npt.NDArray[np.float32]:
    image = Image.open(source).convert("RGB")
    image.thumbnail((128, 128))
    return SPACE.lab(np.array(image))


L = scene()
X = L.astype(np.float64) / 100
FADING = 1 - 0.4 * np.linspace(0, 1, 128)[None, :] * np.ones((128, 1))


@pytest.mark.parametrize(
    ("name", "ab_2hw"),
    [
        ("grey", np.zeros((2, 128, 128))),
        ("sepia", tint(L, 75, 80 * X * (1 - X))),
        ("strong sepia", tint(L, 65, 35 * (1 - X) ** 0.5)),
        ("cyanotype", tint(L, 255, 40 * (1 - X) ** 0.7)),
        ("selenium", tint(L, 330, 12 * (1 - X))),
        ("yellowed paper", tint(L, 85, 25 * X)),
        ("a cast over all", tint(L, 140, 12 + 0 * X)),
        ("split toning", tint(L, 70, 14 * X) + tint(L, 250, 14 * (1 - X))),
        ("faded sepia", tint(L, 75, 60 * X * (1 - X) * FADING)),
    ],
)
@pytest.mark.parametrize("quality", [50, 90])
def test_a_toned_print_is_not_in_color(name: str, ab_2hw: npt.NDArray[np.float64], quality: int) -> None:
    assert not is_colored(through_jpeg(L, ab_2hw, quality)), name


def test_a_colored_border_or_stamp_is_not_the_picture_s() -> None:
    bordered = np.zeros((2, 128, 128))
    bordered[:] = np.array([60.0, 40.0])[:, None, None]
    bordered[:, 12:-12, 12:-12] = 0
    assert not is_colored(through_jpeg(L, bordered))
    stamped = tint(L, 75, 40 * X * (1 - X))
    stamped[:, 88:96, 88:100] = np.array([50.0, 40.0])[:, None, None]
    assert not is_colored(through_jpeg(L, stamped, 90))


def test_few_and_muted_colors_are_colors() -> None:
    y, x = np.mgrid[0:128, 0:128] / 128
    muted = tint(L, 250, 9.0 * (y < 0.4)) + tint(L, 130, 10.0 * ((y >= 0.4) & (x < 0.6))) + tint(L, 40, 9.0 * ((y >= 0.4) & (x >= 0.6)))
    assert is_colored(through_jpeg(L, muted, 80))
    assert is_colored(through_jpeg(L, 5 * muted, 80))
    assert is_colored(through_jpeg(L, muted + tint(L, 75, 20 + 0 * X), 80)), "a yellowed slide is in colour all the same"


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 90), st.just(3))))
def test_any_shape_is_judged(rgb_hwc: np.ndarray) -> None:
    assert is_colored(SPACE.lab(rgb_hwc)) in (True, False)
    assert not is_colored(SPACE.lab(rgb_hwc[..., 0]))


@pytest.mark.needs_data
def test_historical_scans_are_not_in_color() -> None:
    rows = list(csv.DictReader((DATA / "archive_bw" / "manifest.csv").read_text().splitlines()))
    assert len(rows) == 100
    assert [row["file"] for row in rows if is_colored(of_file(DATA / "archive_bw" / row["file"]))] == []


@pytest.mark.needs_data
def test_color_photographs_are_in_color() -> None:
    large = [path for path in (DATA / "hires_colour").iterdir() if path.suffix.lower() in (".jpg", ".png", ".jpeg")]
    assert len(large) >= 10
    assert [path.name for path in large if not is_colored(of_file(path))] == []
    table = pq.read_table(DATA / "photos128" / "train-00000-of-00005.parquet", columns=["image"]).slice(0, 600)
    photos = [one["bytes"] if isinstance(one, dict) else one for one in table["image"].to_pylist()]
    misjudged = sum(not is_colored(of_file(BytesIO(photo))) for photo in photos)
    assert misjudged / len(photos) < 0.05
