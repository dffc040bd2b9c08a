"""`archive`: the bulk job on 1,000 historical scans against the same worker in a plain pool of processes, and the path of one JPEG.

The scans are those of `COLORIZE_TEST_DATA` (default ../shared/data), `archive_bw`, or where that is absent the bundled sample; repeated
under new names. What is timed is the rate once the workers are warm: from the first block of pictures that is done to the last.

plain pool  the same `Painter` on the same blocks in as many processes, without Ray
usual path  decode, skimage's rgb2lab, the same network, bilinear chroma, skimage's lab2rgb, encode: one thread, as ours is timed
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from colorize import cluster
from colorize.archive.config import ArchiveConfig
from colorize.archive.job import carry_out, cut_into_blocks, order_of, prepare, to_tables
from colorize.archive.journal import Journal
from colorize.archive.painter import Order, Painter
from colorize.imaging.formats import open_scan
from colorize.imaging.formats.jpeg_luma import luma_identical
from colorize.model.coloring import colorize_scan
from colorize.model.colorizer import Colorizer, shrink
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings

PICTURES = 1_000
JPEGS = 40
"""Pictures of the two paths that are timed in one thread."""

_painter: Painter


def measure(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key."""
    keys = ("ratio_vs_plain_pool", "jpeg_ratio_vs_usual_path", "pictures_per_s", "megapixels_per_s", "luma_identical_share")
    numbers: dict[str, list[float]] = {key: [] for key in (*keys, "plain_pool_pictures_per_s", "jpeg_megapixels_per_s")}
    with tempfile.TemporaryDirectory() as folder:
        source = repeated_scans(Path(folder) / "scans", PICTURES)
        jpegs = [path for path in sorted(source.iterdir()) if path.suffix in (".jpg", ".jpeg")]
        for run in range(runs):
            target = Path(folder) / f"job-{run}"
            pictures, megapixels = job(source, target)
            pool = _plain_pool(source, Path(folder) / f"pool-{run}")
            ours, usual = _jpeg_paths([path.read_bytes() for path in jpegs[:JPEGS]])
            same = [luma_identical(path.read_bytes(), (target / path.name).read_bytes()) for path in jpegs]
            found = (pictures / pool, ours / usual, pictures, megapixels, sum(same) / len(same), pool, ours)
            for key, value in zip(numbers, found, strict=True):
                numbers[key].append(value)
            shutil.rmtree(target)
    return numbers


def repeated_scans(folder: Path, count: int) -> Path:
    """The folder, made, with so many scans."""
    data = Path(os.environ.get("COLORIZE_TEST_DATA", "../shared/data")) / "archive_bw"
    if not data.is_dir():
        data = Path(str(files("colorize") / "sample" / "archive"))
    scans = [path for path in sorted(data.iterdir()) if path.suffix in (".jpg", ".jpeg", ".png")]
    folder.mkdir()
    for number in range(count):
        scan = scans[number % len(scans)]
        shutil.copyfile(scan, folder / f"{number // len(scans):03}-{scan.name}")
    return folder


def _rate(arrivals: Iterable[tuple[int, float]]) -> tuple[float, float]:
    """Pictures and megapixels a second, from when the first block is done; arrivals: those of each block as it is done."""
    times, pictures, megapixels = [], [], []
    for count, size in arrivals:
        times.append(time.perf_counter())
        pictures.append(count)
        megapixels.append(size)
    elapsed = times[-1] - times[0]
    return sum(pictures[1:]) / elapsed, sum(megapixels[1:]) / elapsed


def job(source: Path, target: Path) -> tuple[float, float]:
    """Pictures and megapixels a second of the bulk job on the Ray that is connected, once its workers are warm."""
    arrivals: list[tuple[float, int, float]] = []
    plan = prepare(ArchiveConfig(source=source, target=target))
    summary = carry_out(plan, on_progress=lambda now: arrivals.append((time.perf_counter(), now.done, now.megapixels)))
    assert summary.colored == len(list(source.iterdir())), summary.failures
    (began, first, first_megapixels), (ended, last, last_megapixels) = arrivals[0], arrivals[-1]
    return (last - first) / (ended - began), (last_megapixels - first_megapixels) / (ended - began)


def _plain_pool(source: Path, target: Path) -> float:
    plan = prepare(ArchiveConfig(source=source, target=target))
    workers = cluster.current().cpus
    journal = Journal(plan.target, plan.run_id)
    journal.open()
    blocks = to_tables(cut_into_blocks(plan.work.tasks, workers))
    with multiprocessing.get_context("spawn").Pool(workers, _start, (order_of(plan), plan.model.read_bytes())) as pool:
        pictures, _ = _rate((table.num_rows, 0.0) for table in pool.imap(_paint, blocks))
    journal.close()
    shutil.rmtree(target)
    return pictures


def _start(order: Order, model: bytes) -> None:
    global _painter
    _painter = Painter(order, model)


def _paint(block: pa.Table) -> pa.Table:
    return _painter(block)


def _jpeg_paths(scans: list[bytes]) -> tuple[float, float]:
    """Megapixels a second, ours and the usual path's, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    colorizer = Colorizer(load_model(ArchiveConfig(source=".", target=".").model))
    megapixels = sum(page.width * page.height for data in scans for page in open_scan(data).pages) / 1e6
    seconds = []
    for path in (_ours, _usual):
        path(scans[0], colorizer)
        began = time.perf_counter()
        for data in scans:
            path(data, colorizer)
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return megapixels / seconds[0], megapixels / seconds[1]


def _ours(data: bytes, colorizer: Colorizer) -> bytes:
    return colorize_scan(open_scan(data), colorizer)


def _usual(data: bytes, colorizer: Colorizer) -> bytes:
    lab_hwc = rgb2lab(np.array(Image.open(BytesIO(data)).convert("RGB")))
    L_hw = lab_hwc[..., 0].astype(np.float32)
    (prediction,) = colorizer.predict([shrink(L_hw, colorizer.model.card)], DecodeSettings())
    ab_12hw = F.interpolate(prediction.ab_n2hw, size=L_hw.shape, mode="bilinear")
    lab_hwc[..., 1:] = ab_12hw[0].permute(1, 2, 0).numpy()
    target = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colours outside the gamut, which this path clips
        rgb_hwc = lab2rgb(lab_hwc)
    Image.fromarray((rgb_hwc * 255).round().astype(np.uint8)).save(target, "JPEG", quality=95)
    return target.getvalue()
