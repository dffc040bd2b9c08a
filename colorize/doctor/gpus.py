"""The GPUs, as torch sees them."""

from __future__ import annotations

from pathlib import Path

from colorize.doctor.finding import Finding

DRIVER = Path("/proc/driver/nvidia/version")


def check_gpus(driver: Path = DRIVER) -> Finding:
    """Which there are, whether torch can use them, and whether networks compute in bfloat16."""
    import torch

    from colorize.model.device import pick_device, uses_bfloat16

    narrow = "bfloat16" if uses_bfloat16("auto", pick_device("auto")) else "float32"
    if not torch.cuda.is_available():
        if driver.exists():
            why = f"torch {torch.__version__} is built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs only'}"
            return Finding(
                check="GPUs", status="warning", found=f"an NVIDIA driver is loaded, but torch sees no GPU: {why}",
                advice="install a torch for the CUDA that `nvidia-smi` names; a container needs --gpus all",
            )  # fmt: skip
        return Finding(check="GPUs", status="ok", found=f"none: networks compute on the CPUs, in {narrow}")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    free, total = torch.cuda.mem_get_info()
    found = f"{', '.join(names)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, in {narrow}"
    if free < 2e9:
        return Finding(check="GPUs", status="warning", found=found, advice="less than 2 GB is free: end what holds it (`nvidia-smi`)")
    return Finding(check="GPUs", status="ok", found=found)
