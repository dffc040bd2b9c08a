"""The pictures in README.md: what the model that ships makes of the sample archive and of CIFAR-10's sample.

They come from the calls that `colorize archive` and `colorize evaluate` make, at the vividness of the demo, so they show what a user gets.
"""

from __future__ import annotations

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
CELL = (400, 300)
GAP = 6
JPEG_QUALITY = 85
SHEET_PICTURES = 12


def archive_jpeg() -> bytes:
    """Three pictures above, the same three coloured below; 1,212 pixels wide."""
    folder = Path(str(files("colorize") / "sample" / "archive"))
    colorizer = Colorizer(load_model(MODEL))
    width, height = CELL
    sheet = Image.new("RGB", (3 * width + 2 * GAP, 2 * height + GAP), "white")
    for column, name in enumerate(ARCHIVE):
        colored = colorize_scan(open_scan(folder / name), colorizer, DecodeSettings(vividness=VIVIDNESS))
        for row, data in enumerate(((folder / name).read_bytes(), colored)):
            cell = ImageOps.fit(Image.open(BytesIO(data)).convert("RGB"), CELL, Image.Resampling.LANCZOS)
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
