"""Photographs from folders and Parquet files: which ones belong to a split, and how one becomes a square of training pixels.

Knows nothing of LAB, and lists files without Ray. Files are named relative to the source. The split is the layout's own where
it has one (a `train` and a `test`, `val`, `valid` or `validation` folder, outermost or below the folder that all pictures share; Parquet
files named `train-…`, `validation-…` or `test-…`, or in folders of those names), else a hash of the name sends 1 in 20 to the test, the
same on every machine and whatever else is added. A worker on another machine must see the same path, so a cluster wants a
bucket or a shared folder.

A picture is decoded whole, cropped to its central square and scaled by Lanczos with antialiasing: a JPEG of 2 MP takes 23 ms,
of which decoding is 16. The EXIF orientation is left alone: sideways pictures do no harm to training.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import fs

from colorize.errors import DataError, PictureError, one_line, printable
from colorize.imaging.guard import HEAD_BYTES, MAX_PIXELS
from colorize.imaging.picture import format_of, read_picture
from colorize.storage.place import FILE_URL, local_path, path_of_url
from colorize.storage.url import redacted, without_secrets

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
OTHER_SUFFIXES = (
    ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm",
    ".heic", ".heif", ".gif", ".jxl", ".avif", ".psd", ".psb", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf",
)  # fmt: skip
"""Names of pictures that are not read here: such files are counted, so that nobody takes them for trained on."""
TEST_NAMES = ("test", "val", "valid", "validation")
TEST_SHARE = 20
"""Without a layout that says so, 1 picture in this many is for the test."""
LARGE_BYTES = 64_000_000
"""A larger file is read whole only where it begins as a picture."""
MOST_BYTES = 5 * MAX_PIXELS
"""A larger file is not read: no picture that is read takes as much, even where nothing in it could be compressed."""
MOST_CLASSES = 100_000
"""A `label` from here on is the number of something else, of the picture say: it is taken for none."""

RawPicture = tuple[str, bytes | PictureError, int]
"""(name, the picture file's bytes or why there are none, label or −1)."""


@dataclass(frozen=True, kw_only=True)
class PictureFiles:
    """A folder, local or in a bucket, and the files in it."""

    spec: str
    """What the user wrote."""
    filesystem: fs.FileSystem
    root: str
    """The folder's path within `filesystem`; for a single file, the folder that holds it."""
    names: tuple[str, ...]
    """Files relative to `root`, sorted; hidden ones (a leading dot, in any part) are left out."""

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


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


def find_files(spec: str, path: str) -> PictureFiles:
    """All files below `path`, a local path or a bucket's URI (s3://, gs://, abfs://, hdfs://, file://).

    Raises DataError when it is missing, empty, or cannot be listed, or a name in it is not UTF-8; StorageError for a file URL that
    is none, and for a home that is none.
    """
    shown = redacted(path)
    try:
        if path.startswith(FILE_URL):
            filesystem, root = fs.LocalFileSystem(), str(path_of_url(path))
        elif "://" in path:
            filesystem, root = fs.FileSystem.from_uri(path.replace(" ", "%20"))
        else:
            filesystem, root = fs.LocalFileSystem(), str(local_path(path).absolute())
        root = root.rstrip("/")
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.NotFound:
            raise DataError(f"{shown}: no such file or folder")
        if info.type == fs.FileType.File:
            root, _, name = root.rpartition("/")
            return PictureFiles(spec=spec, filesystem=filesystem, root=root, names=(name,))
        if isinstance(filesystem, fs.LocalFileSystem):
            names = _files_below(root)
        else:
            found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
            names = [entry.path[len(root) :].lstrip("/") for entry in found if entry.type == fs.FileType.File]
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise DataError(f"{printable(shown)}: cannot be listed: {one_line(without_secrets(str(error)))}") from error
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    for name in visible:
        if not name.isascii() and os.fsencode(name).decode(errors="replace") != name:
            raise DataError(f"{shown}: {printable(name)}: its name is not valid UTF-8: rename it")
    if not visible:
        raise DataError(f"{shown}: the folder is empty")
    return PictureFiles(spec=spec, filesystem=filesystem, root=root, names=tuple(visible))


def pictures_of(place: PictureFiles, split: str) -> list[str]:
    """The picture files of `split` (train, test, or all: both), in the order of their hashes: any head of the list is a fair sample.

    Raises DataError when the place holds no pictures (by suffix), or none for `split`.
    """
    pictures = _pictures_among(place)
    if not pictures:
        others = f"{len(place.names)} other {'file' if len(place.names) == 1 else 'files'}"
        raise DataError(f"{place.spec}: no pictures in it ({', '.join(PICTURE_SUFFIXES)}), only {others}")
    train, test = _by_folder(place)
    test = test or _hashed_for_test(train)
    chosen = test if split == "test" else train | test if split == "all" else train - test
    _check_some(chosen, split, place)
    return sorted(chosen, key=_hash)


def others_of(place: PictureFiles, split: str) -> int:
    """How many files of `split` (train, test, or all) are pictures of formats that are not read, by their suffixes."""
    others = [name for name in place.names if name.lower().endswith(OTHER_SUFFIXES)]
    inside = _common_folder(place)
    test = {name for name in others if _top(name, inside) in TEST_NAMES}
    if not test and not has_test_folder(place):
        test = {name for name in others if _is_hashed_for_test(name)}
    return len(test) if split == "test" else len(others) if split == "all" else len(others) - len(test)


def outside_of(place: PictureFiles, split: str) -> int:
    """How many of its pictures belong to no split: they lie beside a `train` folder, and in no test folder. They count with what is not
    the test.
    """
    return 0 if split == "test" else len(_pictures_among(place)) - sum(len(part) for part in _by_folder(place))


def has_test_folder(place: PictureFiles) -> bool:
    """Whether the layout itself says which pictures are for the test."""
    return bool(_by_folder(place)[1])


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
    _check_some(wanted, split, place)

    schemas: dict[str, pa.Schema] = {}
    sizes: dict[str, list[int]] = {}
    for name in wanted:
        schemas[name], sizes[name] = _footer(place, name)
    rows = [(name, group, row) for name in wanted for group, count in enumerate(sizes[name]) for row in range(count)]
    if not by_name:
        keys = {f"{name}:{group}:{row}" for name, group, row in rows}
        hashed = _hashed_for_test(keys)
        rows = [at for at in rows if (f"{at[0]}:{at[1]}:{at[2]}" in hashed) == (split == "test")]
    _check_some(rows, split, place)
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


def open_pictures(place: PictureFiles, names: Iterable[str]) -> Iterator[RawPicture]:
    """The bytes of each file, or why it cannot be read; there are no labels."""
    for name in names:
        try:
            with place.filesystem.open_input_file(place.path(name)) as file:
                _check_bytes(file, name)
                data = file.read()
        except PictureError as error:
            yield name, error, -1
        except (OSError, MemoryError) as error:
            yield name, PictureError(f"{name}: cannot be read: {one_line(error)}"), -1
        else:
            yield name, data, -1


def _check_bytes(file: pa.NativeFile, name: str) -> None:
    """Raises PictureError for a file of more bytes than a picture has, or of so many that it is looked at first, and is none."""
    if (size := file.size()) > LARGE_BYTES:
        format_of(file.read(HEAD_BYTES), name)
        file.seek(0)
    if size > MOST_BYTES:
        raise PictureError(f"{name}: has {size:,} bytes; files of up to {MOST_BYTES:,} are read")


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


def square_of(data: bytes, name: str, side: int) -> np.ndarray:
    """The central square of a picture file as RGB uint8 (3, side, side), scaled up where it is smaller. Raises PictureError."""
    pixels = read_picture(data, name=name).pixels
    height, width = pixels.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + short, left : left + short]))
    if short != side:
        # A gap of 3 lets Pillow average large pictures down first: 20 ms for 10 MP, not 60, and at most 7 in 255 apart.
        square = square.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    rgb_hwc = np.asarray(square.convert("RGB"))
    return np.ascontiguousarray(rgb_hwc.transpose(2, 0, 1))


def read_squares(files: Iterable[RawPicture], side: int) -> tuple[np.ndarray, np.ndarray, list[str], dict[str, str]]:
    """RGB (b, 3, side, side), labels (b,) and names of the pictures that could be read, and name → reason of the others."""
    squares, labels, names, unreadable = [], [], [], {}
    for name, data, label in files:
        try:
            if isinstance(data, PictureError):
                raise data
            squares.append(square_of(data, name, side))
        except PictureError as error:
            unreadable[name] = str(error).removeprefix(f"{name}: ")
            continue
        labels.append(label)
        names.append(name)
    stacked = np.stack(squares) if squares else np.empty((0, 3, side, side), np.uint8)
    return stacked, np.array(labels, np.int64), names, unreadable


def _files_below(root: str) -> list[str]:
    """The files below a local folder, relative to it, without hidden ones. Raises OSError.

    Links are followed, but not to a folder that they lie in: pyarrow goes round such a loop forty times, and one picture becomes many, for
    training and for the test. A link to nothing counts as a file, one that cannot be read.
    """
    names: list[str] = []
    waiting: list[tuple[Path, tuple[os.stat_result, ...]]] = [(Path(root or "/"), ())]
    while waiting:
        folder, around = waiting.pop()
        here = folder.stat()
        if any(os.path.samestat(here, above) for above in around):
            continue
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                waiting.append((path, (*around, here)))
            elif path.is_file() or (path.is_symlink() and not path.exists()):
                names.append(str(path)[len(root) :].lstrip("/"))
    return names


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


def _check_some(chosen: Collection[object], split: str, place: PictureFiles) -> None:
    if not chosen:
        raise DataError(f"{place.spec}: no pictures for the {split} split: give more pictures, or folders named train and test")


def _pictures_among(place: PictureFiles) -> list[str]:
    """The files that are pictures by their names, of the formats that are read."""
    return [name for name in place.names if name.lower().endswith(PICTURE_SUFFIXES)]


def _by_folder(place: PictureFiles) -> tuple[set[str], set[str]]:
    """Those to train on and those of the test, by their folders; where no folder is named train, all that are not of the test."""
    pictures, inside = _pictures_among(place), _common_folder(place)
    test = {name for name in pictures if _top(name, inside) in TEST_NAMES}
    return {name for name in pictures if _top(name, inside) == "train"} or set(pictures) - test, test


def _common_folder(place: PictureFiles) -> str:
    """The folder in which all pictures lie, with its `/`, as an unpacked archive has one; "" where there is none.

    It ends above a folder that names a split itself.
    """
    folders = [name.split("/")[:-1] for name in _pictures_among(place)]
    pairs = zip(min(folders, default=()), max(folders, default=()), strict=False)  # what the first and the last share, all do
    common = itertools.takewhile(lambda pair: pair[0] == pair[1] and pair[0].lower() not in ("train", *TEST_NAMES), pairs)
    return "".join(f"{folder}/" for folder, _ in common)


def _top(name: str, inside: str) -> str:
    """The outermost folder inside a folder, in small letters; "" for what lies directly in it, and for what lies elsewhere."""
    folder, slash, _ = name.removeprefix(inside).partition("/")
    return folder.lower() if slash and name.startswith(inside) else ""


def _is_for(name: str, words: tuple[str, ...]) -> bool:
    """Whether a Parquet file is of a split of one of these names: by its own name; where that names no split, by its folder's."""
    stem, folder = PurePosixPath(name).stem.lower(), PurePosixPath(name).parent.name.lower()
    if any(_opens_with(stem, word) for word in ("train", *TEST_NAMES)):
        return any(_opens_with(stem, word) for word in words)
    return folder in words


def _opens_with(stem: str, word: str) -> bool:
    return stem == word or stem.startswith((f"{word}-", f"{word}_"))


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _is_hashed_for_test(name: str) -> bool:
    return int.from_bytes(_hash(name)[:8], "big") % TEST_SHARE == 0


def _hashed_for_test(names: set[str]) -> set[str]:
    chosen = {name for name in names if _is_hashed_for_test(name)}
    return chosen or ({min(names, key=_hash)} if names else set())
