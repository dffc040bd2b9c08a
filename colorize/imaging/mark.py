"""A visible mark for pictures whose colours are made: three stripes in a corner, in chroma only.

Lightness is never touched, so a marked file gives its original back as every other does. Chroma cannot show on pure black
or white: of the four corners the one that shows it best is taken.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

STRIPES_AB = ((60.0, 45.0), (-50.0, 45.0), (20.0, -60.0))
"""Red, green and blue, in ab units."""

SIDE = 12
"""The mark's side, of the shorter side of the picture: one twelfth."""

FINEST = 384
"""Chroma is enlarged until its shorter side has this many pixels, so that the stripes have edges."""


def marked(ab_2hw: npt.NDArray[np.float32], L_hw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The chroma (2, h', w') with the mark in it, at least as fine as it was. L_hw: the picture's lightness, at the size of `ab_2hw`."""
    factor = max(1, -(-FINEST // min(L_hw.shape)))
    size = [factor * side for side in L_hw.shape]
    fine_2hw: npt.NDArray[np.float32] = F.interpolate(torch.from_numpy(ab_2hw)[None], size=size, mode="bilinear")[0].numpy().copy()
    height, width = fine_2hw.shape[1:]
    side = max(len(STRIPES_AB), min(height, width) // SIDE)
    corners = [(top, left) for top in (height - side, 0) for left in (width - side, 0)]  # at the bottom right, if all are equal
    top, left = max(corners, key=lambda corner: _room(L_hw, corner[0] // factor, corner[1] // factor, -(-side // factor)))
    for number, (a, b) in enumerate(STRIPES_AB):
        rows = slice(top + number * side // len(STRIPES_AB), top + (number + 1) * side // len(STRIPES_AB))
        fine_2hw[:, rows, left : left + side] = np.array([a, b], np.float32)[:, None, None]
    return fine_2hw


def _room(L_hw: npt.NDArray[np.float32], top: int, left: int, side: int) -> float:
    """How much chroma the gamut has for a corner: none at black and white, most in between."""
    corner_hw = L_hw[top : top + side, left : left + side]
    return float(np.minimum(corner_hw, 100 - corner_hw).clip(0, 30).mean())
