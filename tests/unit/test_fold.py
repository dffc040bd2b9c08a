"""Folding batch norms: the same function, and the network that was given stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colorize.model.fold import folded
from colorize.model.network import NetworkConfig, build
from colorize.model.photonet import PhotoNetConfig
from colorize.model.unet import UNetConfig


def _trained(config: NetworkConfig) -> nn.Module:
    """A network whose norms do something, as after training."""
    torch.manual_seed(0)
    network = build(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize("config", [UNetConfig(bins=20, width=8, depth=2), PhotoNetConfig(bins=20, width=8)], ids=["unet", "photonet"])
@pytest.mark.parametrize("hinted", [False, True])
def test_a_folded_network_is_the_same_function(config: NetworkConfig, hinted: bool) -> None:
    network = _trained(config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    L_b1hw = torch.rand(2, 1, 64, 96) * 100
    hints_b3hw = torch.rand(2, 3, 64, 96).round() * torch.tensor([40.0, -30.0, 1.0])[:, None, None] if hinted else None
    fast = folded(network)
    with torch.inference_mode():
        torch.testing.assert_close(fast(L_b1hw, hints_b3hw), network(L_b1hw, hints_b3hw), rtol=1e-3, atol=1e-3)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert norms == (0 if isinstance(config, UNetConfig) else 1)  # the stem's
