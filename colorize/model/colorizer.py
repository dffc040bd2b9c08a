"""Lightness in, chroma out: the whole of inference, batched across pictures. The same in a notebook, an actor and a replica.

It knows nothing of files and nothing of Ray; `coloring` brings it together with a scan. Pictures are shown to the network at its
working size, batched where they come to the same shape (sides are rounded to the network's stride, so an archive has a handful of shapes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.model.card import ModelCard
from colorize.model.coherence import coherent
from colorize.model.colormodel import ColorModel
from colorize.model.device import Precision, pick_device, uses_bfloat16
from colorize.model.fold import folded
from colorize.model.hints import Hint, hint_planes
from colorize.model.network import config_of
from colorize.model.palette import confidence, lifted
from colorize.model.passes import most_together, passes
from colorize.model.reference import Reference, ReferenceGuide
from colorize.model.settings import DecodeSettings
from colorize.model.spread import spread
from colorize.model.unet import log_shares

LONGEST_ASPECT = 8
"""The network sees at most this many short sides along the long one: a 20,000×3 strip is squeezed, not enlarged to 200,000 pixels."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of one picture, at its own resolution."""

    ab_n2hw: Tensor
    """(candidates, 2, h', w') ab units, float32, on the CPU; covers the whole picture. With hints it is finer than the confidence."""
    confidence_hw: Tensor
    """(h', w') 0…1."""

    @property
    def mean_confidence(self) -> float:
        """0…1."""
        return float(self.confidence_hw.mean())


class Colorizer:
    """A model that is ready to run on a device."""

    def __init__(self, model: ColorModel, *, device: str = "auto", precision: Precision = "auto") -> None:
        """Raises ConfigError for a device that is not there."""
        self.model = model
        self.device = pick_device(device)
        self._network = folded(model.network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._palette = model.palette.to(self.device)
        self._bfloat16 = uses_bfloat16(precision, self.device)
        self._guide: tuple[Reference, ReferenceGuide] | None = None  # the last reference that was asked for

    def predict(
        self,
        L_hw_list: Sequence[npt.NDArray[np.float32]],
        settings: DecodeSettings | None = None,
        hints: Sequence[Sequence[Hint]] | None = None,
        *,
        working_size: int | None = None,
    ) -> list[Prediction]:
        """One prediction a picture, in order. L_hw_list: lightness 0…100, any sizes. hints: for each picture its own, or none at all.

        working_size: another than the model's own: frames of a live stream are shown smaller.

        A picture's own hints never touch the others: what has none is predicted in the same batches as if nothing had any.
        """
        settings = settings or DecodeSettings()
        hints = [()] * len(L_hw_list) if hints is None else hints
        assert len(hints) == len(L_hw_list), f"{len(hints)} sequences of hints for {len(L_hw_list)} pictures"
        card = self.model.card if working_size is None else replace(self.model.card, working_size=working_size)
        kinds = [(working_shape(L_hw.shape, card), bool(given)) for L_hw, given in zip(L_hw_list, hints, strict=True)]
        predictions: dict[int, Prediction] = {}
        for kind in dict.fromkeys(kinds):
            _, hinted = kind
            indices = [index for index, other in enumerate(kinds) if other == kind]
            L_b1hw = torch.from_numpy(np.stack([shrink(L_hw_list[index], card) for index in indices])[:, None])
            given = [hints[index] for index in indices] if hinted else None
            predictions |= zip(indices, self.predict_batch(L_b1hw, settings, given), strict=True)
        return [predictions[index] for index in range(len(L_hw_list))]

    def most_together(self, height: int, width: int) -> int:
        """How many pictures that are shown to the network at that size one pass takes on this device."""
        return most_together(self.model.network.config, self.device, height, width)

    def predict_batch(self, L_b1hw: Tensor, settings: DecodeSettings, hints: Sequence[Sequence[Hint]] | None = None) -> list[Prediction]:
        """Predictions for pictures of one size, shown to the network at the size that they have. L_b1hw: 0…100, on any device, any number.

        hints: for each picture its own, at least one; then the colours come at the size of L_b1hw. They are the mean of two estimates: what
        the hints say beyond the prediction that the network makes without them is spread, and so is what they say beyond the one it makes
        with them. A network that makes little of its hints loses nothing so, and one that makes much of them gains.

        On a CPU the palette's part is done picture by picture: its sums would depend on the size of the batch. The network's may too, by
        a rounding: oneDNN has other kernels for one picture than for several on some processors.
        """
        predictions: list[Prediction] = []
        for part in passes(self.model.network.config, self.device, L_b1hw):
            predictions += self._predict_pass(L_b1hw[part], settings, None if hints is None else hints[part])
        return predictions

    def _predict_pass(self, L_b1hw: Tensor, settings: DecodeSettings, hints: Sequence[Sequence[Hint]] | None) -> list[Prediction]:
        size = L_b1hw.shape[-2:]
        L_b1hw = L_b1hw.to(self.device)
        logits_bkhw, told_bkhw = self._log_shares(L_b1hw), None
        if hints is not None:
            planes_b3hw = torch.stack([hint_planes(given, *size) for given in hints]).to(self.device)
            told_bkhw = self._log_shares(L_b1hw, planes_b3hw)
        together = 1 if self.device.type == "cpu" else len(L_b1hw)
        predictions: list[Prediction] = []
        for part in (slice(first, first + together) for first in range(0, len(L_b1hw), together)):
            told = None if hints is None or told_bkhw is None else (told_bkhw[part], hints[part])
            predictions += self._decoded(logits_bkhw[part], told, L_b1hw[part], settings)
        return predictions

    def _decoded(
        self, logits_bkhw: Tensor, told: tuple[Tensor, Sequence[Sequence[Hint]]] | None, L_b1hw: Tensor, settings: DecodeSettings
    ) -> list[Prediction]:
        """What the network's log-probabilities say of a few pictures; `told`: those that it gives with hints, and the hints."""
        logits_bkhw = self._guided(logits_bkhw, L_b1hw, settings)
        ab_bn2hw, spread_bhw = self._candidates(logits_bkhw, L_b1hw, settings)
        if told is not None:
            told_bkhw, hints = self._guided(told[0], L_b1hw, settings), told[1]
            told_bn2hw, told_spread_bhw = self._candidates(told_bkhw, L_b1hw, settings)
            both = [(logits_bkhw, ab_bn2hw, spread_bhw), (told_bkhw, told_bn2hw, told_spread_bhw)]
            ab_bn2hw, spread_bhw = torch.stack([self._with_hints(*one, L_b1hw, hints) for one in both]).mean(0), told_spread_bhw
        return [
            Prediction(ab_n2hw=ab_n2hw, confidence_hw=confidence_hw)
            for ab_n2hw, confidence_hw in zip(ab_bn2hw, confidence(spread_bhw), strict=True)
        ]

    def _candidates(self, logits_bkhw: Tensor, L_b1hw: Tensor, settings: DecodeSettings) -> tuple[Tensor, Tensor]:
        """The colourings (b, candidates, 2, h', w') and the spread (b, h', w') of the distributions, ab units, both on the CPU."""
        dial = self.model.dial
        with torch.inference_mode():
            ab_bn2hw = self._palette.candidates(logits_bkhw, settings.candidates, *dial.at(settings)).cpu()
            spread_bhw = self._palette.spread(logits_bkhw).cpu()
            pictures = zip(ab_bn2hw, L_b1hw.cpu(), confidence(spread_bhw), strict=True)
            ab_bn2hw = torch.stack([coherent(*picture, dial.stiffness) for picture in pictures])
            return lifted(ab_bn2hw, spread_bhw, dial.lift(settings)), spread_bhw

    def _with_hints(
        self, logits_bkhw: Tensor, ab_bn2hw: Tensor, spread_bhw: Tensor, L_b1hw: Tensor, hints: Sequence[Sequence[Hint]]
    ) -> Tensor:
        """The candidates with the hints in them, at the size of L_b1hw."""
        with torch.inference_mode():
            share_bkhw, L_bhw = logits_bkhw.exp().cpu(), L_b1hw[:, 0].float().cpu()
            return torch.stack([spread(*one) for one in zip(ab_bn2hw, share_bkhw, spread_bhw, L_bhw, hints, strict=True)])

    def _log_shares(self, L_b1hw: Tensor, hints_b3hw: Tensor | None = None) -> Tensor:
        """The network's log-probabilities (b, K, h', w')."""
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            return log_shares(self._network, L_b1hw, hints_b3hw, mirrored=self.model.card.mirrored)

    def _guided(self, logits_bkhw: Tensor, L_b1hw: Tensor, settings: DecodeSettings) -> Tensor:
        """The log-probabilities, shifted towards the palette or the reference of the settings."""
        if settings.palette is None and settings.reference is None:
            return logits_bkhw
        with torch.inference_mode():
            L_bhw = F.interpolate(L_b1hw.float(), size=logits_bkhw.shape[-2:], mode="bilinear", antialias=True)[:, 0]
            if settings.palette is not None:
                return (logits_bkhw + settings.palette.bias(self._palette, L_bhw)).log_softmax(1)
            assert settings.reference is not None
            guide = self._guide_of(settings.reference)
            bias_bkhw = torch.stack([guide.bias(share_khw, L_hw) for share_khw, L_hw in zip(logits_bkhw, L_bhw, strict=True)])
            return (logits_bkhw + bias_bkhw).log_softmax(1)

    def _guide_of(self, reference: Reference) -> ReferenceGuide:
        if self._guide is None or self._guide[0] != reference:
            L_11hw = torch.from_numpy(shrink(reference.L_hw, self.model.card).copy())[None, None].to(self.device)
            self._guide = reference, ReferenceGuide(self._log_shares(L_11hw)[0], reference, self._palette)
        return self._guide[1]


def shrink(L_hw: npt.NDArray[np.float32], card: ModelCard) -> npt.NDArray[np.float32]:
    """The lightness as the model of `card` is to see it: (h', w') 0…100, antialiased. What has that size already is returned as it is.

    The service does this before a picture travels to the network: a scan of 17 MP is 68 MB of lightness, of which the network sees 64 KB
    at a working size of 128.
    """
    shape = working_shape(L_hw.shape, card)
    if L_hw.shape == shape:
        return L_hw
    L_11hw = torch.from_numpy(np.ascontiguousarray(L_hw))[None, None]
    return F.interpolate(L_11hw, size=shape, mode="bilinear", antialias=True)[0, 0].clamp(0, 100).numpy()


def working_shape(shape: tuple[int, ...], card: ModelCard) -> tuple[int, int]:
    """(height, width) at which the model of `card` sees a picture of that `shape`: its working size along the short side, in whole strides.

    A smaller picture is not enlarged above what the model learnt from: `cifar10`, which shows photographs at 64 pixels, sees those of
    32×32 as they are. (At 64 it has 25.00 dB on 80 of them, grey 25.27, and as they are 25.83.)

    Of a working size in whole strides, as every trained model has it, the working shape of a working shape is itself.
    """
    height, width = shape
    stride = config_of(card.network).stride
    short, long = min(height, width), max(height, width)
    size = min(card.working_size, max(short, card.trained_size))
    sides = (size, min(long / short, LONGEST_ASPECT) * size)
    short_side, long_side = (max(1, round(side / stride)) * stride for side in sides)
    return (short_side, long_side) if height <= width else (long_side, short_side)
