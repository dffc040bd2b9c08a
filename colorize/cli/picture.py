"""`colorize picture`: a few files in colour, here and now, without Ray."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorize.cli.options import PALETTE, REFERENCE, TEMPERATURE
from colorize.errors import ConfigError, HintError, PictureError, printable
from colorize.model.card import DEFAULT_MODEL, DEFAULT_VIVIDNESS

if TYPE_CHECKING:
    from colorize.imaging.convert import Format
    from colorize.model.colorizer import Colorizer
    from colorize.model.hints import Hint
    from colorize.model.settings import DecodeSettings


def picture(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Picture files: JPEG, PNG, TIFF, WebP, JPEG 2000, BMP, PNM.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder for the results.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model, a model file, or a training run's directory.")] = DEFAULT_MODEL,
    vividness: Annotated[float, typer.Option(help="0 is the most accurate colour, 1 as colourful as real pictures.")] = DEFAULT_VIVIDNESS,
    temperature: Annotated[float | None, TEMPERATURE] = None,
    palette: Annotated[str | None, PALETTE] = None,
    reference: Annotated[Path | None, REFERENCE] = None,
    candidates: Annotated[int, typer.Option(help="How many colourings of each: NAME, NAME-2, …")] = 1,
    hints: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Colours given at pixels of the one upright picture, a list of x, y, color.", show_default=False
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Of the results: jpeg, png, tiff or webp.", show_default="each its own")
    ] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Show in a corner that the colours are made: three stripes.")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Also write NAME-confidence.png, one a page: white is certain.")] = False,
) -> None:
    """Colour pictures at their original size, under their own names in DIR, without Ray.

    Nothing is overwritten. A file that fails is one line, does not stop the others, and makes the exit code 1.
    """
    from colorize.cli.display import console, duration
    from colorize.imaging.convert import as_format
    from colorize.model.coloring import load_settings
    from colorize.model.colorizer import Colorizer
    from colorize.model.colormodel import load_model
    from colorize.model.swatches import read_document

    settings = load_settings(vividness=vividness, temperature=temperature, palette=palette, reference=reference, candidates=candidates)
    wanted = as_format(format_)
    check_names(files, output, settings.candidates, confidence, wanted)
    if hints is not None and len(files) > 1:
        raise ConfigError(f"--hints {hints}: belongs to one picture, and {len(files)} are given")
    document = None if hints is None else read_document(hints)
    colorizer = Colorizer(load_model(model))
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"{output}: cannot be made a folder for the results ({error.strerror})") from error
    failed = False
    for file in files:
        began = time.monotonic()
        try:
            for target, note in _color(file, output, colorizer, settings, confidence, mark, wanted, hints, document):
                console.print(f"{printable(target)}  {note}, {duration(time.monotonic() - began)}", markup=False)
        except (PictureError, HintError) as error:
            failed = True
            print(f"colorize: {printable(str(error))}", file=sys.stderr)
    if failed:
        for folder in made:
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        raise typer.Exit(1)


def _color(
    file: Path,
    output: Path,
    colorizer: Colorizer,
    settings: DecodeSettings,
    confidence: bool,
    mark: bool,
    wanted: Format | None,
    hints: Path | None,
    document: bytes | None,
) -> Iterator[tuple[Path, str]]:
    """Colours one file; gives each file that it has written with a word on it."""
    from colorize.imaging.files import write_whole, writing_whole
    from colorize.imaging.formats import open_scan
    from colorize.model.coloring import confidence_png, note_of, paint, views
    from colorize.model.hints import parse_hints

    *targets, map_target = result_files(file, output, settings.candidates, True, wanted)
    card = colorizer.model.card
    scan = open_scan(file)
    maps = [map_target, *(map_target.with_suffix(f".{number}.png") for number in range(2, len(scan.pages) + 1))] if confidence else []
    for target in [*targets, *maps]:
        if os.path.lexists(target):
            raise PictureError(f"{file}: {target} is there already, and nothing is overwritten: give another folder")
    height, width = scan.pages[0].upright_shape
    given: tuple[Hint, ...] = ()
    if document is not None:
        if len(scan.pages) > 1:
            raise HintError(f"{hints}: hints belong to one picture, and {file} has {len(scan.pages)} pages")
        given = parse_hints(document, width=width, height=height, name=str(hints))
    predictions = colorizer.predict(views(scan, card), settings, [given] if given else None)
    pages = f", {len(scan.pages)} pages" if len(scan.pages) > 1 else ""
    certain = sum(prediction.mean_confidence for prediction in predictions) / len(predictions)
    for index, target in enumerate(targets):
        with writing_whole(target, replace=False) as partial:
            paint(scan, predictions, partial, note_of(card, settings), candidate=index, mark=mark, wanted=wanted, hints=given)
        yield target, f"{width}×{height}{pages}, confidence {certain:.2f}"
    for target, page, prediction in zip(maps, scan.pages, predictions, strict=False):  # no maps, no rounds
        height, width = page.upright_shape
        write_whole(target, confidence_png(prediction, height, width), replace=False)
        yield target, f"{width}×{height}"


def check_names(files: list[Path], output: Path, candidates: int, confidence: bool, wanted: Format | None) -> None:
    """Raises ConfigError where two files would become one, or one itself."""
    made_from: dict[Path, Path] = {}
    for file in files:
        if output.exists() and file.parent.exists() and output.samefile(file.parent):
            raise ConfigError(f"--output {output}: is the folder of {file}, which is not overwritten: give another folder")
        for target in result_files(file, output, candidates, confidence, wanted):
            other = made_from.setdefault(target, file)
            if other is not file:
                raise ConfigError(f"{other} and {file}: both would become {target}: colour them into different folders")


def result_files(file: Path, output: Path, candidates: int, confidence: bool, wanted: Format | None) -> list[Path]:
    """The files that one file becomes: its candidates, then its confidence map."""
    from colorize.imaging.convert import converted_name

    names = [file.name, *(f"{file.stem}-{number}{file.suffix}" for number in range(2, candidates + 1))]
    maps = [f"{file.stem}-confidence.png"] if confidence else []
    return [output / name for name in [*(converted_name(name, wanted) for name in names), *maps]]
