"""Optimizers for classifiers: parameter groups for weight decay, SGD and AdamW, learning rates for large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from coordconv_apps.training.schedules import Schedule, lr_factor
from coordconv_apps.utils.argument_checks import check_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from coordconv_apps.utils.argument_checks import Allowed

OptimizerName = Literal["sgd", "adamw"]

REFERENCE_BATCH = 256
"""The batch size for which learning rates of ImageNet trainings are given (Goyal et al., 2017)."""

ALLOWED: dict[str, Allowed] = {
    "lr": (lambda value: value > 0, "above 0"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
    "momentum": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "betas": (lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value), "two numbers in [0, 1)"),
}
"""Allowed values of the arguments of `make_optimizer`."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into a group with weight decay and one without.

    The weights of convolutions, linear and attention layers decay, coordinate weights among them: without decay on
    these, the arms of a comparison would differ by more than the coordinates. Biases, scales and shifts of norms, and
    parameters that are no layer's weight (class tokens, position embeddings, layer scales) do not decay (He et al.,
    2019, section 3.1: "no bias decay").

    Args:
        model: Any module. Parameters without gradient are left out.
        weight_decay: Weight decay of the first group.

    Returns:
        The group with decay and the group without, each in the order of the model; either may be empty.

    >>> [len(group["params"]) for group in parameter_groups(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)), 0.1)]
    [1, 3]
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()  # a shared parameter is in several modules
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            is_weight = name.endswith("weight") and parameter.dim() > 1 and not isinstance(module, _NORMS)
            (decayed if is_weight else others).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def make_optimizer(
    name: OptimizerName,
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    *,
    nesterov: bool = False,
    fused: bool = False,
) -> Optimizer:
    """Make an optimizer with the groups of `parameter_groups`.

    Args:
        name: ``"sgd"``, which adds the weight decay to the gradient, or ``"adamw"``, which decouples it (Loshchilov
            and Hutter, 2019).
        model: The model to train.
        lr: Learning rate, above 0; see `scaled_lr`.
        weight_decay: At least 0.
        momentum: Momentum of "sgd", in [0, 1).
        betas: Decay rates of the running means of "adamw", in [0, 1).
        nesterov: Whether "sgd" uses Nesterov momentum.
        fused: Use the fused implementation: faster, but Lightning cannot clip gradients with it in half precision.

    Raises:
        ValueError: A number is out of its range, or the model has no trainable parameter.
    """
    given = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas}
    check_ranges(given, ALLOWED)
    if nesterov and not momentum:
        raise ValueError("model.nesterov=True: must be false with model.momentum=0")
    groups = parameter_groups(model, weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError("model: must have a parameter to train")
    make: dict[OptimizerName, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {"momentum": momentum, "nesterov": nesterov}),
        "adamw": (torch.optim.AdamW, {"betas": tuple(betas)}),
    }
    kind, own = make[name]
    return kind(groups, lr=lr, fused=fused, **own)


def scaled_lr(
    lr: float, batch_size: int, world_size: int = 1, accumulate: int = 1, reference: int = REFERENCE_BATCH
) -> float:
    """Scale the learning rate linearly with the global batch size (Goyal et al., 2017, section 2.1).

    The result is ``lr * batch_size * world_size * accumulate / reference``. The rule was found for SGD with a warm-up;
    for AdamW it is common, though less well founded.

    Args:
        lr: The learning rate for a batch of ``reference`` samples.
        batch_size: Samples in a batch of one process.
        world_size: Number of processes.
        accumulate: Number of batches whose gradients are accumulated.
        reference: The batch size that ``lr`` is given for.

    Raises:
        ValueError: A number of samples, processes or batches is below 1, or the learning rate is not above 0.

    >>> scaled_lr(0.1, batch_size=32, world_size=8)
    0.1
    """
    check_ranges({"lr": lr}, {"lr": ALLOWED["lr"]})
    counts = {"batch_size": batch_size, "world_size": world_size, "accumulate": accumulate, "reference": reference}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: must be an integer of at least 1")
    return lr * batch_size * world_size * accumulate / reference


def make_scheduler(
    optimizer: Optimizer, total_steps: float, *, schedule: Schedule = "cosine", warmup: float = 0.0
) -> LambdaLR:
    """Make the learning rate schedule: a linear warm-up, then cosine to 0 by default (He et al., 2019, section 5.1).

    Args:
        optimizer: Its current learning rate is the peak.
        total_steps: Steps of the whole training, as ``trainer.estimated_stepping_batches`` gives them.
        schedule: As in `coordconv_apps.training.schedules.lr_factor`.
        warmup: Fraction of the training, in [0, 1), over which the rate rises to its peak.

    Raises:
        ValueError: The warm-up is out of its range, or the length of the training is unknown.
    """
    return LambdaLR(optimizer, lr_factor(schedule, total_steps, warmup=warmup))
