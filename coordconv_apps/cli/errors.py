"""Turn errors of jsonargparse, and of tasks that lack an argument, into one line: what is wrong, what is allowed.

jsonargparse raises `argparse.ArgumentError` with a text alone, so its texts are matched here; ``tests/cli/test_app.py``
has one case for each.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import Namespace

from coordconv_apps.cli.start import config_values
from coordconv_apps.training.task import Task
from coordconv_apps.utils.errors import UserError, one_line

_WORDS = {
    "NoneType": "null",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "Any": "any value",
}
_OTHER_NAMES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "bs": "batch_size",
    "epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "n_epochs": "max_epochs",
    "steps": "max_steps",
    "seed": "seed_everything",
    "gpus": "devices",
    "workers": "num_workers",
    "output_dir": "runs_dir",
    "checkpoint": "ckpt_path",
    "resume": "ckpt_path",
    "pretrained": "weights",
    "env": "game",
    "env_id": "game",
}
"""Names that other programs give to arguments, for suggestions."""


def parsing_error(message: str, args: Sequence[str], options: Sequence[str], types: Mapping[str, object]) -> str:
    """Return one line for a message of jsonargparse, which has many lines and names Python's types.

    Args:
        message: The message.
        args: The command line.
        options: Names of all arguments, without dashes, of which some are suggested.
        types: Types of arguments by name; those of other arguments are taken from the message.
    """
    if found := re.search(r"unrecognized arguments: (.*)", message, re.DOTALL):
        return "; ".join(_unknown(word, options) for word in found[1].split() if word.startswith("-")) or (
            f"not understood: {one_line(found[1])}"
        )
    if "NestedArg(key=''" in message and (ended := [a for a in args if a.partition("=")[0].endswith(".")]):
        return _unknown(ended[0], options)
    if re.search(r"argument \S+: expected one argument", message):
        alone = [a for a, b in pairwise([*args, "--"]) if a.startswith("--") and "=" not in a and b.startswith("--")]
        return f"{alone[0]}: has no value" if alone else one_line(message)
    if found := re.search(r"does not accept (?:option|nested key|key) '([^']*)'", message):
        return _unknown(found[1], options)
    if found := re.search(r'Parser key "model":.*?Option \'([^\']*)\' is not accepted', message, re.DOTALL):
        return _unknown(f"model.{found[1]}", options)
    if found := re.search(r'Parser key "model":.*?Parser key "([^"]+)":\s*(.*?)\n    - Expected', message, re.DOTALL):
        return _wrong_value(f"model.{found[1]}", found[2], types.get(f"model.{found[1]}"))
    if found := re.search(r"NestedArg\(key='([^']*)'", message):  # such as --model.lr =3
        typed = [arg for arg in args if arg.startswith(f"--model.{found[1]}")]
        keys = typed or [arg for arg in args if arg.partition("=")[0].endswith(f".{found[1]}")]
        return _unknown(keys[0] if keys else f"model.{found[1]}", options)
    if found := re.search(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL):
        return _wrong_value(found[1], found[2], types.get(found[1]))
    if found := re.search(r'expected "subcommand" to be one of \{([^}]*)\}', message):
        return f"a command is needed: {found[1].replace(',', ', ')}"
    if found := re.search(r"argument subcommand: invalid choice: (\S+) \(choose from (.*)\)", message):
        return f"no command is called {found[1]}: choose from {found[2]}"
    if found := re.search(r"(?:Problems parsing config|Unexpected config): (.*)", message, re.DOTALL):
        return f"--config={', '.join(config_values(args))}: is not a YAML file of arguments: {one_line(found[1])}"
    return one_line(message)


def _unknown(word: str, options: Sequence[str]) -> str:
    key = word.lstrip("-").partition("=")[0]
    if not key:
        return f"not understood: {word}"
    last = key.rpartition(".")[2]
    close = [option for option in options if option.rpartition(".")[2] in (last, _OTHER_NAMES.get(last))]
    close += [o for o in difflib.get_close_matches(key, options, n=3, cutoff=0.6) if o not in close]
    suggestion = f" (close: {', '.join(f'--{option}' for option in close[:3])})" if close else ""
    return f"there is no argument --{key}{suggestion}"


def _wrong_value(key: str, text: str, hint: object) -> str:
    """Return one line for ``Expected a <class 'int'>. Got value: 1.5``, or for the many lines about a union."""
    if found := re.search(r"Problem with given class_path '([^']*)':\s*(.*?)\n", text):
        return f"--{key}={found[1]}: {one_line(found[2])}"
    if found := re.search(r"Unable to load config '([^']*)'", text):
        return f"--{key}={found[1]}: must be a YAML file of arguments, or a mapping such as {{name: value}}"
    values = re.findall(r"Given value: ([^\n]*)", text)[-1:] or re.findall(r"Got value: ([^\n]*)", text)[:1]
    expected = re.search(r"Subtypes: \[(.*?)\]\n", text, re.DOTALL) or re.search(r"Expected an? (.*?)\. Got", text)
    if not values or expected is None:
        return f"--{key}: {one_line(text)}"
    given = values[0].strip()
    given = {"None": "null", "True": "true", "False": "false"}.get(given, given)
    words = _plain_types(expected[1]) if hint is None else describe_type(hint)
    in_brackets = ""
    if hint is not None and "[" in words and not given.startswith("["):
        in_brackets = f"; in brackets: --{key}={_example(hint)}"
    return f"--{key}={given}: expected {words}{in_brackets}"


def argument_types(section: str, owner: type) -> dict[str, object]:
    """Return the types of the constructor's arguments of a class by the names of their flags."""
    try:
        init = owner.__init__  # type: ignore[misc]  # of this very class
        return {f"{section}.{name}": hint for name, hint in get_type_hints(init).items()}
    except NameError:  # a type that is imported for type checkers only
        return {}


def describe_type(hint: object) -> str:
    """Describe the values that a type of an argument allows, in the words of the command line.

    >>> describe_type(tuple[float, float] | None)
    '[a number, a number], null'
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return ", ".join(describe_type(part) for part in parts)
    if origin in (list, tuple, Sequence):
        listed = ", ".join(describe_type(part) for part in parts if part is not ...)
        return f"[{listed}{', ...' if origin is not tuple or ... in parts else ''}]"
    if origin in (dict, Mapping):
        return f"{{name: {' or '.join(describe_type(part) for part in get_args(parts[1]) or (parts[1],))}, ...}}"
    return _WORDS.get(getattr(hint, "__name__", ""), getattr(hint, "__name__", str(hint)))


def _example(hint: object) -> str:
    """Return an example of a list or tuple."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) in (list, tuple, Sequence):
            values = {int: "1", float: "0.5", str: "a"}
            items = [values.get(item, "...") for item in get_args(part) if item is not ...]
            return f"[{', '.join(items if len(items) > 1 else items * 2)}]"
    return "[...]"


def _plain_types(text: str) -> str:
    """Describe Python's types in the words of the command line."""
    text = re.sub(r"<class '([^']+)'>", r"\1", text)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    text = re.sub(r"(?:Literal|Union|Optional)\[([^\[\]]*)\]", r"\1", text)
    for name, plain in _WORDS.items():
        text = re.sub(rf"(?<![\[\w'\"]){name}\b", plain, text)
    return one_line(text)


def name_in_full(message: str, sections: Mapping[str, Mapping[str, Any] | Namespace]) -> str:
    """Return a message in which arguments have the names of their flags: ``model.lr=0`` instead of ``lr=0``.

    Args:
        message: Message of an error that a constructor or a function below it has raised.
        sections: The arguments of each section by name. If several have an argument, the one with the value counts.

    >>> name_in_full("lr=0: must be above 0", {"model": {"lr": 0}, "data": {"seed": 0}})
    'model.lr=0: must be above 0'
    """

    def full(found: re.Match[str]) -> str:
        name, value = found[0], message[found.end() + 1 :].lower()
        homes = [section for section, arguments in sections.items() if name in arguments]
        homes.sort(
            key=lambda home: not value.startswith((str(sections[home][name]).lower(), repr(sections[home][name])))
        )
        return f"{homes[0]}.{name}" if homes else name

    return re.sub(r"(?<![\w.\-/'\"])[a-z]\w*(?==)|^[a-z]\w*(?=: )", full, message)


def missing_argument_error(error: KeyError, task_class: type[Task], default: type[Task]) -> UserError | None:
    """Return the error behind a KeyError: a task lacks an argument that its base class reads from ``hparams``.

    None if the key is no argument of a base class or of the application's default task, or the task has it.
    """
    name = error.args[0] if error.args else None
    if name in inspect.signature(task_class).parameters:
        return None
    bases = [other for other in (default, *task_class.__mro__) if issubclass(other, Task)]
    if not any(name in inspect.signature(base).parameters for base in bases):
        return None
    return UserError(
        f"--model={task_class.__name__}: its constructor needs the argument {name!r}, which a base class reads; add it,"
        " or pass **kwargs on to the base class"
    )
