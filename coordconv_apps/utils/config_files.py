"""Find the configs that an application ships, and read YAML; texts that would expand without bounds are refused."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from coordconv_apps.utils.argument_checks import given_path
from coordconv_apps.utils.errors import UserError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_VALUES = 100_000
"""Limits of a YAML text, the last one with every alias expanded; the largest config of this project has 60 values."""


def shipped_configs(package: str) -> dict[str, Path]:
    """Return the config files in the folder ``configs`` of a package by name; the package is not imported.

    >>> shipped_configs("detection")["mnist"].name
    'mnist.yaml'
    """
    spec = importlib.util.find_spec(package)
    places = () if spec is None else spec.submodule_search_locations or ()
    return {path.stem: path for place in places for path in sorted(Path(place, "configs").glob("*.yaml"))}


def find_config(value: str, package: str) -> str:
    """Return the config that a value of ``--config`` means to the application in ``package``.

    Args:
        value: A file; the name of a shipped config, such as ``mnist`` or ``detection:mnist``; or a YAML mapping.
        package: The application.

    Returns:
        The path of the file, or the mapping as it is.

    Raises:
        ValueError: The value is empty.
        FileNotFoundError: There is no such file or shipped config.

    >>> Path(find_config("detection:mnist", "detection")).name
    'mnist.yaml'
    """
    if "{" in value or ": " in value or ":\n" in value:  # a mapping, unless a file has such a name
        return value
    path = given_path(value, "--config")
    if path.is_file():
        return str(path)
    shipped = shipped_configs(package)
    application, _, name = value.rpartition(":")
    short = package.rpartition(".")[2]
    if name in shipped and application in ("", short, package):
        return str(shipped[name])
    if path.exists():  # such as a folder, which reading refuses
        return str(path)
    if re.fullmatch(r"[\w.]+:\w+", value) and application not in (short, package):
        raise FileNotFoundError(f"--config={value}: no such file, and this is the application {short}")
    close = difflib.get_close_matches(name.removesuffix(".yaml").rpartition("/")[2], shipped, n=3)
    names = f"close: {', '.join(close)}" if close else f"the shipped configs are {', '.join(shipped)}"
    raise FileNotFoundError(f"--config={value}: no such file{f' ({names})' if shipped else ''}")


def read_text(path: Path, source: str) -> str:
    """Return the beginning of a text file, at most one character more than `check_yaml` accepts.

    Raises:
        UserError: It is no regular file, or its text is not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"{source}: must be a file of text, not a folder, a pipe or a device")
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: must be a text in UTF-8; byte {error.start} is not") from error


def check_yaml(text: str, source: str) -> None:
    """Raise `UserError` if a YAML text is too large or too deeply nested, also once its aliases are expanded.

    Loaders are recursive and end the process instead of raising an error. Other errors of the text are left to them.

    Args:
        text: The text.
        source: Where it comes from, for the message.
    """
    if len(text) < MAX_DEPTH:
        return
    if len(text) > MAX_BYTES:
        raise UserError(f"{source}: larger than {MAX_BYTES:,} characters, which no config is")
    import yaml

    text = text.encode(errors="replace").decode()  # names of files may have bytes that are not UTF-8
    sizes: dict[str, int] = {}  # number of values below each anchor
    parents: list[tuple[str | None, int]] = []  # the open collections: anchor, and number of values so far
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            size, anchor = _size(event, sizes, source), getattr(event, "anchor", None)
            if isinstance(event, yaml.CollectionStartEvent):
                parents.append((anchor, 1))
                if len(parents) > MAX_DEPTH:
                    raise UserError(f"{source}: nested more than {MAX_DEPTH} levels deep")
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                anchor, size = parents.pop()
            if anchor is not None and not isinstance(event, yaml.AliasEvent):
                sizes[anchor] = size
            if parents:
                parents[-1] = (parents[-1][0], parents[-1][1] + size)
            if size > MAX_VALUES:
                raise UserError(f"{source}: its aliases expand to more than {MAX_VALUES:,} values")
    except yaml.YAMLError:
        return


def check_keys(text: str, source: str) -> None:
    r"""Raise `UserError` for an empty key, and for one that a mapping has twice: loaders take the last value silently.

    Call it for a text that `check_yaml` has accepted.

    >>> check_keys("model: {lr: 0.1}\ndata: {seed: 1, seed: 2}", "a.yaml")
    Traceback (most recent call last):
        ...
    coordconv_apps.utils.errors.UserError: a.yaml: line 2 repeats the key seed
    """
    import yaml

    try:
        waiting = [yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    except yaml.YAMLError:  # reported by the parser
        return
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or isinstance(node, yaml.ScalarNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if not key.value:
                    raise UserError(f"{source}: line {key.start_mark.line + 1} has an empty key")
                if key.value in keys and key.value != "<<":
                    raise UserError(f"{source}: line {key.start_mark.line + 1} repeats the key {key.value}")
                keys.add(key.value)
            waiting += [key, value]


def yaml_mapping(text: str) -> dict[str, Any]:
    """Return the mapping in a YAML file or text; an empty one if there is none, which parsing then reports."""
    import yaml

    try:
        path, source = Path(text).expanduser(), "a value on the command line"
        if os.path.isfile(path):  # unlike `Path.is_file`, it raises no error for a text that is too long for a name
            source = str(path)
            text = path.read_text(encoding="utf-8")
        check_yaml(text, source)
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, OSError, ValueError, RuntimeError):
        return {}
    return as_mapping(loaded)


def as_mapping(value: object) -> dict[str, Any]:
    """Return a value that YAML or JSON has loaded if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def yaml_value(text: str) -> Any:  # noqa: ANN401  # any YAML value
    """Return the YAML value of a flag, or the text itself if it is none, such as one with control characters."""
    import yaml

    try:
        return yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text


def _size(event: Any, sizes: dict[str, int], source: str) -> int:  # noqa: ANN401  # of PyYAML, which has no base class
    """Return the number of values that a scalar or an alias stands for."""
    import yaml

    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in sizes:
            raise UserError(f"{source}: the alias *{event.anchor} is used within its own value, or has none")
        return sizes[event.anchor]
    return 1 if isinstance(event, yaml.ScalarEvent) else 0


def class_path(kind: type) -> str:
    """Return the path by which config files name a class.

    >>> class_path(UserError)
    'coordconv_apps.utils.errors.UserError'
    """
    return f"{kind.__module__}.{kind.__qualname__}"
