"""The help of a command: the arguments of the task first, Lightning's last, in plain text."""

from __future__ import annotations

import re
import shutil
import textwrap
from argparse import SUPPRESS
from collections.abc import Sequence
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from coordconv_apps.training.task import Task

INDENT = 24
"""Column at which argparse starts the texts of arguments."""


class _WideFormatter(DefaultHelpFormatter):
    """Formats each argument on one line or two, which `plain_text` wraps."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=INDENT, width=100_000)  # type: ignore[no-untyped-call]


class ArgumentParser(LightningArgumentParser):
    """Lightning's parser, whose ``--help`` starts with the arguments of one task class."""

    task_class: type[Task] | None = None
    others: Sequence[str] = ()  # names of the other task classes
    configs: str = ""  # a line that lists the shipped configs

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as Lightning's
        # argparse would take --seed for --seed_everything, and --data.digit for --data.digits.
        super().__init__(*args, formatter_class=_WideFormatter, allow_abbrev=False, **kwargs)

    def task_parser(self) -> LightningArgumentParser:
        """Return a parser of the task's arguments alone."""
        assert self.task_class is not None
        parser = LightningArgumentParser(add_help=False, usage=SUPPRESS, description="", formatter_class=_WideFormatter)
        parser.add_lightning_class_args(self.task_class, "model")
        return parser

    def format_help(self, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401  # as argparse's
        """Return the help: general arguments, then those of the task, the data, the callbacks and the trainer."""
        text = super().format_help(*args, **kwargs)
        if self.task_class is not None:
            head, general, *sections = re.split(r"\n(?=\S.*:\n  )", text)
            own = re.sub(r"  --model CONFIG .*\n", "", self.task_parser().format_help())
            task = f"Arguments of --model={self.task_class.__name__}, the task:\n{own}"
            if self.others:
                task += f"\nOther tasks: {', '.join(self.others)}. Show their arguments with --model=NAME --help.\n"
            text = "\n".join([head, *([self.configs] if self.configs else []), general, task, *sections])
        return plain_text(text, min(shutil.get_terminal_size().columns, 120) - 2)


def plain_text(text: str, width: int) -> str:
    """Return the text of a help without markup and module names, wrapped to a width in characters.

    >>> print(plain_text("  --a A                 A :class:`~torch.Tensor`, or ``b``. Default: ``1``. (type: int)", 60))
      --a A                 A Tensor, or b. (type: int)
    <BLANKLINE>
    """
    lines = []
    for line in text.splitlines():
        flags, words = line[:INDENT], line[INDENT:]
        if not line.startswith("  ") or not (flags.isspace() or flags.endswith("  ")):  # a title, or flags alone
            flags, words = "", line
        words = _without_markup(words)
        if not flags and words.startswith("  -"):
            lines.append(words)
            continue
        wrapped = textwrap.wrap(words, width - (INDENT if flags else 0), break_long_words=False, break_on_hyphens=False)
        indent = " " * INDENT if flags else ""
        lines += [f"{indent if number else flags}{part}" for number, part in enumerate(wrapped or [""])]
    return "\n".join(lines) + "\n"


def _without_markup(text: str) -> str:
    text = re.sub(r" Default: \S+?\.(?= \(type:)", "", text)  # of Lightning; the next words say what it is here
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    text = re.sub(r"`([^`<]+?)\s*<([^`>]+)>`_+", r"\1 (\2)", text)
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)  # modules of classes, which are found without
    within = r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]"  # brackets, with such as list[int] in them
    before = ""
    while text != before:  # from the inside
        before = text
        text = re.sub(rf"Optional{within}", r"\1 | null", text)
        text = re.sub(rf"(?:Union|Literal){within}", lambda found: re.sub(r", (?![^\[]*\])", " | ", found[1]), text)
    return text.replace("`", "")
