"""From a picture file to a question to the network, and from its answer back to a file: the ingress's work on one picture.

Knows nothing of HTTP and nothing of Ray. A picture is brought to the network's size here, not in the model's replica: a scan of 17 MP
is 68 MB of lightness, of which the network sees 64 KB at a working size of 128.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch

from colorize.imaging.formats import open_scan
from colorize.imaging.scan import Note, Scan
from colorize.model.card import ModelCard
from colorize.model.coloring import paint, views
from colorize.model.colorizer import Prediction
from colorize.model.palette import DecodeSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One picture, as the network is to see it."""

    L_hw: npt.NDArray[np.float32]
    """(h, w) 0…100, at the model's working size."""

    settings: DecodeSettings
    """How its colours are decoded; one candidate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the network says of one picture."""

    ab_2hw: npt.NDArray[np.float32]
    """(2, h', w') ab units, at the network's resolution."""

    confidence_hw: npt.NDArray[np.float32]
    """(h', w') 0…1."""

    batch_size: int
    """How many pictures, this one included, the network was shown together."""


def decode(body: bytes, settings: DecodeSettings, card: ModelCard) -> tuple[Scan, Question]:
    """The picture, opened, and what the model of `card` is to be asked about it. Raises PictureError."""
    scan = open_scan(body)
    (L_hw,) = views(scan, card)
    return scan, Question(L_hw=L_hw, settings=settings)


def encode(scan: Scan, answer: Answer, note: Note) -> tuple[bytes, float]:
    """The file in colour, in the picture's format, and the mean confidence, 0…1. Raises PictureError."""
    prediction = Prediction(ab_n2hw=torch.tensor(answer.ab_2hw)[None], confidence_hw=torch.tensor(answer.confidence_hw))
    target = BytesIO()
    paint(scan, [prediction], target, note)
    return target.getvalue(), prediction.mean_confidence
