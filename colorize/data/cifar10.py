"""CIFAR-10 in its official binary layout: found, unpacked, checked, handed out as records; and the sample that is bundled.

Knows nothing of Ray, LAB or networks. The layout (https://www.cs.toronto.edu/~kriz/cifar.html): `data_batch_1.bin` to
`data_batch_5.bin` (training) and `test_batch.bin`, 10,000 records each of 1 label byte (0…9) and 3,072 pixel bytes (32×32, the
R, G and B planes one after another). All six have known MD5 sums and are checked, so an altered archive is an error whatever
its tar and gzip headers say: 0.05 s a member, beside 0.3 s to unpack it. An archive is read as a stream, one member of 30 MB in
memory at a time, and nothing is written to disk.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from colorize.errors import DataError

Split = Literal["train", "test"]

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE
RECORDS_A_FILE = 10_000
FOLDER_NAME = "cifar-10-batches-bin"

MEMBER_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
MEMBERS: dict[str, tuple[str, ...]] = {
    "train": ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"),
    "test": ("test_batch.bin",),
}

SAMPLE_FOLDER = Path(__file__).parent.parent / "sample"
_SAMPLE: dict[str, tuple[str, int, str]] = {
    "train": ("cifar10_train.webp", 2_000, "ea4952e34cda759c298b553ed0d5525d"),
    "test": ("cifar10_test.webp", 500, "7f5d26015195bc0f87d569143f19013c"),
}
_SAMPLE_TILES_ACROSS = 50


def read_batches(path: Path, split: Split) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (member name, records (10000, 3073) uint8) of `split`, in the published order.

    `path`: the archive (`.tar.gz`, or an unpacked `.tar`), the folder that holds the `.bin` files, or the folder around it.
    Raises DataError, naming the file and the cause, when it is missing, truncated, altered or something else.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder: give the CIFAR-10 binary archive (cifar-10-binary.tar.gz)")
    return _from_folder(path, split) if path.is_dir() else _from_archive(path, split)


def read_sample(split: Split) -> np.ndarray:
    """The bundled pictures of `split` as records (n, 3073) uint8: 2,000 for training, 500 to test, record i of class i mod 10.

    Raises DataError when the installed file is missing or damaged.
    """
    name, count, md5 = _SAMPLE[split]
    path = SAMPLE_FOLDER / name
    try:
        with Image.open(path) as picture:
            mosaic_hwc = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the bundled sample is missing or damaged ({error}): install colorize again") from error
    rows = count // _SAMPLE_TILES_ACROSS
    if mosaic_hwc.shape != (rows * SIDE, _SAMPLE_TILES_ACROSS * SIDE, 3):
        raise DataError(f"{path}: the bundled sample is damaged (size {mosaic_hwc.shape}): install colorize again")
    tiles = mosaic_hwc.reshape(rows, SIDE, _SAMPLE_TILES_ACROSS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(count, -1)
    if hashlib.md5(tiles.tobytes(), usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{path}: the bundled sample is damaged (its pixels have changed): install colorize again")
    labels = (np.arange(count) % len(CLASS_NAMES)).astype(np.uint8)
    return np.concatenate([labels[:, None], tiles], axis=1)


def _from_folder(path: Path, split: Split) -> Iterator[tuple[str, np.ndarray]]:
    folder = path / FOLDER_NAME if (path / FOLDER_NAME).is_dir() else path
    if not any((folder / name).is_file() for name in MEMBER_MD5):
        python = any((folder / name).is_file() for name in ("data_batch_1", "test_batch"))
        raise DataError(f"{path}: {_PYTHON_VERSION if python else f'no CIFAR-10 folder: {MEMBERS[split][0]} is not in it'}")
    for name in MEMBERS[split]:
        file = folder / name
        try:
            data = file.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{file}: missing from the CIFAR-10 folder: unpack the archive again") from error
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
        yield name, _records(data, name, file)


_PYTHON_VERSION = "this is CIFAR-10's Python version, which is pickled: download the binary version, cifar-10-binary.tar.gz"


def _from_archive(path: Path, split: Split) -> Iterator[tuple[str, np.ndarray]]:
    wanted = list(MEMBERS[split])
    seen: list[str] = []
    try:
        # A stream: gzip cannot seek. The published archive keeps its members in no order, so they are handed out as they come.
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                seen.append(name)
                if name not in wanted:
                    continue
                if not member.isfile() or member.size != RECORDS_A_FILE * RECORD_BYTES:
                    raise DataError(f"{path}: altered: {name} has {member.size:,} bytes, not {RECORDS_A_FILE * RECORD_BYTES:,}")
                content = tar.extractfile(member)
                assert content is not None, "a regular member has content"
                records = _records(content.read(), name, path)
                wanted.remove(name)
                yield name, records
                if not wanted:
                    return
    except (tarfile.ReadError, tarfile.StreamError, EOFError, zlib.error) as error:
        if not seen and not _looks_packed(path):
            raise DataError(f"{path}: not a tar.gz archive: give the CIFAR-10 binary archive (cifar-10-binary.tar.gz)") from error
        raise DataError(f"{path}: truncated or damaged ({error}): download it again") from error
    except OSError as error:  # gzip.BadGzipFile is one, and so is a disk that fails
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if any(name in ("data_batch_1", "test_batch") for name in seen):
        raise DataError(f"{path}: {_PYTHON_VERSION}")
    if not any(name in MEMBER_MD5 for name in seen):
        raise DataError(f"{path}: not the CIFAR-10 archive: it holds no {MEMBERS[split][0]}")
    raise DataError(f"{path}: truncated or altered: it holds no {', '.join(wanted)}: download it again")


def _looks_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _records(data: bytes, name: str, source: Path) -> np.ndarray:
    """Checks one member's bytes and gives them as (10000, 3073) uint8, read-only."""
    where = f"{source}" if source.name == name else f"{source}: {name}"
    expected = RECORDS_A_FILE * RECORD_BYTES
    if len(data) != expected:
        cause = "truncated" if len(data) < expected else "altered"
        raise DataError(f"{where}: {cause}: {len(data):,} bytes, not {expected:,}: download it again")
    records = np.frombuffer(data, np.uint8).reshape(RECORDS_A_FILE, RECORD_BYTES)
    worst = int(records[:, 0].max())
    if worst >= len(CLASS_NAMES):
        raise DataError(f"{where}: altered: a label is {worst}, not 0 to {len(CLASS_NAMES) - 1}: download it again")
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != MEMBER_MD5[name]:
        raise DataError(f"{where}: altered: its bytes are not the published ones (MD5): download it again")
    return records
