"""The pictures in README.md and results.md: what the model that ships makes of the sample archive and of CIFAR-10's sample.

They come from the calls that `colorize archive` and `colorize evaluate` make, at the vividness of the demo, so they show what a user gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from colorize.data import cifar10
from colorize.evaluation import predict_full_size, sheet_png
from colorize.imaging.colorspace import compose, rgb_to_lab
from colorize.imaging.formats import open_scan
from colorize.model.coloring import colorize_scan
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings

MODEL, CIFAR_MODEL = "photo", "cifar10"
ARCHIVE = ("nagasaki-boats.jpg", "dust-bowl-home.jpg", "black-canyon.jpg")
VIVIDNESS = 0.5
CELL, COLUMNS = (400, 300), 3
GAP = 6
JPEG_QUALITY = 85
SHEET_PICTURES = 12

_SAMPLE = Path(str(files("colorize") / "sample" / "archive"))


def archive_jpeg() -> bytes:
    """Three pictures above, cut to one shape, the same three coloured below; 1,212 pixels wide."""
    return _before_and_after([_SAMPLE / name for name in ARCHIVE], ImageOps.fit)


def scans_jpeg() -> bytes:
    """The whole sample archive, each picture whole, with its borders: rows of three, and of the same three in colour."""
    return _before_and_after(sorted(_SAMPLE.glob("*.jpg")), partial(ImageOps.pad, color="white"))


def _before_and_after(paths: Sequence[Path], fitted: Callable[..., Image.Image]) -> bytes:
    colorizer = Colorizer(load_model(MODEL))
    width, height = CELL
    rows = 2 * -(-len(paths) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for number, path in enumerate(paths):
        colored = colorize_scan(open_scan(path), colorizer, DecodeSettings(vividness=VIVIDNESS))
        for below, data in enumerate((path.read_bytes(), colored)):
            cell = fitted(Image.open(BytesIO(data)).convert("RGB"), CELL, Image.Resampling.LANCZOS)
            row, column = 2 * (number // COLUMNS) + below, number % COLUMNS
            sheet.paste(cell, (column * (width + GAP), row * (height + GAP)))
    buffer = BytesIO()
    sheet.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def cifar10_png() -> bytes:
    """The sheet of `colorize evaluate cifar10 --sheet FILE`."""
    records = cifar10.read_sample("test")[:SHEET_PICTURES]
    rgb_b3hw = torch.from_numpy(np.ascontiguousarray(records[:, 1:])).view(-1, 3, cifar10.SIDE, cifar10.SIDE)
    L_b1hw = rgb_to_lab(rgb_b3hw)[:, :1]
    predicted_b2hw = predict_full_size(Colorizer(load_model(CIFAR_MODEL)), L_b1hw, DecodeSettings())
    columns = [compose(L_b1hw, torch.zeros_like(predicted_b2hw)), compose(L_b1hw, predicted_b2hw), rgb_b3hw]
    return sheet_png(list(zip(*map(_pictures, columns), strict=True)))


def _pictures(rgb_b3hw: torch.Tensor) -> npt.NDArray[np.uint8]:
    return rgb_b3hw.numpy().transpose(0, 2, 3, 1)
