"""The folder of a comparison: used by one process at a time, and holding the runs of one command line."""

import contextlib
import json
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from coordconv_apps.compare.arguments import ARMS
from coordconv_apps.compare.configuration import arguments, differences
from coordconv_apps.compare.jobs import Plan
from coordconv_apps.report.page import PAGE
from coordconv_apps.utils.config_files import as_mapping, yaml_mapping
from coordconv_apps.utils.errors import abbreviate_names, one_line
from coordconv_apps.utils.files import atomic_write, remove_empty_folders, try_lock

_RECORD = "comparison.json"
_JOB = rf"({'|'.join(ARMS)})-seed\d+"
"""Names of jobs: their folders in `runs`, and their logs. With `--over`, its value stands before them."""


@contextlib.contextmanager
def lock_folder(out: Path) -> Iterator[int]:
    """Lock the folder of a comparison for this process and its runs; yield the lock's file descriptor.

    Raises:
        ValueError: Another comparison, or a run that outlived one, is using it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as file:  # a link's target keeps its content
        if not try_lock(file.fileno()):
            raise ValueError(f"--out {out}: in use by another comparison, or by a run that it left")
        yield file.fileno()


def claim_folder(plan: Plan, fresh: bool) -> None:
    """Check that the runs in the folder belong to this command line, and record the command line there.

    Arms, seeds, values of `--over` and the number of jobs may change; the application, the arguments in its configs,
    the flags for it and the argument of `--over` may not. With `fresh`, the runs and the report of an earlier
    comparison are deleted, and no other files.

    Raises:
        ValueError: The folder holds runs of another command line, or runs that no comparison made.
    """
    path, hint = plan.out / _RECORD, "choose another --out, or delete its runs with --fresh"
    config = {name: value for file in plan.configs for name, value in arguments(yaml_mapping(str(file))).items()}
    wanted: dict[str, Any] = {"module": plan.module, "config": config, "flags": list(plan.flags)}
    if plan.over is not None:
        wanted["over"] = plan.over
    figures: object = []
    if path.is_file() and fresh:
        _delete_comparison(plan.out)
    elif path.is_file():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"--out {plan.out}: its comparison.json is damaged; {hint}") from error
        figures = found.pop("figures", [])
        if found != wanted:
            changed = [key for key in (*wanted, *(found.keys() - wanted)) if found.get(key) != wanted.get(key)]
            mismatch = ", ".join(_mismatch(key, found.get(key), wanted.get(key)) for key in changed)
            raise ValueError(f"--out {plan.out}: holds a comparison of another command line ({mismatch}); {hint}")
    elif (plan.out / "runs").exists():
        raise ValueError(f"--out {plan.out}: holds runs that no comparison made; choose another folder")
    _write_record(plan.out, wanted | {"figures": figures})


def recorded_figures(out: Path) -> set[Path]:
    """Return the figures beside `comparison.png` that the last report of a comparison wrote, if they are there."""
    names = _record(out).get("figures")
    found = {*out.glob("comparison-*.png"), *out.glob("comparison_*.png")}
    return {file for file in found if file.name in names} if isinstance(names, list) else set()


def record_figures(out: Path, figures: Collection[Path]) -> None:
    """Record the figures of a report, so that a later one deletes those, and no others."""
    _write_record(out, _record(out) | {"figures": sorted(figure.name for figure in figures)})


def _record(out: Path) -> dict[str, Any]:
    try:
        return as_mapping(json.loads((out / _RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):  # none yet, or a damaged one
        return {}


def _write_record(out: Path, record: dict[str, Any]) -> None:
    with atomic_write(out / _RECORD) as file:
        file.write(json.dumps(record, indent=2) + "\n")


def _delete_comparison(out: Path) -> None:
    """Delete the report, the runs and the logs of a comparison; other files in its folder stay."""
    report = [out / PAGE, *(out / f"comparison.{kind}" for kind in ("md", "csv", "png")), *recorded_figures(out)]
    job = re.compile(f".+-{_JOB}" if "over" in _record(out) else _JOB)
    runs = [folder for folder in (out / "runs").glob("*/*") if job.fullmatch(folder.name)]
    logs = [log for log in (out / "logs").glob("*.log") if job.fullmatch(log.stem)]
    parents = dict.fromkeys([*(path.parent for path in (*runs, *logs)), out / "runs", out / "logs"])
    for folder in parents:
        if folder.is_symlink():
            raise ValueError(f"--fresh: {folder} cannot be deleted (it is a link)")
    for path in (*report, *runs, *logs):  # the report first: it refers to the runs
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:  # such as a link to another folder
            raise ValueError(f"--fresh: {path} cannot be deleted ({one_line(error)})") from error
    remove_empty_folders([*parents])


def _mismatch(key: str, found: Any, wanted: Any) -> str:  # noqa: ANN401  # any JSON value
    if key == "config":
        rows = differences({"there": as_mapping(found), "here": wanted})
        return abbreviate_names(
            [f"{name} {there or 'unset'} there, {here or 'unset'} here" for name, there, here in rows]
        )
    if key == "flags" and isinstance(found, list):
        there = [flag for flag in found if flag not in wanted]
        here = [flag for flag in wanted if flag not in found]
        if there or here:  # else in another order
            return f"flags {there} there, {here} here"
    return f"{'--over' if key == 'over' else key} {found} there, {wanted} here"
