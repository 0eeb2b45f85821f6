"""One command: its run folder, loggers, callbacks and trainer, and what the trainer does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from coordconv_apps.cli.arguments import ArgumentsCLI
from coordconv_apps.cli.launch import parent_launch, pass_to_launched
from coordconv_apps.cli.run_report import ReportStart, RunReport, RunStart
from coordconv_apps.cli.trainer_arguments import check_trainer_arguments, choose_strategy, trainer_error
from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.runs.folder import new_run_dir, next_run_dir
from coordconv_apps.training.checkpoints import Checkpoints, SaveFirst
from coordconv_apps.training.progress import BarProgress, PlainProgress, is_terminal
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback

    from coordconv_apps.cli.trainer import SuiteTrainer
    from coordconv_apps.data.datamodule import DataModule
    from coordconv_apps.export import Format
    from coordconv_apps.training.signals import Interrupts
    from coordconv_apps.training.task import Task


class SuiteCLI(ArgumentsCLI):
    """Create the trainer of a command, and run it.

    Args:
        report: Report on the run.
        interrupts: Handler of the signals.
        task_class: The base class of the application's tasks.
        datamodule_class: The data module.
        args: The command line; ``sys.argv`` if None.
        default_task: The task if neither the command line nor a config file names one; ``task_class`` if None.
        callbacks: Callbacks of the application.
    """

    def __init__(
        self,
        report: RunReport,
        interrupts: Interrupts,
        task_class: type[Task],
        datamodule_class: type[DataModule],
        args: Sequence[str] | None,
        default_task: type[Task] | None,
        callbacks: Sequence[type[Callback]],
    ) -> None:
        self.interrupts = interrupts
        super().__init__(report, task_class, datamodule_class, args, default_task, callbacks)

    # ------------------------------------------------------------------ trainer

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401  # LightningCLI's
        """Create the run folder, its loggers and callbacks, and the trainer."""
        given = self._get(self.config_init, "trainer")
        check_trainer_arguments(given, self.model)
        config = self._plain_config()
        folder = self._run_dir()
        checkpoints = Checkpoints(self.interrupts, config)
        kwargs["default_root_dir"] = folder
        kwargs["callbacks"] = self._callbacks(given, checkpoints)
        if given.logger in (None, True):
            kwargs["logger"] = self._loggers(folder)
        kwargs["strategy"] = choose_strategy(given, self.model)
        if given.max_epochs is None and given.max_steps == -1 and given.max_time is None:
            kwargs["max_epochs"] = 1000  # Lightning's default, without its warning
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            if is_main_process() and not any(folder.iterdir()):
                folder.rmdir()
            defaults = self._parser(self.subcommand).get_defaults().trainer
            raise trainer_error(error, {k: v for k, v in given.items() if v != defaults.get(k)}) from error
        epochs = 0 if self.restored is None else self.restored["epochs"]
        if is_main_process():
            _write_config(folder / "config.yaml", config, epochs)
        pass_to_launched(
            {"run_dir": str(folder), "ckpt_path": None if self.checkpoint is None else str(self.checkpoint)}
        )
        seed = self._get(self.config, "seed_everything")
        start = RunStart(self.config.subcommand, self.name_dir.name, folder, seed, self.checkpoint, epochs)
        self.report.start(start, trainer, self.model, checkpoints)
        return trainer

    def _run_dir(self) -> Path:
        """Return the run's folder: that of the run to resume, or a new one."""
        launch = parent_launch()
        if launch is not None:
            return Path(launch["run_dir"])
        if self.subcommand == "fit" and self.checkpoint is not None:
            folder = self.checkpoint.parent.parent
            if folder.parent.resolve() == self.name_dir.resolve() and self.checkpoint.parent.name == "checkpoints":
                return self.name_dir / folder.name
        return new_run_dir(self.name_dir) if is_main_process() else next_run_dir(self.name_dir)

    def _callbacks(self, given: Namespace, checkpoints: Checkpoints) -> list[Callback]:
        callbacks: list[Callback] = [*(given.callbacks or []), ReportStart(self.report)]
        if given.enable_checkpointing is not False:
            callbacks = [SaveFirst(checkpoints), *callbacks, checkpoints]
        if given.enable_progress_bar is not False:
            callbacks.append(BarProgress() if is_terminal() else PlainProgress())
        return callbacks

    def _loggers(self, folder: Path) -> list[Logger]:
        """Return the run's loggers; those of a resumed run drop what was logged after its checkpoint."""
        step = self.restored["log_step"] if self.restored is not None and self.subcommand == "fit" else -1
        purge_step = step + 1 if step >= 0 else None
        tensorboard = TensorBoardLogger(folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step)
        return [tensorboard, CsvLog(folder, keep_until=step)]

    def _plain_config(self) -> dict[str, Any]:
        """Return the command's config, without the flags that are valid for this call alone."""
        left_out = ("config", "ckpt_path", "allow_random_weights")
        config = {key: value for key, value in self.config_dump.items() if key not in left_out}
        return {**config, "name": self.name_dir.name}

    # ----------------------------------------------------------------- commands

    def fit(self, model: Task, datamodule: DataModule) -> None:
        """Train."""
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=self.checkpoint)

    def validate(self, model: Task, datamodule: DataModule) -> None:
        """Evaluate on the validation data."""
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.checkpoint, verbose=False)

    def test(self, model: Task, datamodule: DataModule) -> None:
        """Evaluate on the test data."""
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self.checkpoint, verbose=False)

    def predict(self, model: Task, datamodule: DataModule) -> None:
        """Predict; the application's callback writes the predictions."""
        self.trainer.predict(model, datamodule=datamodule, ckpt_path=self.checkpoint, return_predictions=False)

    def export(self, model: Task, datamodule: DataModule, format: Format) -> None:
        """Export the checkpoint's network."""
        if self.checkpoint is not None:
            checkpoint = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            model.on_load_checkpoint(checkpoint)  # as Lightning does for its own commands
            model.load_state_dict(checkpoint["state_dict"])
        files = cast("SuiteTrainer", self.trainer).export(model, datamodule, format)
        self.report.add({f"difference/{path.name}": value for path, value in files.items()})
        for path in files:
            print(f"wrote and verified {path}")


def _write_config(path: Path, config: dict[str, Any], epochs: int) -> None:
    """Write ``config.yaml``; if a resumed run had another one, keep it as ``config_until_epoch_<epochs>.yaml``."""
    if path.is_file():
        if yaml.safe_load(path.read_text(encoding="utf-8")) == config:
            return
        path.rename(path.with_name(f"config_until_epoch_{epochs}.yaml"))
    with atomic_write(path) as file:
        yaml.safe_dump(config, file, sort_keys=False)
