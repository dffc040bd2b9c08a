"""Pixels of JPEG and PNG files of 8 bits, for whoever looks at colours as they are: training data and reports.

What is to be coloured is a `Scan`, of any format; see `colorize.imaging.formats`.

Knows nothing of colour beyond the lightness it asks of `colorspace`. A file is recognised by its content, never by its name, and
its header is judged before a pixel is decoded. Pillow's two plugins are called directly: `Image.open` would answer a large scan
with a warning and a huge one with its own exception, by a limit that is one global for the whole process.
What this module does not read is an error (16 bits, CMYK, animation). EXIF, profile and resolution are given as they are.
A PNG's checksums are all verified and its pixels counted (26 % of the decoder's time), because Pillow skips the pixels' checksums
and leaves missing rows black. A JPEG has no checksum: of damage inside its entropy-coded data only what libjpeg refuses is seen, while
a cut anywhere before its last block always is.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from colorize.errors import PictureError, printable
from colorize.imaging.files import reading
from colorize.imaging.formats.png import SIGNATURE as PNG_SIGNATURE
from colorize.imaging.formats.png import png_chunks
from colorize.imaging.guard import HEAD_BYTES, check_size, damage

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_OTHER_FORMATS = (
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (0, b"II+\0", "a TIFF file"),
    (0, b"MM\0+", "a TIFF file"),
    (0, b"GIF8", "a GIF file"),
    (0, b"BM", "a BMP file"),
    (8, b"WEBP", "a WebP file"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (4, b"ftypavif", "an AVIF file"),
    (4, b"ftyphei", "a HEIF file"),
    (4, b"ftypmif1", "a HEIF file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"),
)
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type
_PNG_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]  # of Adam7


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded picture and what its file said besides. Pixels stay as stored: the EXIF orientation is not applied."""

    name: str
    """What messages call it: the path, or the name that came with the bytes."""
    format: Literal["JPEG", "PNG"]
    pixels: npt.NDArray[np.uint8]
    """Grey (h, w) or RGB (h, w, 3); palettes and 1, 2 or 4 bits are expanded."""
    alpha: npt.NDArray[np.uint8] | None
    """Opacity (h, w), 0 transparent to 255 opaque; None where the file says nothing of transparency."""
    exif: bytes | None
    """The EXIF block as in the file, beginning with `Exif\\0\\0`."""
    icc_profile: bytes | None
    """The ICC profile as in the file."""
    dpi: tuple[float, float] | None
    """Horizontal and vertical resolution in pixels an inch, as JFIF or pHYs give them."""

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8, f"pixels are {self.pixels.dtype}, not uint8"
        assert self.pixels.size > 0, "a picture has at least one pixel"
        assert self.pixels.ndim == 2 or self.pixels.shape[2:] == (3,), f"pixels are neither grey nor RGB: {self.pixels.shape}"
        assert self.alpha is None or self.alpha.shape == self.pixels.shape[:2], "alpha is not of the pixels' size"

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


def read_picture(source: Path | bytes, *, name: str | None = None) -> Picture:
    """Read a JPEG or PNG of 8 bits from a file or from its bytes; `name` is what messages call it (a path names itself).

    Raises PictureError for a path that is missing, no regular file or unreadable; for bytes that are empty, of another format,
    truncated or damaged; for more than `MAX_PIXELS` by the header, before anything is decoded; for 16 bits, CMYK or animation.
    """
    name = printable(name if name is not None else str(source) if isinstance(source, Path) else "the picture")
    if isinstance(source, Path):
        with reading(source, name) as file:
            data = file.read()
    else:
        data = source
    kind = format_of(data, name)
    return _read_jpeg(data, name) if kind == "JPEG" else _read_png(data, name)


class _JpegFile(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Left out: it would parse the EXIF block, which is kept as it is, and warn when that is damaged."""


def _read_jpeg(data: bytes, name: str) -> Picture:
    with damage(name, "JPEG"):
        image = _JpegFile(BytesIO(data))
    check_size(image.width, image.height, name)
    if image.mode not in ("L", "RGB"):
        raise PictureError(f"{name}: is a {image.mode} JPEG; grey and RGB JPEGs are read so far")
    with damage(name, "JPEG"):
        pixels = np.array(image)
    return _picture(image, "JPEG", pixels, None, name)


def _read_png(data: bytes, name: str) -> Picture:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise PictureError(f"{name}: is a truncated or damaged PNG: its header is incomplete")
    width, height, depth = struct.unpack(">IIB", data[16:25])
    check_size(width, height, name)
    if depth == 16:
        raise PictureError(f"{name}: is a 16-bit PNG; PNGs of up to 8 bits are read so far")
    chunks = png_chunks(data, name)
    if any(kind == b"acTL" for kind, _ in chunks):
        raise PictureError(f"{name}: is an animated PNG; still pictures are read")
    with damage(name, "PNG"):
        _check_png_pixels([content for kind, content in chunks if kind == b"IDAT"], data[16:29])
        image = PngImageFile(BytesIO(data))
        image.load()
        pixels, alpha = _png_pixels(image, depth)
    return _picture(image, "PNG", pixels, alpha, name)


def _png_pixels(image: Image.Image, depth: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    key = image.info.pop("transparency", None)  # an int or RGB triple names the one transparent colour
    if image.mode == "P":
        if key is None:
            return np.array(image.convert("RGB")), None
        image.info["transparency"] = key
        image = image.convert("RGBA")
        key = None
    elif image.mode == "1":
        image = image.convert("L")

    pixels = np.array(image)
    if image.mode == "LA":
        return pixels[..., 0].copy(), pixels[..., 1].copy()
    if image.mode == "RGBA":
        return pixels[..., :3].copy(), pixels[..., 3].copy()
    if key is None:
        return pixels, None
    if depth in (2, 4):  # the key counts in the file's own depth; of 1 bit Pillow makes 0 or 255 itself
        key = key * 255 // (2**depth - 1)
    is_clear_hw = (pixels.reshape(*pixels.shape[:2], -1) == np.atleast_1d(key)).all(axis=-1)
    return pixels, np.where(is_clear_hw, 0, 255).astype(np.uint8)


def _check_png_pixels(contents: list[memoryview], header: bytes) -> None:
    """ValueError unless there are compressed pixels for every row of the header: Pillow would leave what is missing black."""
    width, height, depth, color_type, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if color_type not in _PNG_CHANNELS:
        raise ValueError(f"there is no colour type {color_type}")
    expected = 0
    for left, top, across, down in _PNG_PASSES if interlace else [(0, 0, 1, 1)]:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * depth * _PNG_CHANNELS[color_type] + 7) // 8)

    inflater, missing = zlib.decompressobj(), expected
    for content in contents:
        compressed: bytes | memoryview = content
        while compressed and missing > 0:
            missing -= len(inflater.decompress(compressed, 1 << 20))
            compressed = inflater.unconsumed_tail
    if missing > 0:
        raise ValueError(f"{missing} of {expected} bytes of pixels are missing")


def _picture(
    image: Image.Image,
    kind: Literal["JPEG", "PNG"],
    pixels: npt.NDArray[np.uint8],
    alpha: npt.NDArray[np.uint8] | None,
    name: str,
) -> Picture:
    dpi = image.info.get("dpi")
    if dpi is not None and not all(0 < value <= 65535 for value in dpi):  # 0 and nonsense would not survive being written
        dpi = None
    exif, icc_profile = image.info.get("exif") or None, image.info.get("icc_profile") or None
    return Picture(name=name, format=kind, pixels=pixels, alpha=alpha, exif=exif, icc_profile=icc_profile, dpi=dpi)


def format_of(data: bytes, name: str) -> Literal["JPEG", "PNG"]:
    """Which of both a file is, by its first HEAD_BYTES. Raises PictureError, which says what else it is, for any other."""
    if not data:
        raise PictureError(f"{name}: is empty (zero bytes)")
    if data.startswith(_JPEG_SIGNATURE):
        return "JPEG"
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    for offset, signature, what in _OTHER_FORMATS:
        if data.startswith(signature, offset):
            raise PictureError(f"{name}: is {what}; JPEG and PNG are read so far")
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in data[:HEAD_BYTES]):
        raise PictureError(f"{name}: is text, not a picture")
    raise PictureError(f"{name}: is no picture of a known format; JPEG and PNG are read so far")
