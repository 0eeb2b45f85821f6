"""Optimizers for classifiers: SGD and AdamW, and learning rates for large batches."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from coordconv_apps.training.optimizers import parameter_groups
from coordconv_apps.utils.argument_checks import BELOW_ONE, NON_NEGATIVE, POSITIVE, Allowed, one_of

OptimizerName = Literal["sgd", "adamw"]

REFERENCE_BATCH = 256
"""The batch size for which learning rates of ImageNet trainings are given (Goyal et al., 2017)."""

ALLOWED: dict[str, Allowed] = {
    "optimizer": one_of(OptimizerName),
    "lr": POSITIVE,
    "weight_decay": NON_NEGATIVE,
    "momentum": BELOW_ONE,
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
        ValueError: There is nothing to train, or "sgd" has Nesterov momentum without momentum.
    """
    groups = parameter_groups(model, weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError("model: must have a parameter to train")
    if name == "adamw":
        return AdamW(groups, lr=lr, betas=(betas[0], betas[1]), fused=fused)
    if nesterov and not momentum:
        raise ValueError("model.nesterov=True: must be false with model.momentum=0")
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)


def scaled_lr(lr: float, global_batch_size: int) -> float:
    """Scale the learning rate of a batch size of 256 linearly with the global one (Goyal et al., 2017, section 2.1).

    ``global_batch_size`` is the number of images of an optimizer step, of all processes and accumulated batches.
    The rule was found for SGD with a warm-up; for AdamW it is common, though less well founded.

    >>> scaled_lr(0.1, 1024)
    0.4
    """
    return lr * global_batch_size / REFERENCE_BATCH
