"""The settings of a bulk run: one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from colorize.errors import ConfigError
from colorize.imaging.convert import Format, as_format
from colorize.model.card import DEFAULT_MODEL, DEFAULT_VIVIDNESS
from colorize.model.coloring import load_settings
from colorize.model.settings import DecodeSettings


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """Which pictures are coloured, where they go, and how."""

    source: str | Path
    """The folder that holds the pictures, at any depth: a path, or a URL such as `s3://bucket/scans`."""

    target: str | Path
    """The folder that gets the same tree in colour; made when it is not there. Every node of the cluster must see both places."""

    model: str = DEFAULT_MODEL
    """A shipped model's name, a model file, or the directory of a training run."""

    vividness: float = DEFAULT_VIVIDNESS
    """0 is the most accurate colour, 1 is as colourful as real pictures are."""

    temperature: float | None = None
    """Overrides the temperature that the model has for that vividness: 0.01…1."""

    palette: str | Path | None = None
    """The name of a palette that ships, or a JSON file of one; read when the run begins."""

    reference: str | Path | None = None
    """A colour picture whose colours are taken over; read when the run begins. Not together with a palette."""

    workers: int | None = None
    """Worker processes, of one CPU each; None: as many as the cluster has room for."""

    force: bool = False
    """Colour everything again that this program has coloured before."""

    retry_failed: bool = False
    """Only the pictures that failed the last time: nothing new, nothing that has changed."""

    format: Format | None = None
    """The outputs' format; None: each its own."""

    recolor: bool = False
    """Colour pictures anew that are in colour already; otherwise they are skipped."""

    mark: bool = False
    """Show in a corner of every picture that its colours are made."""

    confidence: bool = False
    """Also write the confidence maps, below `_colorize/confidence` in the target."""

    def __post_init__(self) -> None:
        DecodeSettings(vividness=self.vividness, temperature=self.temperature)
        as_format(self.format)
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers {self.workers}: must be 1 or more")
        if self.palette is not None and self.reference is not None:
            raise ConfigError("palette and reference: both say which colours are to be expected: choose one")
        if self.force and self.retry_failed:
            raise ConfigError("force and retry_failed: one is everything again, the other only what failed: choose one")

    def settings(self) -> DecodeSettings:
        """How every picture is decoded. Raises ConfigError, HintError and PictureError for a palette or a reference that is none."""
        return load_settings(vividness=self.vividness, temperature=self.temperature, palette=self.palette, reference=self.reference)
