"""Every imported package is declared by the extra that needs it, and every declared package is needed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.environments import extra_requirements
from tests.packaging.source import ROOT, modules, third_party

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
}
"""Declared packages that are used through another package."""

TOOLS = {"mypy", "opencv-python-headless", "pytest-timeout", "pytest-xdist", "ruff", "setuptools"} | {
    "types-pyyaml",
    "types-tqdm",
}


distributions_by_package = cache(packages_distributions)  # it reads the list of files of everything installed


def distributions(package: str) -> set[str]:
    """The distributions that the modules of a package import from."""
    names = distributions_by_package()
    imported = {top for file in modules(package.replace(".", "/")).values() for top in third_party(file)}
    return {canonicalize_name(names[top][0]) if top in names else top for top in imported}


def declared(wheel: Path, extras: tuple[str, ...]) -> set[str]:
    return {"torch"} | {canonicalize_name(name) for extra in extras for name in extra_requirements(wheel, extra)}


@pytest.mark.parametrize("package", NEEDS)
def test_imports_are_declared(wheel: Path, package: str) -> None:
    assert distributions(package) - declared(wheel, NEEDS[package]) == set()


def test_declared_packages_are_needed(wheel: Path) -> None:
    used = {name for package in NEEDS for name in distributions(package)}
    assert declared(wheel, ("dev", "timm")) - used - NOT_IMPORTED.keys() - TOOLS == set()
    assert NOT_IMPORTED.keys() - declared(wheel, ("dev",)) == set()


def test_constraints_pin_what_the_development_environment_needs(wheel: Path) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    for name, requirement in extra_requirements(wheel, "dev").items():
        (pin,) = here[canonicalize_name(name)].specifier
        assert pin.operator == "=="
        assert pin.version in requirement.specifier, name
