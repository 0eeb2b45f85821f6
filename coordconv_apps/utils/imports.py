"""Import large libraries faster, or only when they are used."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Stop the garbage collector while torch and Lightning are imported in the block, and exempt their objects from it.

    They create hundreds of thousands of objects that live as long as the process. The collector would traverse them
    repeatedly while their number grows, and again when the process ends, which takes a third of a short command's
    time (docs/speed.md). If torch is imported already, the program around this one has objects of its own to collect,
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


def lazy_attributes(package: str, module: str, names: Sequence[str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package that imports ``names`` from ``module`` when they are first used.

    Importing the package then does not import Lightning, and the help of a command is printed at once.
    """

    def import_name(name: str) -> object:
        if name in names:
            return getattr(importlib.import_module(module), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_name
