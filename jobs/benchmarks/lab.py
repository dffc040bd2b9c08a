"""`lab`: the Ray Data stage on all cores against `skimage.color.rgb2lab` in one process, on 50,000 pictures of 32×32.

The bundled sample, repeated, so that the figure can be had offline. The stage is warm: what is timed is its sustained rate from records in
the object store to LAB rows in the object store.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import ray.data
from skimage.color import rgb2lab

from colorize.data.dataset import records_to_lab, run_in_tasks
from colorize.data.tally import Tally
from jobs.benchmarks.sample import repeated_sample

PICTURES = 50_000
SKIMAGE_BATCH = 1000
"""Pictures in one call: larger batches make skimage slower, since its float64 intermediates leave the cache."""


def measure(runs: int) -> dict[str, list[float]]:
    """Each run's numbers by key."""
    blocks, rgb_bhwc = repeated_sample(PICTURES)
    _stage(blocks)
    numbers: dict[str, list[float]] = {"ratio_vs_skimage": [], "images_per_s": [], "skimage_images_per_s": []}
    for _ in range(runs):
        ours, theirs = PICTURES / _stage(blocks), PICTURES / _skimage(rgb_bhwc)
        numbers["ratio_vs_skimage"].append(ours / theirs)
        numbers["images_per_s"].append(ours)
        numbers["skimage_images_per_s"].append(theirs)
    return numbers


def _stage(blocks: ray.data.Dataset) -> float:
    began = time.perf_counter()
    run_in_tasks(blocks, records_to_lab(Tally(), drop_grey=False)).materialize()
    return time.perf_counter() - began


def _skimage(rgb_bhwc: npt.NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    for first in range(0, len(rgb_bhwc), SKIMAGE_BATCH):
        rgb2lab(rgb_bhwc[first : first + SKIMAGE_BATCH])
    return time.perf_counter() - began
