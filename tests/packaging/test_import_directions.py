"""Which package may import which: the layout of the project as a list in which everything imports upwards only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.packaging.source import PACKAGES, imports, modules, third_party

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORE = tuple(
    f"coordconv_apps.{name}"
    for name in ("nn", "utils", "data", "runs", "report", "training", "export", "cli", "compare")
)
"""The parts of the core, each of which may import those before it."""

APPLICATIONS = ("coordconv_apps.coordinates", "classification", "detection", "generative", "rl")
"""Each may import the whole core, and no other application."""

STRICTER = {
    "coordconv_apps.nn": (),
    "coordconv_apps.utils": (),  # it serves everybody and knows nobody
    # They read the folders of runs.
    "coordconv_apps.report": ("coordconv_apps.utils", "coordconv_apps.runs"),
    "coordconv_apps.compare": (
        "coordconv_apps.nn",
        "coordconv_apps.utils",
        "coordconv_apps.runs",
        "coordconv_apps.report",
    ),
}
"""Packages that may import less of this project than the list allows."""

FORBIDDEN_WITHIN_RL = {name: ("rl.tasks", "rl.data") for name in ("rl.envs", "rl.learning", "rl.evaluation")}


def within(module: str, packages: tuple[str, ...]) -> str | None:
    """The one of some packages that a module belongs to."""
    return next((package for package in packages if f"{module}.".startswith(f"{package}.")), None)


def allowed(package: str) -> tuple[str, ...]:
    """What of this project a package may import, itself included."""
    if package in APPLICATIONS:
        return (*CORE, package)
    return (*STRICTER.get(package, CORE[: CORE.index(package)]), package)


def own_imports(module: str) -> Iterator[str]:
    for imported in imports(modules(*PACKAGES)[module]):
        if imported.module.partition(".")[0] in PACKAGES:
            # `from coordconv_apps import CoordConv2d` imports the public names of the layers
            yield "coordconv_apps.nn" if imported.module == "coordconv_apps" else imported.module


@pytest.mark.parametrize("package", [*CORE, *APPLICATIONS])
def test_packages_import_upwards_only(package: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in modules(*PACKAGES)
        if within(module, (package,))
        for imported in own_imports(module)
        if not within(imported, allowed(package))
    ]
    assert not wrong


def test_every_module_has_a_place_in_the_list() -> None:
    assert [name for name in modules(*PACKAGES) if not within(name, CORE + APPLICATIONS)] == ["coordconv_apps"]


def test_layers_import_torch_only() -> None:
    assert {name for module, file in modules("coordconv_apps/nn").items() for name in third_party(file)} == {"torch"}
    assert {module for module in own_imports("coordconv_apps") if not within(module, ("coordconv_apps.nn",))} == set()


@pytest.mark.parametrize("package", FORBIDDEN_WITHIN_RL)
def test_parts_of_rl_know_neither_tasks_nor_data(package: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module in modules(*PACKAGES)
        if within(module, (package,))
        for imported in own_imports(module)
        if within(imported, FORBIDDEN_WITHIN_RL[package])
    ]
    assert not wrong


@pytest.mark.parametrize("application", APPLICATIONS)
def test_data_know_no_task(application: str) -> None:
    """Neither directly nor through other modules of the application."""
    pending = [name for name in modules(*PACKAGES) if within(name, (f"{application}.data",))]
    assert pending
    reached = set()
    while pending:
        reached.add(module := pending.pop())
        pending += [name for name in own_imports(module) if within(name, (application,)) and name not in reached]
    tasks = (f"{application}.tasks", f"{application}.task")
    assert {name for name in reached if within(name, tasks)} == set()


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Not for type checkers either."""
    left = {name: {m.module for m in imports(file)} for name, file in modules(*PACKAGES).items()}
    while free := {name for name, imported in left.items() if not imported & left.keys() - {name}}:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert not left, f"these modules import one another: {sorted(left)}"


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import torch.nn as nn\n"
        "from coordconv_apps import cli, fold\n"
        "from coordconv_apps.nn.fold import fold\n"
        "if TYPE_CHECKING:\n    from detection import tasks\n"
        "def f():\n    with context():\n        from rl.data import RLData\n"
    )
    assert {name for name, typing_only in imports(file) if not typing_only} == {
        "torch.nn",
        "coordconv_apps",
        "coordconv_apps.cli",
        "coordconv_apps.nn.fold",
        "rl.data",
    }
    assert [name.partition(".")[0] for name, typing_only in imports(file) if typing_only] == ["detection"]
    assert third_party(file) == {"torch"}
