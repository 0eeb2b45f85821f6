"""Find and create run folders: ``<runs_dir>/<app>/<name>/version_N/``, one for every training.

A folder holds ``config.yaml``, TensorBoard and CSV logs, ``checkpoints/{best,last}.ckpt``, ``pictures/``,
``summary.json`` and ``report.html``. A resumed ``fit`` continues in the folder of its run. The other commands write to
folders below that of the training whose checkpoint they use, such as ``version_0/test_0/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coordconv_apps.utils.argument_checks import given_path
from coordconv_apps.utils.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

TRAINING = "version"
"""First part of the name of a training's folder; that of another command's folder is the command."""


def run_dir(trainer: Trainer) -> Path:
    """Return the folder of the current command."""
    return Path(trainer.default_root_dir)


def name_dir_of(runs_dir: object, app: str, name: object, config_files: Sequence[object]) -> Path:
    """Return the folder of all runs of a name: ``<runs_dir>/<app>/<name>``.

    The name is that of ``--name`` unless it is None, else that of the last config file, else ``default``.

    Raises:
        ValueError: ``runs_dir`` is empty.
        UserError: The name cannot be a folder's name.
    """
    if name is None:
        name = Path(str(config_files[-1])).stem if config_files else "default"
    name = str(name)  # YAML has numbers and dates
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"--name={name}: must be the name of a folder, without separators")
    return given_path(str(runs_dir), "--runs_dir") / app / name


def numbered_folders(parent: Path, kind: str = TRAINING) -> list[Path]:
    """Return the folders ``<kind>_N`` in ``parent``, newest first."""
    numbered = [
        (int(number), path)
        for path in (parent.iterdir() if parent.is_dir() else ())
        if (number := path.name.removeprefix(f"{kind}_")) != path.name and number.isdecimal()
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def next_run_dir(parent: Path, kind: str = TRAINING) -> Path:
    """Return the next folder ``<kind>_N`` in ``parent``, without creating it."""
    newest = numbered_folders(parent, kind)
    number = int(newest[0].name.removeprefix(f"{kind}_")) + 1 if newest else 0
    return parent / f"{kind}_{number}"


def new_run_dir(parent: Path, kind: str = TRAINING) -> Path:
    """Create the next folder ``<kind>_N`` in ``parent``; safe when several processes do so at once."""
    while True:
        path = next_run_dir(parent, kind)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            return path


def training_of(checkpoint: Path) -> Path | None:
    """Return the folder of the training that saved a checkpoint; None for a file outside of such folders."""
    checkpoints = checkpoint.absolute().parent
    folder = checkpoints.parent
    return folder if checkpoints.name == "checkpoints" and folder in numbered_folders(folder.parent) else None


def find_checkpoint(ckpt_path: str, name_dir: Path) -> Path:
    """Return the checkpoint that ``--ckpt_path`` means: a file, or ``best`` or ``last`` of the newest run with one.

    Raises:
        ValueError: The path is empty.
        FileNotFoundError: There is no such checkpoint.
    """
    if ckpt_path not in ("best", "last"):
        path = given_path(ckpt_path, "--ckpt_path")
        try:
            if path.is_file():
                return path
        except (OSError, ValueError) as error:  # such as a name that is too long
            raise FileNotFoundError(f"--ckpt_path={ckpt_path}: {getattr(error, 'strerror', None) or error}") from error
        raise FileNotFoundError(f"--ckpt_path={ckpt_path}: no such file; must be a file, best or last")
    for version in numbered_folders(name_dir):
        path = version / "checkpoints" / f"{ckpt_path}.ckpt"
        if path.is_file():
            return path
    app_dir = name_dir.parent
    there = sorted(p.name for p in app_dir.iterdir() if p.is_dir()) if app_dir.is_dir() else []
    known = f"the names in {app_dir} are: {', '.join(there)}" if there else f"there are no runs in {app_dir}"
    raise FileNotFoundError(
        f"--ckpt_path={ckpt_path}: no run named {name_dir.name!r} has a {ckpt_path}.ckpt; {known} (choose with --name)"
    )
