"""Small models for tests: one with random weights, and one whose answer is known in closed form."""

import dataclasses

import torch

from colorize.model.card import ModelCard
from colorize.model.colormodel import ColorModel
from colorize.model.palette import Palette
from colorize.model.settings import VividnessDial
from colorize.model.unet import UNet, UNetConfig


def small_palette() -> Palette:
    """The 25 nodes within ±40 of a grid of step 20, with a prior that favours grey."""
    axis = torch.arange(-40.0, 41.0, 20.0)
    bins_k2 = torch.cartesian_prod(axis, axis)
    prior_k = torch.exp(-bins_k2.norm(dim=1) / 20)
    return Palette(bins_k2, prior_k / prior_k.sum(), 20.0)


def small_model(seed: int = 0, *, working_size: int = 16, width: int = 8, depth: int = 1) -> ColorModel:
    """A model with random weights and batch statistics, so that its answers vary with the picture."""
    torch.manual_seed(seed)
    palette = small_palette()
    network = UNet(UNetConfig(bins=len(palette), width=width, depth=depth)).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.3, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.05, 0.2)
    with torch.no_grad():
        network.head.weight.mul_(3)
    return _as_model(network, palette, working_size)


def constant_model(a: float, b: float, *, working_size: int = 16) -> ColorModel:
    """A model that is certain of one colour, whatever it is shown: the head ignores its input."""
    palette = Palette(torch.tensor([[a, b], [100.0, 100.0]]), torch.tensor([0.5, 0.5]), 10.0)
    network = UNet(UNetConfig(bins=2, width=8, depth=1)).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        assert network.head.bias is not None
        network.head.bias.copy_(torch.tensor([1000.0, -1000.0]))
    return _as_model(network, palette, working_size)


def _as_model(network: UNet, palette: Palette, working_size: int) -> ColorModel:
    card = ModelCard(
        name="small",
        network=dataclasses.asdict(network.config),
        palette_step=palette.step,
        working_size=working_size,
        dial=dataclasses.asdict(VividnessDial(accurate_temperature=0.8, vivid_temperature=0.3, vivid_rebalance=0.2)),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        training={"data": "random", "pictures": 0},
        metrics={"metrics": {"ssim": 0.5, "psnr_mean": 20.0}},
    )
    return ColorModel(network=network, palette=palette, card=card)
