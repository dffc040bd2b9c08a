"""The network for photographs: a pretrained encoder, a light decoder, a distribution over colours at a quarter of the input's resolution.

Photographs take more knowledge of the world than 33,000 of them can teach, so the encoder starts from ImageNet weights (see `encoder`). The
decoder adds lifted features level by level, as the U-Net does. A quarter of the resolution is enough: the graft onto the original follows
its edges, and a palette's distribution of 300 colours at half resolution would cost as much as the rest of the network. Pictures of 32×32
are enlarged first: the encoder has five halvings, and after them such a picture would be a single pixel.

Hints join beside the stem and again at the finest level, both through weights that start at zero: at first they change nothing.
It knows nothing of palettes: it gives K logits a pixel.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colorize.errors import ConfigError
from colorize.model.encoder import ENCODERS, STEM, STRIDE, Conv, Encoder, imagenet_weights
from colorize.model.unet import DROPOUT, ConvBlock, pad_to_stride

OUTPUT_STRIDE = 4
"""The output has a quarter of the height and width of what the encoder sees."""


@dataclass(frozen=True, kw_only=True)
class PhotoNetConfig:
    """The shape of a PhotoNet."""

    bins: int
    """K, the number of colours that the output distributes over."""

    encoder: str = "efficientnet-lite0"
    """Which encoder."""

    width: int = 128
    """Channels of the decoder at quarter resolution; each level below has half of that more."""

    enlarge: int = 1
    """How many times the encoder sees the picture enlarged: 4 for pictures of 32×32."""

    deepest: int | None = None
    """Channels of the deepest block; None: those of its level. Fewer after pruning (see `prune`)."""

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ConfigError(f"bins {self.bins}: must be at least 2")
        if self.encoder not in ENCODERS:
            raise ConfigError(f"encoder {self.encoder!r}: must be {' or '.join(ENCODERS)}")
        if not (4 <= self.width <= 512 and self.width % 4 == 0):
            raise ConfigError(f"width {self.width}: must be a multiple of 4 in 4…512")
        if self.enlarge not in (1, 2, 4):
            raise ConfigError(f"enlarge {self.enlarge}: must be 1, 2 or 4")
        if self.deepest is not None and not 4 <= self.deepest <= 2048:
            raise ConfigError(f"deepest {self.deepest}: must lie in 4…2048")

    @property
    def stride(self) -> int:
        """The input is padded to a multiple of this many pixels."""
        return STRIDE // self.enlarge

    @property
    def output_stride(self) -> int:
        """The output has this fraction of the input's sides."""
        return OUTPUT_STRIDE // self.enlarge

    def channels(self, level: int) -> int:
        """Channels of the decoder at `level` halvings below quarter resolution."""
        return self.width + level * self.width // 2


class PhotoNet(nn.Module):
    """(b, 1, h, w) and hints (b, 3, h, w) → (b, K, ⌈h/s⌉, ⌈w/s⌉) logits, where s is the configuration's output stride."""

    def __init__(self, config: PhotoNetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        features = self.encoder.channels[1:]
        channels = [config.channels(level) for level in range(len(features))]
        pairs = list(itertools.pairwise(channels))
        self.skip = nn.ModuleList(nn.Conv2d(seen, own, 1) for seen, own in zip(features, channels, strict=True))
        deepest = config.deepest or channels[-1]
        self.deepest = ConvBlock(channels[-1], deepest)
        lifted = [deepest, *(lower for _, lower in reversed(pairs[:-1]))]
        self.lift = nn.ModuleList(nn.Conv2d(lower, upper, 1) for lower, (upper, _) in zip(lifted, reversed(pairs), strict=True))
        self.up = nn.ModuleList(ConvBlock(upper, upper) for upper, _ in reversed(pairs))
        self.head = nn.Conv2d(channels[0], config.bins, 1)
        self.early_hints = Conv(3, STEM, 3, stride=2)
        self.late_hints = nn.Conv2d(3, channels[0], 1, bias=False)
        for join in (self.early_hints, self.late_hints):
            nn.init.zeros_(join.weight)

    def load_imagenet(self) -> None:
        """Starts the encoder from its ImageNet weights. Raises ModelError where they are not installed."""
        self.encoder.load_imagenet(imagenet_weights(self.config.encoder))

    def forward(self, L_b1hw: Tensor, hints_b3hw: Tensor | None = None) -> Tensor:
        """Logits over the K bins at the output stride s.

        L_b1hw: lightness 0…100. hints_b3hw: ab (ab units) and a mask (1 where a colour is given, else 0 and ab 0); None means no hints.
        Returns (b, K, ⌈h/s⌉, ⌈w/s⌉).
        """
        output_stride = self.config.output_stride
        rows, columns = (-(-side // output_stride) for side in L_b1hw.shape[-2:])
        if (factor := self.config.enlarge) > 1:
            L_b1hw = F.interpolate(L_b1hw, scale_factor=factor, mode="bilinear")
            if hints_b3hw is not None:
                hints_b3hw = F.interpolate(hints_b3hw, scale_factor=factor, mode="nearest")
        height, width = L_b1hw.shape[-2:]
        early = late = None
        if hints_b3hw is not None:
            # Beyond the picture there are no hints; a reflected one would count twice.
            padding = (0, -width % STRIDE, 0, -height % STRIDE)
            hints_b3hw = F.pad(torch.cat([hints_b3hw[:, :2] / 64, hints_b3hw[:, 2:]], 1), padding)
            early = self.early_hints(hints_b3hw)
            # A cell of the output sees the mean of the hints in it, however few they are.
            pooled_b3hw = F.avg_pool2d(hints_b3hw, OUTPUT_STRIDE)
            late = self.late_hints(pooled_b3hw / pooled_b3hw[:, 2:].clamp_min(OUTPUT_STRIDE**-2))
        # On CPUs depthwise convolutions go backwards more slowly in bfloat16: a step of 32 pictures takes 0.82 s this way, not 0.95.
        whole = self.training and L_b1hw.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if whole else nullcontext():
            features = self.encoder(pad_to_stride(L_b1hw, STRIDE), early)[1:]
        levels = [skip(feature) for skip, feature in zip(self.skip, features, strict=True)]
        x = self.deepest(F.dropout2d(levels.pop(), DROPOUT, self.training))
        for lift, up in zip(self.lift, self.up, strict=True):
            x = F.interpolate(lift(x), scale_factor=2.0, mode="nearest") + levels.pop()
            if late is not None and not levels:
                x = x + late
            x = up(x)
        logits_bkhw: Tensor = self.head(x)
        return logits_bkhw[:, :, :rows, :columns]
