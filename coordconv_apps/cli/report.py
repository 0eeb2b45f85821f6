"""What a command leaves behind: ``summary.json``, and the lines printed at its start and its end."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any, Literal, cast

from coordconv_apps.runs.environment import device_name, package_versions
from coordconv_apps.runs.summary import read_summary, write_summary
from coordconv_apps.training.progress import epoch_metrics
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.errors import one_line
from coordconv_apps.utils.tables import beside_floors, table

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import Trainer

    from coordconv_apps.training.checkpoints import Checkpoints, RunState
    from coordconv_apps.training.task import Task

Status = Literal["running", "finished", "interrupted", "failed"]


class Report:
    """One command's report. Before `start` there is nothing to report on.

    Args:
        app: The application's name.
        module: What follows ``python -m`` on its command line.
    """

    def __init__(self, app: str, module: str) -> None:
        self.app = app
        self.module = module
        self.summary: dict[str, Any] = {}
        self.folder: Path | None = None
        self.trainer: Trainer | None = None
        self.checkpoints: Checkpoints | None = None
        self.running = False  # whether training or evaluation has begun
        self._began = time.monotonic()
        self._seconds_before = 0.0

    def start(
        self,
        command: str,
        name: str,
        folder: Path,
        trainer: Trainer,
        task: Task,
        seed: object,
        checkpoints: Checkpoints,
        checkpoint: Path | None,
        epochs: int,
    ) -> None:
        """Says what runs where, and writes a first ``summary.json`` with the status ``running``.

        Args:
            command: The command.
            name: The run's name.
            folder: The run's folder.
            trainer: The trainer that runs it.
            task: The task.
            seed: The seed of everything.
            checkpoints: Knows the best checkpoint.
            checkpoint: The checkpoint to go on from or to use, if any.
            epochs: For how many epochs it has trained.
        """
        self.folder, self.trainer, self.checkpoints = folder, trainer, checkpoints
        before = read_summary(folder)  # of the run that is resumed
        self._seconds_before = before.get("seconds") or 0.0
        self.summary = {
            "app": self.app,
            "name": name,
            "command": command,
            "status": "running",
            "error": None,
            "metrics": before.get("metrics", {}),
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "best": before.get("best"),
            "noted": before.get("noted", {}),
            "parameters": task.parameter_count(),
            "coords": task.coords,
            "headline": task.headline or task.monitor,
            "seed": seed,
            "epochs": before.get("epochs", epochs),
            "steps": before.get("steps", 0),
            "seconds": self._seconds_before,
            "device": device_name(trainer.strategy.root_device, trainer.world_size),
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
            "versions": package_versions(),
        }
        if is_main_process():
            write_summary(folder, self.summary)
            facts = f"{self.summary['parameters']:,} parameters, coords {task.coords}, seed {seed}"
            print(f"{command} {self.app} {name!r} in {folder}")
            if command == "fit" and checkpoint is not None:
                print(f"goes on from {checkpoint}, after {epochs} whole epochs")
            print(f"{facts}, {self.summary['precision']} on {self.summary['device']}", flush=True)

    def add(self, metrics: dict[str, float]) -> None:
        """Adds metrics that the trainer does not know of."""
        self.summary["metrics"] = {**self.summary["metrics"], **metrics}

    def finish(self, status: Status, error: BaseException | None = None) -> None:
        """Writes the final ``summary.json``, and prints the table of metrics and what to do next."""
        if self.folder is None or self.trainer is None:
            return
        summary, trainer = self.summary, self.trainer
        fit = summary["command"] == "fit"
        summary["status"] = status
        summary["error"] = None if error is None else f"{type(error).__name__}: {one_line(error)}"
        summary["seconds"] = round(self._seconds_before + time.monotonic() - self._began, 2)
        self.add(epoch_metrics(trainer))
        if trainer.lightning_module is not None:
            task = cast("Task", trainer.lightning_module)
            summary["headline"] = task.headline or task.monitor  # which may depend on the data
            summary["noted"] = {**summary["noted"], **task.run_facts}
        if fit and trainer.global_step:
            summary["epochs"] = trainer.current_epoch
            summary["steps"] = trainer.global_step
        best = self.folder / "checkpoints" / "best.ckpt"
        if fit and self.checkpoints is not None and self.checkpoints.best is not None and best.is_file():
            summary["checkpoint"] = str(best)
            summary["best"] = {"checkpoint": str(best), **self.checkpoints.best}
        if is_main_process():
            write_summary(self.folder, summary)
            if status != "failed":
                self._print()

    def _print(self) -> None:
        """The end of the command, for its user."""
        summary = self.summary
        print(f"\n{summary['command']} {summary['status']} after {summary['seconds']:.1f} s")
        if summary["metrics"]:
            rows: list[tuple[Any, ...]] = [
                (name, value) if floor is None else (name, value, floor)
                for name, value, floor in beside_floors(summary["metrics"])
            ]
            if any(len(row) > 2 for row in rows):
                rows.insert(0, ("", "", "floor: real against real"))
            print(table(rows))
        rows = list(summary["noted"].items())
        if summary["command"] == "fit" and (best := summary["best"]):
            value = f" ({best['metric']} {best['value']:.5g}, epoch {best['epoch'] + 1})" if best["metric"] else ""
            rows.append(("best", f"{best['checkpoint']}{value}"))
        elif summary["checkpoint"]:
            rows.append(("checkpoint", summary["checkpoint"]))
        rows.append(("summary", f"{self.folder}/summary.json"))
        if command := self._next_command():
            rows.append(("next", command))
        print(table(rows), flush=True)

    def _next_command(self) -> str | None:
        """The command to type next."""
        if self.summary["command"] != "fit" or self.folder is None:
            return None
        interrupted = self.summary["status"] == "interrupted"
        if not (self.folder / "checkpoints" / ("last.ckpt" if interrupted else "best.ckpt")).is_file():
            return None
        words = ["python", "-m", self.module]
        words += ["fit", "--ckpt_path", "last"] if interrupted else ["test", "--ckpt_path", "best"]
        if self.summary["name"] != "default":
            words += ["--name", self.summary["name"]]
        runs_dir = str(self.folder.parents[2])
        if runs_dir != "runs":
            words += ["--runs_dir", runs_dir]
        return shlex.join(words)


def complete_summary(folder: Path, state: RunState) -> None:
    """Writes the final ``summary.json`` of a training that was stopped after its last epoch, but before its end.

    Args:
        folder: The run's folder. Without an unfinished training in it, nothing happens.
        state: That of its last checkpoint.
    """
    summary = read_summary(folder)
    if summary.get("command") != "fit" or summary["status"] == "finished":
        return
    checkpoint = str(folder / "checkpoints" / "best.ckpt")
    best = None if state["best"] is None else {"checkpoint": checkpoint, **state["best"]}
    metrics = {name: value for name, value in sorted(state["metrics"].items()) if not name.endswith("_step")}
    done = {"status": "finished", "error": None, "metrics": metrics, "epochs": state["epochs"]}
    write_summary(folder, {**summary, **done, "checkpoint": checkpoint, "best": best})
