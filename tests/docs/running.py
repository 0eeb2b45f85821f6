"""Run the blocks of a page in their order, in one folder and one namespace, as a reader would."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT, SHELL, Block, read_blocks
from tests.docs.commands import Command, commands

TIMEOUT = 600


def run_page(page: str, folder: Path, *, slow: bool) -> None:
    """Run the python blocks of a page, and the shell blocks that are marked with ``run``; with ``slow``, those, too."""
    namespace: dict[str, Any] = {"__name__": "page"}
    with _reader_in(folder):
        for block in read_blocks(page):
            if not is_run(block, slow=slow):
                continue
            if block.title:
                _write(block)
            elif block.language == "python":
                _run_python(block, namespace)
            else:
                for command in commands(block):
                    _run(command, block, apart=slow)


def is_run(block: Block, *, slow: bool) -> bool:
    """Return whether `run_page` runs a block."""
    if block.language == "python":
        return block.kind != "parse" and (slow or block.kind != "slow")
    return block.language in SHELL and (block.kind == "run" or (slow and block.kind == "slow"))


def python_code(block: Block) -> str:
    """Return the code of a block with the replacements of its mark.

    >>> python_code(Block("a.md", 1, "python", "replace", "1_000 -> 2; b -> c", "", "a(1_000, b)"))
    'a(2, c)'
    """
    code = block.text
    for replacement in block.details.split("; ") if block.kind == "replace" else ():
        old, _, new = replacement.partition(" -> ")
        assert old in code, f"{block.place}: replace {old!r}: not in the block"
        code = code.replace(old, new)
    return code


def _write(block: Block) -> None:
    """Write the file that a block shows."""
    path = Path(block.title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(python_code(block), encoding="utf-8")
    importlib.invalidate_caches()


def _run_python(block: Block, namespace: dict[str, Any]) -> None:
    # A traceback names the page and its line.
    code = "\n" * (block.line - 1) + python_code(block)
    exec(compile(code, ROOT / block.page, "exec", dont_inherit=True), namespace)


def _run(command: Command, block: Block, *, apart: bool) -> None:
    """Run a Python module, in this process or in one of its own, with the flags of the block's mark."""
    assert command.words[:2] == ("python", "-m"), f"{block.place}: only python -m can be run: {command.words}"
    module, *args = command.words[2:]
    args += block.details.split()
    if apart:
        environment = {**os.environ, **dict(command.environment), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(
            [sys.executable, "-m", module, *args], env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert ended.returncode == 0, f"{block.place}: {ended.stdout}\n{ended.stderr}"
    else:
        status = importlib.import_module(f"{module}.__main__").main(args)
        assert not status, block.place


@contextmanager
def _reader_in(folder: Path) -> Iterator[None]:
    """Work in a folder that has the applications' configs; modules that are written there can be imported."""
    for package in ("classification", "coordconv_apps", "detection", "generative", "rl"):
        (folder / package).symlink_to(ROOT / package)
    before = Path.cwd()
    os.chdir(folder)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
