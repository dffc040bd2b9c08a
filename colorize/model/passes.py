"""Passes: how many pictures of a batch go through the network at once.

More pictures are not faster for ever. On a GPU they run out of memory; on a CPU the allocator gives large pieces of memory back and fetches
them anew: `photo` takes 39 ms a picture of 160×160 alone, 33 in passes of five and 35 in passes of ten; `cifar10`, which sees pictures of
32×32 enlarged to 128×128, 38 in passes of eight and 58 in one of 64, of which 20 are the system's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from colorize.model.network import NetworkConfig
from colorize.model.photonet import PhotoNetConfig

GPU_PIXELS = 1 << 20
"""The most pixels that the network computes on in one pass: bounds memory at about 1 GB for a U-Net's width of 48."""

CPU_PIXELS = 1 << 17


def most_together(config: NetworkConfig, device: torch.device, height: int, width: int) -> int:
    """How many pictures of that size one pass of such a network takes on the device: at least one."""
    enlarge = config.enlarge if isinstance(config, PhotoNetConfig) else 1
    most_pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    return max(1, most_pixels // (height * width * enlarge**2))


def passes(config: NetworkConfig, device: torch.device, L_b1hw: Tensor) -> Iterator[slice]:
    """The parts of a batch, in order, each of which such a network takes in one pass on the device."""
    most = most_together(config, device, L_b1hw.shape[-2], L_b1hw.shape[-1])
    return (slice(first, first + most) for first in range(0, len(L_b1hw), most))
