"""The record of a command: ``summary.json``, and the lines printed at its start and its end."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from coordconv_apps.cli.checkpoint_state import GivenCheckpoint
from coordconv_apps.report.page import pages_wanted
from coordconv_apps.report.run_page import write_run_page
from coordconv_apps.runs.environment import device_name, package_versions
from coordconv_apps.runs.folder import find_checkpoint
from coordconv_apps.runs.lock import RunLock
from coordconv_apps.runs.summary import Status, Summary, read_summary, write_summary
from coordconv_apps.training.checkpoints import Checkpoints, RunState
from coordconv_apps.training.progress import epoch_metrics
from coordconv_apps.training.task import Task
from coordconv_apps.training.trainer_access import complete_epochs
from coordconv_apps.utils.config_files import class_path
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.errors import debugging, one_line
from coordconv_apps.utils.files import remove_empty_folders
from coordconv_apps.utils.tables import beside_real_data, table


class CommandRecord:
    """Record one command of an application, from `start` to `finish`; ``python -m`` runs its ``package``."""

    def __init__(self, app: str, package: str) -> None:
        self.app = app
        self.package = package
        self.summary: Summary = {}
        self.folder: Path | None = None
        self.trainer: Trainer | None = None
        self.checkpoints: Checkpoints | None = None
        self.lock = RunLock()
        self.created: list[Path] = []  # folders that this command has created: its own, and those above it
        self.sizes = ""  # the largest arguments, for a message about missing memory
        self.learning_rates: dict[str, object] = {}  # arguments, for a message about divergence
        self.running = False  # whether training or evaluation has begun
        self._began = time.monotonic()
        self._seconds_before = 0.0
        self._code_arguments: list[str] = []  # of the next command

    def start(
        self,
        command: str,
        name: str,
        folder: Path,
        seed: int,
        checkpoint: GivenCheckpoint | None,
        trainer: Trainer,
        task: Task,
        checkpoints: Checkpoints,
    ) -> None:
        """Print the command's settings, and write a first ``summary.json``."""
        self.folder, self.trainer, self.checkpoints = folder, trainer, checkpoints
        self.learning_rates = task.learning_rates()
        self._code_arguments = _code_arguments(task, self.package)
        before = read_summary(folder)  # of the run that is resumed
        self._seconds_before = before.get("seconds") or 0.0
        self.summary = {
            "app": self.app,
            "package": self.package,
            "name": name,
            "command": command,
            "status": "running",
            "error": None,
            "metrics": before.get("metrics", {}),
            "checkpoint": None if checkpoint is None else str(checkpoint.path),
            "best": before.get("best"),
            "run_facts": before.get("run_facts", {}),
            "parameters": task.parameter_count(),
            "coords": task.coords,
            **_best_metric(task),
            "seed": seed,
            "epochs": before.get("epochs", 0 if checkpoint is None else checkpoint.state["epochs"]),
            "steps": before.get("steps", 0),
            "seconds": self._seconds_before,
            "device": device_name(trainer.strategy.root_device, trainer.world_size),
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
            "process": f"process {os.getpid()} on {platform.node()}",
            "versions": package_versions(),
        }
        if is_main_process():
            write_summary(folder, self.summary)
            facts = f"{self.summary['parameters']:,} parameters, coords {task.coords}, seed {seed}"
            print(f"{command} {self.app} {name!r} in {folder}")
            if command == "fit" and checkpoint is not None:
                print(f"resumes {checkpoint.path}, after {checkpoint.state['epochs']} complete epochs")
            print(f"{facts}, {self.summary['precision']} on {self.summary['device']}", flush=True)

    def discard(self) -> None:
        """Remove the folder of a command that was refused before training or evaluation began, if it is a new one."""
        if self.created and is_main_process():
            shutil.rmtree(self.created[0], ignore_errors=True)
            remove_empty_folders(self.created[1:])

    def mark_running(self, *_: object) -> None:
        """Record that training or evaluation has begun: later errors are not wrong arguments."""
        self.running = True

    def add(self, metrics: dict[str, float]) -> None:
        """Add metrics that were not logged to the trainer."""
        self.summary["metrics"] = {**self.summary["metrics"], **metrics}

    def finish(self, status: Status, error: BaseException | None = None) -> None:
        """Write the final ``summary.json``, and print the table of metrics and the next command."""
        if self.folder is None or self.trainer is None:
            return
        summary, folder, trainer = self.summary, self.folder, self.trainer
        fit = summary["command"] == "fit"
        summary["status"] = status
        summary["error"] = None if error is None else f"{type(error).__name__}: {one_line(error)}"
        if not (fit and summary["steps"] and trainer.global_step == summary["steps"]):  # there was something to do
            summary["seconds"] = round(self._seconds_before + time.monotonic() - self._began, 2)
        self.add(epoch_metrics(trainer))
        if trainer.lightning_module is not None:
            task = cast(Task, trainer.lightning_module)
            summary.update(_best_metric(task))  # may depend on the data
            summary["run_facts"] = {**summary["run_facts"], **task.run_facts}
        if fit and trainer.global_step:
            summary["epochs"] = complete_epochs(trainer)
            summary["steps"] = trainer.global_step
        best = folder / "checkpoints" / "best.ckpt"
        if fit and self.checkpoints is not None and self.checkpoints.best is not None and best.is_file():
            summary["checkpoint"] = str(best)
            summary["best"] = {"checkpoint": str(best), **self.checkpoints.best}
        if is_main_process():
            write_summary(folder, summary)
            next_command = find_next_command(summary, folder, self._code_arguments)
            page = write_report_page(summary, folder, next_command) if self.running else None
            if status != "failed":
                print_end(summary, folder, page, next_command, _used_up_time(trainer) if fit else None)


def write_report_page(summary: Summary, folder: Path, next_command: str | None) -> Path | str | None:
    """Write ``report.html``; return it, the reason why it cannot be written, or None if it is not wanted."""
    if summary["command"] not in ("fit", "validate", "test") or not pages_wanted():
        return None
    try:
        return write_run_page(folder, next_command)
    except Exception as error:  # the training is done and saved; a drawing must not make it a failed one
        if debugging():
            traceback.print_exc()
        return f"could not be written ({type(error).__name__}: {one_line(error)})"


def print_end(
    summary: Summary, folder: Path, page: Path | str | None, next_command: str | None, used_up_time: float | None
) -> None:
    """Print the metrics, the checkpoint, the page, the time limit if it is used up, and the next command."""
    print(f"\n{summary['command']} {summary['status']} after {summary['seconds']:.1f} s")
    if summary["metrics"]:
        rows: list[tuple[Any, ...]] = [
            (name, value) if reference is None else (name, value, reference)
            for name, value, reference in beside_real_data(summary["metrics"])
        ]
        if any(len(row) > 2 for row in rows):
            rows.insert(0, ("", "", "real data"))
        print(table(rows))
    rows = list(summary["run_facts"].items())
    if summary["command"] == "fit" and (best := summary["best"]):
        if best["metric"]:
            value = f"{best['metric']} {best['value']:.5g}, epoch {best['epoch'] + 1}"
            rows.append(("best", f"{best['checkpoint']} ({value})"))
        else:
            rows.append(("last", f"{folder / 'checkpoints' / 'last.ckpt'} (there was no validation)"))
    elif summary["checkpoint"]:
        rows.append(("checkpoint", summary["checkpoint"]))
    if used_up_time is not None:
        rows.append(("stopped", f"the time limit of {used_up_time:.0f} s is used up; raise trainer.max_time"))
    rows.append(("summary", f"{folder}/summary.json"))
    if page is not None:
        rows.append(("report", str(page)))
    if next_command:
        rows.append(("next", next_command))
    print(table(rows), flush=True)


def find_next_command(summary: Summary, folder: Path, code_arguments: Sequence[str]) -> str | None:
    """Return the command to type after a training, if it has left a checkpoint."""
    if summary["command"] != "fit":
        return None
    interrupted, best = summary["status"] == "interrupted", summary["best"]
    name = "best" if not interrupted and best and best["metric"] else "last"
    checkpoint = folder / "checkpoints" / f"{name}.ckpt"
    if not checkpoint.is_file():
        return None
    # `best` and `last` are those of the newest run of this name.
    ckpt_path = name if find_checkpoint(name, folder.parent) == checkpoint else str(checkpoint)
    words = ["python", "-m", summary["package"], "fit" if interrupted else "test", "--ckpt_path", ckpt_path]
    if summary["name"] != "default":
        words += ["--name", summary["name"]]
    runs_dir = str(folder.parents[2])
    if runs_dir != "runs":
        words += ["--runs_dir", runs_dir]
    return shlex.join([*words, *code_arguments])


def _best_metric(task: Task) -> Summary:
    """Return the metric that comparisons plot, and whether large or small values of it are good."""
    return {"headline": task.headline or task.monitor, "monitor_mode": task.monitor_mode}


def _code_arguments(task: Task, package: str) -> list[str]:
    """Return the arguments of the model that name code outside of this project: a checkpoint may not, on its own."""
    own = {package.partition(".")[0], "coordconv_apps"}
    kind = type(task)
    words = [] if kind.__module__.partition(".")[0] in own else [f"--model={class_path(kind)}"]
    values = {name: str(task.hparams.get(name)) for name in sorted(kind.import_args)}
    return words + [f"--model.{name}={value}" for name, value in values.items() if ":" in value]


def _used_up_time(trainer: Trainer) -> float | None:
    """Return the time limit of the training, in seconds, if it is used up."""
    for timer in trainer.callbacks:  # type: ignore[attr-defined]  # declared nowhere
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None and left <= 0:
            return timer.time_elapsed() + left
    return None


def complete_summary(folder: Path, state: RunState) -> None:
    """Write the final ``summary.json`` of a training that was stopped after its last epoch, but before its end."""
    summary = read_summary(folder)
    if summary.get("command") != "fit" or summary["status"] == "finished":
        return
    checkpoint = str(folder / "checkpoints" / "best.ckpt")
    best = None if state["best"] is None else {"checkpoint": checkpoint, **state["best"]}
    metrics = {name: value for name, value in sorted(state["metrics"].items()) if not name.endswith("_step")}
    done: Summary = {"status": "finished", "error": None, "metrics": metrics, "epochs": state["epochs"]}
    write_summary(folder, {**summary, **done, "checkpoint": checkpoint, "best": best})
