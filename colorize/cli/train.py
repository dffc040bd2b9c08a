"""`colorize train`: a training run, watched."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize.cli.options import ADDRESS, RUN
from colorize.errors import ConfigError, RunError

if TYPE_CHECKING:
    from colorize.data.dataset import LabDataset
    from colorize.model.colormodel import ColorModel
    from colorize.train.config import TrainConfig
    from colorize.train.directory import RunDirectory

SAMPLE = "cifar10-sample"
ENLARGED = 4
"""How many times a pretrained encoder sees pictures of 32×32 enlarged: it knows things at the size that they have in photographs.

On CIFAR-10 128 pixels, with the logarithm of the error beside the cross-entropy, have 25.84 dB; 64 without it had 25.77, at a third of
the work.
"""

LOADED_PER_CROP = (9, 8)
"""Photographs are loaded this much larger than the training crops, so that a crop has somewhere to move."""


def train(
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="cifar10-sample, cifar10, cifar10:PATH, folder:PATH or parquet:PATH. Given again: photographs that are trained on too; "
            "the first is validated on.",
            show_default="cifar10-sample",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training pictures.", show_default="24")] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER[-NUMBER]",
            help="Data-parallel workers, one CPU or GPU each. 1-8: one is enough to start with, and others join as nodes do.",
            show_default="all there are",
        ),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Give each worker a GPU.")] = False,
    run: Annotated[str | None, RUN] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run, with the settings it has.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures of a step, all workers together.", show_default="64")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The peak learning rate.", show_default="0.002")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the U-Net at half resolution.", show_default="48")] = None,
    depth: Annotated[int | None, typer.Option(help="Levels of the U-Net below half resolution.", show_default="3")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="For photographs, in place of the U-Net: efficientnet-lite0 or efficientnet-lite2, from its ImageNet weights "
            "(the extra `pretrained`).",
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the training crops in pixels.", show_default="128; CIFAR-10: 32")] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds weights, order, flips and hints.", show_default="0")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many training pictures of each source.")] = None,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Train a network from lightness to colour, data-parallel, validated every epoch.

    The best model is left in RUN/model.safetensors, ready for evaluate, picture, archive and serve.
    """
    from colorize import cluster
    from colorize.cli.display import console
    from colorize.cli.evaluate import score_table
    from colorize.data.dataset import load_dataset
    from colorize.data.sources import FIXED_SIZE, parse_source
    from colorize.evaluation import evaluate
    from colorize.model.encoder import imagenet_weights
    from colorize.model.settings import DecodeSettings
    from colorize.train.directory import MODEL_FILE
    from colorize.train.run import check_workers, needed

    given, number = _asked(  # what is wrong with the settings is said before Ray starts
        data=data, workers=workers, gpu=gpu, run=run, resume=resume, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        width=width, depth=depth, encoder=encoder, size=size, seed=seed, limit=limit,
    )  # fmt: skip
    directory = directory_of(run, resume)
    config = directory.open() if resume is not None else None
    if config is not None and config.base is not None:
        raise RunError(f"{resume}: a fine-tuning run: go on with colorize finetune --resume {resume}")
    if config is None:
        directory.check_new()
    with cluster.connect(address) as ray:
        console.print(ray.describe())
        if config is None:
            config = _configure(given, *(number or (None, max(1, ray.gpus if gpu else ray.cpus))), gpu)
        is_trained = resume is not None and directory.has(MODEL_FILE)  # the run was interrupted while its model was scored
        if not is_trained:
            check_workers(needed(config, directory), config.gpu)
            if config.encoder is not None:
                imagenet_weights(config.encoder)  # said here, before the pictures are loaded, and not by a worker after
        size = None if parse_source(config.data).kind in FIXED_SIZE else config.size
        validation_set = load_dataset(config.data, split="test", size=size)
        model = directory.load_model() if is_trained else _trained(config, directory, validation_set, is_new=resume is None)
        scores = evaluate(
            model, validation_set.dataset, data=config.data, settings=DecodeSettings(), class_names=validation_set.class_names
        )
        card = dataclasses.replace(model.card, metrics=scores.for_card())
        directory.save_model(dataclasses.replace(model, card=card))
        console.print(score_table(scores))
        console.print(f"{directory.at(MODEL_FILE)}: the best of {config.epochs} epochs, number {card.training['best_epoch']}")


def _trained(config: TrainConfig, directory: RunDirectory, validation_set: LabDataset, *, is_new: bool) -> ColorModel:
    """The model of a run that is begun, or goes on, on the Ray that is connected; not scored yet."""
    from colorize.cli.display import TrainingDisplay, console, describe
    from colorize.data.dataset import load_dataset, with_more
    from colorize.data.sources import FIXED_SIZE, parse_source
    from colorize.train.run import check_pictures, check_validation, fit

    size = None if parse_source(config.data).kind in FIXED_SIZE else config.size * LOADED_PER_CROP[0] // LOADED_PER_CROP[1]
    train_set = load_dataset(config.data, split="train", size=size, limit=config.limit)
    for spec in config.more_data:
        more = load_dataset(spec, split="train", size=size, limit=config.limit)
        console.print(f"and         {describe(more)}")
        train_set = with_more(train_set, more)
    console.print(f"training    {describe(train_set)}")
    console.print(f"validation  {describe(validation_set)}")
    check_pictures(config, train_set.pictures)
    if is_new:
        check_validation(config, validation_set.dataset)
        directory.create(config)
    with TrainingDisplay(config.epochs) as display:
        return fit(config, directory, train=train_set.dataset, validation=validation_set.dataset, on_report=display.show).model


def new_run() -> str:
    """The directory of a run that is given none."""
    return f"runs/{time.strftime('%Y%m%d-%H%M%S')}"


def directory_of(run: str | None, resume: str | None) -> RunDirectory:
    """The directory of the run that is asked for. Raises ConfigError for an empty name, such as that of a variable which is not set."""
    from colorize.train.directory import RunDirectory

    for option, name in (("--run", run), ("--resume", resume)):
        if name == "":
            raise ConfigError(f"{option}: is empty: name a run's directory, or leave the option out")
    return RunDirectory(resume or run or new_run())


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError, DataError for options that no training can have, whatever its pictures. `given`: all, by name."""
    _asked(**{name: value for name, value in given.items() if name != "address"})


def _asked(
    *, data: list[str] | None, workers: str | None, gpu: bool, run: str | None, resume: str | None, **others: Any
) -> tuple[dict[str, Any], tuple[int | None, int] | None]:
    """The settings that are given, and the workers, where they are. Raises ConfigError, DataError where no run can have them."""
    asked = others | {"data": data[0] if data else None, "more_data": tuple(data[1:]) or None if data else None}
    given = {name: value for name, value in asked.items() if value is not None}
    number = None if workers is None else _workers(workers)
    if resume is None:
        _configure(given, *(number or (None, 1)), gpu)
    elif given or workers is not None or gpu or run is not None:
        raise ConfigError(f"--resume {resume}: a run goes on with its own settings; leave out the other options")
    return given, number


def _workers(text: str) -> tuple[int | None, int]:
    """`4` as (None, 4), `1-4` as (1, 4). Raises ConfigError."""
    if found := re.fullmatch(r"(\d+)-(\d+)", text):
        return int(found[1]), int(found[2])
    try:
        return None, int(text)
    except ValueError:
        raise ConfigError(f"--workers {text}: must be a number such as 4, or a range such as 1-4") from None


def _configure(given: dict[str, Any], least: int | None, workers: int, gpu: bool) -> TrainConfig:
    """The settings of a new run. Raises ConfigError, DataError."""
    from colorize.data import cifar10
    from colorize.data.sources import FIXED_SIZE, check_apart, parse_source
    from colorize.train.config import TrainConfig

    given = {"data": SAMPLE} | given
    if mixed := given.get("more_data"):
        for spec in (given["data"], *mixed):
            if parse_source(spec).kind in FIXED_SIZE:
                raise ConfigError(f"--data {spec}: its pictures have a size of their own; only folder: and parquet: sources can be mixed")
        check_apart([given["data"], *mixed])
    if parse_source(given["data"]).kind in FIXED_SIZE:
        if given.setdefault("size", cifar10.SIDE) != cifar10.SIDE:
            raise ConfigError(f"--size {given['size']}: the pictures of {given['data']} are {cifar10.SIDE}×{cifar10.SIDE}")
        if "encoder" in given:
            given["enlarge"] = ENLARGED
    # The batch of the whole run stays near its default, whatever the number of workers.
    given.setdefault("batch_size", max(1, TrainConfig.batch_size // max(1, workers)) * workers)
    return TrainConfig(workers=workers, min_workers=least, gpu=gpu, **given)
