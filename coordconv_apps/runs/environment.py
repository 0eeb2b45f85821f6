"""Describe the device and the package versions that a run used."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

import torch


def device_name(device: torch.device, world_size: int) -> str:
    """Return the device of a run, such as ``"cuda: NVIDIA H200 x4"`` or ``"cpu: <model name> x2"`` (cores)."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)} x{world_size}"
    if device.type != "cpu":
        return f"{device.type} x{world_size}"
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    named = re.search(r"^model name\s*:(.*)$", text, re.MULTILINE)
    model = named[1].strip() if named else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu: {model} x{cores}"


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that a result depends on; None for missing ones."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "lightning", "coordconv_apps"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
