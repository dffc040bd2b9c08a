"""How good a colouring is: SSIM, PSNR, ab error, CIEDE2000, colourfulness. Formulas and sources are in docs/metrics.md.

SSIM alone says little about colour (grey scores 0.934 on CIFAR-10), so every score is read beside the scores of two baselines, grey
and the training data's mean colour. SSIM, PSNR, RGB MAE and colourfulness score what a user gets, the 8-bit picture after gamut-safe
composition; ab MAE, CIEDE2000 and within-5 score the predicted ab itself.
All states are sums over pictures, so scores of shards add up exactly, whatever the number of workers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

from colorize.imaging.colorspace import compose

SSIM_SIDE = 11
"""The SSIM window; pictures with a shorter side are continued up to it by their last row or column."""

SUMS = (
    "pictures",
    "ssim",
    "psnr_mean",
    "mse",
    "rgb_mae",
    "ab_mae",
    "ciede2000",
    "colorfulness",
    "true_colorfulness",
    "within_5",
)
"""What is added up over pictures."""

SCORES = (
    "ssim",
    "psnr_mean",
    "psnr_pooled",
    "rgb_mae",
    "ab_mae",
    "ciede2000",
    "colorfulness",
    "colorfulness_ratio",
    "within_5",
)
"""The keys of a result, in the order of the tables."""

CIEDE_PIXELS = 1 << 16
"""CIEDE2000 of this many pixels at a time: skimage has twenty intermediates of them at once."""

LARGEST_PSNR = 100.0
"""The PSNR of a perfect picture: with a mean squared error of 1e-10 or less."""


def colorfulness(rgb_b3hw: Tensor) -> Tensor:
    """Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", eq. M3: (b,), 0 for grey, about 34 for CIFAR-10.

    rgb_b3hw: uint8, or float in 0…255.
    """
    red, green, blue = rgb_b3hw.float().unbind(1)
    rg_bn = (red - green).flatten(1)
    yb_bn = ((red + green) / 2 - blue).flatten(1)
    spread = (rg_bn.var(1, correction=0) + yb_bn.var(1, correction=0)).sqrt()
    return spread + 0.3 * (rg_bn.mean(1).square() + yb_bn.mean(1).square()).sqrt()


def psnr(predicted_rgb_b3hw: Tensor, rgb_b3hw: Tensor) -> Tensor:
    """The PSNR of each picture, uint8, at most `LARGEST_PSNR`: (b,) dB."""
    return _psnr_of(((predicted_rgb_b3hw.float() - rgb_b3hw.float()) / 255).square().flatten(1).mean(1))


def mean_ciede2000(L_b1hw: Tensor, predicted_ab_b2hw: Tensor, ab_b2hw: Tensor) -> Tensor:
    """Mean CIEDE2000 (Sharma, Wu, Dalal 2005) of each picture's pixels, the same L on both sides: (b,)."""
    from skimage.color import deltaE_ciede2000  # half a second, which a training's workers, who leave this score out, need not wait

    found = []
    for first in range(0, len(L_b1hw), most := max(1, CIEDE_PIXELS // L_b1hw[0].numel())):
        part = slice(first, first + most)
        predicted, true = (
            torch.cat([L_b1hw[part], side_b2hw[part]], 1).movedim(1, -1).cpu().numpy() for side_b2hw in (predicted_ab_b2hw, ab_b2hw)
        )
        found.append(torch.from_numpy(deltaE_ciede2000(predicted, true)).flatten(1).mean(1))
    return torch.cat(found).to(L_b1hw.device)


def score_pictures(L_b1hw: Tensor, predicted_ab_b2hw: Tensor, ab_b2hw: Tensor, rgb_b3hw: Tensor, *, ciede2000: bool = True) -> Tensor:
    """One row of addable figures a picture: (b, len(SUMS)) float64.

    L_b1hw: lightness 0…100; predicted and true ab in ab units, at full resolution; rgb_b3hw: the true picture, uint8.
    """
    L_b1hw, predicted_ab_b2hw, ab_b2hw = L_b1hw.float(), predicted_ab_b2hw.float(), ab_b2hw.float()
    predicted_rgb_b3hw = compose(L_b1hw, predicted_ab_b2hw)
    predicted, true = predicted_rgb_b3hw.float() / 255, rgb_b3hw.float() / 255
    error_bn = (predicted - true).flatten(1)
    mse_b = error_bn.square().mean(1)
    ab_error = (predicted_ab_b2hw - ab_b2hw).abs()
    scores = {
        "pictures": torch.ones_like(mse_b),
        "ssim": _ssim(predicted, true),
        "psnr_mean": _psnr_of(mse_b),
        "mse": mse_b,
        "rgb_mae": error_bn.abs().mean(1),
        "ab_mae": ab_error.flatten(1).mean(1),
        "ciede2000": mean_ciede2000(L_b1hw, predicted_ab_b2hw, ab_b2hw) if ciede2000 else torch.full_like(mse_b, torch.nan),
        "colorfulness": colorfulness(predicted_rgb_b3hw),
        "true_colorfulness": colorfulness(rgb_b3hw),
        "within_5": (ab_error.amax(1) <= 5).float().flatten(1).mean(1),
    }
    return torch.stack([scores[name].double() for name in SUMS], dim=1)


class ColorScores(Metric):
    """Scores of predicted colours against true ones, accumulated over batches, shards and workers."""

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    sums: Tensor

    def __init__(self, *, ciede2000: bool = True, **kwargs: Any) -> None:
        """`ciede2000=False` leaves out CIEDE2000, half of the time of an update; its score is then NaN."""
        super().__init__(**kwargs)
        self.with_ciede2000 = ciede2000
        self.add_state("sums", torch.zeros(len(SUMS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, L_b1hw: Tensor, predicted_ab_b2hw: Tensor, ab_b2hw: Tensor, rgb_b3hw: Tensor) -> None:
        """Adds a batch; the arguments are those of `score_pictures`."""
        rows = score_pictures(L_b1hw, predicted_ab_b2hw, ab_b2hw, rgb_b3hw, ciede2000=self.with_ciede2000)
        self.sums = self.sums + rows.sum(0)

    def compute(self) -> dict[str, float]:
        """The scores by name (`SCORES`), over all pictures so far. There must be at least one."""
        return scores_from_sums(self.sums)


def scores_from_sums(sums: Tensor) -> dict[str, float]:
    """The scores by name from the summed states of any number of `ColorScores`."""
    total = dict(zip(SUMS, sums.tolist(), strict=True))
    pictures = total["pictures"]
    assert pictures > 0, "no picture was scored"
    mean = {name: total[name] / pictures for name in SUMS}
    mse = max(mean["mse"], 10 ** (-LARGEST_PSNR / 10))
    mean["psnr_pooled"] = float(-10 * torch.tensor(mse, dtype=torch.float64).log10())
    mean["colorfulness_ratio"] = total["colorfulness"] / total["true_colorfulness"] if total["true_colorfulness"] else float("nan")
    return {name: mean[name] for name in SCORES}


def _ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """Wang et al. 2004: Gaussian 11×11 window, sigma 1.5, per channel, averaged: (b,).

    There is a window around every pixel; beyond the border it sees the picture reflected.
    """
    height, width = true.shape[-2:]
    # torchmetrics pads by reflection, which needs a side longer than half the window; a smaller picture is repeated.
    if min(height, width) < SSIM_SIDE:
        padding = (0, max(SSIM_SIDE - width, 0), 0, max(SSIM_SIDE - height, 0))
        predicted, true = F.pad(predicted, padding, mode="replicate"), F.pad(true, padding, mode="replicate")
    score = structural_similarity_index_measure(predicted, true, data_range=1.0, reduction="none")
    assert isinstance(score, Tensor)
    return score


def _psnr_of(mse_b: Tensor) -> Tensor:
    return -10 * mse_b.clamp_min(10 ** (-LARGEST_PSNR / 10)).log10()
