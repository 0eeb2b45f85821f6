"""Find out that a training has diverged: its losses or its weights are NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.errors import UserError

CHECK_EVERY = 50
"""Training steps between two checks: a check waits for the GPU."""


class Diverged(UserError):
    """Losses or weights are NaN or infinite, so that the training cannot go on."""

    exit_status = 1


class Loss(NamedTuple):
    """A loss of one step, a scalar."""

    step: int
    name: str
    value: Tensor


def find_divergence(losses: Sequence[Loss], weights: Iterable[Tensor], *, scaled: bool = False) -> str | None:
    """Describe the first loss that is NaN or infinite, or else such weights; None if all are finite.

    Args:
        losses: Losses in the order of the steps.
        weights: The weights after these steps.
        scaled: Whether a gradient scaler skips a step whose gradients are NaN or infinite. A single bad loss then does
            no harm, unless a weight is bad.

    >>> losses = [Loss(7, "train/loss", torch.tensor(2.5)), Loss(8, "train/loss", torch.tensor(math.nan))]
    >>> find_divergence(losses, [])
    'train/loss is nan at step 8'
    >>> find_divergence(losses, [torch.ones(3)], scaled=True) is None
    True
    >>> find_divergence([], [torch.tensor([1.0, math.inf])])
    'a weight is NaN or infinite'
    """
    values = torch.stack([loss.value.detach().float() for loss in losses]).tolist() if losses else []
    bad = [
        f"{loss.name} is {value} at step {loss.step}"
        for loss, value in zip(losses, values, strict=True)
        if not math.isfinite(value)
    ]
    if bad and (not scaled or len(bad) == len(values)):
        return bad[0]
    finite = [weight.detach().isfinite().all() for weight in weights]
    if finite and not torch.stack(finite).all():
        return bad[0] if bad else "a weight is NaN or infinite"
    return None
