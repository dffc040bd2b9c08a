"""What is asked of a distribution over bins, and what a trained network's vividness dial makes of it.

Plain numbers: it needs no torch, so a command line can refuse a wrong value before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from colorize.errors import ConfigError

if TYPE_CHECKING:
    from colorize.model.reference import Reference
    from colorize.model.swatches import Swatches

LOWEST_TEMPERATURE = 0.01
"""Which is the mode, for the eye; far below it, logits that are divided by it are no numbers any more."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How a distribution over bins becomes a colour."""

    vividness: float = 0.0
    """0 is the most accurate colour, 1 is as colourful as real pictures are; between them the dial is linear."""

    temperature: float | None = None
    """Overrides the temperature of the annealed mean (0.01…1: the smaller, the nearer to the mode); None takes the model's own."""

    palette: Swatches | None = None
    """A palette whose colours are to be expected, in place of the training data's."""

    reference: Reference | None = None
    """A picture whose colours are taken over, matched by content; not together with a palette."""

    candidates: int = 1
    """How many colourings; the first is the untilted one, the others lean to hues spread evenly around the circle."""

    def __post_init__(self) -> None:
        if not 0 <= self.vividness <= 1:
            raise ConfigError(f"vividness {self.vividness}: must lie in 0…1")
        if self.temperature is not None and not LOWEST_TEMPERATURE <= self.temperature <= 1:
            raise ConfigError(f"temperature {self.temperature}: must lie in {LOWEST_TEMPERATURE}…1")
        if not 1 <= self.candidates <= 12:
            raise ConfigError(f"candidates {self.candidates}: must lie in 1…12")
        if self.palette is not None and self.reference is not None:
            raise ConfigError("palette and reference: both say which colours are to be expected: choose one")

    @property
    def control(self) -> str | None:
        """What is asked for beside the vividness, on one line; None for nothing: two that say the same give the same colours."""
        said = [f"temperature {self.temperature:g}"] if self.temperature is not None else []
        said += [f"palette {self.palette.name} {self.palette.digest}"] if self.palette is not None else []
        said += [f"reference {self.reference.digest}"] if self.reference is not None else []
        return ", ".join(said) or None


@dataclass(frozen=True, kw_only=True)
class VividnessDial:
    """What the two ends of the vividness dial mean for one trained network; found by `calibrate` after training."""

    accurate_temperature: float = 1.0
    """The temperature at vividness 0."""

    vivid_temperature: float = 0.4
    """The temperature at vividness 1."""

    vivid_rebalance: float = 0.3
    """The exponent of the prior by which the distribution is divided at vividness 1 (0 at vividness 0)."""

    vivid_lift: float = 0.0
    """The share of what averaging took from a picture's chroma that it is given back at vividness 1 (see `lifted`); 0 at vividness 0."""

    stiffness: float = 0.0
    """How firmly plain areas hold together, at any vividness (see `coherence`); 0: not at all."""

    def at(self, settings: DecodeSettings) -> tuple[float, float]:
        """(temperature, rebalance) for the settings."""
        share = settings.vividness
        temperature = self.accurate_temperature + share * (self.vivid_temperature - self.accurate_temperature)
        return settings.temperature or temperature, share * self.vivid_rebalance

    def lift(self, settings: DecodeSettings) -> float:
        """What `lifted` is given for the settings. The colours of a palette or a reference are meant as they are: 0."""
        is_given = settings.palette is not None or settings.reference is not None
        return 0.0 if is_given else settings.vividness * self.vivid_lift
