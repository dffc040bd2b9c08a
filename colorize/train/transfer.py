"""A trained network taken further: its head widened for new colours, its batch statistics held. Knows nothing of runs and data."""

from __future__ import annotations

import torch
from torch import nn

from colorize.model.colormodel import ColorModel
from colorize.model.network import Network, build, config_of
from colorize.model.palette import Palette


def extended(base: ColorModel, palette: Palette) -> Network:
    """A copy of the model's network with a logit for every bin of `palette`, which extends the model's own (`Palette.extended`).

    The old bins' logits are what they were. A new bin answers as its nearest old one does, less the logarithm of how much rarer it is in
    the new prior (and never more than that one): untrained, it takes a little of its neighbour's share and nothing of the others'.
    """
    old = base.palette
    assert torch.equal(palette.bins_k2[: len(old)], old.bins_k2), "the palette extends the model's"
    network = build(config_of(base.card.network | {"bins": len(palette)}))
    state = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    nearest_n = torch.cdist(palette.bins_k2[len(old) :], old.bins_k2).argmin(1)
    rarer_n = (palette.prior_k[len(old) :] / palette.prior_k[nearest_n]).log().clamp_max(0)
    state["head.weight"] = torch.cat([state["head.weight"], state["head.weight"][nearest_n]])
    state["head.bias"] = torch.cat([state["head.bias"], state["head.bias"][nearest_n] + rarer_n])
    network.load_state_dict(state)
    return network


def freeze_statistics(network: nn.Module) -> None:
    """Lets the batch normalisations of a network in training use and keep the statistics that they have; their scales go on learning.

    A batch of 16 crops of one subject says little about the world.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
