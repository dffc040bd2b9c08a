"""Photographs in Parquet files, in the Hugging Face layout: which rows belong to a split, and the picture file in each.

The split is that of the files' names (`train-…`, `validation-…` or `test-…`) or of the folders they lie in, else a hash of the row's own
name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colorize.data.files import PictureFiles
from colorize.data.photos import RawPicture
from colorize.data.splits import TEST_NAMES, check_some, hashed_for_test
from colorize.errors import DataError, PictureError, one_line

MOST_CLASSES = 100_000
"""A `label` from here on is the number of something else, of the picture say: it is taken for none."""


@dataclass(frozen=True, kw_only=True)
class ParquetPart:
    """Rows of one row group of one Parquet file."""

    name: str
    """The file, relative to the place."""
    row_group: int
    rows: tuple[int, ...]
    """The rows wanted, counted from the start of the row group."""
    first: int
    """The number, within the file, of the row group's first row."""


@dataclass(frozen=True, kw_only=True)
class ParquetSplit:
    """The Parquet rows of one split."""

    parts: tuple[ParquetPart, ...]
    outside: int
    """Files that belong to no split: they lie beside some that are named train, and are not named so, nor as a test's; 0 for the test."""
    has_labels: bool
    other_labels: str
    """What the column `label` holds where that is no numbers, or not in all files; "" where it does, or there is none."""
    class_names: tuple[str, ...] | None
    """From the Hugging Face metadata; None where there is none."""


def parquet_rows(place: PictureFiles, split: str, limit: int | None) -> ParquetSplit:
    """The Parquet rows of `split`, at most `limit` of them, spread evenly over what there is.

    Raises DataError when there is no Parquet file, one cannot be read, has no `image` column of the Hugging Face layout, or
    when nothing is left for `split`.
    """
    files = [name for name in place.names if name.lower().endswith(".parquet")]
    if not files:
        raise DataError(f"{place.spec}: no Parquet files in it (.parquet)")
    test = {name for name in files if _is_for(name, TEST_NAMES)}
    train = {name for name in files if _is_for(name, ("train",))} or set(files) - test
    by_name = bool(test)
    wanted = sorted(test if by_name and split == "test" else train)
    check_some(wanted, split, place)

    schemas: dict[str, pa.Schema] = {}
    sizes: dict[str, list[int]] = {}
    for name in wanted:
        schemas[name], sizes[name] = _footer(place, name)
    rows = [(name, group, row) for name in wanted for group, count in enumerate(sizes[name]) for row in range(count)]
    if not by_name:
        keys = {f"{name}:{group}:{row}" for name, group, row in rows}
        hashed = hashed_for_test(keys)
        rows = [at for at in rows if (f"{at[0]}:{at[1]}:{at[2]}" in hashed) == (split == "test")]
    check_some(rows, split, place)
    if limit is not None and limit < len(rows):
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    groups: dict[tuple[str, int], list[int]] = {}
    for name, group, row in rows:
        groups.setdefault((name, group), []).append(row)
    parts = tuple(
        ParquetPart(name=name, row_group=group, rows=tuple(chosen), first=sum(sizes[name][:group]))
        for (name, group), chosen in groups.items()
    )
    kinds = [schema.field("label").type if "label" in schema.names else None for schema in schemas.values()]
    labelled = all(kind is not None and pa.types.is_integer(kind) for kind in kinds)
    names = sorted({"none" if kind is None else one_line(kind, 80) for kind in kinds})
    others = "" if labelled or names == ["none"] else " or ".join(names)
    outside = 0 if split == "test" else len(set(files) - train - test)
    return ParquetSplit(
        parts=parts,
        outside=outside,
        has_labels=labelled,
        other_labels=others,
        class_names=_class_names(schemas[wanted[0]]) if labelled else None,
    )


def open_parquet_part(place: PictureFiles, part: ParquetPart, *, labels: bool) -> Iterator[RawPicture]:
    """The picture file in each row wanted, or why it cannot be read; names look like `train-0.parquet#17`."""
    names = [f"{part.name}#{part.first + row}" for row in part.rows]
    try:
        with place.filesystem.open_input_file(place.path(part.name)) as file:
            columns = ["image.bytes", "label"] if labels else ["image.bytes"]
            table = pq.ParquetFile(file).read_row_group(part.row_group, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        for name in names:
            yield name, PictureError(f"{name}: row group {part.row_group} is damaged: {one_line(error)}"), -1
        return
    images = pc.struct_field(table["image"], "bytes")
    for name, row in zip(names, part.rows, strict=True):
        label = table["label"][row].as_py() if labels else None
        data = images[row].as_py()
        if label is None or not 0 <= label < MOST_CLASSES:
            label = -1
        yield name, PictureError(f"{name}: the row holds no picture") if data is None else data, label


def _footer(place: PictureFiles, name: str) -> tuple[pa.Schema, list[int]]:
    """The schema and the rows of each row group."""
    where = f"{place.root}/{name}"
    try:
        with place.filesystem.open_input_file(place.path(name)) as file:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{where}: not a Parquet file that can be read: {one_line(error)}") from error
    columns = ", ".join(schema.names) or "none"
    if "image" not in schema.names:
        raise DataError(f"{where}: no column `image`: its columns are {columns}")
    image = schema.field("image").type
    if not pa.types.is_struct(image) or (index := image.get_field_index("bytes")) < 0 or not _is_binary(image.field(index).type):
        raise DataError(f"{where}: the column `image` is {image}, not the Hugging Face layout struct<bytes, path>")
    return schema, sizes


def _is_binary(type_: pa.DataType) -> bool:
    return any(test(type_) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in about["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):  # no metadata, or not of that shape: classes without names
        return None


def _is_for(name: str, words: tuple[str, ...]) -> bool:
    """Whether a Parquet file is of a split of one of these names: by its own name; where that names no split, by its folder's."""
    stem, folder = PurePosixPath(name).stem.lower(), PurePosixPath(name).parent.name.lower()
    if any(_opens_with(stem, word) for word in ("train", *TEST_NAMES)):
        return any(_opens_with(stem, word) for word in words)
    return folder in words


def _opens_with(stem: str, word: str) -> bool:
    return stem == word or stem.startswith((f"{word}-", f"{word}_"))
