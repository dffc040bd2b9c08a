"""From a picture file to a question to the network, and from its answer back to a file: the ingress's work on one picture.

Knows nothing of HTTP and nothing of Ray. A picture is brought to the network's size here, not in the model's replica: a scan of 17 MP
is 68 MB of lightness, of which the network sees 64 KB at a working size of 128.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from colorize.imaging.picture import Picture, encode_picture, read_picture
from colorize.model.card import ModelCard
from colorize.model.colorizer import Colorizer, Prediction, shrink
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


def decode(body: bytes, settings: DecodeSettings, card: ModelCard) -> tuple[Picture, Question]:
    """The picture, and what the model of `card` is to be asked about it. Raises PictureError."""
    picture = read_picture(body)
    return picture, Question(L_hw=shrink(picture.lightness_hw(), card), settings=settings)


def encode(picture: Picture, answer: Answer) -> tuple[bytes, float]:
    """The file in colour, in the picture's format, and the mean confidence, 0…1. Raises PictureError."""
    prediction = Prediction(ab_n2hw=torch.tensor(answer.ab_2hw)[None], confidence_hw=torch.tensor(answer.confidence_hw))
    colored = Colorizer.compose(picture, prediction)
    return encode_picture(picture, colored.rgb_nhwc[0]), colored.mean_confidence
