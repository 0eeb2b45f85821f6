"""Arguments of the trainer: which ones a task allows, and errors that name them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from coordconv_apps.utils.errors import UserError, one_line

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from coordconv_apps.training.task import Task

LONG_NAMES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
"""Lightning's short names of precisions."""


def check_trainer_arguments(given: Namespace, task: Task) -> None:
    """Check the trainer's arguments against the command line's own flags and the task.

    Raises:
        UserError: An argument is not allowed.
    """
    if given.default_root_dir is not None:
        raise UserError(f"--trainer.default_root_dir={given.default_root_dir}: choose the folder with --runs_dir")
    if re.search("spawn|fork|notebook", str(given.strategy)):
        raise UserError(f"--trainer.strategy={given.strategy}: choose ddp, whose processes get the same arguments")
    precision = LONG_NAMES.get(str(given.precision or 32), str(given.precision))
    if task.precisions is not None and precision not in task.precisions:
        raise UserError(f"--trainer.precision={given.precision}: must be one of {', '.join(task.precisions)}")
    if task.automatic_optimization:
        return
    for name, allowed in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        if given[name] not in (None, allowed):
            own = task.replaced_trainer_args.get(name)
            must = f"must be {'null' if allowed is None else allowed} for a task that steps its optimizers itself"
            raise UserError(f"--trainer.{name}={given[name]}: {must}{'' if own is None else f'; choose {own}'}")


def choose_strategy(given: Namespace, task: Task) -> Any:  # noqa: ANN401  # a name, or an object of the config's
    """Return the trainer's strategy; it finds unused parameters if the task needs that on several processes."""
    find_unused = task.find_unused_parameters
    if find_unused is None:
        find_unused = not task.automatic_optimization
    several = given.num_nodes > 1 or _device_count(given.devices) > 1
    if find_unused and (given.strategy == "ddp" or (given.strategy == "auto" and several)):
        return "ddp_find_unused_parameters_true"
    return given.strategy


def trainer_error(error: Exception, given: dict[str, Any]) -> UserError:
    """Return Lightning's error about an impossible argument with the arguments whose values it mentions."""
    message = one_line(error)
    about = [f"--trainer.{k}={v}" for k, v in given.items() if re.search(rf"(?<!\w){re.escape(str(v))}(?!\w)", message)]
    return UserError(f"{', '.join(about) or 'trainer'}: {message}")


def _device_count(devices: list[int] | str | int) -> int:
    """Return the number of devices for a value of ``--trainer.devices``."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return sum(bool(part.strip()) for part in devices.split(","))
    return max(torch.cuda.device_count(), 1) if str(devices) in ("auto", "-1") else int(devices)
