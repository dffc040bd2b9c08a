"""Finds what the two ends of the vividness dial mean for a trained network.

First of all comes how firmly plain areas hold together (see `coherence`): as firmly as the PSNR at vividness 0 allows.

Three things make the expected colour of a distribution more colourful: a lower temperature, dividing out the prior, and a factor on the
chroma, the gain. Vividness 0 is the temperature and the gain with the best PSNR. Vividness 1 is, among the triples that make pictures as
colourful as the true ones, the one with the best PSNR. Most of the work is the gain's: on 100 photographs, colours as vivid as the truth
come at 0.5 dB less without it, and at three quarters of that at 0.4 dB less. Lower temperatures and higher powers make the network's
choices harder instead, and neighbouring places choose differently: blotches. So among nearly equals the highest temperature wins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.model.coherence import coherent
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import colorfulness, psnr
from colorize.model.palette import VividnessDial
from colorize.model.unet import log_shares

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
GAINS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4)
VIVID_TEMPERATURES = (1.0, 0.7, 0.4)
VIVID_REBALANCES = (0.0, 0.2, 0.4, 0.6)
LARGEST_GAIN = 2.0
ROUNDS = 4
"""Of the search for a gain: colourfulness grows almost in proportion to it, so every round divides the error by ten or more."""

SMOOTHER_WITHIN = 0.05
"""In dB: so much PSNR is given up at vividness 1 for a higher temperature, under which neighbouring places choose alike.

By eye on a historical archive: at temperature 0.4, 0.01 dB ahead of 0.7, a choir's clothes turned red, the paper around a plant yellow.
"""

STIFFNESSES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRMER_WITHIN = 0.005
"""In dB: so much PSNR is given up at vividness 0 for plain areas that hold together more firmly.

On photographs of 160 pixels it grows up to a stiffness of 100 and more; on pictures of 32, where every cell is a pixel and nothing is
plain for long, it is best at 10.
"""

TOLERANCE = 0.01
"""How near to the truth's colourfulness counts as reached."""

MOST_PIXELS = 1 << 23
"""Of so many pixels together, 512 pictures of 128×128, evenly drawn, are looked at; each is composed about a hundred times."""

BATCH = 125


def calibrate(model: ColorModel, L_b1hw: Tensor, ab_b2hw: Tensor) -> VividnessDial:
    """The dial of `model`, from pictures that it was not trained on: L 0…100 and true ab, of one size."""
    network, palette, mirrored = model.network.eval(), model.palette, model.card.mirrored
    step = math.ceil(L_b1hw.numel() / MOST_PIXELS)
    L_b1hw, ab_b2hw = L_b1hw[::step].float(), ab_b2hw[::step].float()
    true_b3hw = compose(L_b1hw, ab_b2hw)
    truth = float(colorfulness(true_b3hw).mean())
    with torch.inference_mode():
        logits_bkhw = torch.cat([log_shares(network, part, mirrored=mirrored) for part in L_b1hw.split(BATCH)])
        confidence_bhw = torch.cat([palette.confidence(part) for part in logits_bkhw.split(BATCH)])

        def decoded(temperature: float, rebalance: float, stiffness: float) -> Tensor:
            low_b2hw = torch.cat([palette.decode(part, temperature, rebalance) for part in logits_bkhw.split(BATCH)])
            pictures = zip(low_b2hw, L_b1hw, confidence_bhw, strict=True)
            low_b2hw = torch.cat([coherent(ab_2hw[None], L_1hw, confidence_hw, stiffness) for ab_2hw, L_1hw, confidence_hw in pictures])
            return F.interpolate(low_b2hw, size=L_b1hw.shape[-2:], mode="bilinear")

        def measure(guess_b2hw: Tensor, gain: float) -> tuple[float, float]:
            """(PSNR, colourfulness as a ratio of the truth)."""
            rgb_b3hw = compose(L_b1hw, gain * guess_b2hw)
            return float(psnr(rgb_b3hw, true_b3hw).mean()), float(colorfulness(rgb_b3hw).mean()) / truth

        accurate = max(TEMPERATURES, key=lambda temperature: measure(decoded(temperature, 0.0, 0.0), 1.0)[0])
        held = {stiffness: measure(decoded(accurate, 0.0, stiffness), 1.0)[0] for stiffness in STIFFNESSES}
        stiffness = max(one for one in STIFFNESSES if held[one] >= max(held.values()) - FIRMER_WITHIN)
        expected_b2hw = decoded(accurate, 0.0, stiffness)
        gain = max(GAINS, key=lambda gain: measure(expected_b2hw, gain)[0])
        # The smoothest first: those of the highest temperature. Where none is as colourful as the truth, nothing is given up.
        tried = [
            (*_as_colorful(partial(measure, decoded(temperature, rebalance, stiffness))), temperature, rebalance)
            for temperature, rebalance in itertools.product(VIVID_TEMPERATURES, VIVID_REBALANCES)
        ]
        (is_reached, best), *_ = max(tried)
        vivid = next(one for one in tried if one[0] >= (is_reached, best - is_reached * SMOOTHER_WITHIN))
    return VividnessDial(
        accurate_temperature=accurate,
        accurate_gain=gain,
        vivid_gain=vivid[1],
        vivid_temperature=vivid[2],
        vivid_rebalance=vivid[3],
        stiffness=stiffness,
    )


def _as_colorful(measure: Callable[[float], tuple[float, float]]) -> tuple[tuple[bool, float], float]:
    """((reaches the truth's colourfulness, PSNR), gain): the gain that is as colourful as the truth.

    Where none is, the largest, ranked by its colourfulness.
    """
    gain, (accuracy, ratio) = 1.0, measure(1.0)
    for _ in range(ROUNDS):
        gain = min(LARGEST_GAIN, gain / max(ratio, 1e-6))
        accuracy, ratio = measure(gain)
    reached = ratio > 1 - TOLERANCE
    return (reached, accuracy if reached else ratio), gain
