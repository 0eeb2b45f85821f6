"""Settings that are changed when a run is resumed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from coordconv_apps.training.resumed_settings import apply_changed_settings, optimizer_settings
from coordconv_apps.training.schedules import lr_factor
from tests.helpers.devices import DEVICES

Make = Callable[[float, int], tuple[Optimizer, LRScheduler | None]]


def trainer_of(make: Make, lr: float, steps: int) -> Any:  # noqa: ANN401  # what resume needs of a trainer
    optimizer, scheduler = make(lr, steps)
    configs = [] if scheduler is None else [LRSchedulerConfig(scheduler)]
    return SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=configs)


def step(trainer: Any) -> float:  # noqa: ANN401  # as above
    (optimizer,) = trainer.optimizers
    optimizer.step()
    for config in trainer.lr_scheduler_configs:
        config.scheduler.step()
    return float(optimizer.param_groups[0]["lr"])


def resumed(make: Make, old: tuple[float, int], new: tuple[float, int], at: int) -> tuple[Any, float]:
    """A trainer with the settings ``new``, resumed after ``at`` steps with ``old``; and its rate before a change."""
    trainer = trainer_of(make, *old)
    settings = optimizer_settings(trainer)
    for _ in range(at):
        step(trainer)
    fresh = trainer_of(make, *new)
    fresh_settings = optimizer_settings(fresh)
    fresh.optimizers[0].load_state_dict(trainer.optimizers[0].state_dict())
    for config, before in zip(fresh.lr_scheduler_configs, trainer.lr_scheduler_configs, strict=True):
        config.scheduler.load_state_dict(before.scheduler.state_dict())
    rate = fresh.optimizers[0].param_groups[0]["lr"]
    apply_changed_settings(fresh, settings, fresh_settings)
    return fresh, rate


def parameters() -> list[Tensor]:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    return [parameter]


def no_schedule(lr: float, steps: int) -> tuple[Optimizer, None]:
    return Adam(parameters(), lr=lr, weight_decay=lr / 10), None


def lambda_schedule(lr: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = SGD(parameters(), lr=lr)
    return optimizer, LambdaLR(optimizer, lambda t: max(0.0, 1 - t / steps))


def warm_up(lr: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = Adam(parameters(), lr=lr, weight_decay=lr / 10, fused=True)
    return optimizer, LambdaLR(optimizer, lr_factor("cosine", steps, warmup=0.2))


@pytest.mark.parametrize("make", [no_schedule, lambda_schedule, warm_up])
def test_unchanged_settings_change_nothing(make: Make) -> None:
    trainer, rate = resumed(make, (0.1, 10), (0.1, 10), at=4)
    whole = trainer_of(make, 0.1, 10)
    rates = [step(whole) for _ in range(9)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == rate == rates[3]
    assert [step(trainer) for _ in range(5)] == rates[4:]


@pytest.mark.parametrize("make", [no_schedule, lambda_schedule, warm_up])
@pytest.mark.parametrize("new", [(0.3, 10), (0.3, 12), (0.1, 12)])
def test_changed_rates_are_those_of_a_run_with_the_new_settings(make: Make, new: tuple[float, int]) -> None:
    trainer, _ = resumed(make, (0.1, 10), new, at=4)
    whole = trainer_of(make, *new)
    rates = [step(whole) for _ in range(9)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rates[3], rel=1e-6)
    assert [step(trainer) for _ in range(5)] == pytest.approx(rates[4:], rel=1e-6)


def test_weight_decay_changes_and_the_optimizers_memory_stays() -> None:
    trainer, _ = resumed(no_schedule, (0.1, 10), (0.4, 10), at=3)
    (group,) = trainer.optimizers[0].param_groups
    assert group["lr"] == 0.4
    assert group["weight_decay"] == pytest.approx(0.04)
    (memory,) = trainer.optimizers[0].state.values()
    assert memory["step"] == 3
    assert memory["exp_avg"].all()


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_step_counters_follow_an_optimizer_that_is_now_fused(device: str) -> None:
    """Adam has them on the CPU, fused Adam on the device of the parameters."""
    settings = []
    for fused in (False, True):
        parameter = nn.Parameter(torch.empty(1, device=device))
        trainer: Any = SimpleNamespace(optimizers=[Adam([parameter], fused=fused)], lr_scheduler_configs=[])
        settings.append(optimizer_settings(trainer))
    (optimizer,) = trainer.optimizers
    optimizer.state[parameter] = {"step": torch.tensor(3.0)}
    apply_changed_settings(trainer, old=settings[0], new=settings[1])
    assert optimizer.state[parameter]["step"].device == parameter.device
