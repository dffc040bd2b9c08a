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
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch

from colorize.archive.journal import Journal, Output, StopRunError
from colorize.archive.manifest import FOLDER, Row, to_table
from colorize.archive.place import LocalPlace, Place, cause, digest
from colorize.archive.plan import IN_COLOR, Task
from colorize.archive.report import THUMBNAILS
from colorize.archive.thumbnails import MOST_OF_A_SHEET, Thumbnail, fitting, sheet
from colorize.errors import PictureError
from colorize.imaging.convert import Format, converted_name
from colorize.imaging.formats import open_scan
from colorize.imaging.scan import Scan
from colorize.model.coloring import confidence_png, note_of, paint, views
from colorize.model.colorizer import Colorizer, Prediction
from colorize.model.colormodel import ColorModel
from colorize.model.palette import DecodeSettings
from colorize.model.reference import Reference
from colorize.model.swatches import Swatches

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

LARGE_BYTES = 64_000_000
"""A larger file of a local source is opened where it is: of a TIFF, only what is needed is read."""

CONFIDENCE = f"{FOLDER}/confidence"
CONFIDENCE_SIDE = 1024
"""Confidence maps are at most this wide and high."""

_INPUT = "picture"  # what messages call it; a row has the path in a column of its own

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
    temperature: float | None = None
    palette: Swatches | None = None
    reference: Reference | None = None
    format: Format | None = None
    recolor: bool = False
    mark: bool = False
    confidence: bool = False


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
        self._settings = DecodeSettings(
            vividness=order.vividness, temperature=order.temperature, palette=order.palette, reference=order.reference
        )
        with NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(model if isinstance(model, bytes) else ray.get(model))
            file.flush()
            loaded = ColorModel.load(Path(file.name))
        self._colorizer = Colorizer(loaded)
        self._note = note_of(loaded.card, self._settings)
        self._made_with: dict[str, Any] = {
            "model": loaded.card.name, "model_sha256": loaded.card.weights_sha256, "vividness": order.vividness,
            "control": self._settings.control,
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
            source, source_bytes, sha256 = self._read(task)
            base = Row(
                path=task.path, status="unchanged", source_bytes=source_bytes, source_modified=task.modified, source_sha256=sha256,
                seconds_read=time.perf_counter() - began, run_id=self._order.run_id,
            )  # fmt: skip
            if sha256 == task.known:
                group.members.append(base)
                return
            began = time.perf_counter()
            scan = open_scan(source, name=_INPUT)
            pages = [Thumbnail.of(scan, index) for index in range(len(scan.pages))]
            colored = [index for index, page in enumerate(pages) if page.is_colored]
            if colored and not self._order.recolor:
                which = f" (pages {', '.join(str(index + 1) for index in colored)} of {len(pages)})" if len(colored) < len(pages) else ""
                reason = IN_COLOR + which
                group.members.append(
                    replace(
                        base,
                        status="skipped",
                        reason=reason,
                        format=scan.format,
                        target_path=self._standing(task),
                        target_sha256=task.replaces,
                    )
                )
                return
            seen = views(scan, self._colorizer.model.card)
            base = replace(base, format=scan.format, pages=len(pages), seconds_decode=time.perf_counter() - began)
            output, thumbnails = self._color(task, scan, seen, pages, base)
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

    def _color(
        self, task: Task, scan: Scan, seen: list[npt.NDArray[np.float32]], pages: list[Thumbnail], base: Row
    ) -> tuple[Output, list[Thumbnail]]:
        """The staged output of a scan, and its thumbnails in colour. Raises PictureError, or StopRunError where nothing can be staged."""
        times = [time.perf_counter()]
        predictions = [self._colorizer.predict([L_hw], self._settings)[0] for L_hw in seen]
        times.append(time.perf_counter())
        staged = self._journal.stage()
        try:
            with staged.open("xb+") as file:
                paint(scan, predictions, file, self._note, mark=self._order.mark, wanted=self._order.format)
                times.append(time.perf_counter())
                file.flush()
                os.fsync(file.fileno())
                target_bytes = file.seek(0, os.SEEK_END)
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
        if self._order.confidence:
            self._write_confidence(task.path, scan, predictions)
        thumbnails = [page.in_color(prediction.ab_n2hw[0]) for page, prediction in zip(pages, predictions, strict=True)]
        times.append(time.perf_counter())
        predict, encode, write = (after - before for before, after in pairwise(times))
        rows = [
            replace(
                base, status="coloured", page=index, width=page.width, height=page.height, target_bytes=target_bytes,
                target_path=converted_name(task.path, self._order.format),
                target_sha256=target_sha256, mean_confidence=prediction.mean_confidence, colorfulness=thumbnail.colorfulness,
                **(self._made_with if index else self._made_with | {
                    "seconds_predict": predict, "seconds_encode": encode, "seconds_write": write,
                }),
            )
            for index, (page, prediction, thumbnail) in enumerate(zip(scan.pages, predictions, thumbnails, strict=True))
        ]  # fmt: skip
        for index in range(1, len(rows)):
            rows[index] = replace(rows[index], seconds_read=None, seconds_decode=None)
        return Output(rows=rows, staged=staged, replaces=task.replaces), thumbnails

    def _write_confidence(self, path: str, scan: Scan, predictions: Sequence[Prediction]) -> None:
        for number, (page, prediction) in enumerate(zip(scan.pages, predictions, strict=True), 1):
            name = f"{CONFIDENCE}/{path}{f'.{number}' if number > 1 else ''}.png"
            try:
                self._order.target.write(name, confidence_png(prediction, *fitting(*page.upright_shape, CONFIDENCE_SIDE)))
            except OSError as error:
                self._journal.check(error)
                raise PictureError(f"its confidence map cannot be written: {cause(error)}") from error

    def _read(self, task: Task) -> tuple[Path | bytes, int, str]:
        """A file's bytes, or its path where it is large and local; its size and its digest."""
        source = self._order.source
        try:
            if isinstance(source, LocalPlace) and task.size > LARGE_BYTES:
                path = source.root / task.path
                with path.open("rb") as file:
                    return path, path.stat().st_size, digest(file)
            data = source.read(task.path)
        except (OSError, ValueError) as error:
            if source.identity() != self._order.source_identity:
                raise StopRunError(f"{source.shown}: the source has vanished") from error
            raise PictureError(f"cannot be read: {cause(error)}") from error
        return data, len(data), hashlib.sha256(data).hexdigest()

    def _failed(self, task: Task, reason: str, *, program_error: bool = False) -> Row:
        return Row(
            path=task.path, status="failed", reason=reason, source_bytes=task.size, source_modified=task.modified,
            target_path=self._standing(task), target_sha256=task.replaces, program_error=program_error, run_id=self._order.run_id,
        )  # fmt: skip

    def _standing(self, task: Task) -> str | None:
        """Where the output of an earlier run stands, if there is one."""
        return converted_name(task.path, self._order.format) if task.replaces else None


def to_block(name: str, tasks: Sequence[Task]) -> pa.Table:
    """Tasks as the block that a `Painter` takes; `name` tells it from the run's other blocks."""
    columns = {key: [getattr(task, key) for task in tasks] for key in BLOCK.names if key != "block"}
    return pa.table({"block": [name] * len(tasks)} | columns, schema=BLOCK)
