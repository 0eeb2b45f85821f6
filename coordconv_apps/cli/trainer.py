"""The trainer of the command line: Lightning's with the command ``export``, and checks of its arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder, StochasticWeightAveraging

from coordconv_apps.export import FORMATS, Format, export
from coordconv_apps.training.task import Task
from coordconv_apps.utils.argument_checks import POSITIVE_INT, Allowed, check_ranges
from coordconv_apps.utils.errors import UserError, one_line

TRAINER_DEFAULTS: dict[str, Any] = {
    "devices": 1,  # the samples of a training step depend on it
    "use_distributed_sampler": False,  # the loaders shard themselves
    "num_sanity_val_steps": 0,  # it would change the random state of a resumed run
    "enable_model_summary": False,  # the command prints the number of parameters
    "log_every_n_steps": 10,
}
"""Defaults of the trainer's arguments that differ from Lightning's."""


class CommandTrainer(Trainer):
    """Lightning's trainer, with the command ``export`` and short help texts.

    Args:
        limit_train_batches: Number of batches in a training epoch, or a fraction of them (1.0 is all). Null: all.
        limit_val_batches: The same for the validation.
        limit_test_batches: The same for the test.
        limit_predict_batches: The same for predict.
    """

    checkpoint: Path | None = None  # loaded by all commands

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  # Lightning's
        # The command line takes the first type that fits; in Lightning's order, 1 may become the fraction 1.0.
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        **kwargs: Any,  # noqa: ANN401  # Lightning's
    ) -> None:
        super().__init__(
            *args,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            **kwargs,
        )

    def fit(self, model: Task, datamodule: LightningDataModule) -> None:  # type: ignore[override]  # a command
        """Train a network, or resume its training."""
        super().fit(model, datamodule=datamodule, ckpt_path=self.checkpoint, weights_only=True)

    def validate(self, model: Task, datamodule: LightningDataModule) -> None:  # type: ignore[override]  # a command
        """Evaluate a checkpoint on the validation data."""
        super().validate(model, datamodule=datamodule, ckpt_path=self.checkpoint, verbose=False, weights_only=True)

    def test(self, model: Task, datamodule: LightningDataModule) -> None:  # type: ignore[override]  # a command
        """Evaluate a checkpoint on the test data."""
        super().test(model, datamodule=datamodule, ckpt_path=self.checkpoint, verbose=False, weights_only=True)

    def predict(self, model: Task, datamodule: LightningDataModule) -> None:  # type: ignore[override]  # a command
        """Write a checkpoint's predictions, samples or films to files."""
        super().predict(
            model, datamodule=datamodule, ckpt_path=self.checkpoint, return_predictions=False, weights_only=True
        )

    def export(self, model: Task, datamodule: LightningDataModule, format: Format = "default") -> dict[Path, float]:
        """Write a checkpoint's network in forms that run without this package.

        Args:
            model: The task to export.
            datamodule: Its data.
            format: ``onnx``: a graph for any ONNX runtime. ``plain``: plain convolutions and constant maps for one
                input size, as a torch.export program and as weights. ``torch_export``: the network itself as a
                torch.export program. ``default``: onnx and plain. ``all``: all of them. The batch size is dynamic.
                In addition, rl writes ``policy.zip`` for Stable-Baselines3 with this package installed,
                ``policy_plain.zip`` without it, and ``policy.safe.zip``.

        Returns:
            The files, in the run's folder, and for each the largest difference from the network's outputs.
        """
        if self.checkpoint is not None:  # as Lightning loads it for its own commands
            checkpoint = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            model.on_load_checkpoint(checkpoint)
            model.load_state_dict(checkpoint["state_dict"])
        module, inputs = model.export_module().cpu().eval(), tuple(x.cpu() for x in model.example_inputs())
        module = module.to(memory_format=torch.contiguous_format)  # torch.export.save warns otherwise
        folder = Path(self.default_root_dir) / "export"
        files = export(module, inputs, FORMATS.get(format, (format,)), folder, model.export_interface())
        return files | model.export_more(folder)


UNSUPPORTED: Mapping[type[Callback], str] = {
    # They change an argument after the configuration was saved and the schedules were created.
    BatchSizeFinder: "since config.yaml must state data.batch_size; choose data.batch_size yourself",
    LearningRateFinder: "since config.yaml must state model.lr; choose model.lr yourself",
    # It replaces the weights after the last validation and the last checkpoint.
    StochasticWeightAveraging: "since no checkpoint would contain its average; choose EMAWeightAveraging",
}
"""Callbacks that are refused, and for each the reason and what to do."""

UNLIMITED: Allowed = (lambda value: value == -1 or value >= 1, "an integer of at least 1, or -1 for no limit")

RANGES: dict[str, Allowed] = {
    "max_epochs": UNLIMITED,
    "max_steps": UNLIMITED,
    "accumulate_grad_batches": POSITIVE_INT,
    "log_every_n_steps": (lambda value: value >= 0, "an integer of at least 0 (0 logs no steps)"),
    "gradient_clip_val": (lambda value: value >= 0, "at least 0 (0 does not clip)"),
    "limit_train_batches": (lambda value: value != 0, "a number of batches or a fraction of them, above 0"),
    "check_val_every_n_epoch": (
        lambda value: value >= 1,
        "an integer of at least 1, or null to count the batches of val_check_interval over all epochs",
    ),
    "val_check_interval": (
        lambda value: value != 0,
        "a number of batches or a fraction of an epoch, above 0; without validation: --trainer.limit_val_batches=0",
    ),
}


def given_callbacks(given: Namespace) -> list[Callback]:
    """Return the callbacks of the configuration: one, several or none."""
    return [given.callbacks] if isinstance(given.callbacks, Callback) else [*(given.callbacks or ())]


LAUNCHERS = ("MASTER_ADDR", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Variables of which launchers of several machines set at least one."""


def check_devices(given: Namespace, environment: Mapping[str, str] = os.environ) -> None:
    """Raise `UserError` for a number of devices or machines that could only wait, or fill this machine.

    On a GPU, Lightning compares the number with the devices.
    """
    if given.num_nodes > 1 and not any(name in environment for name in LAUNCHERS):
        raise UserError(
            f"--trainer.num_nodes={given.num_nodes}: start the same command on each machine with torchrun or srun, see"
            " docs/many-machines.md"
        )
    on_cpu = given.accelerator == "cpu" or (given.accelerator == "auto" and not torch.accelerator.is_available())
    cores = os.cpu_count() or 1
    if on_cpu and _device_count(given.devices) > cores:
        raise UserError(f"--trainer.devices={given.devices}: must be at most {cores}, the CPU cores of this machine")


def check_started_processes(given: Namespace, environment: Mapping[str, str] = os.environ) -> None:
    """Raise `UserError` if torchrun or srun has started several processes for a single device.

    Lightning would run the command in each of them, and all would write to the same folder. It compares larger numbers
    itself.
    """
    launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "srun"
    # SLURM_NTASKS is also set in a script that starts one process without srun.
    started = int(environment.get("WORLD_SIZE" if launcher == "torchrun" else "SLURM_STEP_NUM_TASKS", "1"))
    if started > 1 and given.num_nodes * _device_count(given.devices) == 1:
        raise UserError(
            f"--trainer.devices={given.devices}: {launcher} has started {started} processes, and each would run the"
            " whole command; set --trainer.devices to the processes on each machine, and --trainer.num_nodes to the"
            " number of machines; in a shell that srun has started, unset SLURM_STEP_NUM_TASKS"
        )


def check_trainer_arguments(given: Namespace, task: Task) -> None:
    """Raise `UserError` or `ValueError` for an argument that the task or the command line's own flags do not allow."""
    if given.default_root_dir is not None:
        raise UserError(f"--trainer.default_root_dir={given.default_root_dir}: choose the folder with --runs_dir")
    check_ranges(vars(given), RANGES, "--trainer")
    for kind, reason in UNSUPPORTED.items():
        if any(isinstance(callback, kind) for callback in given_callbacks(given)):
            raise UserError(f"--trainer.callbacks={kind.__name__}: not supported, {reason}")
    if re.search("spawn|fork|notebook", str(given.strategy)):
        raise UserError(f"--trainer.strategy={given.strategy}: choose ddp, whose processes get the same arguments")
    if re.search("fsdp|deepspeed|model_?parallel", str(given.strategy), re.IGNORECASE):
        raise UserError(f"--trainer.strategy={given.strategy}: choose ddp, which has all parameters on each device")
    check_devices(given)
    long_names = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
    precision = long_names.get(str(given.precision or 32), str(given.precision))
    if task.precisions is not None and precision not in task.precisions:
        raise UserError(f"--trainer.precision={given.precision}: must be one of {', '.join(task.precisions)}")
    if task.automatic_optimization:
        return
    for name, allowed in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        if given[name] not in (None, allowed):
            replaced_by = task.replaced_trainer_args.get(name)
            must = f"must be {'null' if allowed is None else allowed} for a task that steps its optimizers itself"
            raise UserError(
                f"--trainer.{name}={given[name]}: {must}{'' if replaced_by is None else f'; choose {replaced_by}'}"
            )


def choose_strategy(given: Namespace, task: Task) -> Any:  # noqa: ANN401  # a name, or an object from the config
    """Return the trainer's strategy; it finds unused parameters if the task needs that on several processes."""
    find_unused = task.find_unused_parameters
    if find_unused is None:
        find_unused = not task.automatic_optimization
    several = given.num_nodes > 1 or _device_count(given.devices) > 1
    if find_unused and (given.strategy == "ddp" or (given.strategy == "auto" and several)):
        return "ddp_find_unused_parameters_true"
    return given.strategy


def trainer_error(error: Exception, given: dict[str, Any]) -> UserError:
    """Return Lightning's error about an impossible argument with the arguments whose values it mentions."""
    message = one_line(error)
    named = [key for key in given if key in message]
    about = named or [k for k, v in given.items() if re.search(rf"(?<!\w){re.escape(str(v))}(?!\w)", message)]
    return UserError(f"{', '.join(f'--trainer.{key}={given[key]}' for key in about) or 'trainer'}: {message}")


def _device_count(devices: list[int] | str | int) -> int:
    """Return the number of devices for a value of ``--trainer.devices``."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return sum(bool(part.strip()) for part in devices.split(","))
    if str(devices) in ("auto", "-1"):
        return max(torch.cuda.device_count(), 1)
    try:
        return int(devices)
    except ValueError:
        allowed = "must be a number of devices, a list such as [0, 1], auto or -1"
        raise UserError(f"--trainer.devices={devices}: {allowed}") from None
