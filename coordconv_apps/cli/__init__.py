"""The command line of every application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.imports import lazy_attributes

if TYPE_CHECKING:
    from coordconv_apps.cli.app import run

__all__ = ["run"]

__getattr__ = lazy_attributes(__name__, "coordconv_apps.cli.app", __all__)
