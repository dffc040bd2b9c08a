"""`predict`: pictures a second of inference, as every command does it, on all cores.

The photo model on 256×256 pixels and the CIFAR-10 model on 32×32, each in the precision that the processor is fastest in (bfloat16 where it
has the instructions) and in float32, in turns. The pictures are the bundled sample's, enlarged. What is timed is the whole of
`Colorizer.predict_batch`: network (of `cifar10` with the mirror image), decoding at the default vividness, confidence. It needs no Ray.
"""

from __future__ import annotations

import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.data import cifar10
from colorize.imaging.colorspace import rgb_to_lab
from colorize.model.card import DEFAULT_MODEL, DEFAULT_VIVIDNESS
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.device import Precision
from colorize.model.settings import DecodeSettings

RIVALS: dict[str, tuple[str, int, Precision]] = {
    "pictures_per_s_256": (DEFAULT_MODEL, 256, "auto"),
    "fp32_pictures_per_s_256": (DEFAULT_MODEL, 256, "fp32"),
    "cifar10_pictures_per_s_32": ("cifar10", 32, "auto"),
    "cifar10_fp32_pictures_per_s_32": ("cifar10", 32, "fp32"),
}
"""Key → model, side in pixels, precision."""

SECONDS = 5.0
"""How long each is timed in a run, at least."""


def measure(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key."""
    torch.set_num_threads(os.cpu_count() or 1)
    numbers: dict[str, list[float]] = {key: [] for key in RIVALS}
    ready = {}
    for key, (model, side, precision) in RIVALS.items():
        colorizer = Colorizer(load_model(model), precision=precision)
        ready[key] = colorizer, _batch(colorizer.most_together(side, side), side)
    for _ in range(runs):
        for key, (colorizer, L_b1hw) in ready.items():
            numbers[key].append(_rate(colorizer, L_b1hw))
    return numbers


def _batch(count: int, side: int) -> Tensor:
    """So many pictures, at most 250."""
    records = cifar10.read_sample("test")[: min(250, count)]
    rgb_b3hw = torch.from_numpy(np.ascontiguousarray(records[:, 1:])).view(-1, 3, cifar10.SIDE, cifar10.SIDE)
    return F.interpolate(rgb_to_lab(rgb_b3hw)[:, :1], size=(side, side), mode="bilinear")


def _rate(colorizer: Colorizer, L_b1hw: Tensor) -> float:
    """Pictures a second, after one batch that is not counted."""
    settings = DecodeSettings(vividness=DEFAULT_VIVIDNESS)
    colorizer.predict_batch(L_b1hw, settings)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        colorizer.predict_batch(L_b1hw, settings)
        done += len(L_b1hw)
    return done / (time.perf_counter() - began)
