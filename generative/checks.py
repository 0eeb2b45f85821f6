"""Arguments of the generative task: which values are allowed, and which go together."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from coordconv_apps.training.schedules import check_schedule
from coordconv_apps.utils.argument_checks import check_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordconv_apps.utils.argument_checks import Allowed

_ALLOWED: dict[str, Allowed] = {
    "image_size": (lambda value: value >= 8 and value & (value - 1) == 0, "a power of two of at least 8"),
    **dict.fromkeys(
        ("latent_size", "width", "baseline_width", "discriminator_width", "generator_steps", "penalty_every"),
        (lambda value: value >= 1, "an integer of at least 1"),
    ),
    **dict.fromkeys(("gain", "lr", "baseline_lr", "discriminator_lr"), (lambda value: value > 0, "above 0")),
    **dict.fromkeys(("beta1", "beta2", "average", "kl_warmup"), (lambda value: 0 <= value < 1, "in [0, 1)")),
    "channel_weights": (lambda value: len(value) == 3 and min(value) >= 0, "three numbers of at least 0"),
    **dict.fromkeys(("feature_matching", "gradient_penalty", "kl_weight"), (lambda value: value >= 0, "at least 0")),
}

_OF_METHOD = {
    **dict.fromkeys(("discriminator_coords", "norm", "discriminator_lr", "generator_steps"), "gan"),
    **dict.fromkeys(("feature_matching", "gradient_penalty", "penalty_every"), "gan"),
    **dict.fromkeys(("reconstruction", "channel_weights", "kl_weight", "kl_warmup"), "vae"),
}
"""Arguments that one method only knows."""


def check_arguments(arguments: Mapping[str, Any], task: type) -> None:
    """Raises `ValueError` for arguments of `GenerativeTask` that are out of range or do not go together.

    What only the other arm uses is checked, too: a comparison fails at once or not at all. What only the other method
    uses must have its default, for it would have no effect.

    Args:
        arguments: All of them, by name.
        task: `GenerativeTask`, which has the defaults.
    """
    check_ranges(arguments, _ALLOWED)
    check_schedule(arguments["warmup"], arguments["lr_milestones"] or [], arguments["lr_gamma"])
    method, parameters = arguments["method"], inspect.signature(task).parameters
    for name, owner in _OF_METHOD.items():
        value, default = arguments[name], parameters[name].default
        if owner != method and value != default:
            default = "null" if default is None else default
            raise ValueError(
                f"model.{name}={value}: only with model.method={owner}; with {method} it must stay at {default}"
            )
