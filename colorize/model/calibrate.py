"""Finds what the two ends of the vividness dial mean for a trained network.

First of all comes how firmly plain areas hold together (see `coherence`): as is best for the PSNR at vividness 0.

Three things make the expected colour of a distribution more colourful: a lower temperature, dividing out the prior, and chroma given back
for what averaging took of it, the lift. Vividness 0 is the temperature with the best PSNR. Vividness 1 is, among the triples that make
pictures as colourful as the true ones, the one with the best PSNR. Most of the work is the lift's. Lower temperatures and higher powers
make the network's choices harder instead, and neighbouring places choose differently: blotches. So among nearly equals the highest
temperature wins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor

from colorize.imaging.colorspace import compose
from colorize.model.coherence import coherent
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import colorfulness, psnr
from colorize.model.palette import confidence, lifted
from colorize.model.passes import passes
from colorize.model.settings import VividnessDial
from colorize.model.unet import log_shares

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
VIVID_TEMPERATURES = (1.0, 0.7, 0.4)
VIVID_REBALANCES = (0.0, 0.2, 0.4, 0.6)
LARGEST_LIFT = 2.0
LIFT_STEP = 0.004
"""How exactly the lift is found; it is worth less than half a hundredth of the truth's colourfulness."""

SMOOTHER_WITHIN = 0.05
"""In dB: so much PSNR is given up at vividness 1 for a higher temperature, under which neighbouring places choose alike.

By eye on a historical archive: at temperature 0.4, 0.01 dB ahead of 0.7, a choir's clothes turned red, the paper around a plant yellow.
"""

STIFFNESSES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
"""On photographs of 160 pixels the PSNR grows up to a stiffness of 100 and more; on pictures of 32, where every cell is a pixel and
nothing is plain for long, it is best at 10.
"""

MOST_PIXELS = 1 << 23
"""Of so many pixels together, 512 pictures of 128×128, evenly drawn, are looked at, each a hundred times; all of them at last."""

BATCH = 125


def calibrate(model: ColorModel, L_b1hw: Tensor, ab_b2hw: Tensor) -> VividnessDial:
    """The dial of `model`, from pictures that it was not trained on: L 0…100 and true ab, of one size.

    Where all that are looked at are grey it is the default dial: nothing is as colourful as they are.
    """
    palette = model.palette
    step = math.ceil(L_b1hw.numel() / MOST_PIXELS)
    every = L_b1hw, ab_b2hw
    L_b1hw, ab_b2hw = L_b1hw[::step].float(), ab_b2hw[::step].float()
    true_b3hw = compose(L_b1hw, ab_b2hw)
    truth = float(colorfulness(true_b3hw).mean())
    if truth == 0:
        return VividnessDial()
    with torch.inference_mode():
        logits_bkhw = _log_shares(model, L_b1hw)
        spread_bhw = torch.cat([palette.spread(part) for part in logits_bkhw.split(BATCH)])

        def decoded(temperature: float, rebalance: float, stiffness: float) -> Tensor:
            """ab (n, 2, h, w) at the network's resolution, not lifted."""
            low_b2hw = torch.cat([palette.decode(part, temperature, rebalance) for part in logits_bkhw.split(BATCH)])
            return _levelled(low_b2hw, L_b1hw, spread_bhw, stiffness)

        def measure(low_b2hw: Tensor, lift: float = 0.0) -> tuple[float, float]:
            """(PSNR, colourfulness as a ratio of the truth)."""
            rgb_b3hw = _painted(L_b1hw, low_b2hw, spread_bhw, lift)
            return float(psnr(rgb_b3hw, true_b3hw).mean()), float(colorfulness(rgb_b3hw).mean()) / truth

        accurate = max(TEMPERATURES, key=lambda temperature: measure(decoded(temperature, 0.0, 0.0))[0])
        held = {stiffness: measure(decoded(accurate, 0.0, stiffness))[0] for stiffness in STIFFNESSES}
        stiffness = max(held, key=lambda one: held[one])
        # The smoothest first: those of the highest temperature. Where none is as colourful as the truth, nothing is given up.
        tried = [
            (*_as_colorful(partial(measure, decoded(temperature, rebalance, stiffness))), temperature, rebalance)
            for temperature, rebalance in itertools.product(VIVID_TEMPERATURES, VIVID_REBALANCES)
        ]
        (is_reached, best), *_ = max(tried)
        _, lift, temperature, rebalance = next(one for one in tried if one[0] >= (is_reached, best - is_reached * SMOOTHER_WITHIN))
        if step > 1:
            lift = _lift_of_all(model, *every, temperature, rebalance, stiffness)
    return VividnessDial(
        accurate_temperature=accurate, vivid_lift=lift, vivid_temperature=temperature, vivid_rebalance=rebalance, stiffness=stiffness
    )


def _lift_of_all(model: ColorModel, L_b1hw: Tensor, ab_b2hw: Tensor, temperature: float, rebalance: float, stiffness: float) -> float:
    """The lift that makes all pictures together as colourful as the truth: of 250 of 1,000 photographs it was off by 2 % of that."""
    seen, truths = [], []
    for some_b1hw, true_b2hw in zip(L_b1hw.split(BATCH), ab_b2hw.split(BATCH), strict=True):
        part_b1hw = some_b1hw.float()
        logits_bkhw = _log_shares(model, part_b1hw)
        spread_bhw = model.palette.spread(logits_bkhw)
        low_b2hw = _levelled(model.palette.decode(logits_bkhw, temperature, rebalance), part_b1hw, spread_bhw, stiffness)
        seen.append((part_b1hw, low_b2hw, spread_bhw))
        truths.append(colorfulness(compose(part_b1hw, true_b2hw.float())))
    truth = float(torch.cat(truths).mean())

    def measure(lift: float) -> tuple[float, float]:
        return 0.0, float(torch.cat([colorfulness(_painted(*part, lift)) for part in seen]).mean()) / truth

    return _as_colorful(measure)[1]


def _log_shares(model: ColorModel, L_b1hw: Tensor) -> Tensor:
    """The network's log-probabilities (b, K, h', w'), a few pictures at a time."""
    network = model.network.eval()
    parts = passes(network.config, L_b1hw.device, L_b1hw)
    return torch.cat([log_shares(network, L_b1hw[part], mirrored=model.card.mirrored) for part in parts])


def _levelled(low_b2hw: Tensor, L_b1hw: Tensor, spread_bhw: Tensor, stiffness: float) -> Tensor:
    pictures = zip(low_b2hw, L_b1hw, confidence(spread_bhw), strict=True)
    return torch.cat([coherent(ab_2hw[None], L_1hw, confidence_hw, stiffness) for ab_2hw, L_1hw, confidence_hw in pictures])


def _painted(L_b1hw: Tensor, low_b2hw: Tensor, spread_bhw: Tensor, lift: float) -> Tensor:
    """sRGB uint8 (b, 3, h, w)."""
    low_b2hw = lifted(low_b2hw[:, None], spread_bhw, lift)[:, 0]
    return compose(L_b1hw, F.interpolate(low_b2hw, size=L_b1hw.shape[-2:], mode="bilinear"))


def _as_colorful(measure: Callable[[float], tuple[float, float]]) -> tuple[tuple[bool, float], float]:
    """((reaches the truth's colourfulness, PSNR), lift): the lift that is as colourful as the truth.

    Where none is, the largest, ranked by its colourfulness; none at all where no lift is too colourful already.
    """

    def beyond(lift: float) -> float:
        return measure(lift)[1] - 1

    if (lacking := beyond(LARGEST_LIFT)) <= 0:
        return (False, 1 + lacking), LARGEST_LIFT
    lift = 0.0 if beyond(0.0) >= 0 else float(brentq(beyond, 0.0, LARGEST_LIFT, xtol=LIFT_STEP))
    return (True, measure(lift)[0]), lift
