"""Stop a training whose policy produces NaN or infinity."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from coordconv_apps.training import divergence

if TYPE_CHECKING:
    from collections.abc import Iterator


class Diverged(divergence.Diverged):
    """The policy produced NaN or infinity with this learning rate, so its weights are useless."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.lr = lr

    def __str__(self) -> str:
        return f"model.lr={self.lr}: training diverged (the policy produced NaN or infinity); lower the learning rate"


@contextmanager
def raise_on_divergence(lr: float) -> Iterator[None]:
    """Raise `Diverged` in place of the long message with which torch's distributions reject NaN parameters."""
    try:
        yield
    except ValueError as error:
        if "found invalid values" not in str(error):
            raise
        raise Diverged(lr) from error
