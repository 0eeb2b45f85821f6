"""The dependencies that a wheel declares, and environments in which nothing else can be imported."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.metadata import Distribution, PathDistribution, distribution
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from tests.packaging.source import PACKAGES

if TYPE_CHECKING:
    from pathlib import Path


def metadata(wheel: Path) -> Distribution:
    """The metadata of the unpacked wheel."""
    return PathDistribution(next(wheel.glob("*.dist-info")))


def requirements(project: Distribution, extras: frozenset[str]) -> list[Requirement]:
    """What a project needs itself with some of its extras, on this machine."""
    needed = map(Requirement, project.requires or ())
    environments = [{"extra": extra} for extra in extras or {""}]
    return [r for r in needed if r.marker is None or any(r.marker.evaluate(values) for values in environments)]


def extra_requirements(wheel: Path, extra: str) -> dict[str, Requirement]:
    """What an extra installs itself, and through other extras of this project, by name of the distribution."""
    project, found = metadata(wheel), {}
    for requirement in requirements(project, frozenset({extra} - {""})):
        if requirement.name == project.name:
            for other in requirement.extras:
                found.update(extra_requirements(wheel, other))
        else:
            found[requirement.name] = requirement
    return found


@cache
def top_levels(name: str) -> frozenset[str]:
    """The files and folders that a distribution installs beside those of others; several may share a folder."""
    files = distribution(name).files
    assert files is not None, f"{name} does not list its files"
    return frozenset({file.parts[0] for file in files} - {"..", "__pycache__"})


def isolated_environment(folder: Path, wheel: Path, extra: str = "") -> Path:
    """Fill a folder with links to the wheel's packages and the declared dependencies of an extra, theirs included."""
    for package in PACKAGES:
        (folder / package).symlink_to(wheel / package)
    pending = [(r.name, frozenset(r.extras)) for r in extra_requirements(wheel, extra).values()]
    seen = set()
    while pending:
        name, extras = entry = pending.pop()
        if entry in seen:
            continue
        seen.add(entry)
        project = distribution(name)
        pending += [(r.name, frozenset(r.extras)) for r in requirements(project, extras)]
        for top_level in top_levels(name):
            if not (folder / top_level).exists():
                (folder / top_level).symlink_to(str(project.locate_file(top_level)))
    return folder


def run_isolated(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees the standard library and a folder only."""
    code = f"import sys; sys.path.append({str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=folder)
