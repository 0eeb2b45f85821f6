"""Paired comparison of coordinate arms: `python -m coordconv_apps.compare APP --config FILE [flags]`.

Every arm is trained and tested with every seed, from the same config but for `model.coords` and
`seed_everything`, in processes of the application's own command line; with `--over model.game pong breakout`
for each of these values of an argument. Finished runs are kept: the same call goes on where an interrupted one
stopped, and a call with more seeds, arms or values adds them.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, get_args

from coordconv_apps.utils.extras import required_extra

with required_extra("compare"):
    from coordconv_apps.compare.devices import job_environments, requested_gpus, visible_gpus
    from coordconv_apps.compare.extension import NOTHING, Extension, find_extension
    from coordconv_apps.compare.files import heading, write_report
    from coordconv_apps.compare.over import Over, check_known, parse_over
    from coordconv_apps.compare.record import check_record, locked
    from coordconv_apps.compare.report import note, overview, sections, table
    from coordconv_apps.compare.runs import Job, Plan, Result, collect
    from coordconv_apps.compare.workers import StopSignals, run_jobs
    from coordconv_apps.nn.coords import Coords

ARMS: tuple[str, ...] = get_args(Coords)
SEED_LIMIT = 2**32  # of every random number generator that a seed is given to

# What compare sets itself, and the flag of its own that decides on it.
_RESERVED = {
    "--model.coords": "use --arms",
    "--seed_everything": "use --seeds",
    "--runs_dir": "use --out",
    "--name": "runs are named by arm and seed",
    "--ckpt_path": "interrupted runs go on by themselves",
    "-c": "use --config",
    "--print_config": "ask the application itself",
}


@dataclass(frozen=True)
class Settings:
    """A checked command line.

    Args:
        app: The application as the user named it.
        plan: What all jobs have in common.
        jobs: All jobs, in the order in which they run: seed by seed, and value by value of what the comparison goes
            over, so that early ones can be compared.
        parallel: How many of them run at a time, or None for one per GPU, at least one.
        fresh: Whether to delete what an earlier comparison left in the folder.
        gpus_per_job: GPUs of a job, or None where the command line names them.
    """

    app: str
    plan: Plan
    jobs: tuple[Job, ...]
    parallel: int | None
    fresh: bool
    gpus_per_job: int | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        usage="python -m coordconv_apps.compare APP --config FILE [options] [flags for the application]",
        description="Train and test an application with and without coordinates, and compare the arms.",
        epilog="Every other flag is handed to the application, such as --trainer.max_epochs=3.",
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="APP", help="the application, as in `python -m APP fit`")
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        required=True,
        help="its config; more of them override it",
    )
    parser.add_argument(
        "--arms", nargs="+", default=["none", "xy"], metavar="ARM",
        help=f"of {', '.join(ARMS)}; the first is what the others are compared with (default: none xy)",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    parser.add_argument(
        "--over", nargs="+", action="append", metavar=("ARGUMENT", "VALUE"),
        help="compare with each of these values of an argument of the application: --over model.game pong breakout",
    )  # fmt: skip
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time (default: one for each GPU, else one after the other)",
    )
    parser.add_argument("--out", metavar="DIR", help="default: runs/compare/APP-CONFIG, or APP-CONFIG-ARGUMENT")
    parser.add_argument("--fresh", action="store_true", help="delete what an earlier comparison left in DIR")
    return parser


def parse(args: Sequence[str] | None = None) -> Settings:
    """Returns the checked settings of a command line.

    Args:
        args: The arguments; None takes those of the program.

    Raises:
        ValueError: An argument is missing or has a value that is not allowed.
        FileNotFoundError: A config file is missing.
    """
    known, flags = _parser().parse_known_args(args)
    configs = tuple(Path(config) for config in known.config)
    for config in configs:
        if not config.is_file():
            raise FileNotFoundError(f"--config {config}: no such file")
    _check_unique("--arms", known.arms)
    _check_unique("--seeds", known.seeds)
    for arm in known.arms:
        if arm not in ARMS:
            raise ValueError(f"--arms {arm}: unknown arm; allowed are {', '.join(ARMS)}")
    for seed in known.seeds:
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"--seeds {seed}: a seed is a number from 0 to {SEED_LIMIT - 1}")
    if known.jobs is not None and known.jobs < 1:
        raise ValueError(f"--jobs {known.jobs}: at least 1 run at a time is needed")
    _check_flags(flags)
    over = parse_over(known.over, flags, _RESERVED)
    names = [known.app, *(config.stem for config in configs), *([] if over.argument is None else [over.argument])]
    out = Path(known.out or f"runs/compare/{'-'.join(names)}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file, not a folder")
    return Settings(
        app=known.app,
        plan=Plan(find_module(known.app), configs, tuple(flags), out, over.argument),
        jobs=tuple(Job(arm, seed, value) for seed in known.seeds for value in over.values for arm in known.arms),
        parallel=known.jobs,
        fresh=known.fresh,
        gpus_per_job=_gpus_per_job(configs, flags, over),
    )


def _gpus_per_job(configs: Sequence[Path], flags: Sequence[str], over: Over) -> int | None:
    """The GPUs of the job that asks for most, which may differ where the comparison goes over `trainer.devices`."""
    if over.argument is None:
        return requested_gpus(configs, flags)
    wanted = [requested_gpus(configs, [*flags, f"--{over.argument}={value}"]) for value in over.values]
    numbers = [number for number in wanted if number is not None]
    return max(numbers) if len(numbers) == len(wanted) else None


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


def find_module(app: str) -> str:
    """Returns the module that `python -m` runs for an application: its own name, or one of `coordconv_apps`.

    Args:
        app: Its name, such as `detection` or `coordinates`.

    Raises:
        ValueError: There is no such package, or it cannot be run.
    """
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", app):
        for name in (app, f"coordconv_apps.{app}"):
            with contextlib.suppress(ModuleNotFoundError):
                spec = importlib.util.find_spec(name)
                places = spec.submodule_search_locations if spec is not None else None
                if any((Path(place) / "__main__.py").is_file() for place in places or ()):
                    return name
    raise ValueError(f"APP {app}: no such application; it is a package with a __main__.py, such as detection")


def compare(settings: Settings) -> int:
    """Runs what is left of a comparison, and writes its report.

    Args:
        settings: The checked command line.

    Returns:
        The exit status: 0, or 1 if a run or what the application adds to the report failed, or 128 and the signal's
        number if it was interrupted.
    """
    plan = settings.plan
    if plan.over is not None and not any(plan.versions(job) for job in settings.jobs):
        check_known(plan, settings.app)  # before there are dozens of runs that fail of it
    environments = job_environments(settings.parallel, visible_gpus(os.environ), settings.gpus_per_job, os.environ)
    with locked(plan.out) as lock:
        check_record(plan, settings.fresh)
        left = [job for job in settings.jobs if plan.stages(job)]
        kept = len(settings.jobs) - len(left)
        again = f", {kept} finished before" if kept else ""
        width = f", {len(environments)} at a time" if len(environments) > 1 else ""
        runs = "1 run" if len(settings.jobs) == 1 else f"{len(settings.jobs)} runs"
        print(f"{runs} of {settings.app} in {plan.out}{width}{again}", flush=True)
        with StopSignals() as stop:
            failures = run_jobs(plan, left, environments, lock, stop)
        if stop.number is not None:
            done = sum(not plan.stages(job) for job in settings.jobs)
            print(f"interrupted: {done} of {len(settings.jobs)} runs finished; the same command goes on")
            return 128 + stop.number
        results = [collect(plan, job, failures.get(job, "")) for job in settings.jobs]
        whole = _show(settings, results)
    return 0 if whole and not failures else 1


def _show(settings: Settings, results: Sequence[Result]) -> bool:
    """Writes and prints the report; returns whether it has everything that the application adds to it."""
    plan = settings.plan
    files, extension, mistake = _write(settings, results)
    print("\n" + "\n".join([*_tables(results, extension, plan.over), *extension.notes]) + "\n")
    for result in results:
        if result.error:
            print(f"failed:   {result.job.name}: {result.error} (log: {plan.log(result.job)})")
    if any(result.error for result in results):
        print("          the same command tries failed runs again")
    if mistake:
        print(f"failed:   {plan.module}.comparison, and the report is without what it adds: {mistake}")
    print(f"table:    {files[0]}\nruns:     {files[1]}")
    for file in files[2:]:
        print(f"figure:   {file}")
    for result in results:
        # The test's pictures, or the training's where the application draws none in its test.
        pictures = [folder / "pictures" for folder in result.folders if (folder / "pictures").is_dir()]
        if pictures:
            print(f"pictures: {pictures[-1]}")
    return not mistake


def _tables(results: Sequence[Result], extension: Extension, over: str | None) -> list[str]:
    """The tables with their notes; the overview is the last, where a reader of many of them looks first."""
    lines = []
    for section in sections(results, extension.rows):
        lines += [] if over is None else [heading(section, over)]
        lines += [table(section.results, section.rows), note(section.results)]
        lines += [] if over is None else [""]
    return lines if over is None else [*lines, overview(results, over)]


def _write(settings: Settings, results: Sequence[Result]) -> tuple[list[Path], Extension, str]:
    """Writes the report, then once more with what the application adds.

    Returns:
        The files, what was added, and what is wrong with it, or empty.
    """
    plan = settings.plan
    title = f"{settings.app}: {' '.join(str(config) for config in plan.configs)}"
    command = _command(settings)
    files = write_report(plan.out, title, command, results, over=plan.over)
    try:
        extension = find_extension(plan.module, results)
        if extension is not NOTHING:
            files = write_report(plan.out, title, command, results, extension, plan.over)
    except Exception as error:  # whatever it is, the report of hours of training must not be lost
        if os.environ.get("COORDCONV_DEBUG") == "1":
            raise
        return files, NOTHING, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return files, extension, ""


def _command(settings: Settings) -> str:
    arms = list(dict.fromkeys(job.arm for job in settings.jobs))
    seeds = list(dict.fromkeys(str(job.seed) for job in settings.jobs))
    configs = [part for config in settings.plan.configs for part in ("--config", str(config))]
    command = ["python", "-m", "coordconv_apps.compare", settings.app, *configs]
    values = list(dict.fromkeys(job.value for job in settings.jobs if job.value is not None))
    over = ["--over", settings.plan.over, *values] if settings.plan.over is not None else []
    own = ["--arms", *arms, "--seeds", *seeds, *over, "--out", str(settings.plan.out)]
    return shlex.join([*command, *own, *settings.plan.flags])


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line; a user's mistake is printed as one line.

    Args:
        args: The arguments; None takes those of the program.

    Returns:
        The exit status: that of `compare`, or 2 for a mistake in the arguments.
    """
    try:
        return compare(parse(args))
    except (ValueError, OSError) as error:
        if os.environ.get("COORDCONV_DEBUG") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
