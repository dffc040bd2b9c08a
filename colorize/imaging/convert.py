"""A coloured file in another format than its original's: for whoever wants JPEGs of an archive of TIFFs, say.

Pixels, profile, EXIF, XMP, IPTC and resolution go over as far as the new format holds them; docs/formats.md says what does not. JPEG and
WebP have 8 bits; JPEG has no transparency; only TIFF has pages: what does not fit is an error, but for bits and reduced pages. EXIF goes
between JPEG, PNG and WebP; into TIFF and out of it go XMP, IPTC, resolution and orientation.

PNG and TIFF are written by bands of rows as they come. Pillow's JPEG and WebP take a picture whole; theirs is one array of four channels,
which Pillow uses as it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from colorize.errors import ConfigError, PictureError
from colorize.imaging.formats.png import SIGNATURE, XMP_KEYWORD, png_chunk
from colorize.imaging.formats.tiff_codec import encode
from colorize.imaging.formats.tiff_raster import DEFLATE
from colorize.imaging.metadata import MAX_XMP_IN_JPEG, exif_with, iptc_segments, resolution_of
from colorize.imaging.note import Note
from colorize.imaging.scan import Pixels, Scan
from colorize.imaging.xmp import MAX_PACKET_BYTES, note_of, provenance_xmp

Format = Literal["jpeg", "png", "tiff", "webp"]
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "tiff": (".tif", ".tiff"), "webp": (".webp",),
}  # fmt: skip
"""What files of a format are called; the first is given to files that are called otherwise."""

QUALITY = 95
_EXIF = b"Exif\0\0"
_XMP_TAG, _ORIENTATION_TAG, _IPTC_TAG = 700, 274, 33723
_STRIP_BYTES = 1 << 18
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
    """Writes a coloured scan in another format, with the note also where its own had no place for one.

    Raises PictureError where the new format cannot hold it, and OSError where `target` cannot be written.
    """
    pages = [number for number, page in enumerate(colored.pages) if not page.is_reduced] or [0]
    if len(pages) > 1 and wanted != "tiff":
        raise PictureError(f"{colored.name}: has {len(pages)} pages, which {wanted.upper()} does not hold; TIFF does")
    xmp = colored.metadata.xmp
    room = MAX_XMP_IN_JPEG if wanted == "jpeg" else MAX_PACKET_BYTES
    if note is not None and (xmp is None or len(xmp) > room or note_of(xmp) is None):
        xmp = provenance_xmp(xmp, note, room, colored.name)
    if wanted == "tiff":
        _write_tiff(colored, target, xmp)
    else:
        {"jpeg": _write_jpeg, "png": _write_png, "webp": _write_webp}[wanted](colored, pages[0], target, xmp)


def _write_jpeg(colored: Scan, page: int, target: BinaryIO, xmp: bytes | None) -> None:
    pixels, has_alpha = _four_channels(colored, page)
    if has_alpha and int(pixels[..., 3].min()) < 255:
        raise PictureError(f"{colored.name}: has transparency, which JPEG does not hold; PNG, TIFF and WebP do")
    metadata, dpi = colored.metadata, _dpi(colored)
    options = {"xmp": xmp, "dpi": dpi, "exif": _exif(colored, page), "extra": metadata.iptc and iptc_segments(metadata.iptc)}
    _save(pixels, "RGBX", colored, target, "JPEG", subsampling=0, **options)


def _write_webp(colored: Scan, page: int, target: BinaryIO, xmp: bytes | None) -> None:
    pixels, has_alpha = _four_channels(colored, page)
    dpi = _dpi(colored) if resolution_of(colored.metadata.exif) is None else None  # for which only EXIF has a place
    _save(pixels, "RGBA" if has_alpha else "RGBX", colored, target, "WEBP", xmp=xmp, exif=_exif(colored, page, dpi))


def _save(pixels: npt.NDArray[np.uint8], mode: str, colored: Scan, target: BinaryIO, kind: str, **options: Any) -> None:
    """By Pillow, with those of the options that are not None."""
    if options["exif"] is not None:
        options["exif"] = _EXIF + options["exif"]
    options |= {"quality": QUALITY, "icc_profile": colored.metadata.icc_profile}
    buffer = BytesIO()
    try:
        image = Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), pixels, "raw", mode, 0, 1)
        image.save(buffer, kind, **{key: value for key, value in options.items() if value is not None})
    except (OSError, ValueError, struct.error) as error:
        raise PictureError(f"{colored.name}: cannot be written as {kind}: {' '.join(str(error).split())}") from error
    target.write(buffer.getbuffer())


def _write_png(colored: Scan, page: int, target: BinaryIO, xmp: bytes | None) -> None:
    metadata, dpi, exif = colored.metadata, _dpi(colored), _exif(colored, page)
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
    if xmp is not None:
        chunks.append((b"iTXt", XMP_KEYWORD + bytes(4) + xmp))
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


def _write_tiff(colored: Scan, target: BinaryIO, xmp: bytes | None) -> None:
    metadata, dpi = colored.metadata, _dpi(colored)
    options: dict[str, Any] = {} if dpi is None else {"resolution": dpi, "resolutionunit": "inch"}
    blocks = [] if xmp is None else [(_XMP_TAG, 1, len(xmp), xmp, True)]
    if metadata.iptc is not None:  # of numbers of 32 bits by its type, as all programs have it, and of bytes by its meaning
        iptc = metadata.iptc + bytes(-len(metadata.iptc) % 4)
        blocks.append((_IPTC_TAG, 4, len(iptc) // 4, iptc, True))
    with tifffile.TiffWriter(tifffile.FileHandle(target, name="target", size=0), byteorder="<") as writer:  # it may have no name itself
        for number, page in enumerate(colored.pages):
            bands = _bands(colored, number)
            first = next(bands)
            rows = max(1, _STRIP_BYTES // first[0].nbytes)
            strips = (encode(strip, DEFLATE, 2, "<") for strip in _of_rows(chain([first], bands), rows))
            turned = [] if page.orientation == 1 else [(_ORIENTATION_TAG, 3, 1, page.orientation, True)]
            writer.write(
                strips, shape=(page.height, page.width, first.shape[2]), dtype=first.dtype, rowsperstrip=rows,
                photometric="rgb", extrasamples=["unassalpha"] if first.shape[2] == 4 else None, subfiletype=int(page.is_reduced),
                compression="zlib", predictor=True, metadata=None, software=False,
                iccprofile=metadata.icc_profile, extratags=[*blocks, *turned], **options,
            )  # fmt: skip


def _of_rows(bands: Iterator[Pixels], rows: int) -> Iterator[Pixels]:
    """The same pixels, so many rows at a time; the last may be fewer."""
    held: list[Pixels] = []
    missing = rows
    for band in bands:
        while len(band) >= missing:
            yield np.concatenate([*held, band[:missing]])
            band, held, missing = band[missing:], [], rows
        if len(band):
            held.append(band)
            missing -= len(band)
    if held:
        yield np.concatenate(held)


def _exif(colored: Scan, page: int, dpi: tuple[float, float] | None = None) -> bytes | None:
    """Its EXIF block, with the resolution where it is given; where it has none and is not upright, one that says so."""
    exif = colored.metadata.exif
    orientation = colored.pages[page].orientation if exif is None else 1
    if orientation == 1 and dpi is None:
        return exif
    return exif_with(exif, None if orientation == 1 else orientation, dpi)


def _dpi(colored: Scan) -> tuple[float, float] | None:
    """Its resolution; none where it is nonsense, which a new file could not hold."""
    dpi = colored.metadata.dpi or resolution_of(colored.metadata.exif)
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
