"""`--dry-run`: how many megapixels there are, by the headers of every format, wherever in the file they stand."""

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile

from colorize.archive.estimate import HEADER_BYTES, Estimate, estimate
from colorize.archive.manifest import SCHEMA
from colorize.storage.remote import open_place
from tests.pictures import encoded, grey_scene, jpeg_claiming, png_chunk, png_header


def estimated(place: str | Path, files: dict[str, bytes], folder: Path) -> Estimate:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return estimate(open_place(place), sorted(files), SCHEMA.empty_table(), 1)


def pages(count: int) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(count):
            writer.write(grey_scene(100, 200), photometric="minisblack", metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize("scheme", ["", "local://"])
def test_the_size_is_found_wherever_it_stands(tmp_path: Path, scheme: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 1000), dtype=np.uint8)
    behind = encoded(noise, "TIFF", compression="tiff_lzw")
    assert int.from_bytes(behind[4:8], "little") > HEADER_BYTES
    files = {"behind.tif": behind, "pages.tif": pages(5), "a.jpg": encoded(grey_scene(100, 200), "JPEG")}
    found = estimated(f"{scheme}{tmp_path}", files, tmp_path)
    assert (found.megapixels, found.unreadable) == (pytest.approx(0.6 + 0.1 + 0.02), 0)


def test_a_picture_counts_that_a_run_would_read_though_pillow_would_not(tmp_path: Path) -> None:
    rows = zlib.compress(bytes(13_000 * (1 + 14_000 // 8)), 1)
    large = png_header(14_000, 13_000, 1, 0) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    found = estimated(tmp_path, {"large.png": large}, tmp_path)
    assert (found.megapixels, found.unreadable) == (182, 0)


def test_what_will_fail_is_unreadable(tmp_path: Path) -> None:
    files = {
        "text.jpg": b"hello", "empty.png": b"", "cut.tif": pages(5)[:60_000], "bomb.jpg": jpeg_claiming(60_000, 60_000),
        "gif.jpg": encoded(grey_scene(), "GIF"),
    }  # fmt: skip
    found = estimated(tmp_path, files, tmp_path)
    assert (found.megapixels, found.unreadable) == (0, 5)


def test_heif_counts_where_it_can_be_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    heif.from_bytes("L", (64, 48), grey_scene(48, 64).tobytes()).save(buffer)
    found = estimated(tmp_path, {"a.heic": buffer.getvalue()}, tmp_path)
    assert found.megapixels == pytest.approx(64 * 48 / 1e6)
