"""A specification becomes a LabDataset: pictures of one size as sharded rows of lightness and chroma, in Ray's object store.

Knows nothing of networks, and nothing here is random. The rows travel through the object store, not through the
driver: a worker on another machine may not see the driver's disk, so the driver puts raw CIFAR-10 records (154 MB in all, one
30 MB member in its memory at a time) into the store, and tasks convert them where they are. Measured on 2 busy cores, from
the archive: 50,000 pictures in 13 s from a cold start, with 0.7 GB at most in the driver, 0.4 of it torch and Ray themselves.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import TaskPoolStrategy

from colorize import cluster
from colorize.data import cifar10, parquet, splits
from colorize.data.download import cifar10_archive
from colorize.data.files import find_files
from colorize.data.lab import Batch, to_lab_batch
from colorize.data.photos import RawPicture, open_pictures, read_squares
from colorize.data.sources import Source, parse_source
from colorize.data.tally import Tally
from colorize.errors import ColorizeError, ConfigError, DataError
from colorize.storage.place import local_path

BLOCKS_A_CPU = 4
"""Blocks for each CPU of the cluster: enough that no CPU waits for another's last one, few enough to cost little."""
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 250, 5_000
"""Records in a block of CIFAR-10: 5,000 are 46 MB converted, below the 128 MB at which Ray splits a block."""
PHOTOS_A_BATCH = 128
"""Photographs that a task decodes before it hands them on: 21 MB at 128 px."""
PHOTO_SIDE = 128
"""The side of folder and Parquet pictures where none is asked for."""

Convert = Callable[[pa.Table], Batch] | Callable[[pa.Table], Iterator[Batch]]
"""What a task does with one block."""


@dataclass(frozen=True, kw_only=True)
class LabDataset:
    """One split of a source, converted."""

    dataset: ray.data.Dataset
    """Materialized rows: `L` (1, h, w) float16 0…100, `ab` (2, h, w) float16, `rgb` (3, h, w) uint8, `label` int64 (−1: none),
    `name` str."""
    pictures: int
    """Rows in `dataset`."""
    dropped_grey: int
    """Grey and near-grey pictures that were left out (training only)."""
    unreadable: tuple[tuple[str, str], ...]
    """(name, reason) of each picture that could not be read, by name."""
    class_names: tuple[str, ...] | None
    """The classes that `label` counts, or None."""
    height: int
    width: int
    other_formats: int = 0
    """Files of a folder that are pictures by their names, of formats that are not read."""
    other_labels: str = ""
    """What the column `label` of Parquet files holds where that is no numbers: `label` is −1 then."""
    outside: int = 0
    """Files, pictures or Parquet, that belong to no split: they lie beside some that are named train. Counted with the training part."""


def load_dataset(
    spec: str,
    *,
    split: Literal["train", "test", "all"],
    size: int | None = None,
    limit: int | None = None,
    cache: Path | None = None,
) -> LabDataset:
    """The pictures of `split` of a source (see `colorize.data.sources`), converted to LAB on the Ray that is connected.

    `size`: the side in pixels that folder and Parquet pictures are cropped and scaled to (None: 128); CIFAR-10 is always 32,
    and any other `size` is an error. `all` is a folder's pictures of both splits, for those who split by content (see
    `colorize.data.parts`). `limit`: at most this many pictures, always the same ones, before grey ones are left out.
    `cache`: where `cifar10` keeps its download (None: see `colorize.data.download.cache_folder`).
    Grey pictures are left out of `train` and `all` (see `colorize.imaging.tint.is_grey`) and counted; `test` is judged whole.

    Raises DataError (missing, damaged, empty, wrong layout), ConfigError (`size`, `limit`).
    """
    source = parse_source(spec)
    if split not in ("train", "test") and not (split == "all" and source.kind == "folder"):
        raise ConfigError(f"split {split!r}: not train or test, nor all of a folder")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: must be 1 or more")
    if size is not None and size < 1:
        raise ConfigError(f"size {size}: must be 1 or more")
    with _errors_of_tasks():
        match source.kind:
            case "cifar10" | "cifar10-sample":
                assert split != "all"
                if size not in (None, cifar10.SIDE):
                    raise ConfigError(f"size {size}: the pictures of {spec} are {cifar10.SIDE}×{cifar10.SIDE}")
                return _cifar10(source, split, limit, cache)
            case "folder":
                return _folder(source, split, limit, size or PHOTO_SIDE)
            case "parquet":
                assert split != "all"
                return _parquet(source, split, limit, size or PHOTO_SIDE)


def with_more(first: LabDataset, second: LabDataset) -> LabDataset:
    """The rows of two sets of one size as one set, block by block in random order: a reader's shuffle buffer sees only what is near."""
    assert (first.height, first.width) == (second.height, second.width), "sets of one size"
    return LabDataset(
        dataset=first.dataset.union(second.dataset).randomize_block_order(seed=0).materialize(),
        pictures=first.pictures + second.pictures,
        dropped_grey=first.dropped_grey + second.dropped_grey,
        unreadable=first.unreadable + second.unreadable,
        class_names=None,
        height=first.height,
        width=first.width,
        other_formats=first.other_formats + second.other_formats,
        other_labels=first.other_labels or second.other_labels,
        outside=first.outside + second.outside,
    )


def _cifar10(source: Source, split: cifar10.Split, limit: int | None, cache: Path | None) -> LabDataset:
    if source.kind == "cifar10-sample":
        records = cifar10.read_sample(split)
        batches: Iterable[tuple[str, np.ndarray]] = [(split, records)]
        left = len(records)
    else:
        batches = cifar10.read_batches(local_path(source.path) if source.path else cifar10_archive(cache), split)
        left = cifar10.RECORDS_A_FILE * len(cifar10.MEMBERS[split])
    refs = put_records(batches, left if limit is None else min(limit, left))
    tally = Tally()
    blocks = ray.data.from_arrow_refs(refs)
    return _collect(blocks, records_to_lab(tally, drop_grey=split == "train"), tally, source, cifar10.SIDE, cifar10.CLASS_NAMES)


def put_records(batches: Iterable[tuple[str, np.ndarray]], count: int) -> list[Any]:
    """Puts the first `count` records of (name, records (n, 3073) uint8) into the object store; gives references to Arrow tables.

    Each has a column `record` (3,073 bytes) and a column `name`, such as `data_batch_1/00017`.
    """
    rows = min(MAX_BLOCK_ROWS, max(MIN_BLOCK_ROWS, math.ceil(count / _block_count())))
    refs: list[Any] = []
    left = count
    for member, records in batches:
        stem = member.removesuffix(".bin")
        for first in range(0, min(left, len(records)), rows):
            part = records[first : min(first + rows, left)]
            names = [f"{stem}/{index:05d}" for index in range(first, first + len(part))]
            refs.append(ray.put(_record_table(part, names)))
        left -= min(left, len(records))
        if not left:
            break
    return refs


def records_to_lab(tally: Tally, *, drop_grey: bool) -> Callable[[pa.Table], Batch]:
    """The LAB stage for blocks from `put_records`: the function to give to `map_batches` as `run_in_tasks` does."""

    def convert(table: pa.Table) -> Batch:
        records = _records_of(table)
        rgb_b3hw = records[:, 1:].reshape(-1, 3, cifar10.SIDE, cifar10.SIDE)
        batch, grey = to_lab_batch(rgb_b3hw, records[:, 0], table["name"].to_pylist(), drop_grey=drop_grey)
        tally.add(grey, {})
        return batch

    return convert


def run_in_tasks(blocks: ray.data.Dataset, convert: Convert) -> ray.data.Dataset:
    """The (lazy) dataset that `convert` makes of whole blocks, one task a CPU at a time."""
    return blocks.map_batches(convert, batch_size=None, batch_format="pyarrow", compute=TaskPoolStrategy())


def _folder(source: Source, split: Literal["train", "test", "all"], limit: int | None, side: int) -> LabDataset:
    assert source.path is not None
    place = find_files(str(source), source.path)
    names = splits.pictures_of(place, split)[:limit]
    others, outside = splits.others_of(place, split), splits.outside_of(place, split)
    place = replace(place, names=())  # the tasks get theirs from the blocks
    tally = Tally()

    def convert(table: pa.Table) -> Iterator[Batch]:
        yield from _convert_photos(open_pictures(place, table["name"].to_pylist()), side, split != "test", tally)

    blocks = ray.data.from_items([{"name": name} for name in names], override_num_blocks=min(len(names), _block_count()))
    return replace(_collect(blocks, convert, tally, source, side, None), other_formats=others, outside=outside)


def _parquet(source: Source, split: cifar10.Split, limit: int | None, side: int) -> LabDataset:
    assert source.path is not None
    place = find_files(str(source), source.path)
    chosen = parquet.parquet_rows(place, split, limit)
    place = replace(place, names=())
    tally = Tally()
    labels = chosen.has_labels

    def convert(table: pa.Table) -> Iterator[Batch]:
        for part in table.to_pylist():
            files = parquet.open_parquet_part(place, parquet.ParquetPart(**part), labels=labels)
            yield from _convert_photos(files, side, split == "train", tally)

    parts = [asdict(part) for part in chosen.parts]
    blocks = ray.data.from_items(parts, override_num_blocks=min(len(parts), _block_count()))
    loaded = _collect(blocks, convert, tally, source, side, chosen.class_names)
    loaded = replace(loaded, outside=chosen.outside, other_labels=chosen.other_labels)
    if not labels or chosen.class_names:
        return loaded
    highest: Any = loaded.dataset.max("label")
    classes = int(highest) + 1
    return replace(loaded, class_names=tuple(str(number) for number in range(classes)) or None)


def _convert_photos(files: Iterator[RawPicture], side: int, drop_grey: bool, tally: Tally) -> Iterator[Batch]:
    while some := list(itertools.islice(files, PHOTOS_A_BATCH)):
        rgb_b3hw, labels, names, unreadable = read_squares(some, side)
        batch, grey = to_lab_batch(rgb_b3hw, labels, names, drop_grey=drop_grey)
        tally.add(grey, unreadable)
        if len(batch["L"]):
            yield batch


def _collect(
    blocks: ray.data.Dataset,
    convert: Convert,
    tally: Tally,
    source: Source,
    side: int,
    class_names: tuple[str, ...] | None,
) -> LabDataset:
    """Runs `convert` on the blocks, and counts what came of it."""
    dataset = run_in_tasks(blocks, convert).materialize()
    dropped, unreadable = tally.result()
    pictures = dataset.count()
    if not pictures and unreadable:
        name, reason = min(unreadable.items())
        raise DataError(f"{source}: none of its pictures can be used: {len(unreadable)} unreadable (as {name}: {reason})")
    if not pictures:
        raise DataError(f"{source}: all of its pictures are grey: there is no colour to learn from")
    return LabDataset(
        dataset=dataset,
        pictures=pictures,
        dropped_grey=dropped,
        unreadable=tuple(sorted(unreadable.items())),
        class_names=class_names,
        height=side,
        width=side,
    )


def _block_count() -> int:
    return BLOCKS_A_CPU * max(1, cluster.current().cpus)


@contextlib.contextmanager
def _errors_of_tasks() -> Iterator[None]:
    """Gives the error that a task met, where it is one of ours, without Ray's traceback around it."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause: BaseException | None = error
        while cause is not None and (not isinstance(cause, ColorizeError) or isinstance(cause, ray.exceptions.RayTaskError)):
            cause = cause.cause if isinstance(cause, ray.exceptions.RayTaskError) else cause.__cause__
        if cause is None:
            raise
        raise cause from error


def _record_table(records: np.ndarray, names: list[str]) -> pa.Table:
    """Records (n, 3073) as one Arrow column of fixed-size binary, without a copy."""
    flat = np.ascontiguousarray(records)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(cifar10.RECORD_BYTES), len(flat), [None, pa.py_buffer(flat)])
    return pa.table({"record": column, "name": names})


def _records_of(table: pa.Table) -> np.ndarray:
    column = table["record"].combine_chunks()
    data = np.frombuffer(column.buffers()[1], np.uint8)
    first = column.offset * cifar10.RECORD_BYTES
    return data[first : first + len(column) * cifar10.RECORD_BYTES].reshape(-1, cifar10.RECORD_BYTES)
