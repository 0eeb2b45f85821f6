"""What is answered before torch is imported: help, wrong commands, configs by name, and YAML without bounds."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest

from coordconv_apps.cli import start
from coordconv_apps.cli.start import COMMANDS, check_command
from coordconv_apps.utils.config_files import MAX_BYTES, check_yaml, find_config, shipped_configs
from coordconv_apps.utils.errors import UserError
from tests.helpers.refusals import refusal

APPLICATIONS = ("classification", "coordconv_apps.coordinates", "detection", "generative", "rl")


@pytest.mark.parametrize("package", APPLICATIONS)
def test_a_training_needs_a_config_or_a_length(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["fit"], ["fit", "--model.coords=xy", "--name", "mine"]):
        error = refusal(capsys, check_command, package, args)
        assert error.startswith("fit needs --config: ")
        assert all(name in error for name in shipped_configs(package))
    for flag in ("--config", "--ckpt_path=last", "--trainer.max_epochs=1", "--trainer.max_time=1", "--help"):
        args = ["fit", *((flag, next(iter(shipped_configs(package)))) if flag == "--config" else (flag,))]
        assert check_command(package, args) == args
    assert check_command("tests.toy", ["fit"]) == ["fit"], "it ships no config"


@pytest.mark.parametrize("package", APPLICATIONS)
def test_help_lists_commands_and_configs(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        check_command(package, ["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(text in out for text in COMMANDS.values())
    assert all(name in out for name in shipped_configs(package))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "a command is needed: fit, validate"),
        (["ft"], "no command is called 'ft': choose from fit, validate, test, predict, export (fit?)"),
        (["--model.lr=3", "fit"], "--model.lr=3 before the command: a command comes first"),
        (["fit", "--config=mnst"], "--config=mnst: no such file (close: mnist"),
        (["fit", "--config", "configs/mnist.yml"], "--config=configs/mnist.yml: no such file (close: mnist"),
        (["fit", "--config=nothing"], "mnist, mnist_proposals, "),
        (["fit", "--config=rl:quickstart"], "no such file, and this is the application detection"),
        (["test", "--config="], "--config=: must be a path, it is empty"),
        (["test", "-c=~no_such_user/a.yaml"], "--config=~no_such_user/a.yaml: must be a path; this home folder"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, check_command, "detection", args)


def test_command_that_an_application_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, check_command, "coordconv_apps.coordinates", ["predict"], ["fit", "test"])
    assert "no command is called 'predict': choose from fit, test" in told


def test_configs_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = shipped_configs("detection")
    for name in ("mnist", "detection:mnist"):
        assert find_config(name, "detection") == str(shipped["mnist"])
    for name in ("coordinates:classification_uniform", "coordconv_apps.coordinates:classification_uniform"):
        assert Path(find_config(name, "coordconv_apps.coordinates")).name == "classification_uniform.yaml"
    monkeypatch.chdir(tmp_path)
    Path("mnist").write_text("data: {}")
    assert find_config("mnist", "detection") == "mnist", "a file of one's own comes first"
    Path("coco").mkdir()
    assert find_config("coco", "detection") == str(shipped["coco"]), "a folder is no config"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_config("~/mnist", "detection") == str(tmp_path / "mnist")
    assert find_config("{model: VAE}", "generative") == "{model: VAE}"


def expanding(levels: int) -> str:
    names = [f"a{i}" for i in range(levels)]
    lines = [f"{names[0]}: &{names[0]} [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for before, name in pairwise(names):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 100_000, "nested more than 50 levels deep"),
        ("\n".join(" " * i + "a:" for i in range(1000)), "nested more than 50 levels deep"),
        (expanding(9), "aliases expand to more than 100,000 values"),
        (f"a: &a [*a]\n{'#' * 100}", "the alias *a is used within its own value"),
        (" " * (MAX_BYTES + 1), "larger than 1,000,000 characters"),
    ],
)
def test_yaml_without_bounds_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=f"^here: .*{message.replace('*', '[*]')}"):
        check_yaml(text, "here")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert message in refusal(capsys, check_command, "detection", ["fit", f"--config={path}"])
    assert message in refusal(capsys, check_command, "detection", ["fit", "--config=mnist", f"--model.lr={text}"])


def test_a_config_may_be_a_mapping_of_any_length() -> None:
    for text in ("model: {lr: 0.1}", "model:\n  lr: 0.1\n" + "# a comment\n" * 1000):
        assert check_command("detection", ["fit", "--config", text]) == ["fit", "--config", text]


def test_common_yaml_is_left_to_the_parser() -> None:
    for text in (expanding(3), "a: [" * 10, "a: *unknown" * 3, "[" * 40 + "]" * 40):
        check_yaml(text, "here")


def test_help_needs_neither_torch_nor_lightning() -> None:
    code = """
import runpy, sys
modules = sys.argv[1:]
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "jsonargparse", "gymnasium", "stable_baselines3"):
            raise AssertionError(name)
sys.meta_path.insert(0, Blocked())
for module in modules:
    for words in (["--help"], ["nothing"]):
        sys.argv = ["-m", *words]
        sys.orig_argv = ["python", "-m", module, *words]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stopped:
            print("status", stopped.code)
"""
    command = [sys.executable, "-c", code, *APPLICATIONS, "coordconv_apps.compare"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    ends = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("status ")]
    assert ends == ["0", "2"] * (len(APPLICATIONS) + 1)


def test_a_command_imports_heavy_packages_only_when_it_needs_them() -> None:
    """Torch, Lightning and what these import are all that the help of a command takes seconds for."""
    code = """
import runpy, sys
heavy = {
    "ale_py", "cv2", "faster_coco_eval", "gymnasium", "minigrid", "onnx", "onnxruntime", "onnxscript", "pandas",
    "pycocotools", "pygame", "sklearn", "stable_baselines3", "tensorboard", "tensorflow", "timm",
    "torchao", "transformers",
}
for module in sys.argv[1:]:
    sys.argv = ["-m", "fit", "--help"]
    sys.orig_argv = ["python", "-m", module, "fit", "--help"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        assert not stopped.code, module
    of_sb3 = {"cv2", "gymnasium", "stable_baselines3", "tensorboard"} if module == "rl" else set()
    assert not (heavy - of_sb3) & set(sys.modules), (module, heavy & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, *APPLICATIONS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_imports_without_a_traceback() -> None:
    code = (
        "import os, signal, sys; sys.argv = ['toy', 'fit', '--trainer.max_epochs=1'];"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # background jobs of a script ignore it
        "from coordconv_apps.cli.start import check_command; check_command('tests.toy');"
        "os.kill(os.getpid(), signal.SIGINT); import torch"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_help_into_a_closed_pipe_ends_with_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    discarded = []
    monkeypatch.setattr(start, "discard_output", lambda: discarded.append(1))
    monkeypatch.setattr("builtins.print", mock.Mock(side_effect=BrokenPipeError))
    with pytest.raises(SystemExit) as stopped:
        check_command("detection", ["--help"])
    assert (stopped.value.code, discarded) == (0, [1])
