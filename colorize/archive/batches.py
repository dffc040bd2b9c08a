"""Which pictures of a bulk run the network sees together: those of one working shape, a few at a time.

Knows nothing of files and of Ray. A resumed run has other batches than an undisturbed one, and its files must not differ; but the kernel
that computes depends on the size of the batch, so all batches of a shape have one size. On a GPU they are filled up with blanks. On a CPU
each is a single picture: scans have many shapes, and four of one shape gain 0 to 10 % (the photo model at 192×256 on one core of an EPYC:
55 ms a picture alone, 54 in fours).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from colorize.model.colorizer import Colorizer, Prediction
from colorize.model.settings import DecodeSettings

GPU_BATCH = 16
"""Or as many of a shape as the network takes in one pass."""


def predict_in_batches(colorizer: Colorizer, seen: Sequence[npt.NDArray[np.float32]], settings: DecodeSettings) -> list[Prediction]:
    """A prediction for each, in order. seen: lightness (h, w) 0…100 at its working shape. None depends on what else is there."""
    most = 1 if colorizer.device.type == "cpu" else GPU_BATCH
    predictions: dict[int, Prediction] = {}
    for shape in dict.fromkeys(L_hw.shape for L_hw in seen):
        indices = [index for index, L_hw in enumerate(seen) if L_hw.shape == shape]
        size = min(most, colorizer.most_together(*shape))
        for first in range(0, len(indices), size):
            part = indices[first : first + size]
            L_b1hw = np.zeros((size, 1, *shape), np.float32)
            L_b1hw[: len(part), 0] = [seen[index] for index in part]
            found = colorizer.predict_batch(torch.from_numpy(L_b1hw), settings)
            predictions |= zip(part, found[: len(part)], strict=True)
    return [predictions[index] for index in range(len(seen))]
