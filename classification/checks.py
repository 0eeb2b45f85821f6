"""Arguments of the application's data: which values are allowed, and which go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordconv_apps.utils.argument_checks import Allowed


def _is_range(pair: tuple[float, ...], above: float, most: float) -> bool:
    return len(pair) == 2 and above < pair[0] <= pair[1] <= most


def _is_one_of(*words: str) -> Allowed:
    return (lambda value: value in words), " or ".join([", ".join(words[:-1]), words[-1]])


_ALLOWED: dict[str, Allowed] = {
    "source": _is_one_of("folder", "digits", "cifar10", "cifar100", "imagenet"),
    "crop": _is_one_of("resized", "padded"),
    "augment": _is_one_of("none", "trivial", "rand"),
    "on_bad_image": _is_one_of("error", "skip"),
    **dict.fromkeys(
        ("image_size", "eval_size", "eval_resize", "repeats", "eval_batch_size"),
        (lambda value: value >= 1, "an integer of at least 1"),
    ),
    **dict.fromkeys(("padding", "split_seed"), (lambda value: value >= 0, "an integer of at least 0")),
    "scale": (lambda value: _is_range(value, 0, 1), "two numbers above 0 and up to 1, the smaller one first"),
    "ratio": (lambda value: _is_range(value, 0, float("inf")), "two numbers above 0, the smaller one first"),
    **dict.fromkeys(("flip", "erasing"), (lambda value: 0 <= value <= 1, "in [0, 1]")),
    **dict.fromkeys(("mixup", "cutmix"), (lambda value: 0 <= value < float("inf"), "at least 0")),
    "mean": (lambda value: len(value) == 3 and 0 <= min(value) <= max(value) <= 1, "three numbers in [0, 1]"),
    "std": (lambda value: len(value) == 3 and min(value) > 0, "three numbers above 0"),
    "val_fraction": (lambda value: 0 <= value < 1, "in [0, 1)"),
}


def check_data(arguments: Mapping[str, Any]) -> None:
    """Raises `ValueError` for arguments of `ClassificationData` that are out of range or do not go together.

    Args:
        arguments: All of them, by name.
    """
    for name, (is_allowed, words) in _ALLOWED.items():
        value = arguments[name]
        if value is not None and not is_allowed(value):
            raise ValueError(f"data.{name}={value}: must be {words}")
    source, repeats, batch_size = (arguments[name] for name in ("source", "repeats", "batch_size"))
    if source in ("folder", "imagenet") and arguments["root"] is None:
        raise ValueError(f"data.root=null: must be a folder of pictures with data.source={source}")
    if batch_size % repeats:
        raise ValueError(f"data.batch_size={batch_size}: must be a multiple of data.repeats={repeats}")
    size = arguments["image_size"] if arguments["eval_size"] is None else arguments["eval_size"]
    if arguments["eval_resize"] is not None and arguments["eval_resize"] < size:
        raise ValueError(f"data.eval_resize={arguments['eval_resize']}: must be at least data.eval_size={size}")
