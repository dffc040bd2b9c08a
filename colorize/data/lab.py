"""The LAB stage: batches of RGB become batches of lightness and chroma in Ray tasks; grey pictures are left out on request.

Knows nothing of where the pictures come from. A row is `L` (1, h, w) float16, `ab` (2, h, w) float16, `rgb` (3, h, w) uint8,
`label` int64 (−1: none) and `name`. float16 keeps L to 0.03 and ab to 0.03, a tenth of an 8-bit step, at half the memory
of float32: 9.2 KB a CIFAR-10 picture with its true RGB, 460 MB for the 50,000.

One thread a task, and as many tasks as CPUs: torch's own threads would fight over the same cores.
"""

from typing import Any

import numpy as np
import torch

from colorize.imaging.colorspace import rgb_to_lab
from colorize.imaging.tint import is_grey

_STRIP_PIXELS = 1 << 18
"""RGB is converted this many pixels at a time, so that float32 intermediates stay within 3 MB."""

Batch = dict[str, Any]


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
