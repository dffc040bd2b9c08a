"""A coloured file in another format than its original's: for whoever wants JPEGs of an archive of TIFFs, say.

Pixels, profile, EXIF, XMP, IPTC and resolution go over as far as the new format holds them; docs/formats.md says what does not. JPEG and
WebP have 8 bits; JPEG has no transparency; only TIFF has pages: what does not fit is an error, but for bits, reduced pages and the largest
values of EXIF. Between JPEG, PNG and WebP an EXIF block goes as it is, damaged or not; what of it becomes tags of a TIFF, and what of a
TIFF's tags becomes a block, is `tiff_exif`'s to say.

PNG and TIFF are written by bands of rows as they come. Pillow's JPEG and WebP take a picture whole; theirs is one array of four channels,
which Pillow uses as it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from colorize.errors import ConfigError, PictureError
from colorize.imaging.formats.png import SIGNATURE, XMP_KEYWORD, png_chunk
from colorize.imaging.formats.tiff import ICC_PROFILE, IPTC, KIND_OF_PAGE, ORIENTATION, RESOLUTION, XMP
from colorize.imaging.formats.tiff_bands import BandWriter
from colorize.imaging.formats.tiff_directory import Order
from colorize.imaging.formats.tiff_exif import exif_tags, exif_within, read_exif
from colorize.imaging.formats.tiff_raster import new_raster
from colorize.imaging.formats.tiff_target import NewDirectory, NewTag, Target
from colorize.imaging.metadata import MAX_SEGMENT, MAX_XMP_IN_JPEG, Metadata, exif_with, iptc_segments, orientation_of, resolution_of
from colorize.imaging.note import Note
from colorize.imaging.scan import Page, Pixels, Scan
from colorize.imaging.xmp import note_of, provenance_xmp
from colorize.imaging.xmp_packet import MAX_PACKET_BYTES

Format = Literal["jpeg", "png", "tiff", "webp"]
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "tiff": (".tif", ".tiff"), "webp": (".webp",),
}  # fmt: skip
"""What files of a format are called; the first is given to files that are called otherwise."""

QUALITY = 95
MAX_SIDES: dict[Format, int] = {"jpeg": 65_500, "webp": 16_383}
"""Pixels in a row or column, at most: libjpeg's limit, and that of the format."""

_EXIF = b"Exif\0\0"
_EXIF_IN_JPEG = MAX_SEGMENT - len(_EXIF)
_ORIENTATION_BYTES = 512
"""No fewer than `exif_with` needs for an orientation: a first directory of the tags that `tiff_exif` takes, anew."""
_WIDTH, _HEIGHT = 256, 257
_MAX_DPI = 65_535


def as_format(text: str | None) -> Format | None:
    """What a user asked for. Raises ConfigError for a format that is not written."""
    for name in SUFFIXES:
        if text is not None and text.lower() == name:
            return name
    if text is None:
        return None
    raise ConfigError(f"format {text}: must be one of {', '.join(SUFFIXES)}")


def converted_name(name: str, wanted: Format | None) -> str:
    """What a file of that name is called in the wanted format: `a.tif` becomes `a.tif.jpg`, so that no two files become one."""
    if wanted is None or name.lower().endswith(SUFFIXES[wanted]):
        return name
    return name + SUFFIXES[wanted][0]


def convert(colored: Scan, wanted: Format, target: BinaryIO, note: Note | None = None) -> None:
    """Writes a coloured scan in another format, with the note also where its own had no place for one. `target`: as for `Scan.write`.

    Raises PictureError where the new format cannot hold it, and OSError where `target` cannot be written.
    """
    pages = [number for number, page in enumerate(colored.pages) if not page.is_reduced] or [0]
    if len(pages) > 1 and wanted != "tiff":
        raise PictureError(f"{colored.name}: has {len(pages)} pages, which {wanted.upper()} does not hold; TIFF does")
    side, most = max(colored.pages[pages[0]].upright_shape), MAX_SIDES.get(wanted)
    if most is not None and side > most:
        raise PictureError(f"{colored.name}: is {side} pixels long, and {wanted.upper()} holds {most}; PNG and TIFF hold it")
    metadata = colored.metadata
    room = MAX_XMP_IN_JPEG if wanted == "jpeg" else MAX_PACKET_BYTES
    if note is not None and (metadata.xmp is None or len(metadata.xmp) > room or note_of(metadata.xmp) is None):
        metadata = replace(metadata, xmp=provenance_xmp(metadata.xmp, note, room, colored.name))
    if wanted == "tiff":
        _write_tiff(colored, target, metadata)
    else:
        {"jpeg": _write_jpeg, "png": _write_png, "webp": _write_webp}[wanted](colored, pages[0], target, metadata)


def _write_jpeg(colored: Scan, page: int, target: BinaryIO, metadata: Metadata) -> None:
    pixels, has_alpha = _four_channels(colored, page)
    if has_alpha and int(pixels[..., 3].min()) < 255:
        raise PictureError(f"{colored.name}: has transparency, which JPEG does not hold; PNG, TIFF and WebP do")
    exif = _exif(metadata, colored.pages[page])
    if exif is not None and len(exif) > _EXIF_IN_JPEG:
        less = exif_within(exif, _EXIF_IN_JPEG - _ORIENTATION_BYTES, colored.name)
        exif = _exif(replace(metadata, exif=less), colored.pages[page])
    options = {"dpi": _dpi(metadata), "extra": metadata.iptc and iptc_segments(metadata.iptc), "subsampling": 0}
    _save(pixels, "RGBX", colored.name, target, "JPEG", replace(metadata, exif=exif), **options)


def _write_webp(colored: Scan, page: int, target: BinaryIO, metadata: Metadata) -> None:
    pixels, has_alpha = _four_channels(colored, page)
    dpi = _dpi(metadata) if resolution_of(metadata.exif) is None else None  # for which only EXIF has a place
    metadata = replace(metadata, exif=_exif(metadata, colored.pages[page], dpi))
    _save(pixels, "RGBA" if has_alpha else "RGBX", colored.name, target, "WEBP", metadata, exact=True)  # colours that nobody sees stay too


def _save(pixels: npt.NDArray[np.uint8], mode: str, name: str, target: BinaryIO, kind: str, metadata: Metadata, **options: Any) -> None:
    """By Pillow, with what is not None of the options, the profile, EXIF and XMP."""
    exif = None if metadata.exif is None else _EXIF + metadata.exif
    options |= {"quality": QUALITY, "icc_profile": metadata.icc_profile, "exif": exif, "xmp": metadata.xmp}
    buffer = BytesIO()
    try:
        image = Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), pixels, "raw", mode, 0, 1)
        image.save(buffer, kind, **{key: value for key, value in options.items() if value is not None})
    except (OSError, ValueError, struct.error) as error:
        raise PictureError(f"{name}: cannot be written as {kind}: {' '.join(str(error).split())}") from error
    target.write(buffer.getbuffer())


def _write_png(colored: Scan, page: int, target: BinaryIO, metadata: Metadata) -> None:
    dpi, exif = _dpi(metadata), _exif(metadata, colored.pages[page])
    bands = _bands(colored, page)
    first = next(bands)
    size, depth, kind = (colored.pages[page].width, colored.pages[page].height), 8 * first.dtype.itemsize, {3: 2, 4: 6}[first.shape[2]]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))]
    if metadata.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)))
    if dpi is not None:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    if exif is not None:
        chunks.append((b"eXIf", exif))
    if metadata.xmp is not None:
        chunks.append((b"iTXt", XMP_KEYWORD + bytes(4) + metadata.xmp))
    target.write(SIGNATURE)
    target.writelines(png_chunk(*chunk) for chunk in chunks)
    compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
    for band in chain([first], bands):
        if data := compressor.compress(_filtered(band).data):
            target.write(png_chunk(b"IDAT", data))
    target.write(png_chunk(b"IDAT", compressor.flush()))
    target.write(png_chunk(b"IEND", b""))


def _filtered(band: Pixels) -> npt.NDArray[np.uint8]:
    """Rows as a PNG has them, (h, bytes): high byte first, each byte less that of the pixel before, and the number of this filter."""
    stored = np.ascontiguousarray(band, band.dtype.newbyteorder(">")).view(np.uint8).reshape(len(band), -1)
    pixel = band.shape[2] * band.dtype.itemsize
    filtered = np.ones((len(band), 1 + stored.shape[1]), np.uint8)
    filtered[:, 1 : 1 + pixel] = stored[:, :pixel]
    np.subtract(stored[:, pixel:], stored[:, :-pixel], out=filtered[:, 1 + pixel :])
    return filtered


def _write_tiff(colored: Scan, target: BinaryIO, metadata: Metadata) -> None:
    """In the byte order of its EXIF, whose values stay as they are."""
    source, directory = read_exif(metadata.exif or b"", colored.name)
    with source.opened():
        new = Target(target, source, big=False)
        on_each = _tiff_tags(metadata, source.order)
        on_first = () if directory is None else exif_tags(source, directory)
        new.finish(
            tuple(
                NewDirectory((*_tiff_page(colored, number, new, source.order), *on_each, *(on_first if number == 0 else ())))
                for number in range(len(colored.pages))
            )
        )


def _tiff_page(colored: Scan, number: int, target: Target, order: Order) -> list[NewTag]:
    """A page whose pixels are in the target now: the tags that say what they are."""
    page, bands = colored.pages[number], _bands(colored, number)
    first = next(bands)
    raster = new_raster(page.width, page.height, 8 * first.dtype.itemsize, has_alpha=first.shape[2] == 4)
    writer = BandWriter(target, raster, order)
    for band in chain([first], bands):
        writer.write(band)
    sizes = ((KIND_OF_PAGE, int(page.is_reduced)), (_WIDTH, page.width), (_HEIGHT, page.height))
    tags = [NewTag(code, 4, np.array([value], np.uint64)) for code, value in sizes]
    if page.orientation != 1:
        tags.append(NewTag(ORIENTATION, 3, struct.pack(order + "H", page.orientation)))
    return [*tags, *writer.finish()]


def _tiff_tags(metadata: Metadata, order: Order) -> list[NewTag]:
    """The tags of metadata that hold for every page, but for EXIF."""
    dpi = _dpi(metadata)
    ratios = [Fraction(value).limit_denominator(100).as_integer_ratio() for value in dpi or (1, 1)]
    tags = [NewTag(code, 5, struct.pack(order + "II", *ratio)) for code, ratio in zip(RESOLUTION[:2], ratios, strict=True)]
    tags.append(NewTag(RESOLUTION[2], 3, struct.pack(order + "H", 1 if dpi is None else 2)))  # of no unit, an inch
    if metadata.xmp is not None:
        tags.append(NewTag(XMP, 1, metadata.xmp))
    if metadata.iptc is not None:  # of numbers of 32 bits by its type, as all programs have it, and of bytes by its meaning
        tags.append(NewTag(IPTC, 4, metadata.iptc + bytes(-len(metadata.iptc) % 4)))
    if metadata.icc_profile is not None:
        tags.append(NewTag(ICC_PROFILE, 7, metadata.icc_profile))
    return tags


def _exif(metadata: Metadata, page: Page, dpi: tuple[float, float] | None = None) -> bytes | None:
    """Its EXIF block, with the resolution where it is given, and with the page's orientation where the block does not say it."""
    orientation = None if orientation_of(metadata.exif) == page.orientation else page.orientation
    return metadata.exif if orientation is None and dpi is None else exif_with(metadata.exif, orientation, dpi)


def _dpi(metadata: Metadata) -> tuple[float, float] | None:
    """Its resolution; none where it is nonsense, which a new file could not hold."""
    dpi = metadata.dpi or resolution_of(metadata.exif)
    return dpi if dpi is not None and all(0.5 < value <= _MAX_DPI for value in dpi) else None


def _bands(colored: Scan, page: int) -> Iterator[Pixels]:
    """A page by rows from the top: RGB (h, w, 3), or with alpha (h, w, 4)."""
    for rgb_hwc, alpha_hw in colored.bands(page):
        yield rgb_hwc if alpha_hw is None else np.dstack([rgb_hwc, alpha_hw])


def _four_channels(colored: Scan, page: int) -> tuple[npt.NDArray[np.uint8], bool]:
    """A page whole, in 8 bits: RGB and a fourth channel (h, w, 4), and whether that is alpha."""
    pixels_hwc = np.full((colored.pages[page].height, colored.pages[page].width, 4), 255, np.uint8)
    top, channels = 0, 3
    for band in _bands(colored, page):
        channels = band.shape[2]
        pixels_hwc[top : top + len(band), :, :channels] = band if band.dtype == np.uint8 else _eight_bits(band)
        top += len(band)
    return pixels_hwc, channels == 4


def _eight_bits(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Of 16 bits, rounded."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
