"""The `cifar10` model: a pretrained encoder, trained on CIFAR-10's 50,000 pictures enlarged to 128×128 by `colorize train`, then pruned.

    python -m jobs.recipes.cifar10 --run runs/cifar10

Seed 0. On 2 cores of an AMD EPYC with AVX-512 BF16 an epoch takes 8 to 10 minutes, the run 84 with some other work beside it. Expected
on the 10,000 test pictures at vividness 0: PSNR 25.84 dB, SSIM 0.943, ab MAE 7.5, CIEDE2000 8.8 (docs/results.md says what the shipped
one has). It needs the extra `pretrained`. `--resume` goes on with an interrupted run. The model is left in RUN/pruned.safetensors.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from colorize import cluster
from colorize.cli.main import main as colorize
from colorize.data.dataset import load_dataset
from colorize.evaluation import evaluate
from colorize.model.card import read_card
from colorize.model.colormodel import load_model
from colorize.model.device import KEEP_MEMORY
from colorize.model.prune import prune_deepest
from colorize.model.settings import DecodeSettings
from colorize.train.directory import MODEL_FILE, RunDirectory

SETTINGS = ("--encoder", "efficientnet-lite0", "--learning-rate", "0.0015", "--epochs", "8", "--batch-size", "64", "--seed", "0")

DEEPEST = 184
"""Channels that stay in the deepest block: the file stays below 10 MB."""

RANKED_BY = 1000
"""Training pictures by which channels are ranked."""


def main(
    run: Annotated[Path, typer.Option(help="The run's directory; its name is the model's.")],
    data: Annotated[str, typer.Option(help="cifar10, or cifar10:PATH for an archive or folder that you have.")] = "cifar10",
    workers: Annotated[int, typer.Option(help="Data-parallel workers.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False,
) -> None:
    """Trains the cifar10 model."""
    os.environ.update(KEEP_MEMORY)  # read when a process starts: the workers, which Ray starts, see it
    given = ["--resume", str(run)] if resume else ["--data", data, "--run", str(run), "--workers", str(workers), *SETTINGS]
    directory = RunDirectory(run)
    is_trained = resume and directory.has(MODEL_FILE) and bool(read_card(run / MODEL_FILE).metrics)  # interrupted while it was pruned
    if not is_trained and (code := colorize(["train", *given])):
        raise typer.Exit(code)
    data = directory.settings().data
    with cluster.connect():
        ranked = load_dataset(data, split="train", limit=RANKED_BY).dataset.take_batch(RANKED_BY)
        model = prune_deepest(load_model(str(run)), torch.from_numpy(np.array(ranked["L"])).float(), DEEPEST)
        scores = evaluate(model, load_dataset(data, split="test").dataset, data=data, settings=DecodeSettings())
    dataclasses.replace(model, card=dataclasses.replace(model.card, metrics=scores.for_card())).save(run / "pruned.safetensors")
    print(f"{run / 'pruned.safetensors'}: PSNR {scores.metrics['psnr_mean']:.2f} dB")


if __name__ == "__main__":
    typer.run(main)
