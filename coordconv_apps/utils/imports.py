"""Import large libraries faster."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Stop the garbage collector while torch and Lightning are imported in the block, and exempt their objects from it.

    They create hundreds of thousands of objects that live as long as the process. The collector would traverse them
    repeatedly while their number grows, and again when the process ends, which takes a third of a short command's
    time (docs/results.md). If torch is imported already, the program around this one has objects of its own to collect,
    and nothing is changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
