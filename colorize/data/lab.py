"""The LAB stage: batches of RGB become batches of lightness and chroma in Ray tasks; grey pictures are told from colour ones.

Knows nothing of where the pictures come from. A row is `L` (1, h, w) float16, `ab` (2, h, w) float16, `rgb` (3, h, w) uint8,
`label` int64 (−1: none) and `name`. float16 keeps L to 0.03 and ab to 0.03, a tenth of an 8-bit step, at half the memory
of float32: 9.2 KB a CIFAR-10 picture with its true RGB, 460 MB for the 50,000.

One thread a task, and as many tasks as CPUs: torch's own threads would fight over the same cores.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
import torch

from colorize.imaging.colorspace import rgb_to_lab

GREY_SPREAD = 1.0
"""A picture whose colours spread less than this, in ab units, counts as grey (see `is_grey`)."""
SEPIA_RESIDUAL = 1.5
"""A warm picture whose colours follow from its lightness within this, in ab units, counts as toned, so as grey."""

_STRIP_PIXELS = 1 << 18
"""RGB is converted this many pixels at a time, so that float32 intermediates stay within 3 MB."""

Batch = dict[str, Any]


class Tally:
    """Counts what the tasks of one load left out. Goes with the tasks: all its copies talk to one actor, which takes no CPU.

    By name, so that a task that runs twice counts once.
    """

    def __init__(self) -> None:
        self._actor: Any = ray.remote(num_cpus=0)(_Counts).remote()

    def add(self, grey: list[str], unreadable: Mapping[str, str]) -> None:
        """Counts names of grey pictures and name → reason of unreadable ones; returns when it is done."""
        if grey or unreadable:
            ray.get(self._actor.add.remote(grey, dict(unreadable)))

    def result(self) -> tuple[int, dict[str, str]]:
        """(grey pictures, unreadable ones by name)."""
        counted: tuple[int, dict[str, str]] = ray.get(self._actor.result.remote())
        return counted


class _Counts:
    def __init__(self) -> None:
        self._grey: set[str] = set()
        self._unreadable: dict[str, str] = {}

    def add(self, grey: list[str], unreadable: dict[str, str]) -> None:
        self._grey.update(grey)
        self._unreadable.update(unreadable)

    def result(self) -> tuple[int, dict[str, str]]:
        return len(self._grey), self._unreadable


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


def to_lab_batch(rgb_b3hw: np.ndarray, labels_b: np.ndarray, names: list[str], *, drop_grey: bool) -> tuple[Batch, list[str]]:
    """Rows for RGB uint8 (b, 3, h, w): (the batch, names of the grey pictures that were left out of it)."""
    torch.set_num_threads(1)
    count, _, height, width = rgb_b3hw.shape
    L_b1hw = np.empty((count, 1, height, width), np.float16)
    ab_b2hw = np.empty((count, 2, height, width), np.float16)
    grey_b = np.zeros(count, bool)
    step = max(1, _STRIP_PIXELS // max(1, height * width))
    for first in range(0, count, step):
        part = slice(first, first + step)
        lab_b3hw = rgb_to_lab(torch.from_numpy(np.ascontiguousarray(rgb_b3hw[part])))
        torch.from_numpy(L_b1hw[part]).copy_(lab_b3hw[:, :1])
        torch.from_numpy(ab_b2hw[part]).copy_(lab_b3hw[:, 1:])
        if drop_grey:
            grey_b[part] = is_grey(lab_b3hw).numpy()
    batch: Batch = {"L": L_b1hw, "ab": ab_b2hw, "rgb": rgb_b3hw, "label": labels_b.astype(np.int64)}
    batch["name"] = np.array(names, dtype=object)
    if not grey_b.any():
        return batch, []
    return {key: column[~grey_b] for key, column in batch.items()}, [names[i] for i in np.flatnonzero(grey_b)]
