"""Lightness in, chroma out: the whole of inference, batched across pictures. The same in a notebook, an actor and a replica.

It knows nothing of files and nothing of Ray; `coloring` brings it together with a scan. Pictures are shown to the network at its
working size, batched where they come to the same shape (sides are rounded to the network's stride, so an archive has a handful of shapes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from colorize.model.card import ModelCard
from colorize.model.colormodel import ColorModel
from colorize.model.device import Precision, pick_device, uses_bfloat16
from colorize.model.network import config_of
from colorize.model.palette import DecodeSettings
from colorize.model.unet import mirror_averaged

LONGEST_ASPECT = 8
"""The network sees at most this many short sides along the long one: a 20,000×3 strip is squeezed, not enlarged to 200,000 pixels."""

BATCH_PIXELS = 1 << 20
"""The most pixels in one forward pass: bounds memory at about 1 GB for a width of 48."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of one picture, at its own resolution."""

    ab_n2hw: Tensor
    """(candidates, 2, h', w') ab units, float32, on the CPU; covers the whole picture."""
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
        self._network = model.network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._palette = model.palette.to(self.device)
        self._bfloat16 = uses_bfloat16(precision, self.device)

    def predict(self, L_hw_list: Sequence[npt.NDArray[np.float32]], settings: DecodeSettings | None = None) -> list[Prediction]:
        """One prediction a picture, in order. L_hw_list: lightness 0…100, any sizes."""
        settings = settings or DecodeSettings()
        card = self.model.card
        shapes = [working_shape(L_hw.shape, card) for L_hw in L_hw_list]
        predictions: dict[int, Prediction] = {}
        for shape in dict.fromkeys(shapes):
            indices = [index for index, other in enumerate(shapes) if other == shape]
            most = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
            for first in range(0, len(indices), most):
                part = indices[first : first + most]
                L_b1hw = torch.from_numpy(np.stack([shrink(L_hw_list[index], card) for index in part])[:, None])
                predictions |= zip(part, self.predict_batch(L_b1hw, settings), strict=True)
        return [predictions[index] for index in range(len(L_hw_list))]

    def predict_batch(self, L_b1hw: Tensor, settings: DecodeSettings) -> list[Prediction]:
        """Predictions for pictures of one size, shown to the network at the size that they have. L_b1hw: 0…100, on any device.

        On a CPU each is bit for bit what the picture gets alone. The network's own sums do not depend on the size of a batch there; those
        of the palette do, so its part is done picture by picture.
        """
        L_b1hw = L_b1hw.to(self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bfloat16):
            logits_bkhw = mirror_averaged(self._network, L_b1hw)
        size = 1 if self.device.type == "cpu" else len(logits_bkhw)
        parts = [logits_bkhw[first : first + size] for first in range(0, len(logits_bkhw), size)]
        with torch.inference_mode():
            ab_bn2hw = torch.cat([self._palette.candidates(part, settings, self.model.dial).cpu() for part in parts])
            confidence_bhw = torch.cat([self._palette.confidence(part).cpu() for part in parts])
        return [
            Prediction(ab_n2hw=ab_n2hw, confidence_hw=confidence_hw)
            for ab_n2hw, confidence_hw in zip(ab_bn2hw, confidence_bhw, strict=True)
        ]


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

    Of a working size in whole strides, as every trained model has it, the working shape of a working shape is itself.
    """
    height, width = shape
    stride = config_of(card.network).stride
    short, long = min(height, width), max(height, width)
    sides = (card.working_size, min(long / short, LONGEST_ASPECT) * card.working_size)
    short_side, long_side = (max(1, round(side / stride)) * stride for side in sides)
    return (short_side, long_side) if height <= width else (long_side, short_side)
