"""What a comparison runs, and what it finds in the run folders that the application writes.

Everything that a later call needs to go on (`summary.json`, `checkpoints/last.ckpt`) is read from there, so a
comparison that was killed loses no more than the epoch it was in.
"""

import csv
import hashlib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from coordconv_apps.runs.folder import versions
from coordconv_apps.runs.summary import read_summary

Stage = Literal["fit", "test"]

LONGEST_NAME = 60  # characters of a value in the name of a run


def file_name(value: str) -> str:
    """Returns a value as part of the name of a file: itself where it may be one, else what is left and a checksum.

    Args:
        value: Such as `pong`, or `ALE/Pong-v5`, which gives `ALE-Pong-v5-` and eight digits.
    """
    kept = re.sub(r"[^\w.-]+", "-", value, flags=re.ASCII).strip("-.")[:LONGEST_NAME]
    if kept == value and kept:
        return kept
    return f"{kept}-{hashlib.sha256(value.encode()).hexdigest()[:8]}".lstrip("-")  # no two values share a name


@dataclass(frozen=True)
class Job:
    """One arm trained and tested with one seed, and one value of what the comparison goes over, if it does."""

    arm: str
    seed: int
    value: str | None = None

    @property
    def name(self) -> str:
        """The name of its runs, such as `xy-seed0` or `pong-xy-seed0`."""
        name = f"{self.arm}-seed{self.seed}"
        return name if self.value is None else f"{file_name(self.value)}-{name}"


@dataclass(frozen=True)
class Plan:
    """What every job of a comparison has in common, and where its files are.

    Args:
        module: The application's module, as in `python -m MODULE fit`.
        configs: Its config files, in the order in which they are given to it.
        flags: Further flags, handed to it as they are.
        out: The folder of the comparison.
        over: The argument of which the jobs have different values, such as `model.game`; None: there is none.
    """

    module: str
    configs: tuple[Path, ...]
    flags: tuple[str, ...]
    out: Path
    over: str | None = None

    def log(self, job: Job) -> Path:
        """Returns the file that holds the output of a job's processes."""
        return self.out / "logs" / f"{job.name}.log"

    def versions(self, job: Job) -> list[Path]:
        """Returns the folders of a job's runs, newest first."""
        return [folder for name in (self.out / "runs").glob(f"*/{job.name}") for folder in versions(name)]

    def fitted(self, job: Job) -> Path | None:
        """Returns the folder of a job's finished training, or None."""
        return next((folder for folder in self.versions(job) if _finished(folder, "fit")), None)

    def tested(self, job: Job) -> Path | None:
        """Returns the folder of the finished test of a job's finished training, or None."""
        folders = self.versions(job)
        fit = self.fitted(job)
        later = [] if fit is None else folders[: folders.index(fit)]
        return next((folder for folder in later if _finished(folder, "test")), None)

    def stages(self, job: Job) -> list[Stage]:
        """Returns what a job has still to do: nothing, its test, or both."""
        if self.fitted(job) is None:
            return ["fit", "test"]
        return [] if self.tested(job) is not None else ["test"]

    def command(self, job: Job, stage: Stage) -> list[str]:
        """Returns the command line of a stage; a training that left a `last.ckpt` goes on from it."""
        command = [sys.executable, "-m", self.module, stage]
        command += [part for config in self.configs for part in ("--config", str(config))]
        command += self.flags
        if self.over is not None:
            command.append(f"--{self.over}={job.value}")
        command += [f"--model.coords={job.arm}", f"--seed_everything={job.seed}"]
        command += [f"--runs_dir={self.out / 'runs'}", f"--name={job.name}"]
        checkpoint = self._checkpoint(job, stage)
        return command if checkpoint is None else [*command, f"--ckpt_path={checkpoint}"]

    def _checkpoint(self, job: Job, stage: Stage) -> Path | None:
        if stage == "test":
            fit = self.fitted(job)
            return None if fit is None else fit / "checkpoints" / "best.ckpt"
        started = (folder / "checkpoints" / "last.ckpt" for folder in self.versions(job))
        return next((checkpoint for checkpoint in started if checkpoint.is_file()), None)


def _finished(folder: Path, command: Stage) -> bool:
    summary = read_summary(folder)
    return summary.get("command") == command and summary.get("status") == "finished"


def read_curve(folder: Path, metric: str) -> dict[int, float]:
    """Returns a metric of a run by epoch (from 0), out of its `metrics.csv`; empty where there is none.

    Args:
        folder: The run's folder.
        metric: A column of the file, such as `val/iou`.
    """
    values = {}
    for row in _rows(folder):
        if metric in row and "epoch" in row:
            values[int(row["epoch"])] = row[metric]
    return values


class TrainingProgress(NamedTuple):
    """How far a training is."""

    epochs: int  # validated
    of: int | None  # None: it does not say
    metrics: dict[str, float]  # of the last validation


def read_progress(folder: Path) -> TrainingProgress:
    """Returns how far a training is, by its `metrics.csv` and `config.yaml`."""
    epochs, metrics = 0, {}
    for row in _rows(folder):
        validation = {name: value for name, value in row.items() if name.startswith("val/")}
        if validation and "epoch" in row:
            epochs, metrics = int(row["epoch"]) + 1, validation
    most = read_argument(folder, "trainer.max_epochs")
    return TrainingProgress(epochs, most if isinstance(most, int) and most > 0 else None, metrics)


def read_argument(folder: Path, name: str) -> object:
    """Returns the value of an argument of a run, out of its `config.yaml`; None where that does not tell it.

    Args:
        folder: The run's folder.
        name: The argument, such as `trainer.max_epochs`.
    """
    try:
        value: Any = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        for key in name.split("."):
            value = value[key]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    found: object = value
    return found


def _rows(folder: Path) -> list[dict[str, float]]:
    """Returns the rows of a `metrics.csv`, each without its empty columns."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    except (OSError, ValueError):  # not there yet, or its last row is being written
        return []


@dataclass(frozen=True)
class Result:
    """One arm with one seed, as its run folders tell it.

    Args:
        job: The arm and the seed.
        error: What went wrong, or empty for a finished job.
        metrics: The test metrics; empty for a failed job.
        parameters: Number of parameters of the network.
        seconds: Seconds of training.
        epochs: Epochs of training.
        headline: Name of the validation metric to draw.
        curve: That metric by epoch.
        folders: The folders of the training and of the test.
        device: Where it was trained.
        fit_metrics: The last metrics of the training itself.
    """

    job: Job
    error: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    seconds: float | None = None
    epochs: int | None = None
    headline: str | None = None
    curve: dict[int, float] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    device: str = ""
    fit_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Either `finished` or `failed`."""
        return "failed" if self.error else "finished"

    def validations(self, metric: str) -> dict[int, float]:
        """Returns any metric of the finished training by epoch (from 0); empty where there is none.

        Args:
            metric: Its name, such as `val/seconds`.
        """
        return read_curve(self.folders[0], metric) if self.folders else {}

    def argument(self, name: str) -> object:
        """Returns the value of any argument of the training; None where that is not known.

        Args:
            name: The argument, such as `model.game`.
        """
        return read_argument(self.folders[0], name) if self.folders else None


def by_value(results: Iterable[Result]) -> dict[str | None, list[Result]]:
    """Returns results by the value of what the comparison goes over; all of them under None where it does not.

    Args:
        results: The results of all jobs.
    """
    groups: dict[str | None, list[Result]] = {}
    for result in results:
        groups.setdefault(result.job.value, []).append(result)
    return groups


def collect(plan: Plan, job: Job, error: str = "") -> Result:
    """Returns the result of a job out of its run folders.

    Args:
        plan: The comparison.
        job: The job; finished, or failed with `error`.
        error: What went wrong, or empty.
    """
    fit, test = plan.fitted(job), plan.tested(job)
    training = read_summary(fit) if fit is not None else {}
    tested = read_summary(test) if test is not None else {}
    headline = training.get("headline") or (training.get("best") or {}).get("metric")
    return Result(
        job=job,
        error=error,
        metrics=_metrics(tested),
        parameters=training.get("parameters"),
        seconds=training.get("seconds"),
        epochs=training.get("epochs"),
        headline=headline,
        curve=read_curve(fit, headline) if fit is not None and headline else {},
        folders=tuple(folder for folder in (fit, test) if folder is not None),
        device=str(training.get("device", "")),
        fit_metrics=_metrics(training),
    )


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    metrics = {name: float(value) for name, value in (summary.get("metrics") or {}).items() if value is not None}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
