"""`colorize finetune`: a model taken further on pictures of one's own, and judged on some that it was not shown."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize.cli.options import ADDRESS, RUN
from colorize.cli.train import directory_of
from colorize.errors import ConfigError, RunError

if TYPE_CHECKING:
    from rich.table import Table

    from colorize.data.parts import Parts
    from colorize.model.colormodel import ColorModel
    from colorize.train.config import TrainConfig
    from colorize.train.directory import RunDirectory
    from colorize.train.finetune import Comparison

ARCHIVE = "archive:"
"""What the settings of `colorize adapt` call their data; `colorize.data` knows no such source."""

SHOWN = ("psnr_mean", "ssim", "ab_mae", "ciede2000", "colorfulness_ratio", "within_5")
"""The scores of the table: those that colour alone decides."""

NOTHING = "finetune takes a MODEL and --data, or --resume with a run"
"""What is said where neither is given."""

EPOCHS = typer.Option(help="Passes over the training pictures.", show_default="as many as show 4,800 pictures, 2 to 30")
LEARNING_RATE = typer.Option(help="The peak learning rate.", show_default="0.0003")
BATCH_SIZE = typer.Option(help="Pictures of a step, all workers together.", show_default="16, or as many as there are")
SIZE = typer.Option(help="Side of the training crops in pixels.", show_default="what MODEL learnt from")
WORKERS = typer.Option(help="Data-parallel workers, one CPU or GPU each.", show_default="all there are")


def finetune(
    model: Annotated[
        str | None, typer.Argument(help="A shipped model's name, a model file, or a training run's directory.", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Colour pictures: folder:PATH, parquet:PATH, cifar10 or cifar10:PATH.", show_default="required")
    ] = None,
    run: Annotated[str | None, RUN] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run, with the model and settings it has.")] = None,
    epochs: Annotated[int | None, EPOCHS] = None,
    learning_rate: Annotated[float | None, LEARNING_RATE] = None,
    batch_size: Annotated[int | None, BATCH_SIZE] = None,
    size: Annotated[int | None, SIZE] = None,
    workers: Annotated[int | None, WORKERS] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Give each worker a GPU.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seeds order, crops and hints.", show_default="0")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many pictures.")] = None,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Take a model further on colour pictures of your own: a subject, a region, a film. 20 are enough to start with.

    A part of them is held out and judged before and after: RUN/finetune.json. The tuned model is RUN/model.safetensors, ready for
    picture, archive and serve. The exit code is 1 where it is not better on the held-out part than the model it started from.
    """
    from colorize import cluster
    from colorize.cli.display import console
    from colorize.data.parts import load_parts
    from colorize.train.finetune import create_finetuning, settings
    from colorize.train.run import check_workers, needed

    given: dict[str, Any] = {
        "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "size": size, "seed": seed, "limit": limit,
    }  # fmt: skip
    directory = directory_of(run, resume)
    config = resumed(directory if resume else None, [model, data, run, workers, gpu or None, *given.values()])
    if config is not None and config.data.startswith(ARCHIVE):
        raise RunError(f"{resume}: a run on the colour pictures of an archive: go on with colorize adapt --resume {resume}")
    if config is None:
        if model is None or data is None:
            raise ConfigError(NOTHING)
        given |= fixed_size(data, size)
        started(directory, settings(model, data, workers=workers if workers is not None else 1, gpu=gpu, **given))
    with cluster.connect(address) as ray:
        console.print(ray.describe())
        spec = config or settings(str(model), str(data), workers=workers or max(1, ray.gpus if gpu else ray.cpus), gpu=gpu, **given)
        check_workers(needed(spec, directory), spec.gpu)
        assert spec.base is not None
        parts = load_parts(spec.data, size=None if fixed_size(spec.data, None) else spec.size, limit=spec.limit)
        config = config or settings(spec.base, spec.data, workers=spec.workers, gpu=gpu, pictures=parts.train.pictures, **given)
        announce(config, parts)
        if resume is None:
            create_finetuning(directory, config)
        conclude(tune(directory, config, parts))


def resumed(run: RunDirectory | None, others: list[Any]) -> TrainConfig | None:
    """The settings of the run to go on with, if there is one. Raises ConfigError where another option is given beside it, and RunError."""
    from colorize.train.finetune import open_finetuning

    if run is None:
        return None
    check_alone(str(run), others)
    return open_finetuning(run)


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError, DataError for options that no fine-tuning can have, whatever its pictures. `given`: all, by name."""
    from colorize.train.finetune import check_settings

    if given["resume"] is not None:
        check_alone(given["resume"], beside_resume(given))
        return
    if given["model"] is None or given["data"] is None:
        raise ConfigError(NOTHING)
    settings = settings_of(given) | fixed_size(given["data"], given["size"])
    check_settings(given["model"], given["data"], **settings)


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options of a new run, what `train.finetune.settings` takes beside the model and the data."""
    named = {name: given[name] for name in ("epochs", "learning_rate", "batch_size", "size", "seed", "limit", "gpu")}
    return named | {"workers": 1 if given["workers"] is None else given["workers"]}


def beside_resume(given: Mapping[str, Any]) -> list[Any]:
    """Of all options those that a run that goes on has of its own; None for each that is not given."""
    return [None if value is False else value for name, value in given.items() if name not in ("resume", "address")]


def check_alone(run: str, others: list[Any]) -> None:
    """Raises ConfigError where another option is given beside --resume."""
    if any(one is not None for one in others):
        raise ConfigError(f"--resume {run}: a run goes on with its own model and settings; leave out the other options")


def started(directory: RunDirectory, config: TrainConfig) -> None:
    """Says before Ray starts what is wrong with a new run. Raises RunError, ConfigError, ModelError."""
    from colorize.model.colormodel import load_model

    directory.check_new()
    assert config.base is not None
    load_model(config.base)


def fixed_size(data: str, size: int | None) -> dict[str, int]:
    """`size` for a source whose pictures have one size of their own, else nothing. Raises ConfigError for another one."""
    from colorize.data import cifar10
    from colorize.data.sources import FIXED_SIZE, parse_source

    if parse_source(data).kind not in FIXED_SIZE:
        return {}
    if size not in (None, cifar10.SIDE):
        raise ConfigError(f"--size {size}: the pictures of {data} are {cifar10.SIDE}×{cifar10.SIDE}")
    return {"size": cifar10.SIDE}


def announce(config: TrainConfig, parts: Parts) -> None:
    """Says what there is to train on. Raises DataError where it is less than a batch, or all that is held out is grey."""
    from colorize.cli.display import console, describe
    from colorize.train.run import check_pictures, check_validation

    check_pictures(config, parts.train.pictures)
    check_validation(config, parts.held_out.dataset)
    console.print(f"training    {describe(parts.train)}")
    console.print(f"choice      {parts.choice.pictures:,} pictures, for the best epoch and the dial")
    console.print(f"held out    {parts.held_out.pictures:,} pictures, judged before and after")


def tune(directory: RunDirectory, config: TrainConfig, parts: Parts) -> Comparison:
    """Tunes the model of the run, judges it on the held-out part before and after, and leaves what came of it in the run's directory."""
    from colorize.cli.display import TrainingDisplay, console
    from colorize.evaluation import evaluate
    from colorize.model.settings import DecodeSettings
    from colorize.train.directory import MODEL_FILE
    from colorize.train.finetune import BASE_FILE, Comparison
    from colorize.train.run import fit

    assert config.base is not None
    base = directory.load_model(BASE_FILE)

    def judged(model: ColorModel) -> Any:
        return evaluate(model, parts.held_out.dataset, data=config.data, settings=DecodeSettings())

    before = judged(base)
    if directory.has(MODEL_FILE):  # the run was interrupted while it was judged
        tuned = directory.load_model()
    else:
        with TrainingDisplay(config.epochs) as display:
            tuned = fit(
                config, directory, train=parts.train.dataset, validation=parts.choice.dataset, on_report=display.show, base=base
            ).model
    after = judged(tuned)
    directory.save_model(dataclasses.replace(tuned, card=dataclasses.replace(tuned.card, metrics=after.for_card())))
    compared = Comparison(
        base=config.base, base_sha256=base.card.weights_sha256, data=config.data,
        pictures={"train": parts.train.pictures, "choice": parts.choice.pictures, "held_out": parts.held_out.pictures},
        bins={"before": len(base.palette), "after": len(tuned.palette)},
        grey=after.baselines["grey"], before=before.metrics, after=after.metrics,
    )  # fmt: skip
    compared.write(directory)
    console.print(comparison_table(compared))
    console.print(f"{directory.at(MODEL_FILE)}: the best of {config.epochs} epochs, number {tuned.card.training['best_epoch']}")
    return compared


def comparison_table(compared: Comparison) -> Table:
    """Grey, the model before and after: a row each."""
    from rich.table import Table

    from colorize.cli.evaluate import HEADINGS

    table = Table("held out", *(HEADINGS[key][0] for key in SHOWN), box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, scores in (("grey", compared.grey), ("before", compared.before), ("after", compared.after)):
        table.add_row(name, *(f"{scores[key]:.{HEADINGS[key][1]}f}" for key in SHOWN))
    return table


def conclude(compared: Comparison) -> None:
    """Says whether it was worth it; exits with 1 where it was not."""
    from colorize.cli.display import console

    pictures = f"{compared.pictures['held_out']:,} held-out pictures"
    if compared.is_better:
        console.print(f"better: {compared.gain:+.2f} dB PSNR on {pictures}")
        return
    print(
        f"colorize: not better: {compared.gain:+.2f} dB PSNR on {pictures}: stay with {compared.base}, or try more pictures",
        file=sys.stderr,
    )
    raise typer.Exit(1)
