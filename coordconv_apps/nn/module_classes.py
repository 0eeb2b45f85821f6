"""Classes of modules: which behave like one of torch's, and how an object changes its class in place."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn


class _Empty:
    """What Python adds to a class that defines nothing."""

    annotation: int


_NO_BEHAVIOUR = {*vars(_Empty), "__init__"}


def own_members(kind: type, base: type) -> list[str]:
    """Return the names of what a class and its mixins add to ``base``, apart from constructors and static methods.

    Example:
        >>> class Separable(nn.Conv2d):
        ...     def __init__(self, channels: int) -> None:
        ...         super().__init__(channels, channels, 3, groups=channels)
        >>> own_members(Separable, nn.Conv2d)
        []
    """
    added = [cls for cls in kind.__mro__ if cls not in base.__mro__]
    values = {name: value for cls in added for name, value in vars(cls).items() if name not in _NO_BEHAVIOUR}
    return [name for name, value in values.items() if not isinstance(value, staticmethod)]


def behaves_like(kind: type, classes: Collection[type]) -> type | None:
    """Return which of ``classes`` a layer's class is or extends by a constructor only; None if there is none."""
    base = next((cls for cls in kind.__mro__ if cls in classes), None)
    return None if base is None or own_members(kind, base) else base


def become(module: nn.Module, kind: type[nn.Module], *args: object) -> None:
    """Make a module a new one of another class, in place: models may hold it in lists and other places, too."""
    training = module.training
    vars(module).clear()
    module.__class__ = kind
    module.__init__(*args)  # type: ignore[misc]  # of the new class
    module.train(training)
