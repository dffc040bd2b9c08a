"""A pruned network answers nearly as before, and just as before where the channels that go said nothing but one value."""

import dataclasses
from pathlib import Path

import torch

from colorize.model.colormodel import ColorModel
from colorize.model.photonet import PhotoNet, PhotoNetConfig
from colorize.model.prune import prune_deepest
from tests.models import small_model, small_palette


def a_model() -> ColorModel:
    torch.manual_seed(0)
    palette = small_palette()
    network = PhotoNet(PhotoNetConfig(bins=len(palette), width=8)).eval()
    card = dataclasses.replace(small_model().card, network={"kind": "photonet", "bins": len(palette), "width": 8})
    return ColorModel(network=network, palette=palette, card=card)


def test_channels_of_one_value_go_without_a_trace_and_the_file_comes_back(tmp_path: Path) -> None:
    model = a_model()
    network = model.network
    assert isinstance(network, PhotoNet)
    before = network.deepest[0].out_channels
    with torch.no_grad():
        network.deepest[1].weight[3:7] = 0.0
        network.deepest[1].bias[3:7] = 0.01  # after the ReLU a constant, and a small one
        network.deepest[1].bias[7:] = 1.0
    L_n1hw = torch.rand(6, 1, 64, 64) * 100
    smaller = prune_deepest(model, L_n1hw, before - 4)
    assert isinstance(smaller.network, PhotoNet)
    assert smaller.network.config.deepest == before - 4
    assert smaller.card.parameters == sum(parameter.numel() for parameter in smaller.network.parameters())
    with torch.inference_mode():
        torch.testing.assert_close(smaller.network(L_n1hw), network(L_n1hw), atol=1e-4, rtol=1e-4)
    smaller.save(tmp_path / "smaller.safetensors")
    found = ColorModel.load(tmp_path / "smaller.safetensors")
    assert isinstance(found.network, PhotoNet)
    assert found.network.config == smaller.network.config
