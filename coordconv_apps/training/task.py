"""The base of every application's task: what all of them share, and nothing else.

A task reads top to bottom in one order: configure, one shared ``_step``, train/validate/test/predict, optimizers.
This base adds what no task should write again: training means that survive an interruption, the state of the random
number generators, changed learning rates on a resume, and the hooks that ``export`` needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.resume import OptimizerSettings, apply_changed_settings, optimizer_settings
from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.random_state import RandomState, random_state, restore_random_state

CHECKPOINT_KEY = "coordconv_apps"


class Task(LightningModule):
    """A network, its loss, its metrics and its optimizer.

    Args:
        coords: Which coordinates the network sees: ``none`` is the plain-convolution baseline, ``xy`` adds the
            position, ``xyr`` the position and the distance from the centre.

    Attributes:
        monitor: The logged metric that decides which epoch is ``checkpoints/best.ckpt``, such as ``"val/iou"``.
        monitor_mode: Whether the largest (``"max"``) or the smallest (``"min"``) value is the best; of equal ones, the
            last.
        headline: The validation metric that comparisons draw, if that is another one.
        changeable_args: Names of constructor arguments that may differ from the checkpoint's when a run is resumed or
            its network is used. The command line's value then takes effect; any other difference is an error.
        initial_weight_args: Names of constructor arguments that only select the weights to start from, and may be
            None. They are set to None when a checkpoint is loaded.
        replaced_trainer_args: For a task that steps its optimizers itself: the trainer's arguments that do not work
            then, with the task's own argument, such as ``{"gradient_clip_val": "model.max_grad_norm"}``.
        find_unused_parameters: Whether DDP looks for parameters that a backward pass does not use; None: only if the
            task steps its optimizers itself, since each of them then uses a part of the parameters.
        precisions: Allowed values of ``trainer.precision``; None allows all of Lightning's.
        run_facts: Facts to report beside the metrics in ``summary.json`` and at the end of a command, by name: values
            that are known only once the data and the number of processes are.

    A subclass that has one of this class's hooks (``on_...``) calls ``super()`` in it.
    """

    monitor: ClassVar[str] = "val/loss"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    headline: str | None = None
    changeable_args: ClassVar[frozenset[str]] = frozenset({"lr", "weight_decay"})
    initial_weight_args: ClassVar[frozenset[str]] = frozenset()
    replaced_trainer_args: ClassVar[Mapping[str, str]] = {}
    find_unused_parameters: ClassVar[bool | None] = None
    precisions: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, coords: Coords = "none") -> None:
        super().__init__()
        self.coords: Coords = coords
        self.run_facts: dict[str, float | str] = {}
        self._train_sums: dict[str, Tensor] = {}
        self._fresh_settings: list[OptimizerSettings] = []
        self._restored: dict[str, Any] | None = None
        self._before_validation: RandomState | None = None

    def parameter_count(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    # ---------------------------------------------------------------- logging

    def log_train(self, values: Mapping[str, Tensor], batch_size: int) -> None:
        """Logs training values: each as ``name_step`` at once, and its mean over the epoch as ``name``.

        Unlike ``self.log(..., on_epoch=True)`` the means survive an interruption in the middle of an epoch.

        Args:
            values: Scalars by metric name, such as ``{"train/loss": loss}``.
            batch_size: Number of samples in the batch, the weight of these values in the mean.
        """
        for name, value in values.items():
            self.log(f"{name}_step", value, on_step=True, on_epoch=False, prog_bar=True, batch_size=batch_size)
            if name not in self._train_sums:
                precise = torch.float32 if self.device.type == "mps" else torch.float64
                self._train_sums[name] = torch.zeros(2, dtype=precise, device=self.device)
            sums = self._train_sums[name]
            sums[0] += value.detach().to(sums.dtype) * batch_size
            sums[1] += batch_size

    def on_train_epoch_end(self) -> None:
        """Logs the means over the epoch of what `log_train` was given, over all processes."""
        for name, sums in sorted(self._train_sums.items()):
            total, weight = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
            self.log(name, total / weight, sync_dist=True)  # of equal numbers
        self._train_sums.clear()

    # ----------------------------------------------------------------- resume

    def on_fit_start(self) -> None:
        """Remembers the optimizers as the command line asks for them, before a checkpoint overwrites them."""
        self._fresh_settings = optimizer_settings(self.trainer)

    def on_train_start(self) -> None:
        """Puts back what a checkpoint holds of this class: changed settings, running means, random numbers."""
        restored, self._restored = self._restored, None
        if restored is None:
            return
        apply_changed_settings(self.trainer, restored["optimizers"], self._fresh_settings)
        if self.global_rank < len(restored["ranks"]):  # else: resumed with more processes than before
            own = restored["ranks"][self.global_rank]
            self._train_sums = {name: sums.to(self.device) for name, sums in own["train_sums"].items()}
            restore_random_state(own["random"], self.device)

    def on_validation_start(self) -> None:
        """Remembers the random numbers: a validation that is interrupted is done again from its beginning."""
        self._before_validation = random_state(self.device)

    def on_validation_end(self) -> None:
        """Forgets what `on_validation_start` remembered."""
        self._before_validation = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the state of this class, for every process, to a checkpoint. All processes call this together."""
        own = {
            "random": self._before_validation or random_state(self.device),
            "train_sums": {name: sums.cpu() for name, sums in self._train_sums.items()},
        }
        checkpoint[CHECKPOINT_KEY] = {"ranks": gather_ranks(own), "optimizers": self._fresh_settings}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the state of this class until training starts."""
        self._restored = checkpoint.get(CHECKPOINT_KEY)

    # ----------------------------------------------------------------- export

    def export_module(self) -> nn.Module:
        """The network to export: plain tensors in, plain tensors out, batch dimension first.

        Raises:
            ValueError: This task has no such network.
        """
        raise ValueError(f"export: {type(self).__name__} has no exportable network")

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of `export_module`, batch dimension first, in the sizes that the exported files take.

        Raises:
            ValueError: This task has no exportable network.
        """
        raise ValueError(f"export: {type(self).__name__} has no exportable network")

    def export_more(self, folder: Path) -> dict[Path, float]:
        """Writes forms of the application's own; by default none.

        Args:
            folder: Where the files go.

        Returns:
            The files, and for each the largest difference from the network's outputs.
        """
        return {}
