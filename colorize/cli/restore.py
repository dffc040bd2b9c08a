"""`colorize restore`: the grey original out of a coloured JPEG."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def restore(
    colored: Annotated[Path, typer.Argument(metavar="COLOURED", help="A coloured JPEG.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The grey JPEG to write.", show_default=False)],
) -> None:
    """Give the grey picture back that a coloured JPEG was made from: its pixels are the original's.

    Nothing is computed: the luma's coefficients are kept, the chroma and the note on it are dropped, all other metadata stay.
    Of a toned original, the grey of its luma comes back.
    """
    from colorize.cli.display import console
    from colorize.errors import PictureError, printable
    from colorize.imaging.files import write_whole
    from colorize.imaging.formats import open_scan
    from colorize.imaging.formats.jpeg import JpegScan
    from colorize.imaging.formats.jpeg_luma import restore_jpeg

    if os.path.lexists(output):
        raise PictureError(f"{output}: is there already, and nothing is overwritten: give another name")
    scan = open_scan(colored)
    if not isinstance(scan, JpegScan):
        raise PictureError(f"{colored}: is a {scan.format} file; only a JPEG holds its original, the other formats hold its lightness")
    write_whole(output, restore_jpeg(scan.data, str(colored)), replace=False)
    console.print(f"{printable(output)}  {scan.pages[0].width}×{scan.pages[0].height}", markup=False)
