"""`serve`: the service as its users run it, `colorize serve` in processes of its own, against the same work called directly in one process.

JPEGs of 640×480 from photographs that come with scikit-image, over the loopback. Each round measures, one after the other:

direct    `colorize_scan` for one picture after the other in a process of its own, with one and with two threads: the better counts
clients   32 clients, each sending its next picture when it has the last one's answer: pictures a second, and the model's mean batch
half      as many pictures a second, evenly, as half of that: the 99th percentile, counted from when each was due, by a direct call's median
stream    a camera of 30 frames of 320×240 a second, moving, noisy, flickering: frames coloured a second, 95th percentile of the delay

`--faults` measures instead what the service does under trouble: ten minutes at twice what it can do, the kill of the model's replica under
load, and a new version of a model under load.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from colorize.imaging.files import write_whole
from colorize.imaging.formats import open_scan
from colorize.model.card import DEFAULT_MODEL, SHIPPED, SUFFIX
from colorize.model.coloring import colorize_scan
from colorize.model.colorizer import Colorizer
from colorize.model.colormodel import load_model
from colorize.model.settings import DecodeSettings
from jobs.benchmarks.load import Answers, at_rate, by_clients, camera

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "camera", "hubble_deep_field")
CLIP = "coffee"
CLIENTS = 32
SECONDS, WARM_SECONDS = 12.0, 3.0
CAMERA_FPS = 30.0
SOAK_SECONDS, SOAK_WARM_SECONDS = 600.0, 60.0
FAULT_SECONDS = 45.0
RETRIES = 20
"""Of a client in the tests of faults."""

_PATH = "/v1/colorize?vividness=0.5"


def measure(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key."""
    keys = ("ratio_vs_direct", "p99_over_direct", "mean_batch_size", "stream_fps", "stream_p95_ms")
    more = ("requests_per_s", "direct_per_s", "direct_ms", "half_p99_ms", "half_p50_ms")
    numbers: dict[str, list[float]] = {key: [] for key in (*keys, *more)}
    bodies, frames = pictures(), clip()
    with serving() as (url, _):
        asyncio.run(by_clients(url + _PATH, bodies, CLIENTS, WARM_SECONDS))
        for _ in range(runs):
            direct_per_s, direct_ms = direct(bodies)
            loaded = asyncio.run(by_clients(url + _PATH, bodies, CLIENTS, SECONDS))
            half = asyncio.run(at_rate(url + _PATH, bodies, loaded.per_second / 2, 2 * SECONDS))
            fps, delays = asyncio.run(camera(url.replace("http", "ws") + "/v1/stream?vividness=0.5", frames, CAMERA_FPS, SECONDS))
            for answers in (loaded, half):
                assert set(answers.statuses) == {200}, answers.statuses
            p99_ms = 1000 * _percentile(half.latencies, 99)
            found = (
                loaded.per_second / direct_per_s, p99_ms / direct_ms, loaded.mean_batch_size, fps, 1000 * _percentile(delays, 95),
                loaded.per_second, direct_per_s, direct_ms, p99_ms, 1000 * statistics.median(half.latencies),
            )  # fmt: skip
            for key, value in zip(numbers, found, strict=True):
                numbers[key].append(value)
    return numbers


def measure_faults(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key. One run takes twelve minutes."""
    keys = ("soak_failures", "soak_growth", "soak_refused_share", "kill_lost", "kill_longest_s", "rollout_failed", "rollout_versions")
    numbers: dict[str, list[float]] = {key: [] for key in keys}
    bodies = pictures()
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(SHIPPED / f"cifar10{SUFFIX}", Path(folder) / f"rolling{SUFFIX}")
            with serving("--models", folder) as (url, process):
                soak, growth = asyncio.run(_soak(url, process, bodies))
                killed = asyncio.run(_kill(url, process, bodies))
                rolled = asyncio.run(_roll_out(url, bodies, Path(folder) / f"rolling{SUFFIX}"))
        print(f"answers by status (0: none): {dict(soak.statuses)} under overload, {dict(killed.statuses)} around a kill")
        lost = sum(count for status, count in killed.statuses.items() if status != 200)
        failed = sum(count for status, count in rolled.statuses.items() if status != 200)
        refused = sum(count for status, count in soak.statuses.items() if status != 200) / soak.statuses.total()
        found = (soak.failed, growth, refused, lost, max(killed.latencies), failed, len(rolled.models))
        for key, value in zip(numbers, found, strict=True):
            numbers[key].append(float(value))
    return numbers


async def _soak(url: str, process: int, bodies: Sequence[bytes]) -> tuple[Answers, float]:
    """Ten minutes at twice the capacity, and by which share the memory of all processes grew after the first minute."""
    capacity = (await by_clients(url + _PATH, bodies, CLIENTS, SECONDS)).per_second
    load = asyncio.create_task(at_rate(url + _PATH, bodies, 2 * capacity, SOAK_SECONDS))
    await asyncio.sleep(SOAK_WARM_SECONDS)
    before = await asyncio.to_thread(_memory, process)
    await asyncio.sleep(SOAK_SECONDS - SOAK_WARM_SECONDS - 5)
    after = await asyncio.to_thread(_memory, process)
    return await load, after / before - 1


async def _kill(url: str, process: int, bodies: Sequence[bytes]) -> Answers:
    """The model's replica is killed a third into the load; clients ask again when they are told to."""
    load = asyncio.create_task(by_clients(url + _PATH, bodies, 8, FAULT_SECONDS, retries=RETRIES))
    await asyncio.sleep(FAULT_SECONDS / 3)
    replicas = [pid for pid in _processes(process) if b"Predictor" in _command(pid)]
    assert replicas, "no model replica was found"
    for pid in replicas:
        os.kill(pid, signal.SIGKILL)
    return await load


async def _roll_out(url: str, bodies: Sequence[bytes], model: Path) -> Answers:
    """The model's file is replaced a third into the load."""
    load = asyncio.create_task(by_clients(f"{url}{_PATH}&model={model.stem}", bodies, 8, FAULT_SECONDS))
    await asyncio.sleep(FAULT_SECONDS / 3)
    write_whole(model, (SHIPPED / f"{DEFAULT_MODEL}{SUFFIX}").read_bytes())
    return await load


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[str, int]]:
    """`colorize serve`: where it is, and its process, from which all others of it descend."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [str(Path(sys.executable).with_name("colorize")), "serve", "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if line.startswith("Ready: ")), None)
            assert line is not None, "colorize serve did not start: its own words are above"
            yield line.split()[1], process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def pictures() -> list[bytes]:
    """Grey JPEGs of 640×480, each from another part of a photograph."""
    bodies = []
    for name in PHOTOGRAPHS:
        photograph = Image.fromarray(getattr(data, name)()).convert("L")
        for left, top in ((0, 0), (0.3, 0), (0, 0.3), (0.3, 0.3)):
            width = 0.7 * min(photograph.width, photograph.height * 4 / 3)
            box = (left * width, top * width * 0.75, left * width + width, (top + 1) * width * 0.75)
            bodies.append(_jpeg(photograph.resize((640, 480), Image.Resampling.BICUBIC, box=box)))
    return bodies


def clip() -> list[bytes]:
    """Grey JPEGs of 320×240: a camera that moves over a photograph, with noise and a light that flickers."""
    random, photograph = np.random.default_rng(0), Image.fromarray(getattr(data, CLIP)()).convert("L")
    frames = []
    for number in range(90):
        x = 100 + 100 * np.sin(number / 90 * 2 * np.pi)
        seen = photograph.resize((320, 240), Image.Resampling.BILINEAR, box=(x, 40, x + 400, 340))
        grey_hw = np.asarray(seen) * (1 + 0.04 * random.standard_normal()) + 6 * random.standard_normal((240, 320))
        frames.append(_jpeg(Image.fromarray(grey_hw.clip(0, 255).astype(np.uint8))))
    return frames


def _jpeg(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def direct(bodies: Sequence[bytes]) -> tuple[float, float]:
    """Pictures a second and a call's median in ms, without the service: the better of one and two threads."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = [pool.apply(_direct, (list(bodies), threads)) for threads in (1, 2)]
    return max(per_second for per_second, _ in found), min(milliseconds for _, milliseconds in found)


def _direct(bodies: list[bytes], threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    colorizer, settings = Colorizer(load_model(DEFAULT_MODEL)), DecodeSettings(vividness=0.5)
    seconds = []
    for round_ in range(3):
        for body in bodies:
            began = time.perf_counter()
            colorize_scan(open_scan(body), colorizer, settings)
            if round_:  # the first is slower
                seconds.append(time.perf_counter() - began)
    return len(seconds) / sum(seconds), 1000 * statistics.median(seconds)


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _processes(ancestor: int) -> list[int]:
    """A process and all that descend from it. By their parents, since Ray's workers write their titles over their environment."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if folder.name.isdecimal():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [ancestor]
    for pid in found:  # it grows meanwhile
        found += children.get(pid, [])
    return found


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _memory(process: int) -> float:
    """Bytes of all processes together; what they share counts once."""
    total = 0
    for pid in _processes(process):
        with contextlib.suppress(OSError):
            lines: list[Any] = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024.0 * total
