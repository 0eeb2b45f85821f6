"""How the learning rate changes over a training, in shares of its length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Schedule = Literal["constant", "cosine", "step"]


def lr_factor(
    schedule: Schedule,
    total_steps: float,
    *,
    warmup: float = 0.0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> Callable[[int], float]:
    """The share of the peak learning rate at each step, for `torch.optim.lr_scheduler.LambdaLR`.

    Args:
        schedule: "constant", "cosine" to zero, or "step" by ``gamma`` at each of ``milestones``.
        total_steps: Steps of the whole training, as ``trainer.estimated_stepping_batches`` gives them.
        warmup: Share of the training, in [0, 1), over which the rate climbs linearly to its peak.
        milestones: Shares of the training, in (0, 1).
        gamma: What "step" multiplies by, in (0, 1].

    Returns:
        A function of the number of steps done, with values in [0, 1].

    Raises:
        ValueError: An argument is out of its range, or the training has no end that the schedule could go by.
    """
    check_schedule(warmup, milestones, gamma)
    if not math.isfinite(total_steps) and (schedule != "constant" or warmup):
        raise ValueError(f"schedule={schedule!r} needs an end of training: set trainer.max_epochs or max_steps")
    shapes: dict[Schedule, Callable[[float], float]] = {
        "constant": lambda done: 1.0,
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "step": lambda done: gamma ** sum(done >= milestone for milestone in milestones),
    }
    shape = shapes[schedule]

    def factor(step: int) -> float:
        done = min(step / total_steps, 1.0)
        # The step after this one counts, so that the first does not have rate 0.
        climb = (step + 1) / (warmup * total_steps) if warmup else 1.0
        return min(climb, 1.0) * shape(done)

    return factor


def check_schedule(warmup: float, milestones: Sequence[float], gamma: float) -> None:
    """Raises `ValueError` for arguments of `lr_factor` that are out of their range."""
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup={warmup}: must be in [0, 1)")
    if any(not 0 < milestone < 1 for milestone in milestones):
        raise ValueError(f"lr_milestones={list(milestones)}: each must be in (0, 1), a share of the training")
    if not 0 < gamma <= 1:
        raise ValueError(f"lr_gamma={gamma}: must be in (0, 1]")
