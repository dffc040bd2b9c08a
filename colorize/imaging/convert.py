"""A coloured file in another format than its original's: for whoever wants JPEGs of an archive of TIFFs, say.

Pixels, profile, EXIF, XMP and resolution go over as far as the new format holds them. JPEG and WebP have 8 bits; JPEG has no transparency;
only TIFF has pages: what does not fit is an error, but for bits. EXIF goes between JPEG, PNG and WebP; into TIFF and
out of it go XMP, resolution and orientation.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any, BinaryIO, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from colorize.errors import ConfigError, PictureError
from colorize.imaging.formats.png import SIGNATURE, XMP_KEYWORD, png_chunk, png_chunks
from colorize.imaging.scan import Pixels, Scan

Format = Literal["jpeg", "png", "tiff", "webp"]
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "tiff": (".tif", ".tiff"), "webp": (".webp",),
}  # fmt: skip
"""What files of a format are called; the first is given to files that are called otherwise."""

QUALITY = 95
_EXIF = b"Exif\0\0"
_XMP_TAG, _ORIENTATION_TAG = 700, 274


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


def convert(colored: Scan, wanted: Format, target: BinaryIO) -> None:
    """Writes a coloured scan in another format. Raises PictureError where that cannot hold it."""
    if len(colored.pages) > 1 and wanted != "tiff":
        raise PictureError(f"{colored.name}: has {len(colored.pages)} pages, which {wanted.upper()} does not hold; TIFF does")
    write = {"jpeg": _write_jpeg, "png": _write_png, "tiff": _write_tiff, "webp": _write_webp}[wanted]
    write(colored, target)


def _write_jpeg(colored: Scan, target: BinaryIO) -> None:
    rgb_hwc, alpha_hw = colored.pixels(0)
    if alpha_hw is not None and int(alpha_hw.min()) < np.iinfo(alpha_hw.dtype).max:
        raise PictureError(f"{colored.name}: has transparency, which JPEG does not hold; PNG, TIFF and WebP do")
    _save(_eight_bits(rgb_hwc), colored, target, "JPEG", quality=QUALITY, subsampling=0)


def _write_webp(colored: Scan, target: BinaryIO) -> None:
    _save(_eight_bits(_together(*colored.pixels(0))), colored, target, "WEBP", quality=QUALITY)


def _save(pixels: npt.NDArray[np.uint8], colored: Scan, target: BinaryIO, kind: str, **options: Any) -> None:
    metadata, exif = colored.metadata, _exif(colored)
    if exif is not None:
        options["exif"] = _EXIF + exif
    options |= {
        key: value
        for key, value in (("icc_profile", metadata.icc_profile), ("xmp", metadata.xmp), ("dpi", metadata.dpi))
        if value is not None
    }
    buffer = BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, kind, **options)
    except (OSError, ValueError, struct.error) as error:
        raise PictureError(f"{colored.name}: cannot be written as {kind}: {' '.join(str(error).split())}") from error
    target.write(buffer.getvalue())


def _write_png(colored: Scan, target: BinaryIO) -> None:
    metadata, exif = colored.metadata, _exif(colored)
    pixels = _together(*colored.pixels(0))
    encoded = imagecodecs.png_encode(pixels, level=1, strategy=imagecodecs.PNG.STRATEGY.RLE, filter=imagecodecs.PNG.FILTER.SUB)
    header, *rest = png_chunks(bytes(encoded), colored.name)
    chunks: list[tuple[bytes, bytes | memoryview]] = [header]
    if metadata.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.dpi is not None:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1)))
    if exif is not None:
        chunks.append((b"eXIf", exif))
    if metadata.xmp is not None:
        chunks.append((b"iTXt", XMP_KEYWORD + bytes(4) + metadata.xmp))
    target.write(SIGNATURE)
    target.writelines(
        png_chunk(kind, content) for kind, content in [header, *[(kind, memoryview(content)) for kind, content in chunks], *rest]
    )


def _write_tiff(colored: Scan, target: BinaryIO) -> None:
    metadata = colored.metadata
    options: dict[str, Any] = {} if metadata.dpi is None else {"resolution": metadata.dpi, "resolutionunit": "inch"}
    packet = [] if metadata.xmp is None else [(_XMP_TAG, 1, len(metadata.xmp), metadata.xmp, True)]
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number, page in enumerate(colored.pages):
            rgb_hwc, alpha_hw = colored.pixels(number)
            turned = [] if page.orientation == 1 else [(_ORIENTATION_TAG, 3, 1, page.orientation, True)]
            writer.write(
                _together(rgb_hwc, alpha_hw), photometric="rgb", extrasamples=None if alpha_hw is None else ["unassalpha"],
                compression="zlib", predictor=True, metadata=None, software=False,
                iccprofile=metadata.icc_profile, extratags=[*packet, *turned], **options,
            )  # fmt: skip
    target.write(buffer.getvalue())


def _exif(colored: Scan) -> bytes | None:
    """Its EXIF block; where it has none and is not upright, one that says so."""
    orientation = colored.pages[0].orientation
    if colored.metadata.exif is not None or orientation == 1:
        return colored.metadata.exif
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, _ORIENTATION_TAG, 3, 1, orientation, 0)


def _together(rgb_hwc: Pixels, alpha_hw: Pixels | None) -> Pixels:
    return np.ascontiguousarray(rgb_hwc) if alpha_hw is None else np.dstack([rgb_hwc, alpha_hw])


def _eight_bits(pixels: Pixels) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
