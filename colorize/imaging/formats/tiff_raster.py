"""What a page's tags say of its pixels: their kind, their compression, and where its strips or tiles are. Judged before any is decoded.

Knows nothing of how pixels are decoded. What can be read: grey and RGB of 1, 2, 4, 8, 10, 12, 14 or 16 bits a channel with any extra
channels, palettes of up to 8, YCbCr inside JPEG; strips or tiles, channels together or apart; not compressed, LZW, deflate, PackBits,
JPEG, CCITT. All else is refused by its name. So is what a page could only claim in order to do harm: more than MAX_PIXELS, a side of more
than a million pixels, millions of strips, a strip or tile that takes more than 640 MiB of memory (one strip of 100 MP in 16-bit RGB takes
600 MB), pixels beyond the end of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colorize.errors import PictureError
from colorize.imaging.formats.tiff_directory import Directory, Source
from colorize.imaging.guard import MAX_PIXELS, TooManyPixelsError

MAX_SIDE = 1_000_000
MAX_SEGMENTS = 4_000_000
MAX_SEGMENT_BYTES = 640 << 20
"""Of a strip, or of a row of tiles, decoded, where it cannot be decoded bit by bit."""
MAX_EXTRAS = 16
STRIP_BYTES = 1 << 18
"""Of a strip of a new page, not compressed."""

NONE, CCITT_RLE, CCITT_3, CCITT_4, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 2, 3, 4, 5, 7, 8, 32946, 32773
CCITT = (CCITT_RLE, CCITT_3, CCITT_4)
ASSOCIATED, UNASSOCIATED = 1, 2
"""Alpha among the extra channels: multiplied into the colours, and not."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, YCBCR = 0, 1, 2, 3, 4, 6

_DEPTH = 32997
"""Of a page that is a volume, as tifffile writes them: how many slices its strips or tiles hold."""

_READ = (NONE, *CCITT, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS)
_COMPRESSIONS = {
    6: "old-style JPEG",
    32771: "word-aligned CCITT",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_KINDS = {
    MASK: "a transparency mask",
    5: "CMYK",
    YCBCR: "YCbCr without JPEG",
    8: "CIE LAB",
    9: "ICC LAB",
    10: "ITU LAB",
    32803: "raw camera data",
    32844: "LogL",
    32845: "LogLuv",
    34892: "raw camera data",
}
_FORMATS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Raster:
    """The pixels of a page, as its tags describe them."""

    where: str
    """How messages begin that are about this page: empty in a file of one."""
    width: int
    height: int
    stored_bits: int
    """Of a channel in the file: 1, 2, 4, 8, 10, 12, 14 or 16."""
    photometric: int
    samples: int
    """Channels of the file, palette indices and extra channels counted."""
    extras: tuple[int, ...]
    """What the channels after the colours mean, as ExtraSamples has it."""
    separate: bool
    """Each channel has strips or tiles of its own."""
    compression: int
    predictor: int
    is_reversed: bool
    """FillOrder 2: the lowest bit of a byte comes first."""
    t4_options: int
    jpeg_tables: bytes | None
    palette: npt.NDArray[np.uint8] | None
    """Grey (n,) or RGB (n, 3) of each index."""
    tile: tuple[int, int] | None
    """Height and width of a tile; None where there are strips."""
    rows: int
    """Of a strip or tile, at most; the last may have fewer."""
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]

    @property
    def bits(self) -> int:
        """Of a channel once decoded: 8 or 16."""
        return 16 if self.stored_bits > 8 else 8

    @property
    def colors(self) -> int:
        """Channels of the file that make up the colour."""
        return 3 if self.photometric in (RGB, YCBCR) else 1

    @property
    def has_color(self) -> bool:
        return self.colors == 3 or (self.palette is not None and self.palette.ndim == 2)

    @property
    def together(self) -> int:
        """Channels in one strip or tile."""
        return 1 if self.separate else self.samples

    @property
    def down(self) -> int:
        """Strips or rows of tiles, of one channel where they are apart."""
        return -(-self.height // self.rows)

    @property
    def across(self) -> int:
        """Tiles beside each other; 1 where there are strips."""
        return -(-self.width // self.tile[1]) if self.tile else 1

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of a strip or tile, not compressed."""
        return (width * self.together * self.stored_bits + 7) // 8


def new_raster(width: int, height: int, bits: int, *, has_alpha: bool) -> Raster:
    """The raster of a page of RGB that has no file yet: deflated strips."""
    samples = 4 if has_alpha else 3
    nothing = np.empty(0, np.uint64)
    return Raster(
        where="",
        width=width,
        height=height,
        stored_bits=bits,
        photometric=RGB,
        samples=samples,
        extras=(UNASSOCIATED,) if has_alpha else (),
        separate=False,
        compression=DEFLATE,
        predictor=2,
        is_reversed=False,
        t4_options=0,
        jpeg_tables=None,
        palette=None,
        tile=None,
        rows=min(height, max(1, STRIP_BYTES // (width * samples * bits // 8))),
        offsets=nothing,
        counts=nothing,
    )


def read_raster(source: Source, directory: Directory, where: str) -> Raster:
    """The raster of a page of an opened source. Raises PictureError for what is damaged, too large, or of no kind that is read."""
    return _Tags(source, directory, where).raster()


class _Tags:
    def __init__(self, source: Source, directory: Directory, where: str) -> None:
        self._source = source
        self._directory = directory
        self._where = where

    def raster(self) -> Raster:
        width, height = self._size()
        compression = self._one(259, NONE)
        photometric = self._photometric(compression)
        bits, samples = self._samples(photometric)
        extras = self._extras(samples - (3 if photometric in (RGB, YCBCR) else 1))
        separate = self._one(284, 1) == 2 and samples > 1
        predictor = self._predictor(compression, bits)
        self._check_codec(compression, photometric, bits, samples, separate)

        tile: tuple[int, int] | None = None
        rows = min(self._one(278, height), height)
        if any(self._directory.find(code) for code in (322, 323, 324)):
            tile = self._required(323, "TileLength"), self._required(322, "TileWidth")
            rows = tile[0]
        if rows == 0 or (tile and tile[1] == 0):
            raise self._damaged("its strips or tiles are of no size")
        palette = self._palette(bits) if photometric == PALETTE else None
        tables = self._directory.find(347) if compression == JPEG else None
        offsets, counts = self._segments(
            width, height, rows, tile, compression, bits * (1 if separate else samples), samples if separate else 1
        )
        return Raster(
            where=self._where,
            width=width,
            height=height,
            stored_bits=bits,
            photometric=photometric,
            samples=samples,
            extras=extras,
            separate=separate,
            compression=compression,
            predictor=predictor,
            is_reversed=self._one(266, 1) == 2,
            t4_options=self._one(292, 0),
            jpeg_tables=self._source.value(tables) if tables else None,
            palette=palette,
            tile=tile,
            rows=rows,
            offsets=offsets,
            counts=counts,
        )

    def _size(self) -> tuple[int, int]:
        width, height = self._required(256, "ImageWidth"), self._required(257, "ImageLength")
        if width == 0 or height == 0:
            raise self._damaged(f"it has {width}×{height} pixels")
        if self._one(_DEPTH, 1) > 1:
            raise self._refused(
                f"is a TIFF of {self._one(_DEPTH, 1)} slices in one page, which is not read; save each as a page of its own"
            )
        if width * height > MAX_PIXELS:
            limit = MAX_PIXELS // 1_000_000
            refused = self._refused(f"has {width}×{height} pixels by its header; pictures of up to {limit} megapixels are read")
            raise TooManyPixelsError(str(refused))
        if max(width, height) > MAX_SIDE:
            raise self._refused(f"has {width}×{height} pixels by its header; pictures of up to {MAX_SIDE} pixels a side are read")
        return width, height

    def _photometric(self, compression: int) -> int:
        photometric = self._required(262, "PhotometricInterpretation")
        if compression not in _READ:
            name = _COMPRESSIONS.get(compression, f"compression {compression}")
            raise self._refused(f"is a TIFF compressed by {name}; rewrite it with LZW or deflate")
        if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE) and not (photometric == YCBCR and compression == JPEG):
            kind = _KINDS.get(photometric, f"of photometric interpretation {photometric}")
            raise self._refused(f"is a TIFF whose pixels are {kind}; grey, RGB and palettes are read: convert it")
        return photometric

    def _samples(self, photometric: int) -> tuple[int, int]:
        """Bits of a channel, and how many channels there are."""
        samples, colors = self._one(277, 1), 3 if photometric in (RGB, YCBCR) else 1
        if not colors <= samples <= colors + MAX_EXTRAS:
            raise self._refused(f"is a TIFF of {samples} channels, of which {colors} are colours; up to {MAX_EXTRAS} more are read")
        formats = set(self._all(339, 1).tolist()) - {1, 4}  # 4 is undefined: what it is, is told by the rest
        if formats:
            what = " and ".join(sorted(_FORMATS.get(each, f"of sample format {each}") for each in formats))
            raise self._refused(f"is a TIFF whose pixels are {what}; unsigned numbers are read: convert it to 8 or 16 bits")
        depths = set(self._all(258, 1)[:samples].tolist())
        if len(depths) > 1:
            raise self._refused("is a TIFF of channels of different depths; convert it to 8 or 16 bits a channel")
        (bits,) = depths
        if bits not in ((1, 2, 4, 8) if photometric == PALETTE else (1, 2, 4, 8, 10, 12, 14, 16)):
            raise self._refused(f"is a TIFF of {bits} bits a channel; convert it to 8 or 16")
        return bits, samples

    def _extras(self, count: int) -> tuple[int, ...]:
        meanings = self._all(338, 0)[:count].tolist()
        if any(meaning > 2 for meaning in meanings):
            raise self._damaged("it has extra channels of unknown meaning")
        return (*meanings, *(0 for _ in range(count - len(meanings))))

    def _predictor(self, compression: int, bits: int) -> int:
        predictor = self._one(317, 1)
        if compression not in (LZW, DEFLATE, OLD_DEFLATE):
            return 1  # it belongs to these
        if predictor not in (1, 2) or (predictor == 2 and bits not in (8, 16)):
            raise self._refused(f"is a TIFF of predictor {predictor} with {bits} bits a channel, which are not read; rewrite it without")
        return predictor

    def _check_codec(self, compression: int, photometric: int, bits: int, samples: int, separate: bool) -> None:
        if compression in CCITT and (bits, samples, photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)) != (1, 1, True):
            raise self._damaged("CCITT compression of what is not black and white")
        if compression == JPEG:
            if bits != 8:
                raise self._refused(f"is a TIFF of {bits}-bit JPEG; 8 bits are read: convert it")
            if photometric == PALETTE or samples not in (1, 3) or (samples == 1) != (photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)):
                raise self._refused(f"is a TIFF of JPEG with {samples} channels, which is not read; rewrite it with deflate")
            if separate and photometric == YCBCR:
                raise self._refused("is a TIFF of YCbCr whose channels are apart, which is not read; rewrite it with deflate")

    def _palette(self, bits: int) -> npt.NDArray[np.uint8]:
        """In 8 bits: entries have 16, most often 257 or 256 times what they were made from, in old files 8 bits as they are."""
        levels = self._all(320, 0)
        if len(levels) != 3 << bits:
            raise self._damaged(f"its palette has {len(levels)} numbers instead of {3 << bits}")
        if levels.max() < 256:
            eight = levels
        elif (levels % np.uint64(256) == 0).all():
            eight = levels // np.uint64(256)
        else:
            eight = (levels.clip(0, 65535) + np.uint64(128)) // np.uint64(257)
        rgb_n3 = eight.astype(np.uint8).reshape(3, -1).T.copy()
        is_grey = (rgb_n3[:, :1] == rgb_n3).all()
        return rgb_n3[:, 0].copy() if is_grey else rgb_n3

    def _segments(
        self, width: int, height: int, rows: int, tile: tuple[int, int] | None, compression: int, pixel_bits: int, planes: int
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Offsets and byte counts of all strips or tiles, which lie inside the file and are as many as there must be."""
        across = -(-width // tile[1]) if tile else 1
        expected = -(-height // rows) * across * planes
        row_bytes = ((tile[1] if tile else width) * pixel_bits + 7) // 8
        is_whole = compression not in (NONE, DEFLATE, OLD_DEFLATE) or tile is not None
        decoded = rows * across * (tile[1] if tile else width) * planes * -(-pixel_bits // 8)
        if expected > MAX_SEGMENTS or (is_whole and decoded > MAX_SEGMENT_BYTES):
            limit = MAX_SEGMENT_BYTES >> 20
            raise self._refused(
                f"has {expected} strips or tiles of {rows} rows; at most {limit} MiB are decoded at once: rewrite it in strips"
            )

        codes = (324, 325) if tile and self._directory.find(324) else (273, 279)
        found = [self._directory.find(code) for code in codes]
        if found[0] is None:
            raise self._damaged("it does not say where its pixels are")
        offsets = self._source.numbers(found[0])
        if found[1] is not None:
            counts = self._source.numbers(found[1])
        elif compression == NONE:  # as some old programs wrote it
            lengths = np.minimum(height - np.arange(-(-height // rows)) * rows, rows) if tile is None else np.full(expected, rows)
            counts = np.tile((lengths * row_bytes).astype(np.uint64), planes if tile is None else 1)
        else:
            raise self._damaged("it does not say how long its strips or tiles are")
        if len(offsets) < expected or len(counts) < expected:
            raise self._damaged(f"it has {min(len(offsets), len(counts))} of {expected} strips or tiles")
        offsets, counts = offsets[:expected], counts[:expected]
        size = np.uint64(self._source.size)
        missing = (counts == 0) | (counts > size) | (offsets > size - np.minimum(counts, size)) | (offsets == 0)
        if missing.any():
            index = int(missing.argmax())
            raise self._damaged(
                f"segment {index + 1} of {expected}, {counts[index]} bytes at byte {offsets[index]}, is not in the file of {size} bytes"
            )
        return offsets, counts

    def _all(self, code: int, default: int) -> npt.NDArray[np.uint64]:
        tag = self._directory.find(code)
        if tag is None:
            return np.array([default], np.uint64)
        if tag.count > MAX_SEGMENTS:
            raise self._damaged(f"tag {code} has {tag.count} numbers")
        return self._source.numbers(tag)

    def _one(self, code: int, default: int) -> int:
        return int(self._all(code, default)[0])

    def _required(self, code: int, name: str) -> int:
        if self._directory.find(code) is None:
            raise self._damaged(f"{name} is missing")
        return self._one(code, 0)

    def _damaged(self, what: str) -> PictureError:
        return self._source.damaged(what, self._where)

    def _refused(self, what: str) -> PictureError:
        return PictureError(f"{self._source.name}: {self._where}{what}")
