"""Find out that a training has diverged: its losses or its weights are NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.errors import UserError

CHECK_EVERY = 50
"""Training steps between two checks: a check waits for the GPU."""


class Diverged(UserError):
    """Losses or weights are NaN or infinite, so that the training cannot go on.

    Args:
        found: What is NaN or infinite.
        causes: The arguments of the task of which one is probably too large; may be empty.

    >>> print(Diverged("train/loss is nan", {"lr": 0.1, "kl_weight": 1e308}))
    model.lr=0.1, model.kl_weight=1e+308: training diverged (train/loss is nan); lower one of them
    >>> print(Diverged("train/loss is nan", {}))
    the learning rate: training diverged (train/loss is nan); lower it
    """

    exit_status = 1
    raised_by_all = True

    def __init__(self, found: str, causes: Mapping[str, object]) -> None:
        names = ", ".join(f"model.{name}={value}" for name, value in causes.items()) or "the learning rate"
        super().__init__(f"{names}: training diverged ({found}); lower {'one of them' if len(causes) > 1 else 'it'}")


class Moment(NamedTuple):
    """A step of the training, and the learning rates of its optimizers."""

    step: int
    rates: tuple[float, ...]

    def __str__(self) -> str:
        return f"step {self.step} with learning rate {', '.join(f'{rate:.3g}' for rate in self.rates)}"


class Loss(NamedTuple):
    """A loss of one step, a scalar."""

    at: Moment
    name: str
    value: Tensor


def find_divergence(
    losses: Sequence[Loss], weights: Iterable[Tensor], now: Moment, *, scaled: bool = False
) -> str | None:
    """Describe the first loss that is NaN or infinite, or else such weights; None if all are finite.

    Args:
        losses: Losses in the order of the steps.
        weights: The weights after these steps.
        now: The moment of the weights.
        scaled: Whether a gradient scaler skips a step whose gradients are NaN or infinite. A single bad loss then does
            no harm, unless a weight is bad.

    >>> at = Moment(8, (0.1,))
    >>> losses = [Loss(at, "train/a", torch.tensor(2.5)), Loss(at, "train/b", torch.tensor(math.nan))]
    >>> find_divergence(losses, [], at)
    'train/b is nan at step 8 with learning rate 0.1'
    >>> find_divergence(losses, [torch.ones(3)], at, scaled=True) is None
    True
    >>> find_divergence([], [torch.tensor([1.0, math.inf])], at)
    'a weight is NaN or infinite at step 8 with learning rate 0.1'
    """
    values = torch.stack([loss.value.detach().float() for loss in losses]).tolist() if losses else []
    bad = [
        f"{loss.name} is {value} at {loss.at}"
        for loss, value in zip(losses, values, strict=True)
        if not math.isfinite(value)
    ]
    if bad and (not scaled or len(bad) == len(values)):
        return bad[0]
    finite = [weight.detach().isfinite().all() for weight in weights]
    if finite and not torch.stack(finite).all():
        return bad[0] if bad else f"a weight is NaN or infinite at {now}"
    return None


def as_divergence(error: BaseException, learning_rates: Mapping[str, object]) -> Diverged | None:
    """Return the `Diverged` that an overflow in an optimizer is, which only a huge learning rate causes; or None.

    ``learning_rates`` are those among the task's arguments, by name.

    >>> str(as_divergence(RuntimeError("value cannot be converted to type float without overflow"), {"lr": 1e38}))
    'model.lr=1e+38: training diverged (an update of the weights overflows); lower it'
    """
    if isinstance(error, RuntimeError) and "without overflow" in str(error):
        return Diverged("an update of the weights overflows", learning_rates)
    return None
