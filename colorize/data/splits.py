"""Which files belong to a split: the layout says so, where it has one, else a hash.

A layout is a `train` and a `test`, `val`, `valid` or `validation` folder, outermost or below the folder that all pictures share; of Parquet
files, see `parquet`. A hash of the name sends 1 in 20 to the test, the same on every machine and whatever else is added.
"""

import hashlib
import itertools
from collections.abc import Collection

from colorize.data.files import PictureFiles
from colorize.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
OTHER_SUFFIXES = (
    ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm",
    ".heic", ".heif", ".gif", ".jxl", ".avif", ".psd", ".psb", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf",
)  # fmt: skip
"""Names of pictures that are not read here: such files are counted, so that nobody takes them for trained on."""
TEST_NAMES = ("test", "val", "valid", "validation")
TEST_SHARE = 20
"""Without a layout that says so, 1 picture in this many is for the test."""


def pictures_of(place: PictureFiles, split: str) -> list[str]:
    """The picture files of `split` (train, test, or all: both), in the order of their hashes: any head of the list is a fair sample.

    Raises DataError when the place holds no pictures (by suffix), or none for `split`.
    """
    pictures = _pictures_among(place)
    if not pictures:
        others = f"{len(place.names)} other {'file' if len(place.names) == 1 else 'files'}"
        raise DataError(f"{place.spec}: no pictures in it ({', '.join(PICTURE_SUFFIXES)}), only {others}")
    train, test = _by_folder(place)
    test = test or hashed_for_test(train)
    chosen = test if split == "test" else train | test if split == "all" else train - test
    check_some(chosen, split, place)
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


def hashed_for_test(names: set[str]) -> set[str]:
    """Those of them whose hash sends them to the test; one at least, where there is one."""
    chosen = {name for name in names if _is_hashed_for_test(name)}
    return chosen or ({min(names, key=_hash)} if names else set())


def check_some(chosen: Collection[object], split: str, place: PictureFiles) -> None:
    """Raises DataError where nothing was chosen for `split`."""
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


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _is_hashed_for_test(name: str) -> bool:
    return int.from_bytes(_hash(name)[:8], "big") % TEST_SHARE == 0
