"""The settings of a training run: one frozen dataclass, written beside the run's results as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_origin, get_type_hints

from colorize.errors import ConfigError, RunError, one_line
from colorize.model.card import COARSEST_STEP, FINEST_STEP, LARGEST_SIZE
from colorize.model.device import Precision
from colorize.model.encoder import STRIDE
from colorize.model.network import NetworkConfig
from colorize.model.photonet import PhotoNetConfig
from colorize.model.unet import UNetConfig
from colorize.storage.url import WAY_OUT, has_secret, without_secrets

LARGEST_SEED = 2**31 - 1
"""NumPy, which shuffles, takes 32 bits, and every epoch adds 1."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is trained, on what, and how."""

    data: str
    """The data specification, as the user gave it."""

    more_data: tuple[str, ...] = ()
    """Further sources that are trained on beside `data`; one that is named twice is seen twice as often. Only `data` is judged."""

    epochs: int = 24
    """Passes over the training pictures."""

    workers: int = 2
    """Data-parallel workers; each takes one CPU, or one GPU. After a node has died there may be fewer for a while."""

    min_workers: int | None = None
    """So many are enough to start with, and others join when there is room for them; None: all of `workers`."""

    gpu: bool = False
    """Whether each worker takes a GPU."""

    batch_size: int = 64
    """Pictures of one step over all workers together. 64 beats 128 at equal epochs on CIFAR-10: twice the steps."""

    learning_rate: float = 2e-3
    """The peak of the schedule: linear warm-up, then a cosine to zero (AdamW)."""

    warmup_share: float = 0.05
    """The share of all steps in which the learning rate climbs."""

    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""

    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    ema_share: float = 0.02
    """The horizon of the averaged weights, as a share of all steps: short runs average over few steps, long ones over many."""

    hint_share: float = 0.4
    """The share of pictures that are shown with sparse random colour hints. At 0.2 the photo network had not learnt to use them."""

    error_weight: float = 0.5
    """The weight of the error's logarithm, what the mean PSNR measures, beside the cross-entropy (see `Palette.losses`)."""

    base: str | None = None
    """The model that a fine-tuning starts from, as the user named it; its file lies in the run, and the network's shape is its."""

    encoder: str | None = None
    """A pretrained encoder (see `colorize.model.photonet`); None: a U-Net from scratch, of `width` and `depth`."""

    enlarge: int = 1
    """How many times a pretrained encoder sees the pictures enlarged: 4 for CIFAR-10's, which are then neither reframed nor degraded."""

    width: int = 48
    """Channels of the U-Net at half resolution."""

    depth: int = 3
    """Levels of the U-Net below half resolution."""

    palette_step: float = 10.0
    """The distance of neighbouring bins, in ab units."""

    size: int = 128
    """The side of the training crops, in pixels; CIFAR-10 is always 32."""

    precision: Precision = "auto"
    """`auto`: bfloat16 where the device computes it natively (elsewhere it is half as fast as float32), else float32."""

    limit: int | None = None
    """At most this many training pictures of each source; None: all."""

    seed: int = 0
    """Seeds weights, order, flips, crops and hints."""

    def __post_init__(self) -> None:
        for named in (self.data, *self.more_data, self.base or ""):
            if has_secret(named):
                raise ConfigError(f"{one_line(without_secrets(named))}: holds a secret, which would be kept in the run: {WAY_OUT}")
        for name, value in dataclasses.asdict(self).items():
            if value == math.inf:
                raise ConfigError(f"{name} {value}: must be finite")
        positive = ("epochs", "workers", "batch_size", "learning_rate", "clip_norm")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must be above 0")
        for name in ("warmup_share", "ema_share", "hint_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: must lie in 0…1")
        for name in ("weight_decay", "error_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must not be negative")
        if not FINEST_STEP <= self.palette_step <= COARSEST_STEP:
            raise ConfigError(f"palette_step {self.palette_step}: must lie in {FINEST_STEP}…{COARSEST_STEP}")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise ConfigError(f"min_workers {self.min_workers}: must lie in 1…{self.workers}, the workers")
        if self.batch_size % self.workers:
            raise ConfigError(f"batch_size {self.batch_size}: must be a multiple of the workers, {self.workers}")
        if not 16 <= self.size <= LARGEST_SIZE or self.size % 2:
            raise ConfigError(f"size {self.size}: must be an even number of pixels, 16 to {LARGEST_SIZE}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit {self.limit}: must be 1 or more")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"seed {self.seed}: must lie in 0…{LARGEST_SEED:,}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision {self.precision!r}: must be auto, bf16 or fp32")
        if self.encoder is not None and self.size * self.enlarge % STRIDE:
            raise ConfigError(f"size {self.size}: must be a multiple of {STRIDE} with a pretrained encoder")
        self.network(bins=2)

    def network(self, bins: int) -> NetworkConfig:
        """The shape of the network that is trained, for a palette of that many bins. Raises ConfigError."""
        if self.encoder is not None:
            return PhotoNetConfig(bins=bins, encoder=self.encoder, enlarge=self.enlarge)
        return UNetConfig(bins=bins, width=self.width, depth=self.depth)

    @property
    def worker_batch(self) -> int:
        """Pictures of one step on one worker, when all are there."""
        return self.batch_of_one(self.workers)

    def batch_of_one(self, workers: int) -> int:
        """Pictures of one step on one of so many workers: the step of all together stays as large as it can."""
        return max(1, self.batch_size // workers)

    def least_workers(self, reached: int) -> int:
        """Those that there must be room for when so many epochs are done: a run that has come some way goes on with what there is."""
        if self.min_workers is not None:
            return self.min_workers
        return 1 if reached else self.workers

    def to_json(self) -> str:
        """The settings, as a run's directory keeps them."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, data: bytes, name: str) -> TrainConfig:
        """What `to_json` gave, from the file `name`. Raises RunError for a foreign file, ConfigError for settings out of range."""
        try:
            fields: dict[str, Any] = json.loads(data)
            kinds = get_type_hints(cls)
            if wrong := [key for key, value in dict(fields).items() if key in kinds and not _is_of_kind(value, kinds[key])]:
                raise TypeError(f"{wrong[0]} is {fields[wrong[0]]!r}")
            config = cls(**fields)
            return dataclasses.replace(config, more_data=tuple(config.more_data))  # JSON has lists
        except ConfigError:
            raise
        except (ValueError, TypeError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of too many digits
            raise RunError(f"{name}: not the settings of a training run ({one_line(error)})") from error


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is what a field of that type is written as; values of a Literal are told by the class itself."""
    if get_origin(kind) is Literal:
        return True
    if kind == tuple[str, ...]:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
