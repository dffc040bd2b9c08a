"""Finds what the two ends of the vividness dial mean for a trained network.

Vividness 0 is the temperature with the best PSNR. Vividness 1 is, among the pairs of prior rebalancing and temperature that make
pictures as colourful as the true ones, the pair with the best PSNR: sharpening alone costs more accuracy than sharing
the work between both. The exponent is what is searched for, to 0.008: from 0.5 to 0.6 colourfulness jumps from 0.88 to 1.03 of the truth on
CIFAR-10, and a grid of tenths found a pair at 22.94 dB where there is one at 23.6.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import colorfulness
from colorize.model.palette import VividnessDial
from colorize.model.unet import log_shares

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
VIVID_TEMPERATURES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
BISECTIONS = 7
"""Of the prior's exponent in 0…1: to 0.008."""

BATCH = 125


def calibrate(model: ColorModel, L_b1hw: Tensor, ab_b2hw: Tensor) -> VividnessDial:
    """The dial of `model`, from pictures that it was not trained on: L 0…100 and true ab, of one size."""
    network, palette, mirrored = model.network.eval(), model.palette, model.card.mirrored
    L_b1hw, ab_b2hw = L_b1hw.float(), ab_b2hw.float()
    true_b3hw = compose(L_b1hw, ab_b2hw)
    truth = float(colorfulness(true_b3hw).mean())
    with torch.inference_mode():
        logits_bkhw = torch.cat([log_shares(network, part, mirrored=mirrored) for part in L_b1hw.split(BATCH)])

        def measure(temperature: float, rebalance: float) -> tuple[float, float]:
            """(PSNR, colourfulness as a ratio of the truth)."""
            half_b2hw = torch.cat([palette.decode(part, temperature, rebalance) for part in logits_bkhw.split(BATCH)])
            rgb_b3hw = compose(L_b1hw, F.interpolate(half_b2hw, size=L_b1hw.shape[-2:], mode="bilinear"))
            mse_b = (rgb_b3hw.float() - true_b3hw.float()).div(255).square().flatten(1).mean(1)
            return float(-10 * mse_b.clamp_min(1e-10).log10().mean()), float(colorfulness(rgb_b3hw).mean()) / truth

        accurate = max(TEMPERATURES, key=lambda temperature: measure(temperature, 0.0)[0])
        vivid = max((_as_colorful(measure, temperature) for temperature in VIVID_TEMPERATURES), key=lambda found: found[0])
    return VividnessDial(accurate_temperature=accurate, vivid_temperature=vivid[1], vivid_rebalance=vivid[2])


def _as_colorful(measure: Callable[[float, float], tuple[float, float]], temperature: float) -> tuple[tuple[bool, float], float, float]:
    """((reaches the truth's colourfulness, PSNR), temperature, rebalance): the least rebalancing that is as colourful as the truth.

    Where none is, the strongest, ranked by its colourfulness.
    """
    low, high = 0.0, 1.0
    psnr, ratio = measure(temperature, low)
    if ratio >= 1:
        # Already more colourful than the truth with the prior as it is.
        return (True, psnr), temperature, low
    psnr, ratio = measure(temperature, high)
    if ratio < 1:
        return (False, ratio), temperature, high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found_psnr, ratio = measure(temperature, middle)
        if ratio >= 1:
            high, psnr = middle, found_psnr
        else:
            low = middle
    return (True, psnr), temperature, high
