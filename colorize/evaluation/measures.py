"""What can be measured of a model beyond the scores: the gain of hints, the worth of its confidence, its steadiness over sizes.

Formulas and sources are in docs/metrics.md. Everything is a row of addable figures a picture, as in `colorize.model.metrics`, so parts of
a data set add up to the whole whatever the number of workers. Knows nothing of Ray.

The confidence of millions of pixels is not sorted but counted in `BINS` equal bins, with the errors summed in each: only the pixels of
the one bin that a tenth ends in are taken at that bin's mean. On 3,000,000 pixels with errors drawn around their confidence the ratio
is within 0.02 % of that of the sorted pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.model.colorizer import Colorizer
from colorize.model.hints import Hint
from colorize.model.metrics import mean_ciede2000
from colorize.model.settings import DecodeSettings

BINS = 1_000
"""Of the confidence, over 0…1."""

TAIL = 0.1
"""The share of all pixels that counts as the least, and as the most, confident."""

SIZES = (0.5, 1.0, 2.0)
"""The multiples of a picture's size at which it is coloured for `size_differences`."""


def random_hints(rgb_b3hw: Tensor, ab_b2hw: Tensor, count: int) -> list[tuple[Hint, ...]]:
    """For each picture, `count` different pixels with their true colours; all of its pixels where it has fewer.

    Which ones is drawn with the picture's content (rgb_b3hw, uint8) as the seed: the same in whatever batch and order it comes.
    """
    height, width = rgb_b3hw.shape[-2:]
    hints = []
    for rgb_3hw, ab_2hw in zip(rgb_b3hw, ab_b2hw, strict=True):
        seed = int.from_bytes(hashlib.sha256(rgb_3hw.contiguous().numpy().tobytes()).digest()[:8])
        places = np.random.default_rng(seed).choice(height * width, min(count, height * width), replace=False)
        rows, columns = np.divmod(places, width)
        ab_n2 = ab_2hw[:, rows, columns].T.tolist()
        hints.append(
            tuple(
                Hint(across=(column + 0.5) / width, down=(row + 0.5) / height, ab=(a, b))
                for row, column, (a, b) in zip(rows.tolist(), columns.tolist(), ab_n2, strict=True)
            )
        )
    return hints


def confidence_counts(confidence_bhw: Tensor, predicted_ab_b2hw: Tensor, ab_b2hw: Tensor) -> Tensor:
    """How many pixels of each picture fall into each bin of confidence, then their summed errors: (b, 2 · BINS) float64.

    The error of a pixel is the distance of its predicted from its true colour in the ab plane.
    """
    b = len(confidence_bhw)
    bin_bn = (confidence_bhw * BINS).long().clamp(0, BINS - 1).flatten(1)
    error_bn = (predicted_ab_b2hw.double() - ab_b2hw.double()).norm(dim=1).flatten(1)
    counts_bk = torch.zeros(b, 2 * BINS, dtype=torch.float64)
    counts_bk.scatter_add_(1, bin_bn, torch.ones_like(error_bn))
    return counts_bk.scatter_add_(1, bin_bn + BINS, error_bn)


def confidence_ratio(counts_k: Tensor) -> float:
    """The mean error of the tenth of all pixels that is least confident ÷ that of the most confident tenth, from summed counts (2 · BINS,).

    NaN where the most confident tenth has no error at all.
    """
    count_k, error_k = counts_k.double().chunk(2)
    wanted = TAIL * float(count_k.sum())
    least, most = _error_of_first(count_k, error_k, wanted), _error_of_first(count_k.flip(0), error_k.flip(0), wanted)
    return least / most if most else float("nan")


def size_differences(colorizer: Colorizer, L_b1hw: Tensor, settings: DecodeSettings) -> Tensor:
    """The mean CIEDE2000 between the colours that each picture gets at half its size, at its size and at twice its size: (b,).

    Each is coloured as a user's file of that size would be (`Colorizer.predict`), and its colours are stretched to the picture's own
    size, where they are compared over its own lightness: the mean over the three pairs.
    """
    height, width = L_b1hw.shape[-2:]
    found = []
    for scale in SIZES:
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        seen_b1hw = F.interpolate(L_b1hw, size=shape, mode="bicubic", antialias=True).clamp(0, 100) if scale != 1 else L_b1hw
        predictions = colorizer.predict([L_1hw[0].numpy() for L_1hw in seen_b1hw], settings)
        found.append(stretched([prediction.ab_n2hw[0] for prediction in predictions], (height, width)))
    pairs = [mean_ciede2000(L_b1hw, first_b2hw, second_b2hw) for first_b2hw, second_b2hw in combinations(found, 2)]
    return torch.stack(pairs).mean(0)


def stretched(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Maps (c, h', w') of one shape as (b, c, *size), bilinear."""
    return F.interpolate(torch.stack(list(maps)), size=size, mode="bilinear")


def _error_of_first(count_k: Tensor, error_k: Tensor, wanted: float) -> float:
    """The mean error of the first `wanted` pixels; of the bin in which they end, a share of its error."""
    before_k = count_k.cumsum(0) - count_k
    taken_k = (wanted - before_k).clamp(min=0).minimum(count_k)
    return float((taken_k / count_k.clamp_min(1) * error_k).sum()) / wanted
