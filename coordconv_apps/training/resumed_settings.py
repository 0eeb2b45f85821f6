"""Apply learning rates, weight decays and schedules that the command line changes when a run is resumed."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Settings = dict[str, float | bool | str | None]
OptimizerSettings = list[Settings]  # one for each parameter group


def optimizer_settings(trainer: Trainer) -> list[OptimizerSettings]:
    """Return the current settings of the trainer's optimizers: plain values, no parameters."""
    return [[_plain(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]


def apply_changed_settings(
    trainer: Trainer, old: list[OptimizerSettings], new: list[OptimizerSettings], pace: float = 1.0
) -> None:
    """Apply what differs between two fresh sets of settings to the trainer's restored optimizers and schedules.

    A checkpoint restores optimizers and `LambdaLR` schedules with the settings of the run that wrote it. Schedules are
    always computed anew: they may depend on more than these settings, such as the number of epochs.

    Args:
        trainer: The trainer of this run, which has restored the checkpoint.
        old: `optimizer_settings` of the run that wrote the checkpoint, before its first step.
        new: Those of this run, before the checkpoint was restored.
        pace: The steps of an epoch of this run, divided by those of the other one: the schedules move to the step at
            which a training with this run's epochs would be.
    """
    configs = {id(config.scheduler.optimizer): config for config in trainer.lr_scheduler_configs}
    for optimizer, before, after in zip(trainer.optimizers, old, new, strict=False):
        for group, was, wanted in zip(optimizer.param_groups, before, after, strict=False):
            for key, value in wanted.items():
                if key in was and was[key] != value:
                    _set(group, key, value)
            if wanted.get("fused"):
                _move_step_counters(optimizer, group["params"])
        config = configs.get(id(optimizer))
        if config is not None and isinstance(schedule := config.scheduler, LambdaLR):
            bases = [float(group["initial_lr"]) for group in optimizer.param_groups]
            done = round(schedule.last_epoch * (pace if config.interval == "step" else 1))
            rates = [b * f(done) for b, f in zip(bases, schedule.lr_lambdas, strict=True)]
            changed = {"last_epoch": done, "base_lrs": bases, "_last_lr": rates}
            schedule.load_state_dict({**schedule.state_dict(), **changed})
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                _set(group, "lr", rate)


def _move_step_counters(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Move step counters to the device of their parameters, as fused optimizers need; others keep them on the CPU."""
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        if isinstance(step := state.get("step"), Tensor):
            state["step"] = step.to(parameter.device, torch.float32)


def _plain(group: dict[str, Any]) -> Settings:
    """Return the single-valued settings of a parameter group, without its parameters and tuples such as betas."""
    settings: Settings = {}
    for key, value in group.items():
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if value is None or isinstance(value, bool | int | float | str):
            settings[key] = value
    return settings


def _set(group: dict[str, Any], key: str, value: object) -> None:
    if isinstance(group[key], Tensor):  # some optimizers hold the learning rate in a tensor on the GPU
        group[key].fill_(value)
    else:
        group[key] = value
