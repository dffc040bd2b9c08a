"""The `cifar10` model: the network with a pretrained encoder, on CIFAR-10's 50,000 pictures enlarged to 64×64, by `colorize train`.

    python -m jobs.recipes.cifar10 --run runs/cifar10

Seed 0. On 2 cores of an AMD EPYC an epoch takes 4.5 minutes when they do nothing else, the run about 50. Expected on the 10,000 test
pictures at vividness 0: PSNR 25.8 dB, SSIM 0.942, ab MAE 7.5, CIEDE2000 8.8 (docs/results.md says what the shipped one has). It needs the
extra `pretrained`. `--resume` goes on with an interrupted run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from colorize.cli.main import main as colorize

MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_TOP_PAD_": "268435456", "MALLOC_ARENA_MAX": "1"}
"""glibc keeps freed memory instead of giving it back and faulting it in again, 16,000 pages a step: a third less CPU time a picture."""

SETTINGS = ("--encoder", "efficientnet-lite0", "--learning-rate", "0.0015", "--epochs", "11", "--batch-size", "64", "--seed", "0")


def main(
    run: Annotated[Path, typer.Option(help="The run's directory; its name is the model's.")],
    data: Annotated[str, typer.Option(help="cifar10, or cifar10:PATH for an archive or folder that you have.")] = "cifar10",
    workers: Annotated[int, typer.Option(help="Data-parallel workers.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False,
) -> None:
    """Trains the cifar10 model."""
    os.environ.update(MALLOC)  # read when a process starts: the workers, which Ray starts, see it
    if resume:
        raise typer.Exit(colorize(["train", "--resume", str(run)]))
    raise typer.Exit(colorize(["train", "--data", data, "--run", str(run), "--workers", str(workers), *SETTINGS]))


if __name__ == "__main__":
    typer.run(main)
