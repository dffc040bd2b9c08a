"""One training step: network, loss, optimizer and averaged weights. Knows nothing of Ray: the loop feeds it batches."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from colorize.model.card import ModelCard
from colorize.model.colormodel import ColorModel, are_finite, stored
from colorize.model.device import uses_bfloat16
from colorize.model.network import build, fields_of
from colorize.model.palette import Palette
from colorize.model.passes import passes
from colorize.model.photonet import PhotoNet
from colorize.model.settings import VividnessDial
from colorize.model.unet import UNet
from colorize.train.augment import crop_and_flip, random_hints, reframe, vary
from colorize.train.config import TrainConfig
from colorize.train.degrade import degrade
from colorize.train.transfer import extended, freeze_statistics

SMALLEST_WORKING_SIZE = 64
"""The short side, in pixels, at which a model shows pictures to its network, however small the crops that it learnt from.

By eye on the sample archive: the CIFAR-10 network leaves water and meadows grey at 32 px, colours them at 64, and paints patches at 128.
"""

UNMIRRORED_SIZE = 128
"""Models of pictures from this size on are not shown the mirror image: it gains 0.1 dB at 32 pixels, 0.02 at 128."""

ENCODER_SHARE = 0.2
"""The learning rate of a pretrained encoder's weights, as a share of the others'."""

EARLY_SCALES, LATE_SCALES, LATE = (0.75, 1.0), (1.0, 1.25), 0.6
"""Each batch of photographs is shown at one of these multiples of the size, in whole strides, so that colours hold at any size; the late
ones from that share of all steps on. A step at 0.75 takes 0.56 of the time: more pictures early, more pixels when little is left to learn.
"""


class Learner:
    """A network that learns, its averaged twin and its optimizer.

    `wrapped` is what a step runs: `network` itself, or `network` inside DistributedDataParallel.
    """

    def __init__(self, config: TrainConfig, palette: Palette, device: torch.device, steps: int, base: ColorModel | None = None) -> None:
        """`steps`: of the whole run; the schedule ends there. `base`: the model that is tuned, whose palette `palette` extends."""
        if device.type == "cpu":
            # Adam's averages of a weight without gradient decay into denormals within 900 steps; a step then takes 10 times as long.
            torch.set_flush_denormal(True)
        torch.manual_seed(config.seed)
        self.config, self.device, self.steps, self.step = config, device, steps, 0
        self.palette, self._base = palette.to(device), None if base is None else base.card
        if base is not None:
            self.network = extended(base, palette)
        else:
            self.network = build(config.network(len(palette)))
            if isinstance(self.network, PhotoNet):
                self.network.load_imagenet()
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wrapped: nn.Module = self.network
        decay = 1 - 1 / max(2.0, config.ema_share * steps)
        self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        # Not fused, for 3 % of a step: on CPUs, torch 2.13's fused kernel pairs channels-last weights with the wrong averages.
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=config.weight_decay)
        self._bfloat16 = uses_bfloat16(config.precision, device)

    def learn(self, L_b1hw: Tensor, ab_b2hw: Tensor) -> Tensor:
        """Takes one step on a batch (L 0…100, true ab) and returns its cross-entropy, a scalar in nats."""
        self.wrapped.train()
        if self._base is not None:
            freeze_statistics(self.network)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(self.step / self.steps, self.config.warmup_share)
        L_b1hw, ab_b2hw = self._varied(L_b1hw, ab_b2hw)
        hints_b3hw = random_hints(ab_b2hw, self.config.hint_share)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            logits_bkhw = self.wrapped(L_b1hw, hints_b3hw)
        true_b2hw = F.avg_pool2d(ab_b2hw, self.network.config.output_stride)
        entropy, log_error = self.palette.losses(logits_bkhw, true_b2hw)
        loss = entropy + self.config.error_weight * log_error
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        self.step += 1
        return entropy.detach()

    def _varied(self, L_b1hw: Tensor, ab_b2hw: Tensor) -> tuple[Tensor, Tensor]:
        """The batch as this step shows it."""
        if isinstance(self.network, PhotoNet) and self.config.enlarge == 1:
            stride = self.network.config.stride
            scales = EARLY_SCALES if self.step < LATE * self.steps else LATE_SCALES
            # Of the step alone: workers with batches of different sizes would wait for each other.
            drawn = torch.Generator().manual_seed(self.config.seed + self.step)
            scale = scales[int(torch.randint(len(scales), (1,), generator=drawn))]
            L_b1hw, ab_b2hw = reframe(L_b1hw, ab_b2hw, max(1, round(scale * self.config.size / stride)) * stride)
            return degrade(L_b1hw, ab_b2hw)
        L_b1hw, ab_b2hw = crop_and_flip(L_b1hw, ab_b2hw, min(self.config.size, L_b1hw.shape[-1]))
        return vary(L_b1hw, ab_b2hw)

    def _groups(self) -> list[dict[str, object]]:
        """The optimizer's groups, each with the peak of its learning rate."""
        rate = self.config.learning_rate
        if not isinstance(self.network, PhotoNet):
            return [{"params": list(self.network.parameters()), "lr": rate, "peak": rate}]
        pretrained = list(self.network.encoder.parameters())
        known = {id(parameter) for parameter in pretrained}
        others = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        slow = rate * ENCODER_SHARE
        return [{"params": pretrained, "lr": slow, "peak": slow}, {"params": others, "lr": rate, "peak": rate}]

    def predict(self, L_b1hw: Tensor) -> Tensor:
        """The averaged network's plain expectation at full resolution, ab (b, 2, h, w)."""
        self.averaged.module.eval()
        size = L_b1hw.shape[-2:]
        low = []
        for part in passes(self.network.config, self.device, L_b1hw):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
                logits_bkhw = self.averaged.module(L_b1hw[part])
            low.append(self.palette.decode(logits_bkhw))
        return F.interpolate(torch.cat(low), size=size, mode="bilinear")

    def is_finite(self) -> bool:
        """Whether all averaged weights are numbers, also in the half precision of a model's file."""
        return are_finite(stored(name, tensor) for name, tensor in self.averaged.module.state_dict().items())

    def as_model(self, training: dict[str, object]) -> ColorModel:
        """The averaged network as a model, with a dial that is still to be calibrated."""
        network = self.averaged.module
        assert isinstance(network, UNet | PhotoNet)
        card = ModelCard(
            name="model",
            network=fields_of(network.config),
            palette_step=self.config.palette_step,
            working_size=self._base.working_size if self._base else max(self.config.size, SMALLEST_WORKING_SIZE),
            mirrored=self._base.mirrored if self._base else self.config.size < UNMIRRORED_SIZE,
            dial=dataclasses.asdict(VividnessDial()),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            training=training,
        )
        return ColorModel(network=network, palette=self.palette.to("cpu"), card=card)


def schedule(done: float, warmup_share: float) -> float:
    """The learning rate's factor after a share `done` (0…1) of all steps: a linear climb, then a cosine to 0."""
    if done < warmup_share:
        return done / warmup_share
    return 0.5 * (1 + math.cos(math.pi * (done - warmup_share) / max(1 - warmup_share, 1e-9)))
