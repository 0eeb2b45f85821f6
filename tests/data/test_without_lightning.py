"""Loaders, errors and ranks work without Lightning: plain training loops and the policies for SB3 use them."""

from __future__ import annotations

import subprocess
import sys


def test_lightning_is_not_imported() -> None:
    modules = (
        "data.loaders",
        "data.downloads",
        "utils.errors",
        "utils.distributed",
        "utils.files",
        "utils.random_state",
    )
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(f'coordconv_apps.{{name}}')\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in ('lightning', 'torchvision')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
