"""Mutated command lines and configs of each application: one line that names the culprit, and nothing on the disk.

``make test`` runs a sample of those that are surely wrong, `test_wrong_commands_are_refused_all` under the marker
``slow`` 300 of an application and, with real trainings, values at the ends of their ranges.
"""

from __future__ import annotations

import itertools
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule

from coordconv_apps.cli.trainer import CommandTrainer
from coordconv_apps.training.task import Task
from coordconv_apps.utils.config_files import shipped_configs
from coordconv_apps.utils.errors import MAX_LINE
from tests.cli.applications import APPLICATIONS
from tests.cli.mutations import Application, Mutation, mutations
from tests.helpers.limits import TooSlow, address_space_limit, time_limit

SAMPLE, ALL, EXTREMES = 24, 300, 40
SECONDS = 60
"""Limit of one command; most take a tenth of a second."""
MEMORY = 16 * 2**30
"""Limit of the process's address space in the slow test: what asks for more is refused by the system."""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder, without data sets."""
    monkeypatch.setenv("COORDCONV_DATA", str(tmp_path / "no data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def chosen(app: Application, *, surely_wrong: bool, count: int) -> list[Mutation]:
    shipped = {name: path.read_text() for name, path in shipped_configs(app.package).items()}
    found = (each for each in mutations(app, shipped) if each.surely_wrong == surely_wrong)
    return list(itertools.islice(found, count))


def outcome(
    app: Application, mutation: Mutation, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, list[str]]:
    """Run a mutated command; return its status, what it prints to stderr, and the files that are left."""
    config = mutation.config_name
    if mutation.config is not None:
        config += ".yaml"
        Path(config).write_bytes(mutation.config)
    flags = [*app.flags(mutation.config_name), *mutation.flags]
    args = ["fit", f"--config={config}", "--runs_dir=runs", *flags]
    capsys.readouterr()
    try:
        with time_limit(SECONDS):
            app.main(args)
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    if mutation.config is not None:
        Path(config).unlink()
    left = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    shutil.rmtree("runs", ignore_errors=True)
    return status, capsys.readouterr().err, left


def complaint(mutation: Mutation, status: int, error: str, left: list[str]) -> str | None:
    """Return what is wrong with the answer to a mutated command; None if nothing is."""
    if status == 0:
        return "accepted" if mutation.surely_wrong else None
    if not error.startswith("error: ") or error.count("\n") != 1 or len(error) > MAX_LINE + 10:
        return "not one line"
    if mutation.culprits and not any(culprit in error for culprit in mutation.culprits):
        return f"does not name {mutation.culprits}"
    if mutation.surely_wrong and (status != 2 or left):
        return f"status {status}, left {left}"
    return None


def failures(
    app: Application, wrong: list[Mutation], folder: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[str]:
    for mutation in wrong:
        try:
            status, error, left = outcome(app, mutation, folder, capsys)
        except (Exception, TooSlow) as raised:  # each mutation is tried, and all failures are listed
            yield f"{mutation}\n    {type(raised).__name__}: {str(raised)[:300]}"
            continue
        if (reason := complaint(mutation, status, error, left)) is not None:
            yield f"{mutation}\n    {reason}: {error[:500]}"


def run_nothing(trainer: CommandTrainer, model: Task, datamodule: LightningDataModule) -> None:
    """Stand in for a training: what is surely wrong must be refused before."""


def check_refusals(count: int, app: Application, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = chosen(app, surely_wrong=True, count=count)
    found = list(failures(app, wrong, folder, capsys))
    assert not found, "\n".join([f"{len(found)} of {count}:", *found])


@pytest.mark.parametrize("name", APPLICATIONS)
def test_wrong_commands_are_refused_sample(
    name: str, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CommandTrainer, "fit", run_nothing)
    check_refusals(SAMPLE, APPLICATIONS[name](), offline, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_wrong_commands_are_refused_all(
    name: str, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CommandTrainer, "fit", run_nothing)
    check_refusals(ALL, APPLICATIONS[name](), offline, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_extreme_values_neither_crash_nor_hang(name: str, offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = APPLICATIONS[name]()
    started = time.monotonic()
    with address_space_limit(MEMORY), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(failures(app, chosen(app, surely_wrong=False, count=EXTREMES), offline, capsys))
    assert not found, "\n".join([f"{len(found)} of {EXTREMES}, {time.monotonic() - started:.0f} s:", *found])
