"""What a training measures of itself, for Prometheus: every worker its steps, the board the epochs."""

from __future__ import annotations

from colorize.telemetry import RUNS, Meter, Series
from colorize.train.progress import EpochReport, Report

STAGE = "train"

EPOCH = Series(name="colorize_train_epoch", kind="gauge", about="The last epoch that is finished, from 1.")
EPOCHS = Series(name="colorize_train_epochs", kind="gauge", about="The epochs that were asked for.")
LOSS = Series(name="colorize_train_loss", kind="gauge", about="The last finished epoch's mean cross-entropy, in nats.")
PSNR = Series(name="colorize_train_psnr", kind="gauge", about="The last validation's PSNR, in dB.")
SSIM = Series(name="colorize_train_ssim", kind="gauge", about="The last validation's SSIM.")
SPEED = Series(
    name="colorize_train_pictures_per_second",
    kind="gauge",
    about="Training pictures a second of all workers, over the last finished epoch.",
)
STEP_SECONDS = Series(
    name="colorize_train_step_seconds", kind="histogram", about="From the end of a step to the end of the next; its count is steps.",
    tags=("rank",), bounds=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)  # fmt: skip
PICTURES = Series(name="colorize_train_pictures", kind="counter", about="Training pictures that a worker has learnt from.", tags=("rank",))

OF_WORKERS = (STEP_SECONDS, PICTURES)
OF_BOARD = (EPOCH, EPOCHS, LOSS, PSNR, SSIM, SPEED)
SERIES = (*OF_BOARD, *OF_WORKERS)


class WorkerMeter:
    """The series of one training in one worker."""

    def __init__(self, run: str, rank: int) -> None:
        self._meter = Meter(OF_WORKERS, run)
        self._rank = str(rank)

    def step(self, pictures: int, seconds: float) -> None:
        """A step on so many pictures is done."""
        self._meter.record(PICTURES, pictures, rank=self._rank)
        self._meter.record(STEP_SECONDS, seconds, rank=self._rank)


class BoardMeter:
    """The series of one training at its board, which outlives the workers and sees every report once.

    Not in the driver: Ray exports nothing of one that has started its Ray itself.
    """

    def __init__(self, run: str) -> None:
        self._meter = Meter((*OF_BOARD, RUNS), run)
        self._meter.record(RUNS, 1, stage=STAGE)

    def show(self, report: Report) -> None:
        """A report came from the workers; what counts is a finished epoch."""
        if not isinstance(report, EpochReport):
            return
        values = {
            EPOCH: report.epoch, EPOCHS: report.epochs, LOSS: report.loss, PSNR: report.psnr, SSIM: report.ssim,
            SPEED: report.pictures_per_second,
        }  # fmt: skip
        for series, value in values.items():
            self._meter.record(series, value)
