"""What the modules of this project import, read from their source."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("classification", "coordconv_apps", "detection", "generative", "rl")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""The versions of Python that are supported."""


class Import(NamedTuple):
    """One imported module, and whether it is imported for type checkers only."""

    module: str
    typing_only: bool


@cache
def modules(*folders: str) -> dict[str, Path]:
    """The modules of some folders by name; a package is named without its ``__init__``."""
    found = {}
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports(file: Path) -> frozenset[Import]:
    """What a file imports anywhere, within functions too; names that are modules of this project as modules."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file}: relative import"
            assert not node.level, f"{file}: relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = members & modules(*PACKAGES).keys()
            names = [*submodules] if len(submodules) == len(members) else [node.module, *submodules]
        else:
            continue
        found |= {Import(name, node in typing_only) for name in names}
    return frozenset(found)


def third_party(file: Path) -> set[str]:
    """The top-level packages that a file imports, without Python's and this project's."""
    top_levels = {imported.module.partition(".")[0] for imported in imports(file)}
    return top_levels - sys.stdlib_module_names - {*PACKAGES, "tests", "benchmarks", "examples"}
