"""Parse and check the command line of a comparison."""

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from coordconv_apps.compare.application import find_module
from coordconv_apps.compare.jobs import Job, Plan
from coordconv_apps.utils.argument_checks import given_path
from coordconv_apps.utils.config_files import find_config

ARMS = ("none", "xy", "xyr")  # the values of `coordconv_apps.nn.coords.Coords`, whose module imports torch
SEED_LIMIT = 2**32  # every random number generator accepts seeds below it

# The flags that compare sets itself, and what to use instead.
_RESERVED = {
    "--model.coords": "use --arms",
    "--model.init_args.coords": "use --arms",
    "--seed_everything": "use --seeds",
    "--runs_dir": "use --out",
    "--name": "runs are named by arm and seed",
    "--ckpt_path": "interrupted runs are resumed automatically",
    "-c": "use --config",
    "--print_config": "ask the application itself",
}

_OVER_FORM = "must be an argument of the application and its values, such as --over model.game pong breakout"


@dataclass(frozen=True)
class Settings:
    """A checked command line."""

    app: str  # as the user named it
    plan: Plan
    jobs: tuple[Job, ...]  # in the order in which they run: seed by seed, so that early ones can be compared
    parallel: int | None  # how many run at a time; None: one per GPU, at least one
    fresh: bool  # whether to delete what an earlier comparison left in the folder

    @property
    def command(self) -> str:
        """The command line that repeats the comparison."""
        arms = dict.fromkeys(job.arm for job in self.jobs)
        seeds = dict.fromkeys(str(job.seed) for job in self.jobs)
        values = dict.fromkeys(job.value for job in self.jobs if job.value is not None)
        configs = [part for config in self.plan.configs for part in ("--config", str(config))]
        over = [] if self.plan.over is None else ["--over", self.plan.over, *values]
        own = ["--arms", *arms, "--seeds", *seeds, *over, "--out", str(self.plan.out)]
        return shlex.join(["python", "-m", "coordconv_apps.compare", self.app, *configs, *own, *self.plan.flags])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        usage="python -m coordconv_apps.compare APP --config FILE [options] [flags for the application]",
        description="Train and test an application with and without coordinates, and compare the arms.",
        epilog="Every other flag is passed to the application, such as --trainer.max_epochs=3.",
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="APP", help="the application, as in `python -m APP fit`")
    config_help = "a config of the application: a file, or the name of a shipped one; later ones override earlier ones"
    parser.add_argument("--config", action="append", metavar="FILE", required=True, help=config_help)
    parser.add_argument(
        "--arms", nargs="+", default=["none", "xy"], metavar="ARM",
        help=f"one or more of {', '.join(ARMS)}; the others are compared with the first one (default: none xy)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="seeds of the runs of each arm (default: 0)"
    )
    parser.add_argument(
        "--over", nargs="+", action="append", metavar=("ARGUMENT", "VALUE"),
        help="repeat the comparison for each value of an argument: --over model.game pong breakout",
    )  # fmt: skip
    jobs_help = "runs at a time (default: one for each GPU, else one after the other)"
    parser.add_argument("--jobs", type=int, metavar="N", help=jobs_help)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the comparison (default: runs/compare/APP-CONFIG, or APP-CONFIG-ARGUMENT)",
    )
    parser.add_argument("--fresh", action="store_true", help="delete what an earlier comparison left in DIR")
    return parser


def parse(args: Sequence[str] | None = None) -> Settings:
    """Parse and check a command line: that of the program if ``args`` is None.

    Raises:
        ValueError: An argument is missing or has a value that is not allowed.
        FileNotFoundError: A config file is missing.
    """
    known, flags = _parser().parse_known_args(args)
    module = find_module(known.app)
    configs = tuple(Path(find_config(config, module)) for config in known.config)
    for config in configs:
        if not config.is_file():
            raise FileNotFoundError(f"--config={config}: no such file")
    _check_unique("--arms", known.arms)
    _check_unique("--seeds", known.seeds)
    for arm in known.arms:
        if arm not in ARMS:
            raise ValueError(f"--arms {arm}: unknown arm; allowed are {', '.join(ARMS)}")
    for seed in known.seeds:
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"--seeds {seed}: must be an integer from 0 to {SEED_LIMIT - 1}")
    if known.jobs is not None and known.jobs < 1:
        raise ValueError(f"--jobs {known.jobs}: must be at least 1")
    _check_flags(flags)
    over, values = _parse_over(known.over, flags)
    names = [known.app, *(config.stem for config in configs), *([] if over is None else [over])]
    out = given_path(f"runs/compare/{'-'.join(names)}" if known.out is None else known.out, "--out")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file, not a folder")
    return Settings(
        app=known.app,
        plan=Plan(module, configs, tuple(flags), out, over),
        jobs=tuple(Job(arm, seed, value) for seed in known.seeds for value in values for arm in known.arms),
        parallel=known.jobs,
        fresh=known.fresh,
    )


def _check_unique(flag: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{flag} {value}: given more than once")


def _check_flags(flags: Sequence[str]) -> None:
    if flags and not flags[0].startswith("-"):
        raise ValueError(f"unexpected argument {flags[0]!r}: flags for the application start with --")
    for flag in flags:
        name = flag.partition("=")[0]
        if name in _RESERVED:
            raise ValueError(f"{name} is set by the comparison: {_RESERVED[name]}")


def _parse_over(given: Sequence[Sequence[str]] | None, flags: Sequence[str]) -> tuple[str | None, Sequence[str | None]]:
    """Return the argument of `--over` and its values, checked; None and a single None without that flag."""
    if given is None:
        return None, [None]
    if len(given) > 1:
        raise ValueError(f"--over {given[1][0]}: given more than once; a comparison takes one --over")
    argument, *values = given[0]
    flag = f"--{argument}"
    if flag in _RESERVED:
        raise ValueError(f"--over {argument}: is set by the comparison: {_RESERVED[flag]}")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", argument):
        raise ValueError(f"--over {argument}: {_OVER_FORM}")
    if not values:
        raise ValueError(f"--over {argument}: no values; {_OVER_FORM}")
    _check_unique(f"--over {argument}", values)
    if flag in (given_flag.partition("=")[0] for given_flag in flags):
        raise ValueError(f"{flag}: is set by --over {argument}")
    return argument, values
