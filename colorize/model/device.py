"""Where and in which precision a network computes."""

from __future__ import annotations

from typing import Literal

import torch

from colorize.errors import ConfigError

Precision = Literal["auto", "bf16", "fp32"]

GPU_SHARE = 0.25
"""Of a GPU, where the cluster has any, for each worker of a bulk run: decoding and encoding on its one CPU take longer than the network on
the GPU."""

KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
"""Variables for the C library of a process that runs a network on a CPU, read at its start: it keeps the memory of one batch for the next.

Otherwise every layer's output is taken from the system anew, page by page: in a batch of 16 of 192×256 pixels 16,500 page faults a picture,
which took 64 ms of one core, in a batch of 8 51 ms; with these none, 35 and 36 ms, and no more memory at the peak.
"""


def pick_device(name: str) -> torch.device:
    """`auto` (a GPU when there is one), `cpu`, or `cuda[:n]`. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r}: must be auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: torch sees no CUDA GPU on this machine")
    return device


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 on `device`.

    Emulated bfloat16 is the slow way on a CPU without AVX-512 BF16 or AMX: 336 pictures/s against 612 in float32.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
