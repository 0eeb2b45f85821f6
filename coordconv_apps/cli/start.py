"""Answer what needs no task: ``--help``, a wrong command, and a training without a config.

An application's ``__main__`` calls `check_command` before it imports torch and Lightning, which takes seconds.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from coordconv_apps.utils.config_files import (
    check_keys,
    check_yaml,
    find_config,
    read_text,
    shipped_configs,
)
from coordconv_apps.utils.errors import UserError, discard_output, one_line, shortened

COMMANDS: Mapping[str, str] = {
    "fit": "Train a network, or resume its training.",
    "validate": "Evaluate a checkpoint on the validation data.",
    "test": "Evaluate a checkpoint on the test data.",
    "predict": "Write a checkpoint's predictions, samples or films to files.",
    "export": "Write a checkpoint's network in forms that run without this package.",
}
"""The commands, with their help."""

_LENGTHS = ("max_epochs", "max_steps", "max_time", "fast_dev_run", "total_timesteps")
_HELP = ("-h", "--help")


def check_command(
    package: str, args: Sequence[str] | None = None, commands: Sequence[str] = tuple(COMMANDS)
) -> list[str]:
    """Check the command at the start of a command line.

    Args:
        package: The application, as in ``python -m <package>``.
        args: The command line; ``sys.argv`` if None.
        commands: The commands that the application has.

    Returns:
        The command line.

    Raises:
        SystemExit: With status 0 after printing the help; with status 2 after printing one line about a mistake.
    """
    if args is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends the imports without a traceback; then `run` handles it
    args = list(sys.argv[1:] if args is None else args)
    try:
        command = _find_command(args, commands)
        check_config_texts(package, args)
        if command == "fit":
            _check_fit(package, args)
    except (UserError, ValueError, OSError) as error:
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":  # `is_first_here`, without torch
            print(f"error: {shortened(one_line(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    if command is None:
        try:
            print(_help(package, commands), flush=True)
        except BrokenPipeError:  # nobody reads it any more
            discard_output()
        raise SystemExit(0)
    return args


def given_command(args: Sequence[str]) -> str | None:
    """Return the command on a command line; None if there is none."""
    return next((arg for arg in args if arg in COMMANDS), None)


def config_values(args: Sequence[str]) -> list[str]:
    """Return the values of ``--config`` and ``-c`` on a command line."""
    joined = [arg.partition("=")[2] for arg in args if arg.startswith(("--config=", "-c="))]
    return joined + [value for flag, value in pairwise(args) if flag in ("--config", "-c")]


def check_config_texts(package: str, args: Sequence[str]) -> None:
    """Raise an error for a config that does not exist, and for a config or a value that YAML cannot load in bounds."""
    for value in config_values(args):
        config = find_config(value, package)
        if os.path.exists(config):  # not a mapping, which may be too long for `Path.exists`
            text = read_text(Path(config), f"--config={value}")
            check_yaml(text, f"--config={value}")
            check_keys(text, f"--config={value}")
    for arg in args:
        flag, _, value = arg.partition("=") if arg.startswith("--") else ("a value on the command line", "", arg)
        check_yaml(value, flag)


def configs_help(package: str) -> str:
    """Return a line for the help that lists the configs that an application ships; empty if there are none."""
    names = ", ".join(shipped_configs(package))
    return f"Configs for --config NAME: {names}, or a YAML file of your own.\n" if names else ""


def _find_command(args: Sequence[str], commands: Sequence[str]) -> str | None:
    """Return the command; None if the help of all of them is asked for."""
    known, values = ", ".join(commands), config_values(args)
    for arg in args:
        if arg in commands:
            return arg
        if arg in _HELP:
            return None
        if arg in ("--config", "-c") or arg.startswith(("--config=", "-c=")) or arg in values:
            continue  # a config of several commands
        if arg.startswith("-"):
            raise UserError(f"{arg} before the command: a command comes first: {known}")
        close = difflib.get_close_matches(arg, commands, n=1)
        raise UserError(f"no command is called {arg!r}: choose from {known}" + (f" ({close[0]}?)" if close else ""))
    raise UserError(f"a command is needed: {known}")


def _check_fit(package: str, args: Sequence[str]) -> None:
    """Raise an error if a training has neither a config nor a checkpoint nor a length: it would take 1,000 epochs."""
    flags = [arg.partition("=")[0] for arg in args]
    begun = {*_HELP, "--ckpt_path", "--print_config", "--trainer"}
    stated = begun.intersection(flags) or any(flag.rpartition(".")[2] in _LENGTHS for flag in flags)
    shipped = shipped_configs(package)
    if shipped and not config_values(args) and not stated:
        raise UserError(
            f"fit needs --config: {', '.join(shipped)}, or a YAML file of your own; or the length of the training,"
            " such as --trainer.max_epochs=10"
        )


def _help(package: str, commands: Sequence[str]) -> str:
    """Return the help of the whole application."""
    about = (sys.modules[package].__doc__ or "").strip().partition("\n")[0] if package in sys.modules else ""
    lines = [f"usage: python -m {package} COMMAND [--config CONFIG] [--any.argument VALUE]", "", about, "", "Commands:"]
    lines += [f"  {command:<10}{COMMANDS[command]}" for command in commands]
    lines += ["", *configs_help(package).splitlines(), f"Arguments of a command: python -m {package} fit --help"]
    return "\n".join(lines)
