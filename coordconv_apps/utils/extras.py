"""Name the extra to install when an application's packages are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def required_extra(extra: str) -> Iterator[None]:
    """Exit with status 2 and one line that names an extra if a package imported in the block is not installed.

    An application's ``__main__`` imports everything within such a block. A missing module of an installed package
    raises its `ModuleNotFoundError`: that is a defect, not a missing extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or "." in error.name:
            raise
        print(f"error: {error.name} is not installed; run: pip install 'coordconv-apps[{extra}]'", file=sys.stderr)
        raise SystemExit(2) from None
