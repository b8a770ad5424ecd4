"""What this machine has to train with, found without torch."""

import os
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia")
NO_DEVICES = ("", "-1")  # values of CUDA_VISIBLE_DEVICES that hide all GPUs


def num_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether this machine has a GPU that this process may use."""
    return DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in NO_DEVICES


def gpus() -> list[str]:
    """The GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in NO_DEVICES:
        return []
    if visible is not None:
        return [device for device in visible.split(",") if device]
    return [str(index) for index, _ in enumerate((DRIVER / "gpus").glob("*"))]
