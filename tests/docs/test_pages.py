"""Every code block and command of README and docs is run or parsed; ``python -m tests.docs`` lists how."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import KINDS, LANGUAGES, ROOT, SHELL, Block, pages, read_blocks
from tests.docs.commands import APPS, BadCommand, Command, check, check_app, check_slurm, commands
from tests.docs.running import is_run, run_page

PAGES = {page: read_blocks(page) for page in pages()}
RUN = [page for page, blocks in PAGES.items() if any(is_run(block, slow=False) for block in blocks)]
SLOW = [page for page, blocks in PAGES.items() if any(block.kind == "slow" for block in blocks)]


def with_language(*languages: str) -> list[str]:
    """Return the pages that have blocks of a language."""
    return [page for page, blocks in PAGES.items() if any(block.language in languages for block in blocks)]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_how_it_is_tested(page: str) -> None:
    for block in PAGES[page]:
        assert block.language in LANGUAGES, f"{block.place}: must be one of {LANGUAGES}"
        allowed = ("", *KINDS.get(block.language, ()))
        assert block.kind in allowed, f"{block.place}: a {block.language} block is marked with one of {allowed}"
        assert block.kind != "parse" or block.details, f"{block.place}: parse needs a reason"


@pytest.mark.parametrize("page", with_language(*SHELL))
def test_commands_are_valid(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    variables: dict[str, str] = {}
    wrong = []
    for block in PAGES[page]:
        if block.language not in SHELL:
            continue
        check_slurm(block)
        for command in commands(block, variables):
            try:
                if not is_own_module(command, PAGES[page]):
                    check(command)
            except BadCommand as error:
                wrong.append(f"{block.place}: {error}")
    assert not wrong, "\n".join(wrong)


def is_own_module(command: Command, blocks: list[Block]) -> bool:
    """Return whether a command runs, or uses as its task or game, a module that the page itself shows: it is run."""
    shown = {block.title.partition("/")[0].removesuffix(".py") for block in blocks if block.title}
    return any(word == name or f"={name}." in word or f"={name}:" in word for word in command.words for name in shown)


@pytest.mark.parametrize("page", with_language("python"))
def test_python_blocks_import_names_that_exist(page: str) -> None:
    for block in PAGES[page]:
        if block.language == "python" and not is_run(block, slow=False):
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and node.module and find_spec(node.module.partition(".")[0]):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names), f"{block.place}: {node.module}"


@pytest.mark.parametrize("page", with_language("yaml"))
def test_yaml_blocks_are_valid_configs(page: str, tmp_path: Path) -> None:
    for block in PAGES[page]:
        if block.language == "yaml":
            (tmp_path / "config.yaml").write_text(block.text, encoding="utf-8")
            assert block.details in APPS, f"{block.place}: a yaml block is marked with config and an application"
            check_app(block.details, ["fit", "--config", str(tmp_path / "config.yaml")])


@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCONV_REPORT", "0")  # tests of its own draw the page of a run
    run_page(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_slow_blocks_run(page: str, tmp_path: Path) -> None:
    run_page(page, tmp_path, slow=True)
