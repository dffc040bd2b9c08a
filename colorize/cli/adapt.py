"""`colorize adapt`: an archive's own colour pictures teach a model how the rest of it may have looked."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorize.cli.finetune import (
    ARCHIVE,
    BATCH_SIZE,
    EPOCHS,
    LEARNING_RATE,
    SIZE,
    WORKERS,
    announce,
    beside_resume,
    check_alone,
    conclude,
    resumed,
    settings_of,
    started,
    tune,
)  # fmt: skip
from colorize.cli.options import ADDRESS, RUN
from colorize.cli.train import directory_of
from colorize.errors import ConfigError, DataError, RunError, printable
from colorize.model.card import DEFAULT_MODEL

if TYPE_CHECKING:
    from colorize.archive.colors import Survey
    from colorize.archive.listing import Listing
    from colorize.data.dataset import LabDataset
    from colorize.storage.place import Place
    from colorize.train.directory import RunDirectory

NOTHING = "adapt takes an ARCHIVE, or --resume with a run"
"""What is said where neither is given."""

MOST = 2000
"""Colour pictures that are trained on where no limit is given: from there on, more of one archive change little and take their time."""

FOUND = "pictures.json"
"""In the run's directory: what was found, so that a resumed run does not search again."""

LISTED_UNREADABLE = 20

LINE_SECONDS = 10.0


def adapt(
    archive: Annotated[
        str | None,
        typer.Argument(help="The folder of the pictures, at any depth, or a URL such as s3://bucket/scans.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A shipped model, a model file, or a training run's directory.", show_default=DEFAULT_MODEL)
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
    limit: Annotated[int | None, typer.Option(help="Use at most this many of its colour pictures.", show_default=f"{MOST}")] = None,
    address: Annotated[str | None, ADDRESS] = None,
) -> None:
    """Find the colour pictures inside an archive and fine-tune a model on them, as `colorize finetune` does.

    Sepia, cyanotypes and faded prints do not count as colour, nor do pictures that this program has coloured. The archive is only read.
    Pictures that cannot be read are listed; they and all that was found are in RUN/pictures.json.
    """
    from colorize import cluster
    from colorize.archive.colors import Survey
    from colorize.cli.display import console
    from colorize.data.parts import part
    from colorize.train.finetune import create_finetuning, settings
    from colorize.train.run import check_workers, needed

    given: dict[str, Any] = {
        "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "size": size, "seed": seed, "limit": limit,
    }  # fmt: skip
    directory = directory_of(run, resume)
    config = resumed(directory if resume else None, [archive, model, run, workers, gpu or None, *given.values()])
    if config is not None and not config.data.startswith(ARCHIVE):
        raise RunError(f"{resume}: a run on {config.data}: go on with colorize finetune --resume {resume}")
    if config is None and archive is None:
        raise ConfigError(NOTHING)
    name, source = model or DEFAULT_MODEL, archive if config is None else config.data.removeprefix(ARCHIVE)
    if config is None:
        started(directory, settings(name, f"{ARCHIVE}{source}", workers=workers if workers is not None else 1, gpu=gpu, **given))
    place, listing = listed(str(source), directory)
    with cluster.connect(address) as ray:
        console.print(ray.describe())
        count = workers or max(1, ray.gpus if gpu else ray.cpus)
        spec = config or settings(name, f"{ARCHIVE}{source}", workers=count, gpu=gpu, **given)
        check_workers(needed(spec, directory), spec.gpu)
        is_known = resume is not None and directory.has(FOUND)  # a program that is killed as it begins does not come to it
        found = Survey.from_json(directory.read(FOUND), directory.at(FOUND)) if is_known else searched(place, listing)
        tell(found, place)
        parts = part(loaded(place, found, spec.size, spec.limit or MOST), place.shown)
        config = config or settings(name, spec.data, workers=count, gpu=gpu, pictures=parts.train.pictures, **given)
        announce(config, parts)
        if resume is None:
            create_finetuning(directory, config)
        if not is_known:
            directory.write(FOUND, found.to_json().encode())
        conclude(tune(directory, config, parts))


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError, ArchiveError for options that no such run can have, whatever the archive holds. `given`: all, by name."""
    from colorize.archive.listing import check_names
    from colorize.train.finetune import check_settings

    if given["resume"] is not None:
        check_alone(given["resume"], beside_resume(given))
        return
    if given["archive"] is None:
        raise ConfigError(NOTHING)
    check_settings(given["model"] or DEFAULT_MODEL, f"{ARCHIVE}{given['archive']}", **settings_of(given))
    if given["run"] is not None:
        check_names(given["archive"], given["run"])


def listed(source: str, directory: RunDirectory) -> tuple[Place, Listing]:
    """The archive and what is in it. Raises ArchiveError, also where the run would lie inside the archive."""
    from colorize.archive.listing import check_places, list_archive
    from colorize.storage.remote import open_place

    place, _ = check_places(open_place(source), directory.place)
    return place, list_archive(place, "")


def searched(place: Place, listing: Listing) -> Survey:
    """What is found when every picture is opened once; with what the listing could not read."""
    from colorize.archive.colors import survey
    from colorize.cli.display import console

    total, last = len(listing.pictures), time.monotonic()
    console.print(f"{place.shown}: looking through {total:,} pictures for colour …", markup=False)

    def show(looked_at: int, colored: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            console.print(f"{looked_at:,} of {total:,} pictures, {colored:,} in colour")

    found = survey(place, listing.pictures, show)
    failed = [(row.path, row.reason or "") for row in listing.rows if row.status == "failed"]
    return dataclasses.replace(found, unreadable=sorted([*found.unreadable, *failed]))


def tell(found: Survey, place: Place) -> None:
    """How many of how many, and which could not be read."""
    from colorize.cli.display import console

    made = f", {found.made:,} left out that this program has coloured" if found.made else ""
    bad = f", {len(found.unreadable):,} unreadable" if found.unreadable else ""
    console.print(f"{place.shown}: {len(found.colored):,} of {found.looked_at:,} pictures are in colour{made}{bad}", markup=False)
    complain(found.unreadable)


def complain(unreadable: list[tuple[str, str]]) -> None:
    """A line on stderr for each picture that could not be read, up to a number of them."""
    for path, reason in unreadable[:LISTED_UNREADABLE]:
        print(f"colorize: {printable(path)}: {printable(reason)}", file=sys.stderr)
    if len(unreadable) > LISTED_UNREADABLE:
        print(f"colorize: and {len(unreadable) - LISTED_UNREADABLE:,} more unreadable pictures, in {FOUND} of the run", file=sys.stderr)


def loaded(place: Place, found: Survey, size: int, limit: int) -> LabDataset:
    """The pictures in colour, at most `limit` of them (always the same ones). Raises DataError where there are too few."""
    from colorize.archive.colors import load_colors
    from colorize.data.dataset import LabDataset
    from colorize.data.parts import FEWEST

    # Before they are loaded: of no picture at all there would not even be a data set.
    if len(found.colored) < FEWEST:
        raise DataError(
            f"{place.shown}: {len(found.colored):,} of its {found.looked_at:,} pictures are in colour: fine-tuning needs {FEWEST} "
            "at least; give others with colorize finetune --data"
        )
    chosen = sorted(found.colored, key=lambda one: hashlib.sha256(one[0].encode()).digest())[:limit]
    dataset, unreadable = load_colors(place, chosen, size)
    complain(unreadable)
    return LabDataset(
        dataset=dataset, pictures=dataset.count(), dropped_grey=0, unreadable=tuple(unreadable), class_names=None, height=size, width=size,
    )  # fmt: skip
