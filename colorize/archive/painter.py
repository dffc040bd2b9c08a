"""The worker of a bulk run: a block of paths in, coloured files in the target, one table of rows out.

One actor reads, decodes, predicts, grafts, encodes and writes. Nothing but paths and rows goes through Ray, and no other task needs
a CPU: a pool that takes every CPU cannot starve a stage before it. One picture is decoded at a time, so memory is that of the largest.
Each picture is shown to the network by itself. In a batch, floating point may round by what else is in it, and a run that was resumed has
other batches: its files would differ from an undisturbed run's. On one core a network pass costs 9.9 ms so, against 7.3 in batches.
Outputs are committed in groups (`Journal`), closed at GROUP_PICTURES or GROUP_PIXELS.
A file never stops the others. What is the file's fault is a PictureError and becomes a failed row; anything else is this program's,
becomes a failed row that says so, and its traceback goes to the worker's log. What would fail every further file as well (a full disk, a
target or a source that is gone) ends the run: the block's table then has a row `stopped`.
A picture that takes the whole process with it (out of memory, most likely) leaves its mark in the journal. Ray starts the worker again, for
ever if need be; so the pictures of its block are tried one by one, and one that was begun twice has failed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch
from PIL import Image

from colorize.archive.journal import Journal, Output, StopRunError
from colorize.archive.manifest import Row, to_table
from colorize.archive.place import Place, cause, digest
from colorize.archive.plan import Task
from colorize.archive.report import THUMBNAILS
from colorize.archive.thumbnails import MOST_OF_A_SHEET, Thumbnail, fitting, in_color, sheet
from colorize.errors import PictureError
from colorize.imaging.colorspace import rgb_to_lab
from colorize.imaging.picture import Picture, encode_picture, read_picture
from colorize.model.colorizer import Colorizer, Prediction, shrink
from colorize.model.colormodel import ColorModel
from colorize.model.palette import DecodeSettings

GROUP_PICTURES = 16
GROUP_PIXELS = 32_000_000
"""Outputs are committed together at whichever comes first: what a killed worker has to do again at most."""

MOST_ATTEMPTS = 2
"""How many processes one picture may bring down."""

BLOCK = pa.schema(
    [
        ("block", pa.string()), ("path", pa.string()), ("size", pa.int64()), ("modified", pa.int64()), ("known", pa.string()),
        ("replaces", pa.string()),
    ]
)  # fmt: skip

_INPUT = "picture"  # what read_picture calls it; a row has the path in a column of its own

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is to do: the same for all of them."""

    source: Place
    target: Place
    source_identity: str | None
    """`Place.identity` of the source when it was listed."""
    run_id: str
    vividness: float


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A decoded picture: at full size as its file has it, and small for the network and the report."""

    picture: Picture
    L_hw: npt.NDArray[np.float32]
    """Lightness at the network's working size."""
    thumbnail_hwc: npt.NDArray[np.uint8]
    """RGB at the report's size."""


@dataclass(kw_only=True)
class _Group:
    """Pictures that are coloured and wait to be committed together."""

    members: list[Output | Row] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    """One a row of the members that are outputs."""
    megapixels: float = 0.0

    @property
    def is_full(self) -> bool:
        return len(self.members) >= GROUP_PICTURES or self.megapixels * 1e6 >= GROUP_PIXELS


class Painter:
    """The callable class of the actor pool."""

    def __init__(self, order: Order, model: ray.ObjectRef[bytes] | bytes) -> None:
        """`model`: the bytes of the model file, in the object store: a worker on another machine needs no file."""
        torch.set_num_threads(1)  # the actor's one CPU; two pools of threads on the same cores wait for each other
        self._order = order
        self._journal = Journal(order.target, order.run_id)
        self._settings = DecodeSettings(vividness=order.vividness)
        with NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(model if isinstance(model, bytes) else ray.get(model))
            file.flush()
            loaded = ColorModel.load(Path(file.name))
        self._colorizer = Colorizer(loaded)
        self._made_with: dict[str, Any] = {
            "model": loaded.card.name, "model_sha256": loaded.card.weights_sha256, "vividness": order.vividness,
        }  # fmt: skip

    def __call__(self, table: pa.Table) -> pa.Table:
        """Colours the pictures of one block (`to_block`); gives their rows. A restarted worker gets the whole block again."""
        block = str(table["block"][0])
        tasks = [Task(**fields) for fields in table.drop_columns("block").to_pylist()]
        try:
            return to_table(self._colored(block, tasks))
        except StopRunError as stop:
            return to_table([Row(path=tasks[0].path, status="stopped", reason=str(stop), run_id=self._order.run_id)])

    def _colored(self, block: str, tasks: list[Task]) -> list[Row]:
        attempt = self._journal.begin(block)
        done = self._journal.recall(block) if attempt > 1 else {}
        rows = [row for task in tasks for row in done.get(task.path, [])]
        group = _Group()
        for index, task in enumerate(tasks):
            if task.path in done:
                continue
            if attempt > 1 and self._journal.begin(hashlib.sha256(task.path.encode()).hexdigest()) >= MOST_ATTEMPTS:
                reason = f"the worker process died over it {MOST_ATTEMPTS} times (out of memory?)"
                group.members.append(self._failed(task, reason))
            else:
                self._add(group, task)
            if group.is_full or attempt > 1 or index == len(tasks) - 1:
                rows += self._commit(f"{block}-{attempt}.{index:04}", group)
                group = _Group()
        return rows

    def _commit(self, part: str, group: _Group) -> list[Row]:
        if group.thumbnails:
            group.members = self._with_thumbnails(f"{self._order.run_id}/{part}.jpg", group)
        return self._journal.commit(part, group.members)

    def _with_thumbnails(self, name: str, group: _Group) -> list[Output | Row]:
        """Writes the group's sheet; gives its members with their places on it, or as they are when it cannot be written."""
        thumbnails = group.thumbnails[:MOST_OF_A_SHEET]
        try:
            self._order.target.write(f"{THUMBNAILS}/{name}", sheet(thumbnails))
        except OSError as error:
            self._journal.check(error)
            _log.warning("%s: cannot be written: %s", name, cause(error))
            return group.members
        places = iter([f"{name}#{index},{one.width}x{one.height}" for index, one in enumerate(thumbnails)])
        return [
            one if isinstance(one, Row) else replace(one, rows=[replace(row, thumbnail=next(places, None)) for row in one.rows])
            for one in group.members
        ]

    def _add(self, group: _Group, task: Task) -> None:
        """Colours one picture into the group, or adds the row of why not."""
        try:
            began = time.perf_counter()
            data = self._read(task)
            sha256 = hashlib.sha256(data).hexdigest()
            base = Row(
                path=task.path, status="unchanged", source_bytes=len(data), source_modified=task.modified, source_sha256=sha256,
                seconds_read=time.perf_counter() - began, run_id=self._order.run_id,
            )  # fmt: skip
            if sha256 == task.known:
                group.members.append(base)
                return
            output, thumbnails = self._color(task, data, base)
        except StopRunError:
            raise
        except PictureError as error:
            group.members.append(self._failed(task, str(error).removeprefix(f"{_INPUT}: ")))
        except Exception as error:  # noqa: BLE001 – one picture must not stop the others, whatever it meets
            _log.exception("%s: an error of this program", task.path)
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"an error of this program: {type(error).__name__}: {cause(error)}"
            group.members.append(self._failed(task, f"{reason} ({Path(where.filename).name}:{where.lineno})", program_error=True))
        else:
            group.members.append(output)
            group.thumbnails += thumbnails
            group.megapixels += sum(row.megapixels for row in output.rows)

    def _color(self, task: Task, data: bytes, base: Row) -> tuple[Output, list[Thumbnail]]:
        """The staged output of a picture, and a thumbnail a page. Raises PictureError, or StopRunError where nothing can be staged."""
        times = [time.perf_counter()]
        opened = self._decode(data)
        times.append(time.perf_counter())
        prediction = self._colorizer.predict([opened.L_hw], self._settings)[0]
        times.append(time.perf_counter())
        staged = self._journal.stage()
        try:
            with staged.open("xb+") as file:
                self._encode(opened, prediction, file)
                times.append(time.perf_counter())
                file.flush()
                os.fsync(file.fileno())
                target_bytes = file.tell()
                file.seek(0)
                target_sha256 = digest(file)
        except OSError as error:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            self._journal.check(error)
            raise PictureError(f"the target cannot be written: {cause(error)}") from error
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        lab_3hw = rgb_to_lab(torch.from_numpy(opened.thumbnail_hwc.transpose(2, 0, 1).copy())[None])[0]
        thumbnail = in_color(opened.thumbnail_hwc, lab_3hw[0].numpy(), prediction.ab_n2hw[0])
        times.append(time.perf_counter())
        decode, predict, encode, write = (after - before for before, after in pairwise(times))
        row = replace(
            base, status="coloured", page=0, pages=1, format=opened.picture.format, width=opened.picture.width,
            height=opened.picture.height, target_bytes=target_bytes, target_sha256=target_sha256,
            mean_confidence=float(prediction.confidence_hw.mean()), colorfulness=thumbnail.colorfulness, seconds_decode=decode,
            seconds_predict=predict, seconds_encode=encode, seconds_write=write, **self._made_with,
        )  # fmt: skip
        return Output(rows=[row], staged=staged, replaces=task.replaces), [thumbnail]

    def _decode(self, data: bytes) -> _Opened:
        picture = read_picture(data, name=_INPUT)
        height, width = fitting(picture.height, picture.width)
        small = Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return _Opened(
            picture=picture, L_hw=shrink(picture.lightness_hw(), self._colorizer.model.card), thumbnail_hwc=np.array(small.convert("RGB")),
        )  # fmt: skip

    def _encode(self, opened: _Opened, prediction: Prediction, file: IO[bytes]) -> None:
        file.write(encode_picture(opened.picture, self._colorizer.compose(opened.picture, prediction).rgb_nhwc[0]))

    def _read(self, task: Task) -> bytes:
        try:
            return self._order.source.read(task.path)
        except (OSError, ValueError) as error:
            if self._order.source.identity() != self._order.source_identity:
                raise StopRunError(f"{self._order.source.shown}: the source has vanished") from error
            raise PictureError(f"cannot be read: {cause(error)}") from error

    def _failed(self, task: Task, reason: str, *, program_error: bool = False) -> Row:
        return Row(
            path=task.path, status="failed", reason=reason, source_bytes=task.size, source_modified=task.modified,
            target_sha256=task.replaces, program_error=program_error, run_id=self._order.run_id,
        )  # fmt: skip


def to_block(name: str, tasks: Sequence[Task]) -> pa.Table:
    """Tasks as the block that a `Painter` takes; `name` tells it from the run's other blocks."""
    columns = {key: [getattr(task, key) for task in tasks] for key in BLOCK.names if key != "block"}
    return pa.table({"block": [name] * len(tasks)} | columns, schema=BLOCK)
