"""A fine-tuning run: a training run that starts from a model. Its settings, its directory, and what it says of itself.

Besides what every run's directory has (see `directory`):

    RUN/base.safetensors   the model that it started from: a resumed run needs nothing else
    RUN/finetune.json      scores on the held-out part, before and after; written last

The learning rate is a fifth of what the photo model was trained with from ImageNet, batch statistics stay (`transfer`), and few
pictures are seen often, many once or twice. What that is worth on one domain: docs/results.md.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from colorize.errors import ConfigError, ModelError, RunError
from colorize.model.card import read_card, resolve, shipped_names
from colorize.model.network import config_of
from colorize.model.photonet import PhotoNetConfig
from colorize.train.checkpoint import reached
from colorize.train.config import TrainConfig
from colorize.train.directory import CONFIG_FILE, RunDirectory

BASE_FILE, RESULT_FILE = "base.safetensors", "finetune.json"

LEARNING_RATE = 3e-4
"""The peak; a pretrained encoder's is a fifth of it."""

BATCH = 16
"""Pictures of a step, where there are as many: small sets need steps more than smooth gradients."""

SHOWN = 4800
"""Pictures that a run shows in all, each as often as it takes, but FEWEST_EPOCHS to MOST_EPOCHS times."""

FEWEST_EPOCHS, MOST_EPOCHS = 2, 30

PRIMARY = "psnr_mean"
"""The score by which a tuned model is better or not: the one that chooses the best epoch."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a fine-tuning did, in numbers; RUN/finetune.json."""

    base: str
    """The model as the user named it."""
    base_sha256: str
    data: str
    pictures: dict[str, int]
    """Of the parts `train`, `choice` and `held_out`."""
    bins: dict[str, int]
    """Of the palette, `before` and `after`."""
    grey: dict[str, float]
    """Scores on the held-out part at vividness 0 (see docs/metrics.md)."""
    before: dict[str, float]
    after: dict[str, float]

    @property
    def gain(self) -> float:
        """What was won of the primary score."""
        return self.after[PRIMARY] - self.before[PRIMARY]

    @property
    def is_better(self) -> bool:
        return self.gain > 0

    def write(self, directory: RunDirectory) -> None:
        """Writes RUN/finetune.json, whole or not at all; what is undefined is null."""
        told: dict[str, Any] = asdict(self) | {"better": self.is_better, "psnr_gain": self.gain}
        for name in ("grey", "before", "after"):
            told[name] = {key: None if math.isnan(value) else value for key, value in told[name].items()}
        directory.write(RESULT_FILE, (json.dumps(told, indent=2) + "\n").encode())


def settings(base: str, data: str, *, workers: int, gpu: bool = False, pictures: int | None = None, **given: Any) -> TrainConfig:
    """The settings of a new run from the model `base` on so many training `pictures` (None: not known yet, then only checked).

    given: fields of TrainConfig that the user has set; None where not. Raises ModelError, ConfigError.
    """
    return _completed(base, data, _of_model(base) | _given(given), workers=workers, gpu=gpu, pictures=pictures)


def check_settings(base: str, data: str, *, workers: int, gpu: bool = False, **given: Any) -> None:
    """Raises ConfigError for settings that no run from `base` can have; of a model that does not ship, which may lie elsewhere, that no
    model has. Arguments as for `settings`.
    """
    fields = _of_model(base) if base in shipped_names() else {"learning_rate": LEARNING_RATE}
    _completed(base, data, fields | _given(given), workers=workers, gpu=gpu, pictures=None)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _of_model(base: str) -> dict[str, Any]:
    """What a run takes over from the model that it starts from. Raises ModelError."""
    card = read_card(resolve(base))
    try:
        shape = config_of(card.network)
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{base}: of another architecture than this program builds ({error})") from error
    fields: dict[str, Any] = {"learning_rate": LEARNING_RATE, "size": card.trained_size, "palette_step": card.palette_step}
    if isinstance(shape, PhotoNetConfig):
        fields |= {"encoder": shape.encoder, "enlarge": shape.enlarge}
    else:
        fields |= {"width": shape.width, "depth": shape.depth}
    return fields


def _completed(base: str, data: str, fields: dict[str, Any], *, workers: int, gpu: bool, pictures: int | None) -> TrainConfig:
    if workers < 1:
        raise ConfigError(f"workers {workers}: must be above 0")
    if pictures is not None:
        workers = min(workers, pictures)
    fields.setdefault("batch_size", min(BATCH, pictures or BATCH) // workers * workers or workers)
    fields.setdefault("epochs", min(max(math.ceil(SHOWN / (pictures or SHOWN)), FEWEST_EPOCHS), MOST_EPOCHS))
    return TrainConfig(base=base, data=data, workers=workers, gpu=gpu, **fields)


def create_finetuning(directory: RunDirectory, config: TrainConfig) -> None:
    """Makes the directory of a new run, with the model that it starts from. Raises RunError, ModelError."""
    assert config.base is not None
    model = resolve(config.base).read_bytes()
    directory.create(config)
    directory.write(BASE_FILE, model)


def open_finetuning(directory: RunDirectory) -> TrainConfig:
    """The settings of a run that is to be resumed; one that was killed before it had its model is given it, by its name. Raises RunError
    when there is none, it is finished, or another process is training it.
    """
    if not directory.has(CONFIG_FILE):
        raise RunError(f"{directory}: not a fine-tuning run (it has no {CONFIG_FILE})")
    with directory.held():
        config = directory.settings()
    if config.base is None:
        raise RunError(f"{directory}: not a fine-tuning run: go on with colorize train --resume {directory}")
    if directory.has(RESULT_FILE):
        raise RunError(f"{directory}: this run is finished; its scores are in {directory.at(RESULT_FILE)}")
    if not directory.has(BASE_FILE):
        if reached(directory.place):
            raise RunError(f"{directory.at(BASE_FILE)}: is missing: bring it back, the run goes on from it")
        try:
            directory.write(BASE_FILE, resolve(config.base).read_bytes())
        except (ModelError, OSError) as error:
            raise RunError(f"{directory}: has no {BASE_FILE} yet, and cannot get it ({error})") from error
    return config
