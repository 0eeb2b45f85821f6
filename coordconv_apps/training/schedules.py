"""Learning rate schedules whose times are fractions of the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from coordconv_apps.utils.argument_checks import BELOW_ONE, POSITIVE_FRACTION, Allowed, check_ranges, one_of

Schedule = Literal["constant", "cosine", "step"]

SCHEDULE_RANGES: Mapping[str, Allowed] = {
    "schedule": one_of(Schedule),
    "warmup": BELOW_ONE,
    "lr_milestones": (lambda values: all(0 < value < 1 for value in values), "fractions of the training in (0, 1)"),
    "lr_gamma": POSITIVE_FRACTION,
}
"""Allowed values of the arguments that `task_lr_factor` reads."""


def lr_factor(
    schedule: Schedule,
    total_steps: float,
    *,
    warmup: float = 0.0,
    lr_milestones: Sequence[float] | None = None,
    lr_gamma: float = 0.1,
) -> Callable[[int], float]:
    """Return a function from steps to fractions of the peak learning rate, for `torch.optim.lr_scheduler.LambdaLR`.

    Args:
        schedule: "constant", "cosine" to zero, or "step" by ``lr_gamma`` at each of ``lr_milestones``.
        total_steps: Steps of the whole training, as ``trainer.estimated_stepping_batches`` gives them.
        warmup: Fraction of the training, in [0, 1), over which the learning rate rises linearly to its peak.
        lr_milestones: Fractions of the training, in (0, 1).
        lr_gamma: Factor of "step", in (0, 1].

    Raises:
        ValueError: An argument is out of its range, or the schedule lacks its milestones or an end of training.

    >>> [lr_factor("cosine", 4)(step) for step in (0, 2, 4)]
    [1.0, 0.5, 0.0]
    """
    given = {"schedule": schedule, "warmup": warmup, "lr_milestones": lr_milestones, "lr_gamma": lr_gamma}
    check_ranges(given, SCHEDULE_RANGES)
    milestones = lr_milestones or ()
    if schedule == "step" and not milestones:
        raise ValueError("schedule='step': needs lr_milestones, or the learning rate would stay constant")
    if not math.isfinite(total_steps) and (schedule != "constant" or warmup):
        cause = f"warmup={warmup}" if schedule == "constant" else f"schedule={schedule!r}"
        raise ValueError(f"{cause}: needs an end of training: set trainer.max_epochs or trainer.max_steps")
    shapes: dict[Schedule, Callable[[float], float]] = {
        "constant": lambda done: 1.0,
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "step": lambda done: lr_gamma ** sum(done >= milestone for milestone in milestones),
    }
    shape = shapes[schedule]

    def factor(step: int) -> float:
        done = min(step / total_steps, 1.0)
        # step + 1, so that the first step does not have learning rate 0.
        climb = (step + 1) / (warmup * total_steps) if warmup else 1.0
        return min(climb, 1.0) * shape(done)

    return factor


def task_lr_factor(arguments: Mapping[str, Any], total_steps: float) -> Callable[[int], float]:
    """Return `lr_factor` for a task with arguments ``schedule``, ``warmup``, ``lr_milestones`` and ``lr_gamma``."""
    return lr_factor(total_steps=total_steps, **{name: arguments[name] for name in SCHEDULE_RANGES})
