"""The jobs of a comparison: their commands, and the stages that are left to run.

Everything that a later call needs to resume (`summary.json`, `checkpoints/last.ckpt`) is read from the run folders, so
a comparison that was killed loses at most the epoch in progress.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from coordconv_apps.runs.folder import numbered_folders
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.utils.files import file_name

Stage = Literal["fit", "test"]


@dataclass(frozen=True)
class Job:
    """One arm trained and tested with one seed, and with one value of `--over` if it is given."""

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
    """Settings that all jobs of a comparison share, and the paths of its files."""

    module: str  # of the application, as in `python -m MODULE fit`
    configs: tuple[Path, ...]  # in the order in which they are passed to it
    flags: tuple[str, ...]  # passed to it unchanged
    out: Path  # the folder of the comparison
    over: str | None = None  # the argument of `--over`, such as `model.game`

    def log(self, job: Job) -> Path:
        """Return the file that holds the output of a job's processes."""
        return self.out / "logs" / f"{job.name}.log"

    def training_folders(self, job: Job) -> list[Path]:
        """Return the folders of a job's trainings, newest first."""
        return [folder for name in (self.out / "runs").glob(f"*/{job.name}") for folder in numbered_folders(name)]

    def finished(self, job: Job, stage: Stage) -> Path | None:
        """Return the folder of a job's finished training, or that of the finished test of this training, or None.

        It is the oldest one: a user may have trained again from its configuration, with other arguments.
        """
        if stage == "fit":
            folders = self.training_folders(job)
        else:
            fit = self.finished(job, "fit")
            folders = [] if fit is None else numbered_folders(fit, stage)
        return next((folder for folder in reversed(folders) if _is_finished(folder, stage)), None)

    def stages(self, job: Job) -> list[Stage]:
        """Return the stages that a job has left: none, its test, or both."""
        return [stage for stage in get_args(Stage) if self.finished(job, stage) is None]

    def command(self, job: Job, stage: Stage) -> list[str]:
        """Return the command line of a stage; it resumes a training that left a `last.ckpt`."""
        command = [*self.arguments(job, stage), f"--runs_dir={self.out / 'runs'}", f"--name={job.name}"]
        if stage == "test":
            fit = self.finished(job, "fit")
            checkpoint = None if fit is None else fit / "checkpoints" / "best.ckpt"
        else:
            started = (folder / "checkpoints" / "last.ckpt" for folder in self.training_folders(job))
            checkpoint = next((path for path in started if path.is_file()), None)
        return command if checkpoint is None else [*command, f"--ckpt_path={checkpoint}"]

    def arguments(self, job: Job, stage: Stage) -> list[str]:
        """Return the command line of a stage without its folder and checkpoint."""
        command = [sys.executable, "-m", self.module, stage]
        command += [part for config in self.configs for part in ("--config", str(config))]
        command += self.flags
        if self.over is not None:
            command.append(f"--{self.over}={job.value}")
        return [*command, f"--model.coords={job.arm}", f"--seed_everything={job.seed}"]


def _is_finished(folder: Path, command: Stage) -> bool:
    summary = read_summary(folder)
    return summary.get("command") == command and summary.get("status") == "finished"
