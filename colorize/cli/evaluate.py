"""`colorize evaluate`: a model's scores on a data set, beside the baselines, and what else is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize.cli.options import ADDRESS
from colorize.errors import ConfigError, printable
from colorize.storage.url import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table

    from colorize.evaluation import Evaluation, Extras
    from colorize.model.settings import DecodeSettings

HEADINGS = {
    "ssim": ("SSIM", 4), "psnr_mean": ("PSNR", 2), "psnr_pooled": ("pooled", 2), "rgb_mae": ("MAE", 4), "ab_mae": ("ab MAE", 2),
    "ciede2000": ("ΔE00", 2), "colorfulness": ("colour", 2), "colorfulness_ratio": ("÷ true", 3), "within_5": ("≤ 5", 3),
}  # fmt: skip
"""Column headings and decimals, by metric."""

STANDARD_OUTPUT = "-"
"""What `--json` takes for a file's name."""

SCORED_SIZE = 128
"""The side, in pixels, at which photographs are scored, whatever the size at which a model sees them: so models can be compared."""


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped model's name, a model file, or a training run's directory.")],
    data: Annotated[str, typer.Option(help="cifar10-sample, cifar10, cifar10:PATH, folder:PATH or parquet:PATH.")] = "cifar10-sample",
    vividness: Annotated[float, typer.Option(help="0: most accurate … 1: as colourful as real pictures.")] = 0.0,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the scores to this file, or URL; - is standard output.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(metavar="FILE", help="Write a PNG to this file, or URL: grey | predicted | true.")] = None,
    limit: Annotated[int | None, typer.Option(help="Score at most this many pictures.")] = None,
    hints: Annotated[int | None, typer.Option(metavar="N", help="Also: what N random hints a picture gain, in dB of PSNR.")] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also: the error of the least confident tenth of the pixels ÷ that of the most confident.")
    ] = False,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Also: how far colours at half, one and twice the size differ; at most 1,000 pictures.")
    ] = False,
    recognition: Annotated[
        bool, typer.Option("--recognition", help="Also: how well a classifier recognises the coloured pictures; for CIFAR-10.")
    ] = False,
    classifier: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep that classifier here: trained where there is none yet, in minutes, else read."),
    ] = None,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Score a model on the test part of a data set, over a Ray Data job."""
    from colorize import cluster
    from colorize.cli.display import console, console_of_notes, describe
    from colorize.data.dataset import load_dataset
    from colorize.data.parts import is_drawn_by_pixels
    from colorize.data.sources import FIXED_SIZE, parse_source
    from colorize.evaluation import classifier_for, examples, sheet_png
    from colorize.evaluation import evaluate as score
    from colorize.imaging.files import in_the_way
    from colorize.model.card import resolve
    from colorize.model.colormodel import load_model
    from colorize.storage.place import is_url
    from colorize.storage.remote import write_file
    from colorize.train.finetune import RESULT_FILE

    settings, extras = _asked(
        data=data, vividness=vividness, limit=limit, hints=hints, confidence=confidence, sizes=sizes, recognition=recognition,
        classifier=classifier,
    )  # fmt: skip
    file_of_scores = None if json == STANDARD_OUTPUT else json
    # Before the minutes that scoring takes. A classifier that is there is only read.
    check_apart(file_of_scores, sheet, classifier, read=(model, resolve(model), parse_source(data).path))
    for file in (file_of_scores, sheet, None if classifier is not None and classifier.is_file() else classifier):
        if file is not None and not is_url(str(file)) and (told := in_the_way(Path(file))):
            raise ConfigError(f"{file}: {told}")
    loaded = load_model(model)
    size = None if parse_source(data).kind in FIXED_SIZE else SCORED_SIZE
    say = (console if json != STANDARD_OUTPUT else console_of_notes).print
    with cluster.connect(address) as ray:
        say(ray.describe())
        dataset = load_dataset(data, split="test", size=size, limit=limit)
        say(f"test  {describe(dataset)}")
        if loaded.card.training.get("base") and data == loaded.card.training.get("data") and is_drawn_by_pixels(data):
            say(f"seen  {model} was tuned on most of these: what it was worth on those held out is in its run's {RESULT_FILE}")
        if recognition:
            extras = extras.judged_by(classifier_for(data, classifier, on_training=lambda told: say(f"classifier  {told}")))
        result = score(loaded, dataset.dataset, data=data, settings=settings, class_names=dataset.class_names, extras=extras)
        say(score_table(result))
        for line in told_beside(result):
            say(line)
        say(f"{result.pictures:,} pictures in {result.seconds:.1f} s, vividness {vividness:g}; the columns are told in docs/metrics.md")
        if json == STANDARD_OUTPUT:
            print(result.to_json(), end="")
        elif json is not None:
            write_file(json, result.to_json().encode())
        if sheet is not None:
            write_file(sheet, sheet_png(examples(loaded, dataset.dataset, settings=settings, count=24)))


def check_apart(*files: str | Path | None, read: Sequence[str | Path | None] = ()) -> None:
    """Raises ConfigError where two of the files that are to be written are one, or one is what is read: it would be replaced."""
    from colorize.storage.place import is_url

    given, scored = (
        [str(file) if is_url(str(file)) else str(Path(file).resolve()) for file in some if file is not None] for some in (files, read)
    )
    if replaced := next((file for file in given if file in scored), None):
        raise ConfigError(f"{without_secrets(replaced)}: is what is to be scored: give --json, --sheet and --classifier other files")
    if doubled := next((file for file in given if given.count(file) > 1), None):
        raise ConfigError(f"{without_secrets(doubled)}: is named twice: give --json, --sheet and --classifier a file each")


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError, DataError for options with which nothing can be scored, whatever the data. `given`: all, by name."""
    _asked(**{name: value for name, value in given.items() if name not in ("model", "json", "sheet", "address")})


def _asked(
    *, data: str, vividness: float, limit: int | None, hints: int | None, confidence: bool, sizes: bool, recognition: bool,
    classifier: Path | None,
) -> tuple[DecodeSettings, Extras]:  # fmt: skip
    """How is scored, and what beside the scores. Raises ConfigError, DataError."""
    from colorize.evaluation import Extras
    from colorize.evaluation.recognition import check_recognizable
    from colorize.model.settings import DecodeSettings

    if classifier is not None and not recognition:
        raise ConfigError(f"--classifier {classifier}: is only used with --recognition")
    if recognition:
        check_recognizable(data)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: must be 1 or more")
    return DecodeSettings(vividness=vividness), Extras(hints=hints, confidence=confidence, sizes=sizes)


def score_table(result: Evaluation) -> Table:
    """The model, its baselines and, where there are any, its classes: a row each."""
    from rich.table import Table

    table = Table("", *(heading for heading, _ in HEADINGS.values()), box=None, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True  # a long name is to be folded, and no number cut
    rows = [(result.model, result.metrics), *((name.replace("_", " "), scores) for name, scores in result.baselines.items())]
    for name, scores in rows:  # a model may be called grey
        table.add_row(printable(name), *(f"{scores[key]:.{digits}f}" for key, (_, digits) in HEADINGS.items()))
    for name, scores in result.classes.items():
        table.add_row(f"  {printable(name)}", *(f"{scores[key]:.{digits}f}" for key, (_, digits) in HEADINGS.items()), style="dim")
    return table


def told_beside(result: Evaluation) -> Iterator[str]:
    """A line for each thing that was asked for beside the scores."""
    if result.hints is not None:
        number = result.hints["n"]
        yield f"{number:g} random hint{'s' if number > 1 else ''} a picture: {result.hints['psnr_gain']:+.2f} dB PSNR"
    if result.confidence_ratio is not None:
        yield f"ab error of the least confident tenth of the pixels ÷ the most confident: {result.confidence_ratio:.2f}"
    if result.size_stability is not None:
        yield f"ΔE00 between the colours at half, one and twice the size: {result.size_stability:.2f}"
    if (found := result.recognition) is not None:
        yield (
            f"recognised: {found['grey']:.1%} of grey, {found['colored']:.1%} of coloured, {found['true']:.1%} of true pictures: "
            f"{found['share']:.1%} of the way"
        )
