"""Run folders: ``<runs_dir>/<app>/<name>/version_N/``, one for every command, and what is found in them.

A folder holds ``config.yaml``, TensorBoard and CSV logs, ``checkpoints/{best,last}.ckpt``, ``pictures/`` and
``summary.json``. A resumed ``fit`` goes on in the folder of the run that it resumes.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import Trainer

CHECKPOINTS = ("best", "last")


def run_dir(trainer: Trainer) -> Path:
    """The run's folder."""
    return Path(trainer.default_root_dir)


def versions(name_dir: Path) -> list[Path]:
    """The ``version_N`` folders in ``name_dir``, newest first."""
    numbered = [
        (int(number), path)
        for path in (name_dir.iterdir() if name_dir.is_dir() else ())
        if (number := path.name.removeprefix("version_")) != path.name and number.isdecimal()
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def next_run_dir(name_dir: Path) -> Path:
    """The next ``version_N`` folder in ``name_dir``, which is not there yet."""
    newest = versions(name_dir)
    number = int(newest[0].name.removeprefix("version_")) + 1 if newest else 0
    return name_dir / f"version_{number}"


def new_run_dir(name_dir: Path) -> Path:
    """Makes the next ``version_N`` folder in ``name_dir``; safe when several processes do it at once.

    Raises:
        OSError: The folder cannot be made.
    """
    while True:
        path = next_run_dir(name_dir)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            return path


def find_checkpoint(ckpt_path: str, name_dir: Path) -> Path:
    """The checkpoint that ``--ckpt_path`` means.

    Args:
        ckpt_path: A file, or ``best`` or ``last`` of the newest run that has one.
        name_dir: The folder of the runs of this name, ``<runs_dir>/<app>/<name>``.

    Raises:
        FileNotFoundError: There is no such checkpoint.
    """
    path = Path(ckpt_path).expanduser()
    if ckpt_path not in CHECKPOINTS:
        if path.is_file():
            return path
        raise FileNotFoundError(f"--ckpt_path={ckpt_path}: no such file (a file, or best or last, is allowed)")
    for version in versions(name_dir):
        path = version / "checkpoints" / f"{ckpt_path}.ckpt"
        if path.is_file():
            return path
    app_dir = name_dir.parent
    there = sorted(p.name for p in app_dir.iterdir() if p.is_dir()) if app_dir.is_dir() else []
    known = f"the names in {app_dir} are: {', '.join(there)}" if there else f"there are no runs in {app_dir}"
    raise FileNotFoundError(
        f"--ckpt_path={ckpt_path}: no run named {name_dir.name!r} has a {ckpt_path}.ckpt; {known} (choose with --name)"
    )


@contextmanager
def written_aside(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file next to ``path`` for writing, and renames it to ``path`` when all went well.

    Args:
        path: The file to replace; its folder is made if needed.
        mode: ``"w"`` for text, ``"wb"`` for bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, mode, encoding=encoding) as file:
            yield file
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def read_summary(folder: Path) -> dict[str, Any]:
    """The ``summary.json`` in ``folder``; empty if there is none that can be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes ``summary.json`` in ``folder``. Values that are no numbers (NaN, infinity) become null."""
    with written_aside(folder / "summary.json") as file:
        json.dump(_finite(summary), file, indent=2, allow_nan=False)
        file.write("\n")


def _finite(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def device_name(device: torch.device, world_size: int) -> str:
    """What a run ran on, such as ``"cuda: NVIDIA H200 x4"`` or ``"cpu: <model name> x2"`` (cores)."""
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
    """The versions of Python and of the packages that a result depends on; None for what is not installed."""
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
