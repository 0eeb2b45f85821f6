"""Compile the runtime of the simulated device, and prepare the environment of the programs that use it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = HERE / "runtime" / "cuda_runtime.c"
LIBRARY = HERE / "build" / "libcuda.so.1"
ON = "SIM_CUDA"
"""Variable that turns the simulation on in a Python process and its children; set by `environment`."""


def missing() -> str | None:
    """Return why the device cannot be simulated here, in one line; None if it can."""
    if torch.version.cuda is None:
        return "the simulated CUDA device needs a CUDA build of torch"
    if shutil.which("gcc") is None:
        return "the simulated CUDA device needs gcc, which is not installed"
    if _headers() is None:
        return "the simulated CUDA device needs the headers of the package nvidia-cuda-runtime, which comes with torch"
    return None


def _headers() -> Path | None:
    """Return the folder of the CUDA runtime's header."""
    for package in (f"nvidia.cu{(torch.version.cuda or '').partition('.')[0]}", "nvidia.cuda_runtime"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or []) if spec is not None else []:
            if (Path(folder) / "include" / "cuda_runtime_api.h").is_file():
                return Path(folder) / "include"
    return None


def build() -> Path:
    """Compile the runtime, unless it is newer than its source; return the library.

    Raises:
        RuntimeError: Something is missing (see `missing`), or the compiler failed.
    """
    if (reason := missing()) is not None:
        raise RuntimeError(reason)
    if LIBRARY.is_file() and LIBRARY.stat().st_mtime > SOURCE.stat().st_mtime:
        return LIBRARY
    LIBRARY.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBRARY.parent) as folder:
        aside = Path(folder) / LIBRARY.name  # renamed when complete: several processes may build at once
        # -w: every function ignores most of its arguments.
        command = ["gcc", "-O1", "-w", "-shared", "-fPIC", f"-I{SOURCE.parent}", f"-I{_headers()}", str(SOURCE)]
        result = subprocess.run([*command, "-o", str(aside)], capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{SOURCE}: gcc failed:\n{result.stderr}")
        os.replace(aside, LIBRARY)
    return LIBRARY


def environment(base: Mapping[str, str], **settings: str) -> dict[str, str]:
    """Return the environment variables of a program on the simulated device.

    Args:
        base: The variables to extend, such as ``os.environ``.
        settings: Further variables: those of README.md.
    """
    library = build()

    def first(entry: object, name: str) -> str:
        return os.pathsep.join([str(entry), *filter(None, [base.get(name)])])

    return {
        **base,
        ON: "1",
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": first(library.parent, "LD_LIBRARY_PATH"),
        "PYTHONPATH": first(HERE / "startup", "PYTHONPATH"),
        **settings,
    }
