"""Exponential moving average of the weights, which often generalises better than the final weights.

After every step of the optimizer, ``average = decay * average + (1 - decay) * weights``, which is Polyak averaging
(Polyak and Juditsky, 1992) with the exponential window that image classification commonly uses; the first step's
weights are the first average. Floating-point buffers, such as the statistics of a batch norm, are averaged as well.
Validation sees the average, so ``best.ckpt`` is chosen by it, and a checkpoint's ``state_dict`` is the average, which
the other commands load. The weights of the training are in the checkpoint as ``current_model_state``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


class Averaging(WeightAveraging):
    """Average the weights during ``fit``: Lightning's callback, with exact resuming through `Checkpoints`.

    A task returns it from ``configure_callbacks()`` in every command. A training that began with an average needs it to
    resume exactly, so the argument that turns it on must not be among the task's `changeable_args`. Pictures that are
    drawn during ``fit`` show the network of the training, not the average.

    Args:
        decay: Fraction of the average that each step keeps, in [0, 1); the average covers about ``1 / (1 - decay)``
            steps. 0 turns averaging off.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: must be in [0, 1)")
        super().__init__(multi_avg_fn=ema_update_fn(decay))
        self.decay = decay
        self._swapped = False  # whether the task holds the average, and `_average_model` the weights

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the callback: in a command after ``fit``, Lightning would swap weights and average again."""
        if trainer.precision in ("16-true", "bf16-true", "64-true"):
            allowed = "32-true, 16-mixed or bf16-mixed with a moving average of the weights"
            raise ValueError(f"trainer.precision={trainer.precision}: must be {allowed}")
        self._average_model = None
        self._swapped = False
        self._latest_update_step = trainer.global_step
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the task's device: Lightning creates it in `setup`, when the task is still on the CPU.

        The counter of averages stays on the CPU, so that reading it does not synchronise with the GPU in every step.
        """
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the task; Lightning would overwrite the weights, which ``last.ckpt`` still needs."""
        self._swap_models(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the average as ``state_dict``, and the weights as ``current_model_state``, even if they are swapped."""
        if self._average_model is None:  # outside of a training Lightning would warn
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load weights and average of the run that is resumed; other commands load the average alone."""
        if self._average_model is not None:  # otherwise Lightning would warn
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped


def ema_update_fn(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the function that updates the averages of all tensors at once; integers are copied.

    torch's function rounds averages of integers down, which changes a constant table of indices over the steps.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averages: Tensors, values: Tensors, number: Tensor | int) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            average(averages, values, number)
        else:
            torch._foreach_copy_(averages, values)

    return update
