"""Which pictures of a bulk run the network sees together: those of one working shape, a few at a time.

Knows nothing of files and of Ray. A resumed run has other batches than an undisturbed one, and its files must not differ. On a CPU a
picture in a batch gets bit for bit what it gets alone (`Colorizer.predict_batch`), so batches are as large as they happen to be. On a GPU
the kernel that computes depends on the size of the batch, so all batches of a shape have one size there, and are filled up with blanks.

Measured on one core of an AMD EPYC, in ms a picture, alone and in batches of 2, 4 and 8: the photo model at 192×192 31, 29, 28, 34, at
256×192 37, 36, 39, 45 (larger batches leave the cache); the small model at 64×64 8.4, 6.8, 6.5, 6.1. Scans of many
shapes gain nothing on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from colorize.model.colorizer import BATCH_PIXELS, Colorizer, Prediction
from colorize.model.palette import DecodeSettings

CPU_BATCH = 4
"""At most."""

GPU_BATCH = 16
"""Always, or as many as BATCH_PIXELS allows of a shape."""


def predict_in_batches(colorizer: Colorizer, seen: Sequence[npt.NDArray[np.float32]], settings: DecodeSettings) -> list[Prediction]:
    """A prediction for each, in order. seen: lightness (h, w) 0…100 at its working shape. None depends on what else is there."""
    on_gpu = colorizer.device.type != "cpu"
    predictions: dict[int, Prediction] = {}
    for shape in dict.fromkeys(L_hw.shape for L_hw in seen):
        indices = [index for index, L_hw in enumerate(seen) if L_hw.shape == shape]
        most = min(GPU_BATCH if on_gpu else CPU_BATCH, max(1, BATCH_PIXELS // (shape[0] * shape[1])))
        for first in range(0, len(indices), most):
            part = indices[first : first + most]
            L_b1hw = np.zeros((most if on_gpu else len(part), 1, *shape), np.float32)
            L_b1hw[: len(part), 0] = [seen[index] for index in part]
            found = colorizer.predict_batch(torch.from_numpy(L_b1hw), settings)
            predictions |= zip(part, found[: len(part)], strict=True)
    return [predictions[index] for index in range(len(seen))]
