"""`colorize verify`: the proof that a coloured file has its original's lightness."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from colorize.errors import PictureError, printable


def verify(
    original: Annotated[Path, typer.Argument(help="The file as it was.", show_default=False)],
    colored: Annotated[Path, typer.Argument(metavar="COLOURED", help="The same in colour.", show_default=False)],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON; - is standard output.", show_default=False)
    ] = None,
) -> None:
    """Compare the lightness of a coloured file with its original's.

    Two JPEGs are compared by the luma's DCT coefficients and quantisation tables, which have to be identical; other files by the
    lightness of every pixel, which may differ by rounding (1/255 of full scale for 8 bits, 2/65535 for 16). The exit code is 0 when
    it holds, 1 when it does not.
    """
    from colorize.cli.display import console
    from colorize.imaging.files import write_whole
    from colorize.imaging.formats import open_scan
    from colorize.imaging.verify import verify as compare

    if json_file is not None and any(json_file.exists() and file.exists() and json_file.samefile(file) for file in (original, colored)):
        raise PictureError(f"--json {json_file}: is one of the pictures, which is not overwritten: give another name")
    verdict = compare(open_scan(original), open_scan(colored))
    found = dataclasses.asdict(verdict)
    is_faithful = found.pop("is_faithful")
    if json_file == Path("-"):
        print(json.dumps(found))
    else:
        if json_file is not None:
            write_whole(json_file, f"{json.dumps(found)}\n".encode())
        console.print(f"{printable(colored)}: {_describe(verdict.method, verdict.max_lightness_error, is_faithful)}", markup=False)
    if not is_faithful:
        raise typer.Exit(1)


def _describe(method: str, error: float, is_faithful: bool) -> str:
    if method == "dct":
        what = (
            "the luma is the original's, coefficient for coefficient" if is_faithful else "the luma's coefficients are not the original's"
        )
    else:
        what = "every pixel has the original's lightness" if is_faithful else "the lightness is not the original's"
    return f"{what}; largest difference {error * 255:.2f} of 255"
