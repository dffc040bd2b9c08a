"""Colours that are a picture's own, told from the tint of its paper: grey, sepia, cyanotype, selenium and faded prints are not in colour.

Knows nothing of files: it is shown a small picture in LAB, 64 to 256 pixels a side. Two questions, since they weigh mistakes
differently: `is_grey` finds what a network cannot learn from, and keeps what it is not sure of; `is_colored` decides whether
an archive's picture is coloured already, and takes what it is not sure of for a toned print.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

GREY_SPREAD = 1.0
"""A picture whose colours spread less than this, in ab units, counts as grey (see `is_grey`)."""
SEPIA_RESIDUAL = 1.5
"""A warm picture whose colours follow from its lightness within this, in ab units, counts as toned, so as grey."""
OWN_COLOR = 3.0
"""From here on the score of `is_colored` means colour."""
STRONGEST_TINT = 45.0
"""Median chroma above which no print is toned: of 100 historical scans the strongest has 32; autumn leaves and sunsets have more."""

_SIDE = 48  # pixels that the longer side is averaged to: JPEG's chroma noise and grain are gone, faces and skies are not
_FRAME = 8  # the outer eighth on every side is left out: yellowed edges, mounts, coloured borders, scanners' beds
_STEPS = 12  # of lightness, equally many pixels each


def is_colored(lab_3hw: npt.NDArray[np.float32]) -> bool:
    """Whether a picture (3, h, w) in LAB, h and w from about 64 to 256, has colours of its own, so that colouring it would replace them.

    In a toned print, the colour follows from the lightness, whatever the curve: pixels are sorted into twelve steps of lightness,
    and each step's median is the tint there. `stray` is the distance from it that 3 % of the pixels exceed, in ab units; `turn` the
    turn of hue that 10 % exceed, roughly in radians: fading makes a tint weaker or stronger but does not turn its hue. The score
    is (stray + 0.3) · (turn + 0.03)^0.6, the two weights found by logistic regression.

    Of 100 historical scans, half of them toned, 100 are not in colour; of 600 small colour photographs 3 % are taken for toned: things
    of one colour on white, bare peaks against the sky. By their colours alone they cannot be told from a toned print.
    """
    assert lab_3hw.ndim == 3 and lab_3hw.shape[0] == 3, f"expected (3, height, width), not {lab_3hw.shape}"  # noqa: PT018
    height, width = lab_3hw.shape[1:]
    top, left = height // _FRAME, width // _FRAME
    center_3hw = torch.from_numpy(np.ascontiguousarray(lab_3hw[:, top : height - top, left : width - left], dtype=np.float32))
    shrink = _SIDE / max(center_3hw.shape[1:])
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in center_3hw.shape[1:]]
        center_3hw = F.interpolate(center_3hw[None], size=size, mode="area")[0]
    L_n, ab_2n = center_3hw[0].numpy().ravel(), center_3hw[1:].numpy().reshape(2, -1)
    tint_2n = np.empty_like(ab_2n)
    for step in np.array_split(np.argsort(L_n, kind="stable"), min(_STEPS, L_n.size)):
        tint_2n[:, step] = np.median(ab_2n[:, step], axis=1, keepdims=True)
    stray_2n = ab_2n - tint_2n
    chroma_n = np.hypot(tint_2n[0], tint_2n[1])
    across_n = np.abs(tint_2n[0] * stray_2n[1] - tint_2n[1] * stray_2n[0]) / (chroma_n + 1e-6)
    stray = float(np.percentile(np.hypot(stray_2n[0], stray_2n[1]), 97))
    turn = float(np.percentile(across_n / (chroma_n + 3), 90))
    score: float = (stray + 0.3) * (turn + 0.03) ** 0.6
    return score > OWN_COLOR or float(np.median(np.hypot(ab_2n[0], ab_2n[1]))) > STRONGEST_TINT


def is_grey(lab_b3hw: torch.Tensor) -> torch.Tensor:
    """(b,) bool: the pictures with no colours to learn from, grey or toned.

    Grey: the spread of the colours, √(var a + var b) over the pixels, is below GREY_SPREAD. Not the mean chroma: a toned
    picture has chroma but one colour only, and a silver car or a sheep in fog has little chroma but several colours.
    Toned (sepia): the mean colour is warm, and a quadratic in L explains a and b but for SEPIA_RESIDUAL. Only warm ones: a white
    aeroplane on a blue sky is as simple, and says that skies are blue.

    Judged on every second pixel of every second row, which costs 4 µs a CIFAR-10 picture beside 21 for the conversion. Drops 713
    (1.4 %) of CIFAR-10's 50,000 training pictures: 562 grey to the last bit, the others in JPEG noise or in one tint; seen by eye,
    about a dozen are in true colour (black cats on brown paper). A mean chroma below 2 would drop 1,039, most of the difference
    being white and silver things in true colour. Of 2,600 colour photographs it drops 3, of 100 historical scans 75.
    """
    grid_b3n = lab_b3hw[:, :, ::2, ::2].flatten(2)
    mean_b31 = grid_b3n.mean(dim=2, keepdim=True)
    centred_b3n = grid_b3n - mean_b31
    variance_b = centred_b3n[:, 1:].square().mean(dim=2).sum(dim=1)
    grey_b = variance_b < GREY_SPREAD**2
    mean_a, mean_b = mean_b31[:, 1, 0], mean_b31[:, 2, 0]
    warm = torch.nonzero((mean_b > 1.5) & (mean_a > -3) & (mean_a < mean_b + 4) & ~grey_b).ravel()
    if len(warm):
        L_b1n, ab_b2n = centred_b3n[warm, :1], centred_b3n[warm, 1:]
        # Gram-Schmidt on 1, L and L² gives two uncorrelated explanations, each taking its share of the variance away.
        square_b1n = L_b1n.square() - L_b1n.square().mean(dim=2, keepdim=True)
        square_b1n = square_b1n - _share(square_b1n, L_b1n) * L_b1n
        residual_b = variance_b[warm]
        for explanation_b1n in (L_b1n, square_b1n):
            share_b2 = _share(ab_b2n, explanation_b1n).squeeze(2)
            residual_b = residual_b - share_b2.square().sum(dim=1) * explanation_b1n.square().mean(dim=(1, 2))
        grey_b[warm] = residual_b < SEPIA_RESIDUAL**2
    return grey_b


def _share(of_bcn: torch.Tensor, by_b1n: torch.Tensor) -> torch.Tensor:
    """The regression coefficients (b, c, 1) of centred values on one centred explanation."""
    return (of_bcn * by_b1n).mean(dim=2, keepdim=True) / (by_b1n.square().mean(dim=2, keepdim=True) + 1e-6)
