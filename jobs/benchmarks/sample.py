"""The benchmarks' pictures: the bundled sample of CIFAR-10, repeated, so that every figure can be had offline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import ray.data

from colorize.data import cifar10
from colorize.data.dataset import put_records


def repeated_sample(count: int) -> tuple[ray.data.Dataset, npt.NDArray[np.uint8]]:
    """`count` pictures, twice: as records in the object store (for `records_to_lab`), and as RGB (count, 32, 32, 3) uint8."""
    sample = cifar10.read_sample("train")
    records = np.tile(sample, (-(-count // len(sample)), 1))[:count]
    rgb_bhwc = records[:, 1:].reshape(-1, 3, cifar10.SIDE, cifar10.SIDE).transpose(0, 2, 3, 1)
    return ray.data.from_arrow_refs(put_records([("sample.bin", records)], count)), np.ascontiguousarray(rgb_bhwc)
