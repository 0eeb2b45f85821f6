"""Check the commands of the documentation without running them: their arguments go through the program's own parser."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

from coordconv_apps.cli.start import COMMANDS
from coordconv_apps.compare.arguments import parse as parse_comparison
from coordconv_apps.utils.config_files import shipped_configs
from tests.docs.blocks import ROOT, Block

APPS = ("coordconv_apps.coordinates", "detection", "generative", "classification", "rl")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


class Command(NamedTuple):
    """A command of a page: its words without assignments of environment variables."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


class BadCommand(AssertionError):
    """A command that its program would refuse."""


def commands(block: Block, variables: dict[str, str] | None = None) -> Iterator[Command]:
    r"""Yield the commands of a shell block; ``variables`` are the shell's so far, and get those that the block sets.

    >>> block = Block("a.md", 1, "bash", "", "", "", "C=a/b\nX=1 python -m \\\n  app $C  # comment\n")
    >>> list(commands(block))
    [Command(words=('python', '-m', 'app', 'a/b'), environment=(('X', '1'),))]
    """
    known = {} if variables is None else variables

    def value(match: re.Match[str]) -> str:
        return known.get(match[1], match[0])

    for line in block.text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$\{?(\w+)\}?", value, line)
        words = shlex.split(line.removeprefix("$ "), comments=True)
        environment = []
        while words and (assignment := _ASSIGNMENT.fullmatch(words[0])):
            environment.append((assignment[1], assignment[2]))
            words = words[1:]
        if not words:
            known |= dict(environment)
            continue
        while "&&" in words:
            end = words.index("&&")
            yield Command(tuple(words[:end]), tuple(environment))
            words = words[end + 1 :]
        yield Command(tuple(words), tuple(environment))


def check(command: Command) -> str:
    """Check a command; return how it was checked.

    Raises:
        BadCommand: The program is unknown, or would refuse its arguments.
    """
    words = list(command.words)
    for program, checker in _CHECKERS.items():
        if words[: len(program)] == list(program):
            return checker(words[len(program) :])
    raise BadCommand(f"{shlex.join(words)}: no check for this program; add one to {Path(__file__).name}")


# ------------------------------------------------------------------ applications


def _check_module(words: Sequence[str]) -> str:
    module, *args = words
    if module in (*APPS, "examples.find_the_cross"):
        return check_app(module, args)
    if module == "coordconv_apps.compare":
        return _check_comparison(args)
    if module == "tests.simcuda":  # runs another module on a simulated GPU
        return check(Command(("python", *args)))
    if module in ("pytest", "tests.docs"):
        missing = [word for word in args if "/" in word and not (ROOT / word.partition("::")[0]).exists()]
        _refuse(missing, f"python -m {module}: no such file: {missing}")
        return "its files exist"
    if module == "timeit":
        try:
            ast.parse("\n".join(word for word in args if not word.startswith("-")))
        except SyntaxError as error:
            raise BadCommand(f"python -m timeit {shlex.join(args)}: {error.msg}") from None
        return "its statements parse"
    _refuse(
        not (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"python -m {module}: no such application or module"
    )
    return "the module exists"


def check_app(app: str, args: Sequence[str]) -> str:
    """Parse the arguments of an application's command with its own parser.

    A checkpoint does not exist here; the config of its run's name, if there is one, then chooses the method.
    """
    if not args:
        return "names the application"
    if not {"-h", "--help"} & {*args}:
        args = [*_without_checkpoint(app, args), "--print_config"]
    output, errors = io.StringIO(), io.StringIO()
    status: object = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            importlib.import_module(f"{app}.__main__").main(list(args))
        except SystemExit as end:
            status = end.code
    _refuse(status != 0 or not output.getvalue(), f"python -m {app} {shlex.join(args)}: {errors.getvalue().strip()}")
    return "parsed by the application"


def _without_checkpoint(app: str, args: Sequence[str]) -> list[str]:
    """Replace the checkpoint of a command by the config of its run."""
    kept, given = [], dict[str, str]()
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in ("--ckpt_path", "--name"):
            given[flag] = value if equals else next(words, "")
        else:
            kept.append(word)
    evaluates = ({*COMMANDS} - {"fit"}) & {*args[:1]}
    _refuse(evaluates and "--ckpt_path" not in given, f"python -m {app} {shlex.join(args)}: needs --ckpt_path")
    path = given.get("--ckpt_path", "last")
    _refuse(path not in ("best", "last") and not path.endswith(".ckpt") and "$" not in path, f"--ckpt_path {path}")
    name = given.get("--name", "")
    if name in shipped_configs(app) and not any(word.startswith("--config") for word in kept):
        kept[1:1] = ["--config", name]
    return kept


def _check_comparison(args: Sequence[str]) -> str:
    if {"-h", "--help"} & {*args}:
        return "help"
    try:
        settings = parse_comparison(args)
    except (ValueError, OSError, SystemExit) as error:
        raise BadCommand(f"compare {shlex.join(args)}: {error}") from error
    firsts = {(job.arm, job.value): job for job in reversed(settings.jobs)}
    for job in firsts.values():
        words = settings.plan.arguments(job, "fit")
        check_app(settings.plan.module, words[words.index(settings.plan.module) + 1 :])
    return f"parsed by compare, and by the application for {len(firsts)} runs"


# ------------------------------------------------------------------ other programs


def _check_torchrun(words: Sequence[str]) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            options = get_args_parser().parse_args(list(words))
        except SystemExit:
            raise BadCommand(f"torchrun {shlex.join(words)}: {errors.getvalue()}") from None
    _refuse(not options.module, "torchrun without -m")
    _check_processes(
        int(str(options.nnodes).partition(":")[0]), int(options.nproc_per_node), options.training_script_args
    )
    return f"torchrun's parser; {_check_module([options.training_script, *options.training_script_args])}"


def _check_srun(words: Sequence[str]) -> str:
    return check(Command(tuple(itertools.dropwhile(lambda word: word.startswith("--"), words))))  # after its options


def check_slurm(block: Block) -> None:
    """Check that a SLURM script starts as many tasks as it tells Lightning."""
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", block.text, re.MULTILINE))
    if options:
        (command,) = (command for command in commands(block) if command.words[0] == "srun")
        _refuse(options["gpus-per-node"] != options["ntasks-per-node"], f"{block.place}: one task per GPU")
        _check_processes(int(options["nodes"]), int(options["ntasks-per-node"]), command.words)


def _check_processes(nodes: int, per_node: int, args: Sequence[str]) -> None:
    """Check that Lightning is told the numbers of processes with which it is started."""
    expected = {f"--trainer.num_nodes={nodes}", f"--trainer.devices={per_node}"}
    _refuse(not expected <= {*args}, f"{shlex.join(args)}: must have {' '.join(sorted(expected))}")


def _check_benchmark(words: Sequence[str]) -> str:
    script, *args = words
    _refuse(not (ROOT / script).is_file(), f"python {script}: no such file")
    module = script.removesuffix(".py").replace("/", ".")
    if not module.startswith("benchmarks."):
        compile((ROOT / script).read_text(encoding="utf-8"), script, "exec")
        return "the script exists and compiles"

    class Parsed(Exception):
        """The arguments are right; nothing is measured."""

    real = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, given: Sequence[str] | None = None, namespace: None = None) -> None:
        real(parser, args)
        raise Parsed

    main: Callable[[], None] = importlib.import_module(module).main
    with patch.object(argparse.ArgumentParser, "parse_args", parse_only), contextlib.suppress(Parsed):
        try:
            main()
        except SystemExit as error:
            raise BadCommand(f"python {script} {shlex.join(args)}") from error
    return "parsed by the script"


def _check_make(words: Sequence[str]) -> str:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    settings = re.findall(r"^(\w+) \?=", makefile, re.MULTILINE)
    for word in words:
        name, is_setting, _ = word.partition("=")
        is_variable = is_setting and name.startswith("COORDCONV_")  # of the environment, read by tests
        _refuse(
            not is_variable and name not in (settings if is_setting else targets), f"make {word}: not in the Makefile"
        )
    return "targets exist"


def _check_pip(words: Sequence[str]) -> str:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", project.partition("\n[")[0], re.MULTILINE)
    for word in words:
        if word.startswith("-"):
            continue
        requirement = Requirement(word.replace(".", "coordconv-apps", 1) if word.startswith(".") else word)
        unknown = requirement.extras - {*extras} if requirement.name == "coordconv-apps" else set()
        _refuse(unknown, f"pip install {word}: no such extra: {unknown}")
    return "extras exist"


def _known(words: Sequence[str]) -> str:
    return "a known program"


def _refuse(wrong: object, message: str) -> None:
    if wrong:
        raise BadCommand(message)


_CHECKERS: dict[tuple[str, ...], Callable[[Sequence[str]], str]] = {
    ("python", "-m"): _check_module,
    ("python",): _check_benchmark,
    ("torchrun",): _check_torchrun,
    ("srun",): _check_srun,
    ("make",): _check_make,
    ("pip", "install"): _check_pip,
    ("source", ".venv/bin/activate"): _known,
    ("tensorboard", "--logdir", "runs"): _known,
    ("pipx", "install", "pre-commit"): _known,
    ("pre-commit", "install"): _known,
}
