"""Comparisons that go over several values of an argument."""

import hashlib
import re
import shlex

import pytest
from PIL import Image

from coordconv_apps.compare.arguments import parse
from coordconv_apps.compare.jobs import Job
from coordconv_apps.utils.files import file_name
from tests.compare.fakeapp.__main__ import iou
from tests.compare.harness import APP, Comparison, flag
from tests.compare.test_extension import cells


def test_every_value_is_compared(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run("--over", "model.gain", "0", "0.25", "--seeds", "0", "3", "--trainer.max_epochs=1") == 0
    printed = capsys.readouterr().out
    names = [f"{gain}-{arm}-seed{seed}" for seed in (0, 3) for gain in ("0", "0.25") for arm in ("none", "xy")]
    assert comparison.stages() == [f"{stage} {name}" for name in names for stage in ("fit", "test")]
    for call, name in zip(comparison.calls()[::2], names, strict=True):
        assert (flag(call, "--model.gain"), flag(call, "--model.coords"), flag(call, "--seed_everything")) == (
            name.split("-")[0],
            name.split("-")[1],
            name[-1],
        )
        assert f"(log: {comparison.out / 'logs' / name}.log)" in printed
    for row in comparison.rows():
        assert next(iter(row)) == "model.gain"
        expected = iou(row["arm"], int(row["seed"])) + float(row["model.gain"])
        assert float(row["test/iou"]) == pytest.approx(expected)
    assert [row["model.gain"] for row in comparison.rows()] == ["0", "0", "0.25", "0.25"] * 2


@pytest.mark.usefixtures("drawn_figures")
def test_the_report_has_an_overview_and_a_section_for_each_value(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run("--over", "model.gain", "0", "0.25", "--seeds", "0", "3", "--trainer.max_epochs=1") == 0
    printed = capsys.readouterr().out
    markdown = (comparison.out / "comparison.md").read_text()
    whole, *sections = re.split(r"^## ", markdown, flags=re.MULTILINE)
    assert [section.split("\n")[0] for section in sections] == ["model.gain=0", "model.gain=0.25", "All runs"]
    rows = cells(whole)
    assert rows["test/iou by model.gain"] == ["none", "xy", "xy - none"]
    for section, gain in zip(sections, (0, 0.25), strict=False):
        values = cells(section)["test/iou"]
        assert values == rows[f"{gain:g}"], "the overview says what the section does"
        assert values[0] == f"{0.515 + gain:.4g} ± 0.021"
        assert values[2] == "+0.1"
        assert "(finished: none 2, xy 2)" in section
        assert f"](comparison-{gain:g}.png)" in section
        with Image.open(comparison.out / f"comparison-{gain:g}.png") as picture:
            assert picture.width > 1000
        assert f"figure:   {comparison.out / f'comparison-{gain:g}.png'}\n" in printed
        assert f"model.gain={gain:g}\n| " in printed
    assert cells(printed)["0.25"] == rows["0.25"]
    assert not (comparison.out / "comparison.png").exists()
    command = shlex.split(whole.split("```")[1])
    assert command[:4] == ["python", "-m", "coordconv_apps.compare", APP]
    assert parse(command[3:]) == parse(
        comparison.arguments("--over", "model.gain", "0", "0.25", "--seeds", "0", "3", "--trainer.max_epochs=1")
    )


def test_values_and_seeds_are_added_to_finished_ones(comparison: Comparison) -> None:
    def stages(*names: str) -> list[str]:
        return [f"{stage} {name}" for name in names for stage in ("fit", "test")]

    run = ("--arms", "xy", "--trainer.max_epochs=1", "--over", "model.gain")
    assert comparison.run(*run, "0") == 0
    assert comparison.run(*run, "0", "1") == 0
    assert comparison.run(*run, "0", "1", "--seeds", "0", "1") == 0
    assert comparison.run(*run, "0", "1", "--seeds", "0", "1") == 0
    assert comparison.stages() == stages("0-xy-seed0", "1-xy-seed0", "0-xy-seed1", "1-xy-seed1")
    assert comparison.run(*run, "0") == 0
    assert [file.name for file in comparison.out.glob("comparison-*.png")] == ["comparison-0.png"]
    assert comparison.run(*run, "0", "--fresh") == 0
    assert comparison.stages()[8:] == stages("0-xy-seed0")


def test_an_invalid_value_is_refused_before_the_first_run(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run("--arms", "none", "--over", "model.gain", "1", "much") == 2
    assert capsys.readouterr().err.endswith("error: argument --model.gain: invalid float value: 'much'\n")
    assert not comparison.out.exists()


@pytest.mark.usefixtures("drawn_figures")
def test_sweep_ends_with_status_1_and_a_plot_if_all_runs_fail(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = ("--arms", "none", "--over", "model.gain", "1", "2", "--model.fail=fit")
    assert comparison.run(*failing) == 1
    printed = capsys.readouterr().out
    assert "failed:   2-none-seed0: fit ended with status " in printed
    assert cells(printed)["2"] == ["n/a"]
    assert "\n          the same command runs the failed ones again\n" in printed
    assert [row["status"] for row in comparison.rows()] == ["failed", "failed"]
    assert (comparison.out / "comparison-2.png").is_file()
    assert comparison.run(*failing, "--fresh") == 1
    assert "the same command without --fresh runs the failed ones again" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["pong", "resnet18", "0.001", "1e-3", "a_b.c-d"])
def test_values_that_can_be_names_of_files_are(value: str) -> None:
    assert file_name(value) == value
    assert Job("xy", 3, value).name == f"{value}-xy-seed3"


def test_other_values_have_a_checksum_of_their_own_in_their_names() -> None:
    checksum = hashlib.sha256(b"ALE/Pong-v5").hexdigest()[:8]
    assert file_name("ALE/Pong-v5") == f"ALE-Pong-v5-{checksum}"
    odd = ["a/b", "a b", "a*b", "a-b", "-a-b", "a-b.", "", "-", "..", "*", "[1, 2]", "[1,2]", "ü", "x" * 61, "x" * 60]
    names = [file_name(value) for value in odd]
    assert len(set(names)) == len(odd)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,70}", name) for name in names)
