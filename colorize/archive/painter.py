"""The worker of a bulk run: paths in, coloured files in the target, one row an input out.

One actor reads, decodes, predicts, grafts, encodes and writes. Nothing but paths and rows goes through Ray, and no other task needs
a CPU: a pool that takes every CPU cannot starve a stage before it. Pictures are shown to the network in batches across files, closed
at BATCH_PIXELS: that is a handful of archive scans or one large one. A pixel takes 7 bytes while its batch waits (RGB and
lightness, 56 MB), and 10 more while its picture is composed and encoded.
A file never stops the others. What is the file's fault is a PictureError and becomes a failed row; anything else is this program's,
becomes a failed row that says so, and its traceback goes to the worker's log.
A picture that takes the whole process with it (out of memory, most likely) leaves its mark in the staging folder. Ray starts the worker
again, for ever if need be; so the pictures that were under way are tried one by one, and one that was begun twice has failed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

import pyarrow as pa
import ray
import torch

from colorize.archive.manifest import Row, to_table
from colorize.archive.staging import Staging
from colorize.errors import PictureError
from colorize.imaging.picture import Picture, encode_picture, read_picture
from colorize.model.colorizer import Colorizer, Prediction
from colorize.model.colormodel import ColorModel
from colorize.model.palette import DecodeSettings

BATCH_PIXELS = 8_000_000
"""A batch is closed when its pictures come to this many pixels."""

MOST_ATTEMPTS = 2
"""How many processes one picture may bring down."""

_INPUT = "picture"  # what read_picture calls it; a row has the path in a column of its own

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is to do: the same for all of them."""

    source: str
    target: str
    run_id: str
    vividness: float


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A decoded picture that waits for its colours."""

    path: str
    picture: Picture
    source_bytes: int
    source_sha256: str
    seconds: float


class Painter:
    """The callable class of the actor pool."""

    def __init__(self, order: Order, model: ray.ObjectRef[bytes]) -> None:
        """`model`: the bytes of the model file, in the object store: a worker on another machine needs no file."""
        torch.set_num_threads(1)  # the actor's one CPU; two pools of threads on the same cores wait for each other
        self._order = order
        self._target = Path(order.target)
        self._staging = Staging(self._target, order.run_id)
        self._settings = DecodeSettings(vividness=order.vividness)
        with NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(ray.get(model))
            file.flush()
            loaded = ColorModel.load(Path(file.name))
        self._colorizer = Colorizer(loaded)
        self._made_with: dict[str, Any] = {
            "model": loaded.card.name, "model_sha256": loaded.card.weights_sha256, "vividness": order.vividness,
        }  # fmt: skip

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Colours the pictures in the column `path`; yields one row for each, in their order: a restarted worker repeats it."""
        waiting: list[_Opened | Row] = []
        for path in block["path"].to_pylist():
            done = self._staging.finished(path)
            attempt = 1 if done else self._staging.begin(path)
            if attempt > 1:
                yield from self._finish(waiting)
                waiting = []
            opened: _Opened | Row
            if done:
                opened = done
            elif attempt > MOST_ATTEMPTS:
                opened = self._failed(path, f"the worker process died over it {MOST_ATTEMPTS} times (out of memory?)")
            else:
                opened = self._guarded(path, partial(self._open, path))
            waiting.append(opened)
            if attempt > 1 or sum(_pixels(one) for one in waiting) >= BATCH_PIXELS:
                yield from self._finish(waiting)
                waiting = []
        yield from self._finish(waiting)

    def _open(self, path: str) -> _Opened | Row:
        began = time.perf_counter()
        if os.path.lexists(self._target / path):
            return Row(path=path, status="skipped", reason="its target appeared during the run", run_id=self._order.run_id)
        try:
            data = Path(self._order.source, path).read_bytes()
        except OSError as error:
            raise PictureError(f"cannot be read: {error.strerror or error}") from error
        picture = read_picture(data, name=_INPUT)
        return _Opened(
            path=path, picture=picture, source_bytes=len(data), source_sha256=hashlib.sha256(data).hexdigest(),
            seconds=time.perf_counter() - began,
        )  # fmt: skip

    def _finish(self, waiting: list[_Opened | Row]) -> Iterator[pa.Table]:
        began = time.perf_counter()
        opened = [one for one in waiting if isinstance(one, _Opened)]
        predictions = iter(self._predict(opened))
        share = (time.perf_counter() - began) / max(1, len(opened))
        for index, one in enumerate(waiting):
            row = one if isinstance(one, Row) else self._write(one, next(predictions), share)
            waiting[index] = row  # the decoded pixels go
            if row.status != "coloured":  # a coloured one's row went before its file
                self._staging.finish(row)
            yield to_table([row])

    def _predict(self, opened: list[_Opened]) -> list[Prediction | Row]:
        """A prediction for each; where the batch fails, one by one, so that the one at fault is found."""
        if len(opened) > 1:
            try:
                return list(self._colorizer.predict([one.picture.lightness_hw() for one in opened], self._settings))
            except Exception:  # noqa: BLE001 – whatever it is, it is met again below and kept in a row
                _log.warning("a batch of %d failed; its pictures are tried one by one", len(opened), exc_info=True)
        return [self._guarded(one.path, partial(self._predict_one, one)) for one in opened]

    def _predict_one(self, opened: _Opened) -> Prediction:
        return self._colorizer.predict([opened.picture.lightness_hw()], self._settings)[0]

    def _write(self, opened: _Opened, prediction: Prediction | Row, share: float) -> Row:
        if isinstance(prediction, Row):
            return prediction
        return self._guarded(opened.path, partial(self._compose, opened, prediction, share))

    def _compose(self, opened: _Opened, prediction: Prediction, share: float) -> Row:
        began = time.perf_counter()
        picture = opened.picture
        colored = self._colorizer.compose(picture, prediction)
        data = encode_picture(picture, colored.rgb_nhwc[0])
        row = Row(
            path=opened.path, status="coloured", format=picture.format, width=picture.width, height=picture.height,
            source_bytes=opened.source_bytes, target_bytes=len(data), source_sha256=opened.source_sha256,
            target_sha256=hashlib.sha256(data).hexdigest(), mean_confidence=colored.mean_confidence,
            seconds=opened.seconds + share + time.perf_counter() - began, run_id=self._order.run_id, **self._made_with,
        )  # fmt: skip
        self._staging.put(row, data)
        return row

    def _guarded(self, path: str, act: Callable[[], _T]) -> _T | Row:
        """What `act` gives, or the row of its failure."""
        try:
            return act()
        except PictureError as error:
            return self._failed(path, str(error).removeprefix(f"{_INPUT}: "))
        except Exception as error:  # noqa: BLE001 – one picture must not stop the others, whatever it meets
            _log.exception("%s: an error of this program", path)
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"an error of this program: {type(error).__name__}: {' '.join(str(error).split())}"
            return self._failed(path, f"{reason} ({Path(where.filename).name}:{where.lineno})", program_error=True)

    def _failed(self, path: str, reason: str, *, program_error: bool = False) -> Row:
        return Row(path=path, status="failed", reason=reason, program_error=program_error, run_id=self._order.run_id)


def _pixels(one: _Opened | Row) -> int:
    return 0 if isinstance(one, Row) else one.picture.height * one.picture.width
