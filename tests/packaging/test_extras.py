"""Every imported package is declared by the extra that needs it, and every declared package is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.packaging.environments import extra_requirements, top_levels
from tests.packaging.source import modules, third_party

if TYPE_CHECKING:
    from pathlib import Path

NEEDS = {
    "coordconv_apps.nn": ("",),
    "coordconv_apps": ("training", "export"),
    "classification": ("classification", "timm"),
    "detection": ("detection",),
    "generative": ("generative",),
    "rl": ("rl",),
    "benchmarks": ("dev",),
    "examples": ("dev",),
    "tests": ("dev",),
}
"""The extras that a package may import from; timm and the packages of ``export`` only within functions."""

NOT_IMPORTED = {
    "faster-coco-eval": "torchmetrics computes mean average precision with it",
    "jsonargparse": "LightningCLI",
    "minigrid": "Gymnasium finds its environments",
    "onnx": "torch.onnx.export",
    "onnxscript": "torch.onnx.export",
    "tensorboard": "Lightning's logger",
    "torchao": "a long test of quantisation imports it by name",
}
"""Declared packages that are used through another package."""

SITE = {"griffelib", "mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"}
"""What ``make docs`` builds the site with."""

TOOLS = {"mypy", "opencv-python-headless", "pytest-cov", "pytest-timeout", "pytest-xdist", "ruff", "setuptools"} | {
    "types-PyYAML",
    "types-tqdm",
}


NOT_INSTALLED = {"timm": {"timm"}, "torchao": {"torchao"}}
"""What packages install that `make env` leaves out, and those that only one long test needs."""


def imported(package: str) -> set[str]:
    """The top-level packages of others that the modules of a package import."""
    return {name for file in modules(package.replace(".", "/")).values() for name in third_party(file)}


def installed(name: str) -> set[str]:
    """The top-level packages that a distribution installs."""
    return NOT_INSTALLED.get(name) or {file.removesuffix(".py") for file in top_levels(name)}


def declared(wheel: Path, extras: tuple[str, ...]) -> set[str]:
    """The distributions of some extras; torch is no extra."""
    return {"torch"} | {name for extra in extras for name in extra_requirements(wheel, extra)}


@pytest.mark.parametrize("package", NEEDS)
def test_imports_are_declared(wheel: Path, package: str) -> None:
    available = {name for project in declared(wheel, NEEDS[package]) for name in installed(project)}
    assert imported(package) - available == set()


def test_declared_packages_are_needed(wheel: Path) -> None:
    used = {name for package in NEEDS for name in imported(package)}
    everything = declared(wheel, ("dev", "timm"))
    otherwise = NOT_IMPORTED.keys() | TOOLS | SITE
    assert everything - otherwise == {project for project in everything - otherwise if installed(project) & used}
    assert otherwise <= everything
