"""What a contact sheet shows, and where."""

import numpy as np
import pytest

from colorize.imaging.sheet import GAP, MARGIN, TITLE_HEIGHT, contact_sheet
from tests.pictures import rgb_scene


def is_white(pixels_hwc: np.ndarray) -> bool:
    return bool((pixels_hwc == 255).all())


def test_every_picture_appears_enlarged_pixel_by_pixel() -> None:
    rows = [[rgb_scene(32, 32) // (column + 1) for column in range(3)] for _ in range(4)]
    sheet_hwc = contact_sheet(rows, ["grey", "predicted", "true"], 4)
    assert sheet_hwc.dtype == np.uint8
    assert sheet_hwc.shape == (2 * MARGIN + TITLE_HEIGHT + 4 * 128 + 3 * GAP, 2 * MARGIN + 3 * 128 + 2 * GAP, 3)
    for row in range(4):
        for column in range(3):
            top, left = MARGIN + TITLE_HEIGHT + row * (128 + GAP), MARGIN + column * (128 + GAP)
            shown_hwc = sheet_hwc[top : top + 128, left : left + 128]
            assert np.array_equal(shown_hwc[::4, ::4], rows[row][column])
            assert np.array_equal(shown_hwc[3::4, 3::4], rows[row][column])


def test_titles_and_gaps_are_on_white() -> None:
    black_hwc = np.zeros((32, 32, 3), dtype=np.uint8)
    sheet_hwc = contact_sheet([[black_hwc, black_hwc]], ["left", "right"], 4)
    assert is_white(sheet_hwc[:MARGIN])
    assert is_white(sheet_hwc[:, :MARGIN])
    assert is_white(sheet_hwc[:, -MARGIN:])
    assert is_white(sheet_hwc[-MARGIN:])
    assert is_white(sheet_hwc[:, MARGIN + 128 : MARGIN + 128 + GAP])
    for left in (MARGIN, MARGIN + 128 + GAP):
        assert sheet_hwc[MARGIN : MARGIN + TITLE_HEIGHT, left : left + 64].min() < 100


def test_wide_titles_and_pictures_of_different_sizes_do_not_overlap() -> None:
    small_hwc, large_hwc = np.zeros((1, 1, 3), dtype=np.uint8), np.zeros((10, 30, 3), dtype=np.uint8)
    sheet_hwc = contact_sheet([[small_hwc, large_hwc], [large_hwc, small_hwc]], ["a title wider than its pictures", "b"])
    pictures_hwc = sheet_hwc[MARGIN + TITLE_HEIGHT :]
    assert int((pictures_hwc == 0).all(-1).sum()) == 2 * (10 * 30 + 1)


@pytest.mark.parametrize(
    ("rows", "titles", "scale"),
    [
        ([], ["a"], 1),
        ([[]], [], 1),
        ([[rgb_scene()]], ["a", "b"], 1),
        ([[rgb_scene()]], ["a"], 0),
        ([[rgb_scene()[..., 0]]], ["a"], 1),
        ([[rgb_scene() / 255]], ["a"], 1),
    ],
)
def test_mistakes_of_the_caller_fail_an_assertion(rows: list, titles: list[str], scale: int) -> None:
    with pytest.raises(AssertionError):
        contact_sheet(rows, titles, scale)
