"""Arguments of the coordinate tasks: which values are allowed, and which go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordconv_apps.coordinates.models import NETWORKS
from coordconv_apps.coordinates.renderers import HALO
from coordconv_apps.training.schedules import check_schedule
from coordconv_apps.utils.argument_checks import check_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordconv_apps.utils.argument_checks import Allowed

_ALLOWED: dict[str, Allowed] = {
    "lr": (lambda value: value > 0, "above 0"),
    "baseline_lr": (lambda value: value > 0, "above 0"),
    "beta2": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
    "baseline_weight_decay": (lambda value: value >= 0, "at least 0"),
    "gain": (lambda value: value > 0, "above 0"),
    "coord_gain": (lambda value: value >= 0, "at least 0"),
    "center_weight": (lambda value: value >= 0, "at least 0"),
    "near": (lambda value: value >= 0, "an integer of at least 0"),
    "others": (lambda value: value >= 1, "an integer of at least 1"),
    "others_weight": (lambda value: 0 <= value <= 1, "in [0, 1]"),
    "objects": (lambda value: value in (1, 2), "1 or 2"),
}


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises `ValueError` for arguments of `CoordinateTask` that are out of range or do not go together.

    What only the other arm uses is checked, too: a comparison fails at once or not at all.

    Args:
        arguments: All of them, by name.
    """
    check_ranges(arguments, _ALLOWED)
    check_schedule(arguments["warmup"], arguments["lr_milestones"] or [], arguments["lr_gamma"])
    task, loss, near = arguments["task"], arguments["loss"], arguments["near"]
    for name in ("network", "baseline"):
        if arguments[name] is not None and arguments[name] not in NETWORKS[task]:
            raise ValueError(f"model.{name}={arguments[name]}: for {task} there are {', '.join(NETWORKS[task])}")
    if task != "rendering":
        for name, plain in (("objects", 1), ("center_weight", 0.0)):
            if arguments[name] != plain:
                raise ValueError(f"model.{name}={arguments[name]}: is for model.task=rendering, and not for {task}")
        if loss == "mse":
            raise ValueError(f"model.loss=mse: is for model.task=rendering, and not for {task}")
    elif loss == "sampled":
        if arguments["objects"] != 1:
            raise ValueError("model.loss=sampled: is for one object, model.loss=full for two")
        least = max(arguments["square_size"] // 2, HALO)
        if near <= least and arguments["network"] == "paper":  # else it hardly sees what is not to be painted
            raise ValueError(f"model.near={near}: must be above {least} for model.task=rendering")
