"""The proof that a coloured file has its original's lightness: by DCT coefficients for JPEGs, by pixels for everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from colorize.errors import PictureError
from colorize.imaging.formats.jpeg import JpegScan
from colorize.imaging.formats.jpeg_luma import luma_identical
from colorize.imaging.scan import Scan


def largest_error(bits: int) -> float:
    """What rounding to a depth of 8 to 16 bits a channel may cost, as a share of full scale."""
    return max(1 / ((1 << bits) - 1), 2 / 65535)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison found."""

    method: Literal["dct", "pixels"]
    """dct: the luma's coefficients and quantisation tables of two JPEGs; pixels: the lightness of every pixel."""
    luma_identical: bool
    """Coefficients equal, or no pixel's lightness different."""
    max_lightness_error: float
    """The largest difference of lightness, as a share of full scale, 0…1."""
    is_faithful: bool
    """Identical by `dct`, or within `largest_error` by `pixels`."""


def verify(original: Scan, colored: Scan) -> Verdict:
    """Compares two scans page by page. Raises PictureError where one is damaged, or they differ in size or in the number of pages.

    Where one has all pages but smaller copies of them, as in another format, those are left out.
    """
    pages, others = _pages(original), _pages(colored)
    if len(pages) != len(others):
        pages, others = (_pages(scan, reduced=False) for scan in (original, colored))
    if len(pages) != len(others):
        raise PictureError(f"{colored.name}: has {len(colored.pages)} pages, and {original.name} has {len(original.pages)}")
    for number, other_number in zip(pages, others, strict=True):
        page, other = original.pages[number], colored.pages[other_number]
        if (page.width, page.height) != (other.width, other.height):
            raise PictureError(
                f"{colored.name}: has {other.width}×{other.height} pixels, and {original.name} has {page.width}×{page.height}"
            )
    if isinstance(original, JpegScan) and isinstance(colored, JpegScan):
        identical = luma_identical(original.data, colored.data)
        error = 0.0 if identical else _largest_error(original, 0, colored, 0)
        return Verdict(method="dct", luma_identical=identical, max_lightness_error=error, is_faithful=identical)
    errors = [_largest_error(original, number, colored, other) for number, other in zip(pages, others, strict=True)]
    is_faithful = all(error <= largest_error(original.pages[number].bits) for error, number in zip(errors, pages, strict=True))
    return Verdict(method="pixels", luma_identical=max(errors) == 0, max_lightness_error=max(errors), is_faithful=is_faithful)


def _pages(scan: Scan, *, reduced: bool = True) -> list[int]:
    """The numbers of its pages, with reduced ones or without."""
    return [number for number, page in enumerate(scan.pages) if reduced or not page.is_reduced] or [0]


def _largest_error(original: Scan, number: int, colored: Scan, other: int) -> float:
    page = original.pages[number]
    difference_hw = original.lightness(number, page.height, page.width)
    difference_hw -= colored.lightness(other, page.height, page.width)
    return float(np.abs(difference_hw, out=difference_hw).max()) / 100
