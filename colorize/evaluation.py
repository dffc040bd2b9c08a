"""How good a model is on a data set: a Ray Data job that scores every picture once, beside the baselines.

The baselines are grey (ab = 0) and the mean colour of the model's own training data. Actors score batches and send sums, a
hundred numbers a batch; the driver adds them up, so any number of workers gives the same result.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.data
import torch
import torch.nn.functional as F
from PIL import Image
from ray.data import ActorPoolStrategy
from torch import Tensor

from colorize import cluster
from colorize.imaging.colorspace import compose
from colorize.imaging.files import write_whole
from colorize.imaging.sheet import contact_sheet
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import SUMS, score_pictures, scores_from_sums
from colorize.model.palette import DecodeSettings

BATCH = 250
BASELINES = ("grey", "mean_color")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a model on a data set, with the baselines' on the same pictures."""

    model: str
    data: str
    vividness: float
    pictures: int
    metrics: dict[str, float]
    """By name, see docs/metrics.md."""
    baselines: dict[str, dict[str, float]]
    """The same for `grey` and `mean_color`."""
    classes: dict[str, dict[str, float]]
    """The model's metrics by class; empty where the data has no classes."""
    seconds: float

    def to_json(self) -> str:
        """The stable JSON form; what is undefined (a ratio to no colour at all) is null."""
        return json.dumps(_without_nan(dataclasses.asdict(self)), indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Writes the JSON whole or not at all. Raises PictureError when `path` cannot be written."""
        write_whole(path, self.to_json().encode())


class Scorer:
    """Scores batches of one data set with one model: an actor of the job."""

    def __init__(self, model: ray.ObjectRef[ColorModel], settings: DecodeSettings) -> None:
        torch.set_num_threads(1)
        self._colorizer = Colorizer(ray.get(model))
        self._settings = settings

    def __call__(self, rows: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """One row a class: its label and the summed scores of the model and of each baseline."""
        L_b1hw, ab_b2hw, rgb_b3hw = (torch.from_numpy(np.array(rows[name])) for name in ("L", "ab", "rgb"))
        L_b1hw = L_b1hw.float()
        predicted_b2hw = predict_full_size(self._colorizer, L_b1hw, self._settings)
        mean_ab_b2hw = self._colorizer.model.palette.mean_ab_2.view(1, 2, 1, 1).expand_as(predicted_b2hw)
        guesses = {"model": predicted_b2hw, "grey": torch.zeros_like(predicted_b2hw), "mean_color": mean_ab_b2hw}
        labels_b = torch.from_numpy(np.array(rows["label"]))
        labels_c, class_b = labels_b.unique(return_inverse=True)
        sums = {"label": labels_c.numpy()}
        for name, guess_b2hw in guesses.items():
            scores_bs = score_pictures(L_b1hw, guess_b2hw, ab_b2hw, rgb_b3hw)
            sums[name] = torch.zeros(len(labels_c), len(SUMS), dtype=torch.float64).index_add_(0, class_b, scores_bs).numpy()
        return sums


def predict_full_size(colorizer: Colorizer, L_b1hw: Tensor, settings: DecodeSettings) -> Tensor:
    """The first candidate's ab (b, 2, h, w) for pictures of one size, at their own size, ab units."""
    predictions = colorizer.predict_batch(L_b1hw, settings)
    half_b2hw = torch.stack([prediction.ab_n2hw[0] for prediction in predictions])
    return F.interpolate(half_b2hw, size=L_b1hw.shape[-2:], mode="bilinear")


def evaluate(
    model: ColorModel,
    dataset: ray.data.Dataset,
    *,
    data: str,
    settings: DecodeSettings,
    class_names: tuple[str, ...] | None = None,
) -> Evaluation:
    """Scores `model` on all rows of `dataset`, on the Ray that is connected.

    dataset: materialized rows of `L` (1, h, w), `ab` (2, h, w), `rgb` (3, h, w) uint8 and `label`, as `colorize.data` gives them. Raises
    when the cluster has no CPU.
    """
    began = time.monotonic()
    info = cluster.current()
    info.require(cpus=1, what="evaluation")
    # A GPU scores faster than all the CPUs beside it; without one, each CPU gets an actor with a thread of its own.
    gpus = 1 if info.gpus else 0
    actors = min(max(1, info.gpus or info.cpus), dataset.num_blocks())  # one more than there are blocks would only wait
    sums: dict[str, dict[int, Tensor]] = defaultdict(dict)
    scored = dataset.map_batches(
        Scorer,
        fn_constructor_kwargs={"model": ray.put(model), "settings": settings},
        batch_size=BATCH,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=gpus,
    )
    for row in scored.iter_rows():
        for name in ("model", *BASELINES):
            label = int(row["label"])
            sums[name][label] = sums[name].get(label, 0) + torch.from_numpy(np.array(row[name]))
    totals = {name: torch.stack(list(by_class.values())).sum(0) for name, by_class in sums.items()}
    return Evaluation(
        model=model.card.name,
        data=data,
        vividness=settings.vividness,
        pictures=round(float(totals["model"][0])),
        metrics=scores_from_sums(totals["model"]),
        baselines={name: scores_from_sums(totals[name]) for name in BASELINES},
        classes={class_names[label]: scores_from_sums(of) for label, of in sorted(sums["model"].items())} if class_names else {},
        seconds=round(time.monotonic() - began, 3),
    )


def examples(
    model: ColorModel, dataset: ray.data.Dataset, *, settings: DecodeSettings, count: int
) -> list[tuple[npt.NDArray[np.uint8], ...]]:
    """(grey, predicted, true) RGB pictures (h, w, 3) uint8 of the first `count` rows, for looking at."""
    rows = dataset.take_batch(count)
    L_b1hw, rgb_b3hw = torch.from_numpy(np.array(rows["L"])).float(), np.array(rows["rgb"])
    predicted_b2hw = predict_full_size(Colorizer(model), L_b1hw, settings)
    columns = [compose(L_b1hw, torch.zeros_like(predicted_b2hw)).numpy(), compose(L_b1hw, predicted_b2hw).numpy(), rgb_b3hw]
    return list(zip(*(column.transpose(0, 2, 3, 1) for column in columns), strict=True))


def sheet_png(rows: list[tuple[npt.NDArray[np.uint8], ...]]) -> bytes:
    """A PNG of `examples`, in two columns of grey | predicted | true; small pictures are enlarged to about 128 px."""
    scale = max(1, 128 // rows[0][0].shape[0])
    half = -(-len(rows) // 2)
    blank = (np.full_like(rows[0][0], 255),) * 3
    pairs = [left + right for left, right in zip_longest(rows[:half], rows[half:], fillvalue=blank)]
    buffer = io.BytesIO()
    Image.fromarray(contact_sheet(pairs, ("grey", "predicted", "true") * 2, scale)).save(buffer, "PNG")
    return buffer.getvalue()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
