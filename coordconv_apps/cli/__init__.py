"""The command line of every application."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordconv_apps.cli.app import run

__all__ = ["run"]


def __getattr__(name: str) -> object:
    """Import `run`, and Lightning with it, when it is first used."""
    if name == "run":
        from coordconv_apps.cli.app import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
