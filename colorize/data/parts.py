"""The three parts of the pictures that a model is fine-tuned on: for training, for choosing, and held out.

`choice` picks the best epoch and sets the dial; `held_out` is shown to the model before and after and decides nothing in between, so the
gain that is told is not the best of thirty guesses. A source's own test part is the held-out part (cifar10, Parquet files, a folder with
a folder `test` or `val`); else pictures are drawn by a digest of their pixels: the same on every machine, whatever files are called and in
whatever order they come, and copies with the same pixels are on the same side; those that are compressed anew are not known for copies.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from colorize.data.dataset import LabDataset, load_dataset
from colorize.data.files import find_files
from colorize.data.lab import Batch
from colorize.data.sources import parse_source
from colorize.data.splits import has_test_folder
from colorize.errors import DataError

FEWEST = 20
"""Colour pictures that there must be: 12 to train on, 4 to choose by, 4 to judge on."""

LEAST, MOST = 4, 1000
"""Pictures of the choice and of the held-out part."""

HELD_OUT_SHARE, CHOICE_SHARE = 5, 8
"""1 in this many of all is held out, then 1 in this many of the others chosen by."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Three sets of pictures of one size."""

    train: LabDataset
    choice: LabDataset
    held_out: LabDataset


def load_parts(spec: str, *, size: int | None, limit: int | None) -> Parts:
    """The parts of a source; `size` and `limit` as in `load_dataset`; a test part of its own is limited to MOST only.

    Raises DataError as `load_dataset` does, and where there are fewer than FEWEST colour pictures.
    """
    if is_drawn_by_pixels(spec):
        return part(load_dataset(spec, split="all", size=size, limit=limit), spec)
    held_out = load_dataset(spec, split="test", size=size, limit=MOST)
    return part(load_dataset(spec, split="train", size=size, limit=limit), spec, held_out)


def is_drawn_by_pixels(spec: str) -> bool:
    """Whether a source has no test part of its own for fine-tuning to hold out, so that its parts are others than those of training and
    evaluation, which go by names. Raises DataError.
    """
    source = parse_source(spec)
    return source.kind == "folder" and not has_test_folder(find_files(spec, str(source.path)))


def part(whole: LabDataset, name: str, held_out: LabDataset | None = None) -> Parts:
    """The parts of a set, where `held_out` is given of what is not held out. Raises DataError for fewer than FEWEST; `name` is for that."""
    if whole.pictures < (fewest := FEWEST - LEAST if held_out else FEWEST):
        left = f", {whole.dropped_grey:,} grey ones left out" if whole.dropped_grey else ""
        bad = f", {len(whole.unreadable):,} unreadable" if whole.unreadable else ""
        others = f", {whole.other_formats:,} of other formats" if whole.other_formats else ""
        raise DataError(
            f"{name}: {whole.pictures:,} colour pictures{left}{bad}{others}: fine-tuning needs {fewest} at least, some to hold out"
        )
    if held_out is None:
        whole, held_out = drawn(whole, "held out", HELD_OUT_SHARE)
    train, choice = drawn(whole, "choice", CHOICE_SHARE)
    if not train.pictures or not held_out.pictures:
        raise DataError(f"{name}: its pictures are copies of one another: there is nothing to hold out")
    return Parts(train=train, choice=choice, held_out=held_out)


def drawn(whole: LabDataset, purpose: str, share: int) -> tuple[LabDataset, LabDataset]:
    """(what is left, what is drawn): about 1 in `share` of the pictures, LEAST to MOST, by the smallest digests for that purpose."""

    def digest(batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"digest": digests(batch["rgb"], purpose)}

    found = sorted({row["digest"] for row in whole.dataset.map_batches(digest, batch_size=256).iter_rows()})
    below = sum(int(one[:16], 16) < (1 << 64) // share for one in found)
    chosen = frozenset(found[: min(max(below, LEAST), MOST)])

    def side(wanted: bool) -> LabDataset:
        def choose(batch: dict[str, Any]) -> Iterator[Batch]:
            kept_b = np.array([(one in chosen) == wanted for one in digests(batch["rgb"], purpose)], bool)
            if kept_b.any():
                yield {name: column[kept_b] for name, column in batch.items()}

        dataset = whole.dataset.map_batches(choose, batch_size=256).materialize()
        return dataclasses.replace(whole, dataset=dataset, pictures=dataset.count(), class_names=None)

    return side(False), side(True)


def digests(rgb_b3hw: np.ndarray, purpose: str) -> list[str]:
    """SHA-256 of each picture's pixels, another for each purpose: what one draws by says nothing of the other."""
    return [hashlib.sha256(purpose.encode() + np.ascontiguousarray(rgb_3hw).tobytes()).hexdigest() for rgb_3hw in rgb_b3hw]
