"""How large a planned run is and how long it may take, from the pictures' headers: `--dry-run`. Writes nothing, and needs no Ray.

The time comes from what this target's pictures have taken before, where there are enough of them; otherwise from SECONDS_A_PICTURE and
SECONDS_A_MEGAPIXEL, measured on one core of an AMD EPYC. The start of the workers is left out.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from colorize.archive.manifest import STAGES
from colorize.imaging.formats import is_known, open_scan
from colorize.imaging.formats.tiff import TiffScan
from colorize.imaging.scan import Scan
from colorize.storage.place import LocalPlace, Place

SECONDS_A_PICTURE = 0.035
SECONDS_A_MEGAPIXEL = 0.14

SAMPLED = 2_000
"""Headers that are read at most, spread evenly over the pictures."""

HEADER_BYTES = 1 << 18
"""Where the size stands in all but a few files: behind the EXIF block with its thumbnail, and the profile."""

ENOUGH = 20


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run would have to do."""

    pictures: int
    megapixels: float
    is_sampled: bool
    """True: the megapixels are those of a sample, scaled up."""
    unreadable: int
    """Pictures of the sample without a readable header: they will fail, most likely."""
    seconds: float
    """Of a worker, divided by the workers."""
    workers: int


def estimate(source: Place, paths: list[str], manifest: pa.Table, workers: int) -> Estimate:
    """Reads headers; `manifest` gives the speed so far."""
    sample = paths if len(paths) <= SAMPLED else [paths[index * len(paths) // SAMPLED] for index in range(SAMPLED)]
    with warnings.catch_warnings(), ThreadPoolExecutor(1 if isinstance(source, LocalPlace) else 16) as pool:
        warnings.simplefilter("ignore")  # Pillow's, over sizes that this program judges itself
        pixels = list(pool.map(lambda path: _pixels(source, path), sample))
    known = [one for one in pixels if one is not None]
    scale = len(paths) / max(1, len(sample))
    megapixels = sum(known) * scale / 1e6
    colored = manifest.filter(pc.equal(manifest["status"], "coloured"))
    seconds = SECONDS_A_PICTURE * len(paths) + SECONDS_A_MEGAPIXEL * megapixels
    if colored.num_rows >= ENOUGH:
        spent = sum(pc.sum(colored[stage]).as_py() or 0.0 for stage in STAGES)
        had = pc.sum(pc.multiply(pc.cast(colored["width"], pa.int64()), colored["height"])).as_py() / 1e6
        guessed = SECONDS_A_PICTURE * colored.num_rows + SECONDS_A_MEGAPIXEL * had
        seconds *= spent / guessed
    return Estimate(
        pictures=len(paths), megapixels=megapixels, is_sampled=len(sample) < len(paths), unreadable=len(pixels) - len(known),
        seconds=seconds / workers, workers=workers,
    )  # fmt: skip


def _pixels(source: Place, path: str) -> int | None:
    """Of all its pages, by its headers; None where there is none to be read.

    Pillow tells the size by the first bytes. A TIFF's directories may stand anywhere in it, and only they are read. What Pillow refuses
    (as too large, or HEIF) is opened as a run does, with all of its bytes.
    """
    try:
        with source.open(path) as file:
            head = file.read(HEADER_BYTES)
        if not is_known(head):
            return None
        if head.startswith((b"II", b"MM")):
            with source.open_seekable(path) as file:
                return _sum(TiffScan(cast(BinaryIO, file), path))
        try:
            with Image.open(BytesIO(head)) as image:
                return image.width * image.height
        except Exception:  # noqa: BLE001 – whatever half a file makes Pillow do
            return _sum(open_scan(source.root / path if isinstance(source, LocalPlace) else source.read(path)))
    except Exception:  # noqa: BLE001 – the run itself will say what is wrong
        return None


def _sum(scan: Scan) -> int:
    return sum(page.width * page.height for page in scan.pages)
