"""Files for contributors and for continuous integration say what is true, and the same as one another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import coordconv_apps
from tests.packaging.source import PYTHONS, ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / ".github").glob("*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text("Makefile"), re.M))


def test_ci_runs_what_a_clone_runs_on_the_oldest_and_the_newest_python() -> None:
    ci = ROOT / ".github" / "workflows" / "ci.yml"
    assert [step["run"] for step in steps(ci) if "run" in step] == [".ci/run"]
    assert load(ci)["jobs"]["checks"]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]
    assert re.findall(r"^make .*", text(".ci/run"), re.M) == ["make lint", "make docs", "make test"]


def test_the_supported_versions_of_python_are_the_same_everywhere() -> None:
    project = text("pyproject.toml")
    assert re.findall(r"Python :: (3\.\d+)", project) == list(PYTHONS)
    assert f'requires-python = ">={PYTHONS[0]}"' in project
    assert f'python_version = "{PYTHONS[0]}"' in project
    for name in ("README.md", "CONTRIBUTING.md", "constraints.txt"):
        assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in text(name), name


def test_the_badges_are_true() -> None:
    badges = re.findall(r"img\.shields\.io/badge/(\S+)-blue\)", text("README.md"))
    assert badges == [f"Python-{PYTHONS[0]}_to_{PYTHONS[-1]}", "licence-MIT", "types-strict_mypy"]
    assert 'license = "MIT"' in text("pyproject.toml")
    assert text("LICENSE").startswith("MIT License")
    assert "[tool.mypy]\nstrict = true" in text("pyproject.toml")


def test_pre_commit_is_make_lint() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make lint", "system", False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_existing_targets_without_rights_by_default(path: Path) -> None:
    assert load(path)["permissions"] == {"contents": "read"}
    commands = [step["run"] for step in steps(path) if "run" in step]
    for target in re.findall(r"\bmake ([a-z-]+)", "\n".join(commands)):
        assert target in make_targets()
    for step in steps(path):
        assert set(step) & {"run", "uses"}
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), "a tag can be moved: name the commit"


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_have_what_the_form_needs(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= form.keys()
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in form["body"])


def test_the_version_is_the_same_everywhere() -> None:
    assert load(ROOT / "CITATION.cff")["version"] == coordconv_apps.__version__
    assert 'version = { attr = "coordconv_apps.__version__" }' in text("pyproject.toml")
    assert text("CHANGELOG.md").startswith("# Changelog\n")
    assert "\n## Unreleased\n" in text("CHANGELOG.md")


def test_the_targets_that_contributors_read_of_exist() -> None:
    for path in MARKDOWN:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.M):
            assert target in make_targets(), f"{path.name}: make {target}"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link
