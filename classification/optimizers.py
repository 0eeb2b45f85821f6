"""Optimizers for classifiers: SGD and AdamW, and learning rates for large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from coordconv_apps.training.optimizers import parameter_groups
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
