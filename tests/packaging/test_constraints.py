"""The pinned versions, checked without a network, and what no source file may contain."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.source import PACKAGES, PYTHONS, ROOT, modules

MALICIOUS = {
    ("lightning", "2.6.2"),
    ("lightning", "2.6.3"),
    ("pytorch-lightning", "2.6.2"),
    ("pytorch-lightning", "2.6.3"),
}
"""Releases that stole credentials."""


def pins(python: str) -> dict[str, str]:
    """The pinned versions by name, for a version of Python."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        assert requirement.url is None, line
        if applies(requirement, python):
            name = canonicalize_name(requirement.name)
            assert found.setdefault(name, pin.version) == pin.version, f"{name} is pinned twice"
    return found


def applies(requirement: Requirement, python: str) -> bool:
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.5", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate({k: str(v) for k, v in environment.items()})


def declared() -> list[Requirement]:
    """All requirements of the project, of its build and of its extras."""
    tomllib: Any = pytest.importorskip("tomllib", reason="part of Python since 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"], *(r for e in extras for r in e)]
    own = canonicalize_name(project["project"]["name"])
    return [r for r in map(Requirement, lines) if canonicalize_name(r.name) != own]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_bounds(python: str) -> None:
    pinned, optional = pins(python), {"timm"}  # the only package that [all] and [dev] leave out
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        if name in optional or not applies(requirement, python):
            continue
        assert name in pinned, f"{requirement} is not pinned"
        assert requirement.specifier.contains(pinned[name], prereleases=True), (
            f"{requirement}: {pinned[name]} is pinned"
        )


@pytest.mark.parametrize("python", PYTHONS)
def test_no_pin_is_a_malicious_release(python: str) -> None:
    assert not MALICIOUS & pins(python).items()
    for name, version in MALICIOUS:
        for requirement in declared():
            assert canonicalize_name(requirement.name) != name or version not in requirement.specifier, requirement


SOURCES = [*modules(*PACKAGES).values(), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")]


def test_no_source_evaluates_texts_starts_a_shell_or_unpickles() -> None:
    """Linting with ruff (S102, S301, S307, S602, S605) finds most of these, but not `weights_only`."""
    found = [f"{path.relative_to(ROOT)}:{line}: {what}" for path in SOURCES for line, what in dangerous(path)]
    assert not found, "\n".join(found)
    assert len(SOURCES) > 100


def dangerous(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that evaluate or execute a text, start a shell, or load pickled objects."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "cloudpickle.loads"):
            found.append((node.lineno, name))
        if keywords.get("shell", "False") != "False":
            found.append((node.lineno, "shell=True"))
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append((node.lineno, "torch.load without weights_only=True"))
    return found


def test_dangerous_calls_are_found(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("eval('1')\nmodel.eval()\nrun(x, shell=True)\ntorch.load(x)\ntorch.load(x, weights_only=False)\n")
    assert [line for line, _ in dangerous(path)] == [1, 3, 4, 5]
