"""Stop a training whose policy produces NaN or infinity."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordconv_apps.training.divergence import Diverged

NOT_FINITE = "the policy produced NaN or infinity"


@contextmanager
def raise_on_divergence(diverged: Diverged) -> Iterator[None]:
    """Raise ``diverged`` in place of the long message with which torch's distributions reject NaN parameters."""
    try:
        yield
    except ValueError as error:
        if "found invalid values" not in str(error):
            raise
        raise diverged from error
