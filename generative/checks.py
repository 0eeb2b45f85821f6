"""Arguments of the generative task: which values are allowed, and which go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coordconv_apps.checks import check_ranges
from coordconv_apps.schedules import check_schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordconv_apps.checks import Allowed

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
    "gan": (("discriminator_coords", False), ("feature_matching", 0.0), ("gradient_penalty", 0.0)),
    "vae": (("kl_warmup", 0.0), ("channel_weights", None)),
}
"""Arguments that one method only knows, and their values for the other."""


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises `ValueError` for arguments of `GenerativeTask` that are out of range or do not go together.

    What only the other arm uses is checked, too: a comparison fails at once or not at all.

    Args:
        arguments: All of them, by name.
    """
    check_ranges(arguments, _ALLOWED)
    check_schedule(arguments["warmup"], arguments["lr_milestones"] or [], arguments["lr_gamma"])
    method = arguments["method"]
    for owner, known in _OF_METHOD.items():
        for name, plain in known:
            if owner != method and arguments[name] != plain:
                raise ValueError(f"model.{name}={arguments[name]}: is for model.method={owner}, and not for {method}")
