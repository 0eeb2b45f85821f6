"""The checks of the documentation refuse what a reader could not use."""

from __future__ import annotations

import doctest
import shlex
from pathlib import Path

import pytest

from tests.docs import blocks, commands, running
from tests.docs.blocks import Block, read_blocks
from tests.docs.commands import BadCommand, Command, check, check_slurm
from tests.docs.running import run_page

WRONG = {
    "make tests": "make tests: not in the Makefile",
    "make env PYTON=python3.12": "make PYTON=python3.12",
    "pip install '.[detecton]'": "no such extra: {'detecton'}",
    "python -m detecton fit": "no such application",
    "python -m detection fit --config quickstat": "no such file",
    "python -m detection fit --config quickstart --model.coord=xy": "there is no argument --model.coord ",
    "python -m detection fit --config quickstart --model.coords=yx": "--model.coords=yx",
    "python -m detection test --name quickstart": "needs --ckpt_path",
    "python -m coordinates_apps.compare detection": "no such application",
    "python -m coordconv_apps.compare detection --config quickstart --arm xy": "--arm",
    "python -m coordconv_apps.compare detection --config quickstart --model.lr=fast": "--model.lr=fast",
    "python -m timeit 'a @'": "invalid syntax",
    "python benchmarks/layer.py": "no such file",
    "python benchmarks/layers.py --second 1 2": "benchmarks/layers.py",
    "python benchmarks/canvas.py --repeats 0": "benchmarks/canvas.py --repeats 0",
    "python benchmarks/scaling.py --gpus 0": "benchmarks/scaling.py --gpus 0",
    "torchrun --nproc_per_node=2 -m detection fit --config mnist --trainer.num_nodes=1": "--trainer.devices=2",
    "curl https://example.org": "no check for this program",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_commands_are_detected(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(blocks.ROOT)
    with pytest.raises(BadCommand) as error:
        check(Command(tuple(shlex.split(line))))
    assert WRONG[line] in str(error.value)


def test_slurm_script_with_too_few_tasks_is_detected() -> None:
    text = "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n#SBATCH --gpus-per-node=4\nsrun python -m rl fit\n"
    with pytest.raises(BadCommand, match=r"--trainer\.devices=4 --trainer\.num_nodes=2"):
        check_slurm(Block("a.md", 1, "bash", "", "", "", text))


def test_python_that_fails_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "Text\n\n```python\nx = 1\n```\n\n```python\n\nassert x == 2\n```\n"
    monkeypatch.setattr(running, "read_blocks", lambda name: read_blocks(name, page))
    with pytest.raises(AssertionError) as error:
        run_page("page.md", tmp_path, slow=False)
    assert error.traceback[-1].lineno + 1 == 9


def test_a_mark_belongs_to_the_next_block_alone() -> None:
    page = "<!-- test: slow -->\n```bash\na\n```\n\n- list\n\n    ```python\n    b\n    ```\n"
    first, second = read_blocks("page.md", page)
    assert (first.kind, first.text) == ("slow", "a\n")
    assert (second.kind, second.text, second.line) == ("", "b\n", 9)


@pytest.mark.parametrize("module", [blocks, commands, running])
def test_docstring_examples_run(module: object) -> None:
    failed, attempted = doctest.testmod(module)  # type: ignore[arg-type]  # a module
    assert attempted
    assert not failed
