"""The command line of every application."""

from coordconv_apps.cli.app import run

__all__ = ["run"]
