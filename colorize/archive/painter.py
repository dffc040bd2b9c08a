"""The worker of a bulk run: a block of paths in, coloured files in the target, one table of rows out.

One actor reads, decodes, predicts, grafts, encodes and writes. Nothing but paths and rows goes through Ray, and no other task needs
a CPU: a pool that takes every CPU cannot starve a stage before it.
It works in chunks: the pictures of a chunk are opened and looked at small, those of one working shape are shown to the network in one
batch, then each is grafted and written. A chunk ends at CHUNK_PICTURES, CHUNK_PIXELS or CHUNK_BYTES: a large picture is alone with the few
small ones before it, and the full-size pixels of large pictures are only held of one. (Rasters of a megapixel or less stay decoded.)
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
from contextlib import ExitStack, suppress
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

from colorize import log
from colorize.archive.batches import predict_in_batches
from colorize.archive.journal import Journal, Output, StopRunError
from colorize.archive.manifest import FOLDER, Row, to_table
from colorize.archive.meter import STAGE, ArchiveMeter
from colorize.archive.original import PICTURE, read_original
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
from colorize.model.reference import Reference
from colorize.model.settings import DecodeSettings
from colorize.model.swatches import Swatches
from colorize.storage.place import Place, cause, digest, with_suffix

GROUP_PICTURES = 16
GROUP_PIXELS = 32_000_000
"""Outputs are committed together at whichever comes first: what a killed worker has to do again at most."""

CHUNK_PICTURES = 16
CHUNK_PIXELS = 8_000_000
CHUNK_BYTES = 16_000_000
"""A chunk is full at whichever comes first: of what is held open between looking at pictures and grafting them."""

MOST_ATTEMPTS = 2
"""How many processes one picture may bring down."""

BLOCK = pa.schema(
    [
        ("block", pa.string()), ("path", pa.string()), ("size", pa.int64()), ("modified", pa.int64()), ("known", pa.string()),
        ("replaces", pa.string()),
    ]
)  # fmt: skip

CONFIDENCE = f"{FOLDER}/confidence"
CONFIDENCE_SIDE = 1024
"""Confidence maps are at most this wide and high."""

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
    json_log: bool = False
    planned: int = 0
    """How many pictures the whole run is to look at, for its measurements."""


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A picture that is opened and waits for its colours."""

    task: Task
    scan: Scan
    pages: list[Thumbnail]
    seen: list[npt.NDArray[np.float32]]
    """What the network is to see of each page."""
    base: Row
    held: ExitStack
    """Closes the temporary file that `scan` reads, where it has one."""


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
        log.begin_worker(run=order.run_id, stage=STAGE, as_json=order.json_log)
        self._journal = Journal(order.target, order.run_id)
        self._meter = ArchiveMeter(order.run_id)
        self._meter.planned(order.planned)
        self._settings = DecodeSettings(
            vividness=order.vividness, temperature=order.temperature, palette=order.palette, reference=order.reference
        )
        with NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(model if isinstance(model, bytes) else ray.get(model))
            file.flush()
            loaded = ColorModel.load(Path(file.name))
        self._colorizer = Colorizer(loaded)
        self._note = note_of(loaded.card, self._settings)
        log.event("worker begins", model=loaded.card.name, device=str(self._colorizer.device))
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
        chunk: list[_Open | Row] = []
        for index, task in enumerate(tasks):
            if task.path not in done:
                if attempt > 1 and self._journal.begin(hashlib.sha256(task.path.encode()).hexdigest()) >= MOST_ATTEMPTS:
                    reason = f"the worker process died over it {MOST_ATTEMPTS} times (out of memory?)"
                    chunk.append(self._failed(task, reason))
                else:
                    chunk.append(self._open(task))
            if attempt == 1 and index < len(tasks) - 1 and not _is_full(chunk):
                continue
            for number, predicted in enumerate(self._predicted(chunk)):
                self._add(group, chunk.pop(0), predicted)  # popped, so that its pixels go
                if group.is_full:
                    rows += self._commit(f"{block}-{attempt}.{index:04}.{number:02}", group)
                    group = _Group()
            if attempt > 1 and group.members:
                rows += self._commit(f"{block}-{attempt}.{index:04}", group)
                group = _Group()
        if group.members:
            rows += self._commit(f"{block}-{attempt}.end", group)
        return rows

    def _predicted(self, chunk: Sequence[_Open | Row]) -> list[tuple[list[Prediction], float] | Exception | None]:
        """Of each picture of a chunk: a prediction a page and its share of the time, or what went wrong; of a row None."""
        opened = [one for one in chunk if isinstance(one, _Open)]
        began = time.perf_counter()
        answers: list[list[Prediction] | Exception]
        try:
            flat = iter(predict_in_batches(self._colorizer, [L_hw for one in opened for L_hw in one.seen], self._settings))
            answers = [[next(flat) for _ in one.seen] for one in opened]
        except Exception as error:  # noqa: BLE001 – whatever one of them brings about, the others must not bear it
            _log.warning("a batch failed, its pictures are tried one by one: %s", cause(error))
            answers = [self._predicted_alone(one) for one in opened]
        share = (time.perf_counter() - began) / max(1, len(opened))
        found = iter(answers)
        given: list[tuple[list[Prediction], float] | Exception | None] = []
        for one in chunk:
            answer = next(found) if isinstance(one, _Open) else None
            given.append((answer, share) if isinstance(answer, list) else answer)
        return given

    def _predicted_alone(self, opened: _Open) -> list[Prediction] | Exception:
        try:
            return predict_in_batches(self._colorizer, opened.seen, self._settings)
        except Exception as error:  # noqa: BLE001 – it becomes this picture's row
            return error

    def _commit(self, part: str, group: _Group) -> list[Row]:
        if group.thumbnails:
            group.members = self._with_thumbnails(f"{self._order.run_id}/{part}.jpg", group)
        rows = self._journal.commit(part, group.members)
        self._meter.count(rows)
        return rows

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

    def _open(self, task: Task) -> _Open | Row:
        """Opens one picture and looks at it small; or the row of why it is not coloured."""
        held = ExitStack()
        try:
            began = time.perf_counter()
            original = read_original(self._order.source, self._order.source_identity, task.path, task.size, held)
            base = Row(
                path=task.path, status="unchanged", source_bytes=original.size, source_modified=task.modified,
                source_sha256=original.sha256, seconds_read=time.perf_counter() - began, run_id=self._order.run_id,
            )  # fmt: skip
            if original.sha256 == task.known:
                return base
            began = time.perf_counter()
            scan = open_scan(original.data, name=PICTURE)
            pages = [Thumbnail.of(scan, index) for index in range(len(scan.pages))]
            colored = [index for index, page in enumerate(pages) if page.is_colored]
            if colored and not self._order.recolor:
                which = f" (pages {', '.join(str(index + 1) for index in colored)} of {len(pages)})" if len(colored) < len(pages) else ""
                return replace(
                    base, status="skipped", reason=IN_COLOR + which, format=scan.format, target_path=self._standing(task),
                    target_sha256=task.replaces,
                )  # fmt: skip
            seen = views(scan, self._colorizer.model.card)
            base = replace(base, format=scan.format, pages=len(pages), seconds_decode=time.perf_counter() - began)
            return _Open(task=task, scan=scan, pages=pages, seen=seen, base=base, held=held.pop_all())
        except StopRunError:
            raise
        except Exception as error:  # noqa: BLE001 – one picture must not stop the others, whatever it meets
            return self._row_of(task, error)
        finally:
            held.close()

    def _add(self, group: _Group, one: _Open | Row, predicted: tuple[list[Prediction], float] | Exception | None) -> None:
        """Grafts one picture into the group, or adds the row of why not."""
        if isinstance(one, Row):
            group.members.append(one)
            return
        try:
            with one.held:
                if isinstance(predicted, Exception):
                    raise predicted
                assert predicted is not None, "what is open has an answer"
                output, thumbnails = self._color(one, *predicted)
        except StopRunError:
            raise
        except Exception as error:  # noqa: BLE001 – as in `_open`
            group.members.append(self._row_of(one.task, error))
        else:
            group.members.append(output)
            group.thumbnails += thumbnails
            group.megapixels += sum(row.megapixels for row in output.rows)

    def _row_of(self, task: Task, error: Exception) -> Row:
        """The row of a picture that failed: by its own fault, or by one of this program."""
        if isinstance(error, PictureError):
            return self._failed(task, str(error).removeprefix(f"{PICTURE}: "))
        _log.error("%s: an error of this program", task.path, exc_info=error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"an error of this program: {type(error).__name__}: {cause(error)}"
        return self._failed(task, f"{reason} ({Path(where.filename).name}:{where.lineno})", program_error=True)

    def _color(self, one: _Open, predictions: list[Prediction], predict: float) -> tuple[Output, list[Thumbnail]]:
        """The staged output of a scan, and its thumbnails in colour. Raises PictureError, or StopRunError where nothing can be staged.

        `predict`: the seconds that the network had for it.
        """
        task, scan = one.task, one.scan
        times = [time.perf_counter()]
        staged = self._journal.stage()
        try:
            with self._order.target.staging(), staged.open("xb+") as file:
                paint(scan, predictions, file, self._note, mark=self._order.mark, wanted=self._order.format)
                times.append(time.perf_counter())
                file.flush()
                os.fsync(file.fileno())
                target_bytes = file.seek(0, os.SEEK_END)
                file.seek(0)
                target_sha256 = digest(file)
        except OSError as error:
            with suppress(OSError):
                self._journal.discard(staged)
            self._journal.check(error)
            raise PictureError(f"the target cannot be written: {cause(error)}") from error
        except BaseException:
            self._journal.discard(staged)
            raise
        if self._order.confidence:
            self._write_confidence(task.path, scan, predictions)
        thumbnails = [page.in_color(prediction.ab_n2hw[0]) for page, prediction in zip(one.pages, predictions, strict=True)]
        times.append(time.perf_counter())
        encode, write = (after - before for before, after in pairwise(times))
        rows = [
            replace(
                one.base, status="coloured", page=index, width=page.width, height=page.height, target_bytes=target_bytes,
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
            name = with_suffix(path, f".{number}.png" if number > 1 else ".png")
            try:
                self._order.target.write(f"{CONFIDENCE}/{name}", confidence_png(prediction, *fitting(*page.upright_shape, CONFIDENCE_SIDE)))
            except OSError as error:
                self._journal.check(error)
                raise PictureError(f"its confidence map cannot be written: {cause(error)}") from error

    def _failed(self, task: Task, reason: str, *, program_error: bool = False) -> Row:
        return Row(
            path=task.path, status="failed", reason=reason, source_bytes=task.size, source_modified=task.modified,
            target_path=self._standing(task), target_sha256=task.replaces, program_error=program_error, run_id=self._order.run_id,
        )  # fmt: skip

    def _standing(self, task: Task) -> str | None:
        """Where the output of an earlier run stands, if there is one."""
        return converted_name(task.path, self._order.format) if task.replaces else None


def _is_full(chunk: Sequence[_Open | Row]) -> bool:
    opened = [one for one in chunk if isinstance(one, _Open)]
    pixels = sum(page.width * page.height for one in opened for page in one.scan.pages)
    return len(chunk) >= CHUNK_PICTURES or pixels >= CHUNK_PIXELS or sum(one.task.size for one in opened) >= CHUNK_BYTES


def to_block(name: str, tasks: Sequence[Task]) -> pa.Table:
    """Tasks as the block that a `Painter` takes; `name` tells it from the run's other blocks."""
    columns = {key: [getattr(task, key) for task in tasks] for key in BLOCK.names if key != "block"}
    return pa.table({"block": [name] * len(tasks)} | columns, schema=BLOCK)
