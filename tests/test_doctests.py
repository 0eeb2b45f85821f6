"""The ``>>>`` examples of the packages run and print what they say.

Only modules with examples are imported, and only here: `--doctest-modules` would import all of them before any test.
"""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

from tests.packaging.source import PACKAGES, modules

EXAMPLES = sorted(name for name, file in modules(*PACKAGES).items() if ">>> " in file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", EXAMPLES)
def test_docstring_examples_run(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, attempted = doctest.testmod(importlib.import_module(module), optionflags=flags)
    assert attempted
    assert not failed, capsys.readouterr().out
