"""What a run reports of itself on the way. How it gets from the workers to the driver is `board`'s."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Where the run is, about once a second."""

    epoch: int
    """The epoch under way, from 1."""
    step: int
    """Steps done, over all epochs."""
    steps: int
    """Steps of the whole run."""
    loss: float
    """Cross-entropy in nats, averaged since the last report."""
    pictures_per_second: float
    """Training throughput of all workers together since the last report."""
    seconds_left: float
    """Estimated from the throughput so far, validation included."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished and validated epoch."""

    epoch: int
    epochs: int
    loss: float
    """Mean cross-entropy of the epoch, in nats."""
    ssim: float
    psnr: float
    """Mean over pictures, dB."""
    ssim_gain: float
    """SSIM less that of the grey pictures."""
    psnr_gain: float
    """PSNR less that of the grey pictures, dB."""
    pictures_per_second: float
    """Training pictures a second over the epoch, validation left out."""
    seconds: float
    """Since the run (or this sitting of it) began."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that happened to the run and that people should know."""

    text: str
    """One line."""


Report = StepReport | EpochReport | Notice
