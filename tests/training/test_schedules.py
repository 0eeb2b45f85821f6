"""Learning rates over a training, against their formulas."""

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from coordconv_apps.training.optimizers import schedule_by_step
from coordconv_apps.training.schedules import lr_factor
from coordconv_apps.utils.warning_filters import filter_warnings


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"schedule": "cosine"}, {0: 1.0, 50: 0.5, 25: (1 + math.cos(math.pi / 4)) / 2, 100: 0.0}),
        ({"schedule": "cosine", "warmup": 0.1}, {0: 0.1, 4: 0.5 * (1 + math.cos(math.pi * 0.04)) / 2, 50: 0.5}),
        ({"schedule": "step", "lr_milestones": [0.5, 0.8]}, {0: 1.0, 49: 1.0, 50: 0.1, 79: 0.1, 80: 0.01}),
        ({"schedule": "step", "lr_milestones": [0.5], "lr_gamma": 0.3}, {50: 0.3}),
    ],
)
def test_schedules_follow_their_formulas(arguments: dict[str, Any], expected: dict[int, float]) -> None:
    factor = lr_factor(total_steps=100, **arguments)
    assert {step: factor(step) for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "linear"}, r"^model\.schedule=linear: must be constant, cosine or step$"),
        ({"schedule": "cosine", "warmup": 1.0}, r"^model\.warmup=1\.0: must be in \[0, 1\)$"),
        ({"schedule": "step", "lr_milestones": [0.5, 3.0]}, r"^model\.lr_milestones=\[0\.5, 3\.0\]: must be fractions"),
        ({"schedule": "step", "lr_milestones": [0.5], "lr_gamma": -1.0}, r"^model\.lr_gamma=-1\.0: must be above 0"),
        ({"schedule": "step"}, r"^schedule='step': needs lr_milestones"),
        ({"schedule": "cosine", "total_steps": math.inf}, "schedule='cosine': needs an end of training"),
        ({"schedule": "constant", "warmup": 0.1, "total_steps": math.inf}, r"warmup=0\.1: needs an end of training"),
    ],
)
def test_impossible_schedules_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lr_factor(**{"total_steps": 100, **arguments})


def test_a_constant_rate_needs_no_end() -> None:
    assert lr_factor("constant", math.inf)(10**9) == 1.0


def test_a_step_that_the_gradient_scaler_skips_counts_without_a_warning() -> None:
    """In 16-mixed precision the first steps are often skipped; torch then warns of the order of the calls."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    configuration: Any = schedule_by_step(optimizer, lambda step: 1 / (1 + step))["lr_scheduler"]
    scheduler = configuration["scheduler"]
    assert isinstance(scheduler, LambdaLR)
    assert configuration["interval"] == "step"
    with filter_warnings():
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
