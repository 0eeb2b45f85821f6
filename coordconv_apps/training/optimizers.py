"""Helpers for ``configure_optimizers``: groups for weight decay, fused optimizers, schedules by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into a group with weight decay and one without; either may be empty.

    The weights of convolutions, linear and attention layers decay. So do coordinate weights: otherwise the network
    could avoid the decay through them, and the arms of a comparison would differ by more than the coordinates. Biases,
    the scales and shifts of normalization layers, and parameters that are not a layer's weight (class tokens, position
    embeddings, layer scales) do not decay (He et al., 2019, section 3.1: "no bias decay").

    >>> [len(group["params"]) for group in parameter_groups(nn.Conv2d(1, 2, 3), 1e-4)]
    [1, 1]
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()  # a shared one is in several modules
    for module in model.modules():
        # The scales of other normalization layers have one dimension.
        is_norm = isinstance(module, nn.LayerNorm | nn.RMSNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            is_weight = name.endswith("weight") and parameter.dim() > 1 and not is_norm
            (decayed if is_weight else others).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def can_fuse(task: LightningModule, *, momentum: bool = False) -> bool:
    """Return whether a fused optimizer, one call for all parameters, works on the task's device with its trainer.

    Lightning cannot clip the gradients of fused optimizers in half precision. ``momentum`` is that of SGD: if the
    gradient scaler of 16-mixed precision skips the first step, torch's fused SGD leaves its momentum uninitialised.
    """
    if momentum and str(task.trainer.precision) == "16-mixed":
        return False
    return task.device.type in ("cpu", "cuda") and not task.trainer.gradient_clip_val


def schedule_by_step(optimizer: Optimizer, factor: Callable[[int], float]) -> OptimizerLRSchedulerConfig:
    """Return an optimizer and the schedule that multiplies its learning rates by ``factor(optimizer steps done)``."""
    schedule = LambdaLR(optimizer, factor)
    return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler={"scheduler": schedule, "interval": "step"})
