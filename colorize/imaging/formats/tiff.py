"""TIFF files as scans: every page in colour, with its tags, in strips or tiles, never held whole.

What comes out: RGB of 8 bits, or of 16 where the page has more than 8 (others are widened, palettes expanded), BlackIsZero, channels
together, extra channels as they are (of associated alpha too: the numbers stored keep their lightness), the source's byte order, strips or
tiles, compression and predictor. JPEG and CCITT are deflated instead (`BandWriter` says why), strips above 16 MiB divided. BigTIFF where
the source is, or where the result is larger than 4 GB.

Which pages: all of the main chain and those that hang below them (SubIFDs), reduced pictures too, so that no grey thumbnail stays beside a
coloured page; in the file's order, each followed by those below it. Transparency masks are not pictures: they are copied and are not
among `pages`. A page that cannot be read makes the file an error: nothing is lost without a word.

Which tags: all, byte for byte, EXIF and GPS directories included, except those that describe the old pixels (bits, palette, fill order,
response curves, minima and maxima; the transfer function where it is of other pixels than RGB), those of a field type that there is not,
and Photoshop's layers, which Photoshop would show in place of the picture. A maker note that refers to places in its own file cannot be
moved by anybody.

Measured on 100 MP on one thread, in MP/s of reading small and of writing, and in MB above the imports (the colours are random, so much
of them has to be brought into the gamut; of the writing, deflate takes most):

    8-bit grey: plain strips 940, 31, 107; deflated strips 250, 10, 111; one deflated strip 220, 15, 198; RGB: tiles of LZW 63, 16, 120,
    of JPEG 140, 16, 151. 16-bit grey: strips of LZW 100, 11, 107; deflated tiles 190, 10, 155; RGB: one plain strip 82, 23, 133; deflated
    tiles 63, 10, 208; one deflated strip 38, 8, 254.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from colorize.errors import PictureError
from colorize.imaging.formats.tiff_bands import Band, BandWriter, read_bands
from colorize.imaging.formats.tiff_directory import MAX_PAGES, SUB_IMAGES, Directory, Source, Tag, check_claim, read_structure
from colorize.imaging.formats.tiff_exif import exif_block
from colorize.imaging.formats.tiff_raster import ASSOCIATED, MASK, RGB, UNASSOCIATED, Raster, read_raster
from colorize.imaging.formats.tiff_target import NewDirectory, NewTag, Target, copied_tag
from colorize.imaging.metadata import Metadata, iptc_among, iptc_of_tag
from colorize.imaging.note import Note
from colorize.imaging.scan import Page, Pixels, Scan
from colorize.imaging.space import RgbSpace
from colorize.imaging.upsample import ChromaUpsampler, Point
from colorize.imaging.xmp import provenance_xmp

XMP, IPTC, ICC_PROFILE, ORIENTATION, KIND_OF_PAGE, OLD_KIND_OF_PAGE = 700, 33723, 34675, 274, 254, 255
RESOLUTION = (282, 283, 296)
"""Across, down, and its unit."""

_RESOURCES = 34377
"""Photoshop's, as in a JPEG's APP13."""
_LAYERS = 37724
_TRANSFER_FUNCTION = 301
_OFFSETS = {324: 325, 273: 279, 288: 289}  # of tiles, strips, free space: the tags with their lengths
_SEGMENT_CLAIM = 64
"""Bytes that a strip or tile of a mask claims at least: millions of empty ones take their time too."""
_OF_OLD_PIXELS = {258, 259, 262, 266, 277, 278, 280, 281, 284, *range(290, 294), 317, 320, 322, 323, *range(338, 342), 347}
_OF_OLD_PIXELS |= {*_OFFSETS, *_OFFSETS.values(), *range(512, 522), 529, 530, 531, 532, _LAYERS}


@dataclass(frozen=True, eq=False)
class _Picture:
    """A page that is coloured."""

    directory: Directory
    raster: Raster
    space: RgbSpace
    is_main: bool
    """In the main chain, not below another page."""


_Part = tuple[int, npt.NDArray[np.float32], Sequence[Point]]
"""A page, its chroma and its points."""


class TiffScan(Scan):
    """A TIFF file. A path is opened for as long as something is read from it."""

    format = "TIFF"

    def __init__(self, file: BinaryIO | Path, name: str) -> None:
        """`file`: seekable and left open, or a path. `name` is what messages call it.

        Raises PictureError for what is missing, no TIFF file, damaged as far as its directories tell, too large, or of a kind that is
        not read; the message says which page it is.
        """
        self.name = name
        self._source = Source(file, name)
        with self._source.opened():
            self._structure = read_structure(self._source)
            self._pictures = self._read_pictures()
        if not self._pictures:
            raise PictureError(f"{name}: has no picture, only masks")
        self.pages = tuple(_page(self._source, picture) for picture in self._pictures)
        self._small: tuple[tuple[int, int, int], npt.NDArray[np.float32]] | None = None

    def lightness(self, page: int, height: int, width: int) -> npt.NDArray[np.float32]:
        picture = self._pictures[page]
        raster = picture.raster
        if (height, width) != (raster.height, raster.width):
            small: npt.NDArray[np.float32] = self._small_lab(page, height, width)[0]
            return small
        L_hw = np.empty((height, width), np.float32)
        with self._source.opened():
            for band in read_bands(self._source, raster):
                L_hw[band.top : band.top + len(band.pixels)] = picture.space.lightness(band.pixels)
        return L_hw

    def chroma(self, page: int, height: int, width: int) -> npt.NDArray[np.float32] | None:
        return self._small_lab(page, height, width)[1:] if self._pictures[page].raster.has_color else None

    @property
    def metadata(self) -> Metadata:
        """See `Scan`. Of EXIF what `tiff_exif` takes over: the orientation is on the pages."""
        directory = self._pictures[0].directory
        with self._source.opened():
            xmp, profile, iptc = (
                self._source.value(tag) if (tag := directory.find(code)) is not None else None for code in (XMP, ICC_PROFILE, IPTC)
            )
            dpi, exif = self._resolution(directory), exif_block(self._source, directory)
            if iptc:
                iptc = iptc_of_tag(iptc)
            elif resources := directory.find(_RESOURCES):  # where some programs write it only
                iptc = iptc_among(self._source.value(resources))
        return Metadata(exif=exif, xmp=xmp, icc_profile=profile, iptc=iptc, dpi=dpi)

    def bands(self, page: int) -> Iterator[tuple[Pixels, Pixels | None]]:
        """See `Scan`."""
        raster = self._pictures[page].raster
        with self._source.opened():
            for band in read_bands(self._source, raster):
                rgb_hwc = np.repeat(band.pixels[..., None], 3, axis=2) if band.pixels.ndim == 2 else band.pixels
                alpha_hw = band.extras[..., 0] if band.extras is not None and raster.extras[0] in (ASSOCIATED, UNASSOCIATED) else None
                if alpha_hw is not None and raster.extras[0] == ASSOCIATED:
                    rgb_hwc = _divided(rgb_hwc, alpha_hw)
                yield rgb_hwc, alpha_hw
                del band, rgb_hwc, alpha_hw  # or they would be held while the next is decoded

    def _resolution(self, directory: Directory) -> tuple[float, float] | None:
        """Pixels an inch; None where the file says nothing, or nothing that has a unit."""
        across, down, unit = (directory.find(code) for code in RESOLUTION)
        if across is None or down is None or min(across.size, down.size) < 8:
            return None
        scale = {2: 1.0, 3: 2.54}.get(2 if unit is None else int(self._source.numbers(unit)[0]))
        pairs = [struct.unpack(f"{self._source.order}II", self._source.value(tag)[:8]) for tag in (across, down)]
        if scale is None or any(above <= 0 or below <= 0 for above, below in pairs):
            return None
        x, y = (scale * above / below for above, below in pairs)
        return x, y

    def write(self, target: BinaryIO, ab_2hw: Sequence[npt.NDArray[np.float32]], note: Note | None, points: Sequence[Point] = ()) -> None:
        assert len(ab_2hw) == len(self.pages), f"{len(ab_2hw)} chromas for {len(self.pages)} pages"
        assert not points or len(self.pages) == 1, f"points of one page, not of {len(self.pages)}"
        parts = iter([(page, ab_of_page, points) for page, ab_of_page in enumerate(ab_2hw)])
        with self._source.opened():
            new = Target(target, self._source, self._structure.big)
            new.finish(tuple([self._colored(directory, parts, new, note) for directory in self._structure.chain]))

    def _read_pictures(self) -> list[_Picture]:
        directories = [*_images(self._structure.chain, self._source, profile=None, is_main=True)]
        if len(directories) > MAX_PAGES:
            raise PictureError(f"{self.name}: has {len(directories)} pages; up to {MAX_PAGES} are read: split it")
        pictures: list[_Picture] = []
        spaces: dict[bytes | None, RgbSpace] = {}
        claimed = self._structure.claimed
        for number, (directory, profile, is_main) in enumerate(directories, 1):
            where = f"page {number}: " if len(directories) > 1 else ""
            raster = read_raster(self._source, directory, where)
            claimed += int(raster.counts.sum())
            check_claim(self._source, claimed)
            icc = self._source.value(profile) if profile else None
            if icc not in spaces:
                spaces[icc] = RgbSpace(icc, f"{self.name}: {where}".removesuffix(": "))
            pictures.append(_Picture(directory, raster, spaces[icc], is_main))
        for mask in _masks(self._structure.chain, self._source):
            for code in _OFFSETS.values():
                if lengths := mask.find(code):
                    claimed += int(self._source.numbers(lengths).clip(_SEGMENT_CLAIM).sum(dtype=np.float64))
                    check_claim(self._source, claimed)
        return pictures

    def _small_lab(self, page: int, height: int, width: int) -> npt.NDArray[np.float32]:
        """LAB (3, height, width), kept for the next call: lightness and chroma come from one reading."""
        if self._small is None or self._small[0] != (page, height, width):
            picture = self._pictures[page]
            raster = picture.raster
            reduction = _Reduction((raster.height, raster.width), (height, width), 3 if raster.has_color else 1)
            with self._source.opened():
                for band in read_bands(self._source, raster):
                    reduction.add(band)
                    del band  # or it would be held while the next is decoded
            self._small = (page, height, width), picture.space.lab(reduction.pixels())
        return self._small[1]

    def _colored(self, directory: Directory, parts: Iterator[_Part], target: Target, note: Note | None) -> NewDirectory:
        """A page with those below it, whose pixels are in the target now."""
        if _is_mask(self._source, directory):
            return self._copied_mask(directory, target)
        page, ab_2hw, points = next(parts)
        picture = self._pictures[page]
        assert picture.directory is directory, "pages come in their order"
        pixels = self._write_pixels(page, ab_2hw, points, target)
        replaced = _OF_OLD_PIXELS | {ICC_PROFILE, XMP} | (set() if picture.raster.photometric == RGB else {_TRANSFER_FUNCTION})
        tags = [
            NewTag(tag.code, tag.type, tuple([self._colored(child, parts, target, note) for child in tag.children]))
            if tag.code == SUB_IMAGES and tag.children
            else copied_tag(tag)
            for tag in directory.tags
            if tag.code not in replaced
        ]
        if picture.space.output_profile and directory.find(ICC_PROFILE):
            tags.append(NewTag(ICC_PROFILE, 7, picture.space.output_profile))
        old = directory.find(XMP)
        xmp = self._source.value(old) if old else None
        if picture.is_main and note is not None:
            xmp = provenance_xmp(xmp, note, name=self.name)
        if xmp:
            tags.append(NewTag(XMP, old.type if old else 1, xmp))
        return NewDirectory((*tags, *pixels))

    def _write_pixels(self, page: int, ab_2hw: npt.NDArray[np.float32], points: Sequence[Point], target: Target) -> list[NewTag]:
        """The page in colour, band by band; the tags that describe it.

        What guides the chroma is read anew at the chroma's size, so that the result does not depend on what was asked for before.
        """
        picture = self._pictures[page]
        raster, space = picture.raster, picture.space
        small = min(ab_2hw.shape[1], raster.height), min(ab_2hw.shape[2], raster.width)
        ab_2hw, small_L_hw = np.ascontiguousarray(ab_2hw, np.float32), self._small_lab(page, *small)[0]
        upsampler = ChromaUpsampler(ab_2hw, small_L_hw, raster.height, raster.width, points)
        writer = BandWriter(target, raster, self._source.order)
        for band in read_bands(self._source, raster):
            L_hw = space.lightness(band.pixels)
            rgb_hwc: Pixels = space.compose(L_hw, upsampler.rows(band.top, L_hw), raster.bits)
            writer.write(rgb_hwc if band.extras is None else np.concatenate([rgb_hwc, band.extras], axis=2))
            del band, L_hw, rgb_hwc  # or they would be held while the next are made
        return writer.finish()

    def _copied_mask(self, directory: Directory, target: Target) -> NewDirectory:
        """A page that is no picture, with its strips or tiles as they are."""
        tags = []
        places = {code: self._copied_segments(directory, code, target) for code in _OFFSETS if directory.find(code)}
        for tag in directory.tags:
            if tag.children and tag.code == SUB_IMAGES:
                raise PictureError(f"{self.name}: has pages below a transparency mask, which are not read")
            tags.append(NewTag(tag.code, tag.type, places[tag.code]) if tag.code in places else copied_tag(tag))
        return NewDirectory(tuple(tags))

    def _copied_segments(self, directory: Directory, code: int, target: Target) -> npt.NDArray[np.uint64]:
        offsets, lengths = directory.find(code), directory.find(_OFFSETS[code])
        if offsets is None or lengths is None or offsets.count != lengths.count:
            raise self._source.damaged("a mask does not say where its pixels are")
        pairs = zip(self._source.numbers(offsets).tolist(), self._source.numbers(lengths).tolist(), strict=True)
        return np.array([target.copy(offset, length) for offset, length in pairs], np.uint64)


class _Reduction:
    """A page at a small size, through a triangle filter as wide as the reduction (torch's antialiased bilinear), a band at a time."""

    def __init__(self, size: tuple[int, int], small: tuple[int, int], channels: int) -> None:
        self._height, self._width = size
        self._small_height, self._small_width = small
        self._sum_chw = torch.zeros((channels, *small))
        self._weight_h = torch.zeros(self._small_height)

    def add(self, band: Band) -> None:
        planes: Pixels = band.pixels[None] if band.pixels.ndim == 2 else band.pixels.transpose(2, 0, 1)
        planes_1chw = torch.from_numpy(planes.astype(np.float32, order="C"))[None]
        if planes.dtype == np.uint8:
            planes_1chw.mul_(257)
        rows = planes_1chw.shape[2]
        narrow_chw = F.interpolate(planes_1chw, size=(rows, self._small_width), mode="bilinear", antialias=True)[0]
        scale = self._height / self._small_height
        reach = max(scale, 1.0)
        first = max(0, int((band.top - reach) / scale - 0.5))
        last = min(self._small_height, int((band.top + rows + reach) / scale + 0.5) + 1)
        centers = (torch.arange(first, last, dtype=torch.float64) + 0.5) * scale
        places = torch.arange(band.top, band.top + rows, dtype=torch.float64) + 0.5
        if scale < 1:  # enlarged: the rows at the edges stand for what is beyond them
            centers = centers.clamp(0.5, self._height - 0.5)
        weights = (1 - (places[None] - centers[:, None]).abs() / reach).clamp_min(0).float()
        self._sum_chw[:, first:last] += torch.matmul(weights, narrow_chw)
        self._weight_h[first:last] += weights.sum(1)

    def pixels(self) -> npt.NDArray[np.uint16]:
        """Grey (h, w) or RGB (h, w, 3)."""
        mean_chw = self._sum_chw / self._weight_h[None, :, None]
        planes = mean_chw.add_(0.5).clamp_(0, 65535).numpy().astype(np.uint16)
        return planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _divided(rgb_hwc: Pixels, alpha_hw: Pixels) -> Pixels:
    """Colours that were multiplied by alpha without it; black where nothing is to be seen."""
    most = np.uint32(np.iinfo(rgb_hwc.dtype).max)
    alpha_hw1 = np.maximum(alpha_hw, 1)[..., None].astype(np.uint32)
    wide_hwc = np.minimum(rgb_hwc, alpha_hw[..., None]) * most  # 65,535 squared and a half of it fit into 32 bits
    wide_hwc += alpha_hw1 // np.uint32(2)
    wide_hwc //= alpha_hw1
    return wide_hwc.astype(rgb_hwc.dtype)


def _images(
    directories: Sequence[Directory], source: Source, profile: Tag | None, is_main: bool
) -> Iterator[tuple[Directory, Tag | None, bool]]:
    """The directories of pictures, each followed by those below it, with the profile that holds for it."""
    for directory in directories:
        if _is_mask(source, directory):
            continue
        own = directory.find(ICC_PROFILE) or profile
        yield directory, own, is_main
        for tag in directory.tags:
            if tag.code == SUB_IMAGES:
                yield from _images(tag.children, source, own, False)


def _masks(directories: Sequence[Directory], source: Source) -> Iterator[Directory]:
    """The directories of transparency masks."""
    for directory in directories:
        if _is_mask(source, directory):
            yield directory
        for tag in directory.tags:
            if tag.code == SUB_IMAGES:
                yield from _masks(tag.children, source)


def _is_mask(source: Source, directory: Directory) -> bool:
    kind, photometric = directory.find(KIND_OF_PAGE), directory.find(262)
    return (kind is not None and bool(int(source.numbers(kind)[0]) & 4)) or (
        photometric is not None and int(source.numbers(photometric)[0]) == MASK
    )


def _page(source: Source, picture: _Picture) -> Page:
    with source.opened():
        orientation, kind, old_kind = (
            default if (tag := picture.directory.find(code)) is None else int(source.numbers(tag)[0])
            for code, default in ((ORIENTATION, 1), (KIND_OF_PAGE, 0), (OLD_KIND_OF_PAGE, 1))
        )
    raster = picture.raster
    return Page(
        width=raster.width,
        height=raster.height,
        bits=raster.bits,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        is_reduced=bool(kind & 1) or old_kind == 2,
    )
