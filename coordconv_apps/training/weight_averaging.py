"""The moving average of the weights, which is often better than the weights that training has come to.

After every step of the optimizer, with a decay d,

    average = d * average + (1 - d) * weights

which is Polyak averaging (Polyak and Juditsky, 1992) with the exponential window that image classification commonly
uses; the first step's weights are the first average. Floating-point buffers, such as the statistics of a batch norm,
are averaged as well. Validation sees the average, so ``best.ckpt`` is chosen by it, and a checkpoint's
``state_dict`` is the average: what ``validate``, ``test``, ``predict`` and ``export`` load. The weights that training
goes on with are beside it, under ``current_model_state``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    # Averages and values of one device and dtype, and the number of averages so far.
    Update = Callable[[list[Tensor], list[Tensor], Tensor | int], None]


class Averaging(WeightAveraging):
    """Averages the weights during ``fit``: Lightning's callback, exact with the suite's `Checkpoints`.

    An interrupted and resumed training has the weights and the average of an uninterrupted one. A task asks for it in
    its ``configure_callbacks()``, in every command. A training cannot exactly go on without an average that it began
    with, so the argument that turns it on does not belong to the task's `changeable_args` ones. Pictures that are drawn
    during ``fit`` show the network as it is trained, not the average.

    Args:
        decay: How much of the average each step keeps, in [0, 1): it looks back over about ``1 / (1 - decay)`` steps.
            0 is no averaging.

    Raises:
        ValueError: The decay is not in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: must be in [0, 1)")
        super().__init__(multi_avg_fn=_moving_average(decay))
        self.decay = decay
        self._swapped = False  # whether the task holds the average, and `_average_model` the weights

    # ------------------------------------------------------------------- hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts afresh: in another command after a ``fit``, Lightning would swap again what that left behind.

        Raises:
            ValueError: The weights are of another precision than the average.
        """
        if trainer.precision in ("16-true", "bf16-true", "64-true"):
            allowed = "32-true, 16-mixed or bf16-mixed with a moving average of the weights"
            raise ValueError(f"trainer.precision={trainer.precision}: must be {allowed}")
        self._average_model = None
        self._swapped = False
        self._latest_update_step = trainer.global_step
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to the task's device: Lightning makes it in `setup`, when the task is still on the CPU.

        The number of averages so far stays there, for to look at it must not wait for the GPU in every step.
        """
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the task.

        Lightning would overwrite the weights, and ``last.ckpt``, which is written after this, needs them to go on.
        """
        self._swap_models(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts the average in place of the weights, and the weights beside it.

        Lightning takes it that the task holds the weights. In a validation that is interrupted, and at the end of
        training, it is the other way round.
        """
        if self._average_model is None:  # not after a training: Lightning would tell so every time
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes weights and average over from the run that is resumed; other commands use the average alone."""
        if self._average_model is not None:  # else Lightning would warn of that
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped


def _moving_average(decay: float) -> Update:
    """The moving average of all tensors at once; integers are copied.

    torch's own rounds their average down, which over the steps makes another table of a constant table of indices.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averages: list[Tensor], values: list[Tensor], number: Tensor | int) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            average(averages, values, number)
        else:
            torch._foreach_copy_(averages, values)

    return update
