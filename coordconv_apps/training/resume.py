"""Apply optimizer and schedule settings that the command line changes when a run is resumed."""

from __future__ import annotations

import copy
from typing import Any, TypedDict

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR


class OptimizerSettings(TypedDict):
    """The settings of one optimizer and its scheduler as ``configure_optimizers`` made them: numbers, no tensors."""

    groups: list[dict[str, Any]]
    scheduler: dict[str, Any]


def optimizer_settings(trainer: Trainer) -> list[OptimizerSettings]:
    """The settings of the trainer's optimizers and schedulers, in order, as they are now."""
    return [
        {
            "groups": [_plain(group) for group in optimizer.param_groups],
            "scheduler": _plain(config.scheduler.state_dict()) if config is not None else {},
        }
        for optimizer, config in _pairs(trainer)
    ]


def apply_changed_settings(trainer: Trainer, old: list[OptimizerSettings], new: list[OptimizerSettings]) -> None:
    """Applies to the trainer's restored optimizers and schedulers what differs between two fresh sets of settings.

    A checkpoint brings back the optimizers with the settings of the run that wrote it. What the resumed run's own
    ``configure_optimizers`` asks for differently (learning rate, weight decay, length of a schedule) then takes effect
    here, and nothing else changes: without a difference, this does nothing.

    Args:
        trainer: With optimizers and schedulers already restored from the checkpoint.
        old: `optimizer_settings` of the run that wrote the checkpoint, when it was fresh.
        new: `optimizer_settings` of this run, before the checkpoint was restored.
    """
    for (optimizer, config), before, after in zip(_pairs(trainer), old, new, strict=False):
        if before == after:
            continue
        for group, group_before, group_after in zip(
            optimizer.param_groups, before["groups"], after["groups"], strict=False
        ):
            _apply_group(group, group_before, group_after)
        if config is not None:
            restored = config.scheduler.state_dict()
            config.scheduler.load_state_dict(_changed(restored, before["scheduler"], after["scheduler"]))
            _recompute(config)


def _pairs(trainer: Trainer) -> list[tuple[torch.optim.Optimizer, LRSchedulerConfig | None]]:
    """Every optimizer with its scheduler, if it has one."""
    configs = {id(config.scheduler.optimizer): config for config in trainer.lr_scheduler_configs}
    return [(optimizer, configs.get(id(optimizer))) for optimizer in trainer.optimizers]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The entries made of numbers, strings, lists and dicts: no parameters and no functions."""

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list | tuple):
            return all(plain(v) for v in value)
        return value is None or isinstance(value, bool | int | float | str)

    settings = {k: v.item() if isinstance(v, Tensor) and v.numel() == 1 else v for k, v in settings.items()}
    return copy.deepcopy({k: v for k, v in settings.items() if plain(v)})


def _changed(restored: Any, before: Any, after: Any) -> Any:  # noqa: ANN401  # any part of a scheduler's state
    """``restored``, but where ``before`` and ``after`` differ, as it is in ``after``."""
    if isinstance(restored, dict) and isinstance(before, dict) and isinstance(after, dict):
        known = before.keys() & after.keys()
        return {k: _changed(v, before[k], after[k]) if k in known else v for k, v in restored.items()}
    if isinstance(restored, list) and isinstance(before, list) and isinstance(after, list):
        if len(restored) == len(before) == len(after):
            return [_changed(*parts) for parts in zip(restored, before, after, strict=True)]
        return after
    return restored if before == after else after


def _apply_group(group: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in after.items():
        if key not in before or before[key] == value:
            continue
        if key == "lr" and before["lr"]:  # a schedule may have moved it: keep its place on the schedule
            value = group["lr"] * (value / before["lr"])
        if isinstance(group[key], Tensor):  # capturable optimizers hold the learning rate in a tensor
            group[key].fill_(value)
        else:
            group[key] = value


def _recompute(config: LRSchedulerConfig) -> None:
    """Sets the learning rates to what a changed schedule says for the current step, where it can say so."""
    scheduler = config.scheduler
    if isinstance(scheduler, LambdaLR):
        rates = [b * f(scheduler.last_epoch) for b, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    elif hasattr(scheduler, "_get_closed_form_lr"):  # torch's schedules that are functions of the step alone
        rates = scheduler._get_closed_form_lr()
    else:
        return
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = list(rates)
