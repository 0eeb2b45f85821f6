"""Mistakes in the arguments of a comparison, and what its folder may hold."""

import json
from pathlib import Path
from typing import get_args

import pytest

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.compare.application import find_module
from coordconv_apps.compare.arguments import ARMS, parse
from coordconv_apps.nn.coords import Coords
from coordconv_apps.utils.config_files import shipped_configs
from tests.compare.harness import APP, Comparison

GOOD = [APP, "--config", "CONFIG"]  # arguments; a test puts its file in the place of CONFIG


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no_such_app", "--config", "CONFIG"], "APP no_such_app: no such application"),
        (["a/b", "--config", "CONFIG"], "APP a/b: no such application"),
        (["coordconv_apps.nn.coords", "--config", "CONFIG"], "APP coordconv_apps.nn.coords: no such application"),
        ([APP, "--config", "missing.yaml"], "--config=missing.yaml: no such file"),
        (["detection", "--config", "mnst"], "--config=mnst: no such file (close: mnist"),
        ([APP, "--config="], "--config=: must be a path, it is empty"),
        ([*GOOD, "--out="], "--out=: must be a path, it is empty"),
        ([APP], "the following arguments are required: --config"),
        ([*GOOD, "--seeds", "0", "1", "0"], "--seeds 0: given more than once"),
        ([*GOOD, "--seeds", "-1"], "--seeds -1: must be an integer from 0 to 4294967295"),
        ([*GOOD, "--seeds", "one"], "argument --seeds: invalid int value: 'one'"),
        ([*GOOD, "--seeds"], "argument --seeds: expected at least one argument"),
        ([*GOOD, "--arms", "none", "yx"], "--arms yx: unknown arm; allowed are none, xy, xyr"),
        ([*GOOD, "--arms", "xy", "xy"], "--arms xy: given more than once"),
        ([*GOOD, "--jobs", "0"], "--jobs 0: must be at least 1"),
        ([*GOOD, "--out", "CONFIG"], "is a file, not a folder"),
        ([*GOOD, "--seed_everything=3"], "--seed_everything is set by the comparison: use --seeds"),
        ([*GOOD, "--model.coords", "xy"], "--model.coords is set by the comparison: use --arms"),
        ([*GOOD, "fit"], "unexpected argument 'fit'"),
        ([*GOOD, "--over"], "argument --over: expected at least one argument"),
        ([*GOOD, "--over", "model.gain"], "--over model.gain: no values; must be an argument of the application and"),
        ([*GOOD, "--over", "pong", "breakout"], "--over pong: must be an argument of the application and its values"),
        ([*GOOD, "--over", "model.gain", "1", "2", "1"], "--over model.gain 1: given more than once"),
        ([*GOOD, "--over", "a.b", "1", "--over", "model.gain", "1"], "--over model.gain: given more than once; a comp"),
        ([*GOOD, "--over", "model.coords", "xy"], "--over model.coords: is set by the comparison: use --arms"),
        ([*GOOD, "--over", "model.gain", "1", "--model.gain=2"], "--model.gain: is set by --over model.gain"),
        ([*GOOD, "--over", "model.gian", "1"], "unrecognized arguments: --model.gian=1"),
        ([*GOOD, "--model.no_such_thing=1"], "unrecognized arguments: --model.no_such_thing=1"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line_with_status_2(
    comparison: Comparison, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(comparison.config) if arg == "CONFIG" else arg for arg in args]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert comparison.calls() == []


def test_another_command_line_in_the_same_folder_is_refused(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ("--arms", "none", "--model.delay=0", "--trainer.max_epochs=2")
    assert comparison.run(*same) == 0
    assert comparison.run("--arms", "none", "--model.delay=0", "--trainer.max_epochs=3") == 2
    error = capsys.readouterr().err
    assert "flags ['--trainer.max_epochs=2'] there, ['--trainer.max_epochs=3'] here" in error
    assert "choose another --out, or delete its runs with --fresh" in error
    comparison.config.write_text("# a comment is no difference\ntrainer: {max_epochs: 3}\n")
    assert comparison.run(*same) == 0
    comparison.config.write_text("trainer:\n  max_epochs: 30\n")
    assert comparison.run(*same) == 2
    assert "(trainer.max_epochs 3 there, 30 here)" in capsys.readouterr().err
    comparison.config.write_text("")
    assert comparison.run(*same) == 2
    assert "(trainer.max_epochs 3 there, unset here)" in capsys.readouterr().err
    assert len(comparison.calls()) == 2

    assert comparison.run("--arms", "none", "--trainer.max_epochs=3", "--fresh") == 0
    assert len(comparison.calls()) == 4
    assert [p.name for p in (comparison.out / "runs" / "fakeapp" / "none-seed0").iterdir()] == ["version_0"]


@pytest.mark.parametrize("earlier", [False, True])
def test_files_that_no_comparison_wrote_stay(comparison: Comparison, earlier: bool) -> None:
    over = ("--arms", "none", "--over", "model.gain")
    assert comparison.run(*over, "0.1") == 0
    record = comparison.out / "comparison.json"
    if earlier:  # a version that did not record its figures
        record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "figures"}))
    names = ("my notes.txt", "comparison notes.md", "comparison_poster.png", "comparison-talk.png", "logs/mine.log")
    own = [comparison.out / name for name in (*names, "runs/fakeapp/mine/version_0/a.txt", "runs/rl/xy/a.txt")]
    for file in own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    assert comparison.run(*over, "0.2") == 0
    assert comparison.run(*over, "0.2", "--trainer.max_epochs=1", "--fresh") == 0
    assert [file.read_text() for file in own] == ["mine"] * len(own)
    assert (comparison.out / "comparison-0.1.png").exists() == earlier
    jobs = [p.name for p in (comparison.out / "runs").glob("*/*") if p.name not in ("mine", "xy")]
    assert jobs == ["0.2-none-seed0"]
    assert comparison.run("--arms", "none", "--fresh") == 0
    assert sorted(p.name for p in (comparison.out / "logs").iterdir()) == ["mine.log", "none-seed0.log"]
    assert not (comparison.out / "comparison-0.2.png").exists()
    mine = comparison.out / "runs" / "fakeapp" / "my-none-seed0"
    mine.mkdir()
    assert comparison.run("--arms", "none", "--fresh") == 0
    assert mine.exists()


def test_runs_that_cannot_be_deleted_are_not_taken_for_new_ones(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run("--arms", "none") == 0
    runs = comparison.out / "runs"
    runs.symlink_to(runs.rename(comparison.out.with_name("elsewhere")))
    assert comparison.run("--arms", "none", "--trainer.max_epochs=2", "--fresh") == 2
    assert f"error: --fresh: {runs} cannot be deleted (" in capsys.readouterr().err
    (comparison.out / "comparison.json").write_text("[1")
    assert comparison.run("--arms", "none") == 2
    assert f"error: --out {comparison.out}: its comparison.json is damaged; choose" in capsys.readouterr().err
    (comparison.out / "comparison.json").write_text("{}")
    assert comparison.run("--arms", "none") == 2
    assert ", flags None there, [] here); choose another --out" in capsys.readouterr().err
    assert len(comparison.calls()) == 2


def test_another_argument_to_go_over_in_the_same_folder_is_refused(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run("--arms", "none", "--over", "model.gain", "0.1") == 0
    assert comparison.run("--arms", "none", "--over", "model.delay", "0.1") == 2
    assert "(--over model.gain there, model.delay here)" in capsys.readouterr().err
    assert comparison.run("--arms", "none") == 2
    assert "(--over model.gain there, None here)" in capsys.readouterr().err
    assert len(comparison.calls()) == 2


def test_runs_that_no_comparison_made_are_left_alone(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    (comparison.out / "runs" / "fakeapp").mkdir(parents=True)
    assert comparison.run("--fresh") == 2
    assert "holds runs that no comparison made" in capsys.readouterr().err
    assert (comparison.out / "runs" / "fakeapp").is_dir()


def test_applications_of_the_core_are_found_by_their_short_name(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "toolbox"
    for folder in (package, package / "inner"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "inner" / "__main__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("coordconv_apps.__path__", [*__import__("coordconv_apps").__path__, str(package)])
    assert find_module(APP) == APP
    assert find_module("toolbox.inner") == "toolbox.inner"
    assert find_module("inner") == "coordconv_apps.inner"


def test_default_folder_is_named_by_application_and_config(comparison: Comparison) -> None:
    settings = parse([APP, "--config", str(comparison.config), "--model.delay", "3"])
    assert settings.plan.out == Path("runs/compare/tests.compare.fakeapp-toy")
    assert settings.plan.flags == ("--model.delay", "3")
    settings = parse([APP, "--config", str(comparison.config), "--over", "model.gain", "1", "2"])
    assert settings.plan.out == Path("runs/compare/tests.compare.fakeapp-toy-model.gain")


def test_arms_are_the_coordinates_of_the_layers() -> None:
    assert get_args(Coords) == ARMS


def test_shipped_configs_have_names_and_paths_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").touch()
    plan = parse(["detection", "--config", "mnist", "--config", "~/own.yaml", "--out=~/out"]).plan
    assert plan.configs == (shipped_configs("detection")["mnist"], tmp_path / "own.yaml")
    assert plan.out == tmp_path / "out"
    settings = parse(["coordinates", "--config", "coordinates:classification_paper"])
    assert settings.plan.out == Path("runs/compare/coordinates-classification_paper")
