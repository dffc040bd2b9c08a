"""Pictures to look at beside the scores: grey, predicted and true, as a contact sheet."""

from __future__ import annotations

import io
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import ray.data
import torch
from PIL import Image

from colorize.evaluation.scorer import predict_full_size
from colorize.imaging.colorspace import compose
from colorize.imaging.sheet import contact_sheet
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import ColorModel
from colorize.model.settings import DecodeSettings


def examples(
    model: ColorModel, dataset: ray.data.Dataset, *, settings: DecodeSettings, count: int
) -> list[tuple[npt.NDArray[np.uint8], ...]]:
    """(grey, predicted, true) RGB pictures (h, w, 3) uint8 of the first `count` rows, for looking at."""
    rows = dataset.take_batch(count)
    L_b1hw, rgb_b3hw = torch.from_numpy(np.array(rows["L"])).float(), np.array(rows["rgb"])
    predicted_b2hw = predict_full_size(Colorizer(model), L_b1hw, settings)
    columns = [compose(L_b1hw, torch.zeros_like(predicted_b2hw)).numpy(), compose(L_b1hw, predicted_b2hw).numpy(), rgb_b3hw]
    return list(zip(*(column.transpose(0, 2, 3, 1) for column in columns), strict=True))


def sheet_png(rows: list[tuple[npt.NDArray[np.uint8], ...]]) -> bytes:
    """A PNG of `examples`, in two columns of grey | predicted | true; small pictures are enlarged to about 128 px."""
    scale = max(1, 128 // rows[0][0].shape[0])
    half = -(-len(rows) // 2)
    blank = (np.full_like(rows[0][0], 255),) * 3
    pairs = [left + right for left, right in zip_longest(rows[:half], rows[half:], fillvalue=blank)]
    buffer = io.BytesIO()
    Image.fromarray(contact_sheet(pairs, ("grey", "predicted", "true") * 2, scale)).save(buffer, "PNG")
    return buffer.getvalue()
