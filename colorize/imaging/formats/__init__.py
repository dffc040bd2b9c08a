"""Which format a file has, by its content, never by its name; and the scan that goes with it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from colorize.imaging.files import reading
from colorize.imaging.formats.jpeg import JpegScan
from colorize.imaging.formats.raster import RasterScan, is_raster
from colorize.imaging.formats.tiff import TiffScan
from colorize.imaging.guard import HEAD_BYTES
from colorize.imaging.scan import Scan

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_SIGNATURE = b"\xff\xd8\xff"


def is_known(data: bytes) -> bool:
    """Whether the bytes begin as a file of one of the formats that are read; they may be damaged all the same."""
    return data.startswith((*_TIFF_SIGNATURES, _JPEG_SIGNATURE)) or is_raster(data)


def open_scan(source: Path | BinaryIO | bytes, *, name: str | None = None) -> Scan:
    """The picture file at a path, in an open file or of these bytes, opened; `name` is what messages call it (a path names itself).

    A TIFF at a path or in a file, which must stay open, is read piece by piece, every other one is held in memory as it is on the disk.
    Raises PictureError for a path that is missing, no regular file or unreadable; for bytes that are empty, of no known format, or
    damaged as far as the header says; for more pixels than `MAX_PIXELS` by the header.
    """
    if isinstance(source, bytes):
        return _open(source, name or "the picture")
    if not isinstance(source, Path):
        return _in_file(source, source, name or "the picture")
    with reading(source, name or str(source)) as file:
        return _in_file(file, source, name or str(source))


def _in_file(file: BinaryIO, source: Path | BinaryIO, name: str) -> Scan:
    """The picture in an open file, which is `source` or the file at that path."""
    head = file.read(HEAD_BYTES)
    if head.startswith(_TIFF_SIGNATURES):
        return TiffScan(source, name)
    return _open(head + file.read() if is_known(head) else head, name)  # a film of 20 GB named .jpg is not read to be refused


def _open(data: bytes, name: str) -> Scan:
    if data.startswith(_TIFF_SIGNATURES):
        return TiffScan(BytesIO(data), name)
    return JpegScan(data, name) if data.startswith(_JPEG_SIGNATURE) else RasterScan(data, name)
