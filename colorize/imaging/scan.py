"""A scan: one picture file, opened, whatever its format. What the archive, the service and the command line ask of all of them.

Every format's module implements `Scan`; `colorize.imaging.formats.open_scan` tells by the content which one it is. A scan gives the
network a small lightness, takes a small chroma back, and writes its own coloured counterpart: same format, size, bit depth,
orientation and metadata. What is expensive (pixels at full size) stays inside the scan and is never held longer than it must.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from colorize.imaging.metadata import Metadata
from colorize.imaging.note import Note
from colorize.imaging.upsample import Point

Pixels = npt.NDArray[Any]
"""uint8 or uint16, full range."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One picture of a file. Pixels stay as stored; `upright` and `as_stored` apply the orientation and take it back."""

    width: int
    height: int
    bits: int
    """Of a channel of the coloured file: 8 (fewer are widened) or 16; of JPEG 2000 those between them too."""
    orientation: int = 1
    """As EXIF and TIFF have it, 1…8; 1 is upright."""
    is_reduced: bool = False
    """A smaller copy of another page, such as a thumbnail."""

    @property
    def upright_shape(self) -> tuple[int, int]:
        """(height, width) as it is to be looked at."""
        return (self.width, self.height) if self.orientation in (5, 6, 7, 8) else (self.height, self.width)

    def upright(self, plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A plane (…, h, w) as stored, turned and mirrored as it is to be looked at: skies are where a network expects them."""
        if self.orientation in (5, 6, 7, 8):
            plane = plane.swapaxes(-1, -2)
        if self.orientation in (3, 4, 7, 8):
            plane = plane[..., ::-1, :]
        if self.orientation in (2, 3, 6, 7):
            plane = plane[..., ::-1]
        return plane

    def as_stored(self, plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What `upright` took."""
        if self.orientation in (2, 3, 6, 7):
            plane = plane[..., ::-1]
        if self.orientation in (3, 4, 7, 8):
            plane = plane[..., ::-1, :]
        if self.orientation in (5, 6, 7, 8):
            plane = plane.swapaxes(-1, -2)
        return plane

    def stored_place(self, across: float, down: float) -> tuple[float, float]:
        """Where a place of the upright page, 0…1 of its width and height, lies as stored."""
        if self.orientation in (2, 3, 6, 7):
            across = 1 - across
        if self.orientation in (3, 4, 7, 8):
            down = 1 - down
        return (down, across) if self.orientation in (5, 6, 7, 8) else (across, down)


class Scan(ABC):
    """A picture file, opened and checked as far as its header says: format, size limits, pages."""

    name: str
    """What messages call it."""
    format: str
    """As Pillow names it: JPEG, PNG, TIFF, WEBP, JPEG2000, BMP, PPM, HEIF."""
    pages: tuple[Page, ...]
    """In the file's order; most formats have one."""

    @abstractmethod
    def lightness(self, page: int, height: int, width: int) -> npt.NDArray[np.float32]:
        """The lightness L (height, width), 0…100, of a page at a small size, antialiased, as stored.

        Raises PictureError where the page is damaged.
        """

    @abstractmethod
    def chroma(self, page: int, height: int, width: int) -> npt.NDArray[np.float32] | None:
        """The file's own ab (2, height, width) of a page at a small size, as stored; None where it has no colour channels.

        Raises PictureError where the page is damaged.
        """

    @property
    @abstractmethod
    def metadata(self) -> Metadata:
        """What the file says besides its pixels; of a file of several pages, its first."""

    @abstractmethod
    def bands(self, page: int) -> Iterator[tuple[Pixels, Pixels | None]]:
        """A page from the top, some rows at a time, as stored, for `convert`: RGB (h, w, 3), and alpha (h, w) where it has one.

        The colours are never multiplied by alpha, whatever the file has. Raises PictureError where the page is damaged.
        """

    @abstractmethod
    def write(self, target: BinaryIO, ab_2hw: Sequence[npt.NDArray[np.float32]], note: Note | None, points: Sequence[Point] = ()) -> None:
        """Writes the file in colour: one chroma (2, h', w') a page, as stored, at any resolution, covering the whole page.

        points: of a file of one page, places as stored that have colours of their own, to the pixel.
        `target` is seekable, empty, and open for reading and writing. Raises PictureError where the file is damaged or its format cannot
        hold the result, and OSError where `target` cannot be written; then what it holds is worth nothing.
        """
