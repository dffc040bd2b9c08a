"""An actor of the job: it scores batches of one data set with one model, and sends sums.

What is asked for beside the scores shares the batch, and where it can (confidence, recognition) the prediction too. Measured times and
which of them cost another prediction are in docs/metrics.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from torch import Tensor

from colorize.errors import ConfigError
from colorize.evaluation.classifier import Classifier
from colorize.evaluation.measures import confidence_counts, random_hints, size_differences, stretched
from colorize.imaging.colorspace import compose
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.hints import MOST_HINTS, Hint
from colorize.model.metrics import psnr, score_pictures
from colorize.model.settings import DecodeSettings


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is to be measured beside the scores."""

    hints: int | None = None
    """The gain of this many random hints a picture."""

    confidence: bool = False
    """Whether what the network is unsure of is what it gets wrong."""

    sizes: bool = False
    """Whether a picture gets the same colours at half and at twice its size."""

    classifier: Classifier | None = None
    """Whether this classifier recognises the coloured pictures."""

    def __post_init__(self) -> None:
        if self.hints is not None and not 1 <= self.hints <= MOST_HINTS:
            raise ConfigError(f"hints {self.hints}: must lie in 1…{MOST_HINTS}")

    def judged_by(self, classifier: Classifier) -> Extras:
        """The same, and what `classifier` recognises."""
        return dataclasses.replace(self, classifier=classifier)


class Scorer:
    """Scores batches of one data set with one model."""

    def __init__(self, model: ray.ObjectRef[ColorModel], settings: DecodeSettings, extras: ray.ObjectRef[Extras]) -> None:
        torch.set_num_threads(1)
        self._colorizer = Colorizer(ray.get(model))
        self._settings = settings
        self._extras = ray.get(extras)

    def __call__(self, rows: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One row a class: its label and the sums over its pictures, of the model, of each baseline and of all that is asked for."""
        L_b1hw, ab_b2hw, rgb_b3hw = (torch.from_numpy(np.array(rows[name])) for name in ("L", "ab", "rgb"))
        L_b1hw = L_b1hw.float()
        predicted_b2hw, confidence_bhw = _predict(self._colorizer, L_b1hw, self._settings)
        mean_ab_b2hw = self._colorizer.model.palette.mean_ab_2.view(1, 2, 1, 1).expand_as(predicted_b2hw)
        guesses = {"model": predicted_b2hw, "grey": torch.zeros_like(predicted_b2hw), "mean_color": mean_ab_b2hw}
        figures = {name: score_pictures(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw) for name, guess_b2hw in guesses.items()}
        if self._extras.hints is not None:
            hints = random_hints(rgb_b3hw, ab_b2hw.float(), self._extras.hints)
            hinted_b2hw = predict_full_size(self._colorizer, L_b1hw, self._settings, hints)
            figures["hints"] = psnr(compose(L_b1hw, hinted_b2hw), rgb_b3hw)[:, None].double()
        if self._extras.confidence:
            figures["confidence"] = confidence_counts(confidence_bhw, predicted_b2hw, ab_b2hw)
        if self._extras.sizes:
            figures["sizes"] = size_differences(self._colorizer, L_b1hw, self._settings)[:, None].double()
        if self._extras.classifier is not None:
            kinds = (compose(L_b1hw, guesses["grey"]), compose(L_b1hw, predicted_b2hw), rgb_b3hw)
            labels_b = torch.from_numpy(np.array(rows["label"]))
            right = [self._extras.classifier.recognize(kind_b3hw) == labels_b for kind_b3hw in kinds]
            figures["recognition"] = torch.stack(right, dim=1).double()
        return _sums_by_class(torch.from_numpy(np.array(rows["label"])), figures)


def predict_full_size(
    colorizer: Colorizer, L_b1hw: Tensor, settings: DecodeSettings, hints: Sequence[Sequence[Hint]] | None = None
) -> Tensor:
    """The first candidate's ab (b, 2, h, w) for pictures of one size, at their own size, ab units; hints: for each picture its own."""
    return _predict(colorizer, L_b1hw, settings, hints)[0]


def _predict(
    colorizer: Colorizer, L_b1hw: Tensor, settings: DecodeSettings, hints: Sequence[Sequence[Hint]] | None = None
) -> tuple[Tensor, Tensor]:
    """ab (b, 2, h, w) and confidence (b, h, w) at the pictures' own size, as files of that size would be coloured."""
    size = (L_b1hw.shape[-2], L_b1hw.shape[-1])
    predictions = colorizer.predict([L_1hw[0].numpy() for L_1hw in L_b1hw], settings, hints)
    ab_b2hw = stretched([prediction.ab_n2hw[0] for prediction in predictions], size)
    return ab_b2hw, stretched([prediction.confidence_hw[None] for prediction in predictions], size)[:, 0]


def _sums_by_class(labels_b: Tensor, figures: dict[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    labels_c, class_b = labels_b.unique(return_inverse=True)
    sums = {"label": labels_c.numpy()}
    for name, figures_bk in figures.items():
        empty_ck = torch.zeros(len(labels_c), figures_bk.shape[1], dtype=torch.float64)
        sums[name] = empty_ck.index_add_(0, class_b, figures_bk).numpy()
    return sums
