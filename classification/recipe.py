"""Today's recipe for training classifiers: what decays, optimizers, and learning rates for large batches."""

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
"""The batch size that ImageNet's learning rates are given for (Goyal et al., 2017)."""

ALLOWED: dict[str, Allowed] = {
    "lr": (lambda value: value > 0, "above 0"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
    "momentum": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "betas": (lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value), "two numbers in [0, 1)"),
}
"""What is allowed for the arguments of `make_optimizer`, for `coordconv_apps.utils.argument_checks.check_ranges`."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters that decay, and those that do not, as an optimizer takes them.

    Weight decay shrinks what multiplies an input: the weights of convolutions, of linear and attention layers.
    Coordinate weights are such weights, for channels of the input that happen to be coordinates: were they spared,
    the network could escape the decay by way of them, and the arms of a comparison would differ by more than the
    coordinates. Biases, the scales and shifts of norms, and whatever else is no layer's weight (class tokens, position
    embeddings and biases, layer scales, temperatures) do not decay (He et al., 2019, section 3.1: "no bias decay").

    Args:
        model: Any module. Parameters without gradient are left out.
        weight_decay: Of the first group.

    Returns:
        The decaying group and the other one, each in the model's order; either may be empty.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()  # a shared one is in several modules
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
    """The optimizer of a model's parameters, in the groups of `parameter_groups`.

    Args:
        name: ``"sgd"``, whose weight decay is added to the gradient, or ``"adamw"``, whose is not (Loshchilov and
            Hutter, 2019).
        model: What to train.
        lr: Learning rate, above 0; see `scaled_lr`.
        weight_decay: At least 0.
        momentum: Of "sgd", in [0, 1).
        betas: Of "adamw": shares kept of the running means of gradients and of their squares, in [0, 1).
        nesterov: Whether "sgd" looks ahead by its momentum.
        fused: One call for all parameters: faster, but Lightning cannot clip the gradients then in half precision.

    Raises:
        ValueError: A number is out of its range, or nothing of the model is to be trained.
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
    """The learning rate for a global batch by the linear scaling rule (Goyal et al., 2017, section 2.1).

    "When the minibatch size is multiplied by k, multiply the learning rate by k": ``lr * batch_size * world_size *
    accumulate / reference``. The rule is for SGD, with a warm-up over the first epochs. For AdamW it is common as well,
    though less well founded.

    Args:
        lr: The learning rate of a batch of ``reference`` samples.
        batch_size: Samples in a batch of one process.
        world_size: Number of processes.
        accumulate: Batches whose gradients make one step.
        reference: Samples that ``lr`` is given for.

    Raises:
        ValueError: A number of samples, processes or batches is below 1, or the learning rate is not above 0.
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
    """The learning rate step by step: a linear warm-up, then by default the cosine to 0 (He et al., 2019, section 5.1).

    Args:
        optimizer: Its present learning rate is the peak.
        total_steps: Steps of the whole training, as ``trainer.estimated_stepping_batches`` gives them.
        schedule: As in `coordconv_apps.training.schedules.lr_factor`.
        warmup: Share of the training, in [0, 1), over which the rate climbs to its peak.

    Raises:
        ValueError: The warm-up is out of its range, or the training has no end that the schedule could go by.
    """
    return LambdaLR(optimizer, lr_factor(schedule, total_steps, warmup=warmup))
