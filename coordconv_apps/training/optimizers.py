"""What configure_optimizers of several tasks share: groups for weight decay, fused optimizers, schedules by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import LightningModule
    from torch.optim import Optimizer


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's parameters into those with weight decay and those without.

    The weights of convolutions, linear and attention layers decay. So do coordinate weights: otherwise the network
    could avoid the decay through them, and the arms of a comparison would differ by more than the coordinates. Biases,
    the scales and shifts of normalization layers, and parameters that are not a layer's weight (class tokens, position
    embeddings, layer scales) do not decay (He et al., 2019, section 3.1: "no bias decay").

    Args:
        model: Any module. Parameters without gradient are left out.
        weight_decay: Weight decay of the first group.

    Returns:
        The group with decay and the group without, each in the model's order; either may be empty.

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


def can_fuse(task: LightningModule) -> bool:
    """Return whether a fused optimizer, one call for all parameters, works on the task's device with its trainer.

    Lightning cannot clip the gradients of fused optimizers in half precision.
    """
    return task.device.type in ("cpu", "cuda") and not task.trainer.gradient_clip_val


def schedule_by_step(optimizer: Optimizer, factor: Callable[[int], float]) -> OptimizerLRSchedulerConfig:
    """Return an optimizer and its learning rate's schedule, in the form that ``configure_optimizers`` returns.

    Args:
        optimizer: Its present learning rates are those of factor 1.
        factor: Factor for the number of optimizer steps done, such as `coordconv_apps.training.schedules.lr_factor`
            returns it.
    """
    schedule = LambdaLR(optimizer, factor)
    return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler={"scheduler": schedule, "interval": "step"})
