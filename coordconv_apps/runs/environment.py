"""Describe the device and the package versions that a run used."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch


def device_name(device: torch.device, world_size: int) -> str:
    """Return the device of a run, such as ``"cuda: NVIDIA H200 x4"`` or ``"cpu: <model name> x2"`` (cores)."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)} x{world_size}"
    if device.type != "cpu":
        return f"{device.type} x{world_size}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu: {model} x{cores}"


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that a result depends on; None for missing ones."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for key, package in (
        ("torch", "torch"),
        ("torchvision", "torchvision"),
        ("lightning", "lightning"),
        ("coordconv_apps", "coordconv-apps"),
    ):
        try:
            found[key] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[key] = None
    return found
