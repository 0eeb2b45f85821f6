"""Find and create run folders: ``<runs_dir>/<app>/<name>/version_N/``, one for every command.

A folder holds ``config.yaml``, TensorBoard and CSV logs, ``checkpoints/{best,last}.ckpt``, ``pictures/`` and
``summary.json``. A resumed ``fit`` continues in the folder of its run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def run_dir(trainer: Trainer) -> Path:
    """Return the run's folder."""
    return Path(trainer.default_root_dir)


def versions(name_dir: Path) -> list[Path]:
    """Return the ``version_N`` folders in ``name_dir``, newest first."""
    numbered = [
        (int(number), path)
        for path in (name_dir.iterdir() if name_dir.is_dir() else ())
        if (number := path.name.removeprefix("version_")) != path.name and number.isdecimal()
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def next_run_dir(name_dir: Path) -> Path:
    """Return the next ``version_N`` folder in ``name_dir``, without creating it."""
    newest = versions(name_dir)
    number = int(newest[0].name.removeprefix("version_")) + 1 if newest else 0
    return name_dir / f"version_{number}"


def new_run_dir(name_dir: Path) -> Path:
    """Create the next ``version_N`` folder in ``name_dir``; safe when several processes do so at once."""
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
    """Return the checkpoint that ``--ckpt_path`` means: a file, or ``best`` or ``last`` of the newest run with one.

    Raises:
        FileNotFoundError: There is no such checkpoint.
    """
    path = Path(ckpt_path).expanduser()
    if ckpt_path not in ("best", "last"):
        if path.is_file():
            return path
        raise FileNotFoundError(f"--ckpt_path={ckpt_path}: no such file; must be a file, best or last")
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
