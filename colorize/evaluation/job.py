"""The job: every picture of a data set scored once, beside the baselines, and what came of it.

The baselines are grey (ab = 0) and the mean colour of the model's own training data. Actors score batches and send sums; the driver adds
them up, so any number of workers gives the same result.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy
from torch import Tensor

from colorize import cluster
from colorize.errors import ConfigError
from colorize.evaluation.measures import confidence_ratio
from colorize.evaluation.scorer import Extras, Scorer
from colorize.model.card import without_nan
from colorize.model.colormodel import ColorModel
from colorize.model.metrics import scores_from_sums
from colorize.model.settings import DecodeSettings

BATCH = 250
BASELINES = ("grey", "mean_color")

MOST_PICTURES_OF_SIZES = 1_000
"""More pictures are not coloured at three sizes: with the photo model a picture takes a fifth of a second of a core, scores included."""


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
    """The model's metrics by class; empty where the data has no classes. Pictures without a label are in none."""
    seconds: float

    hints: dict[str, float] | None = None
    """`n` hints a picture and their `psnr_gain`, dB. This and what follows is None where it was not asked for."""
    confidence_ratio: float | None = None
    """The ab error of the least confident tenth of all pixels ÷ that of the most confident tenth."""
    size_stability: float | None = None
    """The mean CIEDE2000 between a picture's colours at half, at one and at twice its size."""
    recognition: dict[str, float] | None = None
    """A classifier's accuracy on `grey`, `colored` and `true` pictures, and the `share` of the way from grey to true."""

    def for_card(self) -> dict[str, Any]:
        """What a model's card keeps of it as its `metrics`."""
        return {"data": self.data, "pictures": self.pictures, "metrics": self.metrics, "baselines": self.baselines}

    def to_json(self) -> str:
        """The stable JSON form; what is undefined (a ratio to no colour at all) is null, what was not asked for isn't there."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(without_nan(given), indent=2) + "\n"


def evaluate(
    model: ColorModel,
    dataset: ray.data.Dataset,
    *,
    data: str,
    settings: DecodeSettings,
    class_names: tuple[str, ...] | None = None,
    extras: Extras | None = None,
) -> Evaluation:
    """Scores `model` on all rows of `dataset`, on the Ray that is connected.

    dataset: materialized rows of `L` (1, h, w), `ab` (2, h, w), `rgb` (3, h, w) uint8 and `label`, as `colorize.data` gives them.
    Raises ClusterError when the cluster has no CPU, ConfigError for the stability over sizes of too many pictures.
    """
    began = time.monotonic()
    extras = extras or Extras()
    if extras.sizes and (count := dataset.count()) > MOST_PICTURES_OF_SIZES:
        most = MOST_PICTURES_OF_SIZES
        raise ConfigError(f"--sizes: {count:,} pictures would be coloured three times more: use --limit {most} or fewer")
    info = cluster.require(cpus=1, what="evaluation")
    # A GPU scores faster than all the CPUs beside it; without one, each CPU gets an actor with a thread of its own.
    gpus = 1 if info.gpus else 0
    actors = min(max(1, info.gpus or info.cpus), dataset.num_blocks())  # one more than there are blocks would only wait
    sums: dict[str, dict[int, Tensor]] = defaultdict(dict)
    scored = dataset.map_batches(
        Scorer,
        fn_constructor_kwargs={"model": ray.put(model), "settings": settings, "extras": ray.put(extras)},
        batch_size=BATCH,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=gpus,
    )
    for row in scored.iter_rows():
        label = int(row.pop("label"))
        for name, values in row.items():
            sums[name][label] = sums[name].get(label, 0) + torch.from_numpy(np.array(values))
    totals = {name: torch.stack(list(by_class.values())).sum(0) for name, by_class in sums.items()}
    metrics = scores_from_sums(totals["model"])
    return Evaluation(
        model=model.card.name,
        data=data,
        vividness=settings.vividness,
        pictures=round(float(totals["model"][0])),
        metrics=metrics,
        baselines={name: scores_from_sums(totals[name]) for name in BASELINES},
        classes=by_class(sums["model"], class_names) if class_names else {},
        seconds=round(time.monotonic() - began, 3),
        **figures(extras, totals, metrics),
    )


def by_class(sums: dict[int, Tensor], class_names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """The scores of each class by its name, a label that has none by its number; pictures without a label (−1) are of no class."""
    names = dict(enumerate(class_names))
    return {names.get(label, str(label)): scores_from_sums(of) for label, of in sorted(sums.items()) if label >= 0}


def figures(extras: Extras, totals: dict[str, Tensor], metrics: dict[str, float]) -> dict[str, Any]:
    """What was asked for beside the scores, by the name of its field in `Evaluation`.

    totals: the sums over all pictures by name, as the actors send them; metrics: the scores that came of them.
    """
    pictures, found = float(totals["model"][0]), dict[str, Any]()
    if extras.hints is not None:
        found["hints"] = {"n": extras.hints, "psnr_gain": float(totals["hints"][0]) / pictures - metrics["psnr_mean"]}
    if extras.confidence:
        found["confidence_ratio"] = confidence_ratio(totals["confidence"])
    if extras.sizes:
        found["size_stability"] = float(totals["sizes"][0]) / pictures
    if extras.classifier is not None:
        grey, colored, true = (totals["recognition"] / pictures).tolist()
        share = (colored - grey) / (true - grey) if true != grey else float("nan")
        found["recognition"] = {"grey": grey, "colored": colored, "true": true, "share": share}
    return found
