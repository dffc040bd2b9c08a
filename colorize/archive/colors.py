"""The colour pictures inside an archive: which they are, and as rows to train on. Nothing is ever written into the archive.

What counts as in colour is what a bulk run skips as `in colour already`: `colorize.imaging.tint.is_colored` on the same thumbnail, so
sepia, cyanotypes and faded prints are not. Pictures that this program has coloured say so in their metadata and are left out: a model
must not learn from its own guesses. Of a file of several pages the first one in colour counts. Every format is read that the archive reads.
Two passes: the first opens every picture at thumbnail size and keeps a row each; the second loads those that are trained on, as squares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import TaskPoolStrategy

from colorize import cluster
from colorize.archive.listing import Entry
from colorize.archive.original import PICTURE
from colorize.archive.summary import breaking_off
from colorize.archive.thumbnails import Thumbnail
from colorize.errors import PictureError, RunError, one_line
from colorize.imaging.colorspace import compose
from colorize.imaging.formats import open_scan
from colorize.imaging.scan import Scan
from colorize.imaging.xmp import note_of
from colorize.storage.place import LocalPlace, Place, cause

BLOCK_PICTURES = 64
"""Pictures of a task at most: its rows are its only output, so a block is as large as can be lost."""

LONGEST_ASPECT = 8
"""A longer picture is squeezed before its central square is taken: a strip of 20,000×3 pixels is not enlarged to a wall."""

BLOCKS_A_CPU = 4
"""Small archives are cut finer, so that every CPU gets this many blocks."""

COLOR, PLAIN, MADE, UNREADABLE = "colour", "plain", "made", "unreadable"

SEEN = pa.schema([("path", pa.string()), ("what", pa.string()), ("page", pa.int64()), ("reason", pa.string())])
"""What the first pass says of a picture; `reason` where it is unreadable, `page` where it is in colour."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found in an archive."""

    looked_at: int
    """Pictures that were opened."""
    colored: list[tuple[str, int]]
    """(path, page) of each picture in colour, in the order of their paths."""
    made: int
    """Pictures that this program has coloured: left out."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason)."""

    def to_json(self) -> str:
        """The same, as a run's directory keeps it."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Survey:
        """What `to_json` gave, from the file `name`. Raises RunError for a foreign file."""
        try:
            told: dict[str, Any] = dict(json.loads(data))
            colored = [(str(name), int(page)) for name, page in told["colored"]]
            unreadable = [(str(name), str(reason)) for name, reason in told["unreadable"]]
            return cls(looked_at=int(told["looked_at"]), colored=colored, made=int(told["made"]), unreadable=unreadable)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise RunError(f"{name}: not what was found in an archive ({one_line(error)})") from error


def survey(place: Place, entries: list[Entry], on_progress: Callable[[int, int], None]) -> Survey:
    """Opens every picture once, on the Ray that is connected. `on_progress`: pictures opened and those in colour, after every block.

    Raises ArchiveError when the run breaks off.
    """

    def look(table: pa.Table) -> pa.Table:
        torch.set_num_threads(1)
        return pa.Table.from_pylist([_look(place, path) for path in table["path"].to_pylist()], schema=SEEN)

    items = [{"path": entry.path} for entry in entries]
    blocks = ray.data.from_items(items, override_num_blocks=_blocks(len(items)))
    colored: list[tuple[str, int]] = []
    unreadable: list[tuple[str, str]] = []
    looked_at = made = 0
    results = blocks.map_batches(look, batch_size=None, batch_format="pyarrow", compute=TaskPoolStrategy())
    with breaking_off(place, "the search"):
        tables: Iterator[Any] = iter(results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        for table in tables:
            for row in table.to_pylist():
                looked_at += 1
                if row["what"] == COLOR:
                    colored.append((row["path"], row["page"]))
                elif row["what"] == MADE:
                    made += 1
                elif row["what"] == UNREADABLE:
                    unreadable.append((row["path"], row["reason"]))
            on_progress(looked_at, len(colored))
    return Survey(looked_at=looked_at, colored=sorted(colored), made=made, unreadable=sorted(unreadable))


def load_colors(place: Place, chosen: list[tuple[str, int]], size: int) -> tuple[ray.data.Dataset, list[tuple[str, str]]]:
    """The central squares of (path, page) as materialized rows, and (path, reason) of those that cannot be read.

    The rows are those of `colorize.data`: `L` (1, size, size) float16 0…100, `ab` (2, size, size) float16, `rgb` (3, size, size) uint8,
    `label` −1, `name`.
    """

    def load(table: pa.Table) -> Iterator[dict[str, Any]]:
        torch.set_num_threads(1)
        for path, page in zip(table["path"].to_pylist(), table["page"].to_pylist(), strict=True):
            try:
                L_1hw, ab_2hw = square_of(_open(place, path), page, size)
            except (PictureError, OSError) as error:
                ray.get(bad.add.remote(path, _reason(error)))
                continue
            rgb_3hw = compose(torch.from_numpy(L_1hw)[None], torch.from_numpy(ab_2hw)[None])[0].numpy()
            yield {
                "L": L_1hw[None].astype(np.float16), "ab": ab_2hw[None].astype(np.float16), "rgb": rgb_3hw[None],
                "label": np.array([-1]), "name": np.array([path], dtype=object),
            }  # fmt: skip

    bad: Any = ray.remote(num_cpus=0)(_Unread).remote()
    items = [{"path": path, "page": page} for path, page in chosen]
    blocks = ray.data.from_items(items, override_num_blocks=_blocks(len(items)))
    rows = blocks.map_batches(load, batch_size=None, batch_format="pyarrow", compute=TaskPoolStrategy())
    with breaking_off(place, "the search"):
        dataset = rows.materialize()
        return dataset, sorted(ray.get(bad.all.remote()).items())


def square_of(scan: Scan, page: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The central square of a page, upright: L (1, size, size) 0…100 and ab (2, size, size). Raises PictureError."""
    height, width = scan.pages[page].height, scan.pages[page].width
    scale = size / min(height, width)
    rows, columns = (min(max(size, round(side * scale)), LONGEST_ASPECT * size) for side in (height, width))
    ab_2hw = scan.chroma(page, rows, columns)
    if ab_2hw is None:
        raise PictureError(f"{PICTURE}: has no colour channels any more")
    lab_3hw = scan.pages[page].upright(np.concatenate([scan.lightness(page, rows, columns)[None], ab_2hw]))
    top, left = ((side - size) // 2 for side in lab_3hw.shape[1:])
    square_3hw = np.ascontiguousarray(lab_3hw[:, top : top + size, left : left + size], dtype=np.float32)
    return square_3hw[:1], square_3hw[1:]


class _Unread:
    """Counts by path, so that a task that runs twice counts once."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, path: str, reason: str) -> None:
        self._reasons[path] = reason

    def all(self) -> dict[str, str]:
        return self._reasons


def _look(place: Place, path: str) -> dict[str, Any]:
    """A row of SEEN on one picture."""
    try:
        scan = _open(place, path)
        xmp = scan.metadata.xmp  # once: a TIFF reads its tags for it
        if xmp and note_of(xmp):
            return {"path": path, "what": MADE}
        colored = next((index for index in range(len(scan.pages)) if Thumbnail.of(scan, index).is_colored), None)
    except (PictureError, OSError) as error:
        return {"path": path, "what": UNREADABLE, "reason": _reason(error)}
    return {"path": path, "what": PLAIN if colored is None else COLOR, "page": colored}


def _open(place: Place, path: str) -> Scan:
    """Raises PictureError, OSError."""
    return open_scan(place.root / path if isinstance(place, LocalPlace) else place.read(path), name=PICTURE)


def _reason(error: Exception) -> str:
    return str(error).removeprefix(f"{PICTURE}: ") if isinstance(error, PictureError) else f"cannot be read: {cause(error)}"


def _blocks(count: int) -> int:
    """How many tasks look at so many pictures: some a CPU, so that none waits for another's last one."""
    return min(count, max(-(-count // BLOCK_PICTURES), BLOCKS_A_CPU * max(1, cluster.current().cpus)))
