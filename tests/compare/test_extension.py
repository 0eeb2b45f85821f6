"""What an application adds to the report of its comparisons."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.results import Result
from coordconv_apps.utils.files import file_name
from tests.compare.fakeapp.__main__ import iou
from tests.compare.harness import APP, Comparison

GOOD = """
from coordconv_apps.compare.extension import Extension, Row


def extend(results):
    double = {result.job: 2 * result.metrics["test/iou"] for result in results if not result.error}
    epochs = {result.job: float(len(result.validations("val/iou"))) for result in results if not result.error}
    return Extension(
        [Row("doubled", double, ".4f"), Row("validations", epochs, ".0f")],
        [f"{len(results)} runs were looked at"],
        {"one": b"first picture", "two": b"second picture"},
    )
"""


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module `comparison` in the fake application's package, which a test may write."""
    folder = tmp_path / "more"
    folder.mkdir()
    package = sys.modules[APP]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield folder / "comparison.py"
    sys.modules.pop(f"{APP}.comparison", None)
    with contextlib.suppress(AttributeError):
        del package.comparison


def cells(text: str) -> dict[str, list[str]]:
    """The rows of the table in a text, by name."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_rows_notes_and_figures_are_in_the_report(
    comparison: Comparison, extended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extended.write_text(GOOD)
    assert comparison.run("--seeds", "0", "1", "--trainer.max_epochs=2") == 0
    printed = capsys.readouterr().out
    markdown = (comparison.out / "comparison.md").read_text()
    for text in (printed, markdown):
        table = cells(text)
        assert table["doubled"][:2] == ["1.0100 ± 0.014", "1.2100 ± 0.014"]
        assert table["doubled"][2] == "+0.2000"
        assert table["validations"] == ["2", "2", "+0"]
        assert "4 runs were looked at" in text
    for name, content in (("one", b"first picture"), ("two", b"second picture")):
        file = comparison.out / f"comparison_{name}.png"
        assert file.read_bytes() == content
        assert f"](comparison_{name}.png)" in markdown
        assert f"figure:   {file}\n" in printed
    for row in comparison.rows():
        assert float(row["doubled"]) == pytest.approx(2 * iou(row["arm"], int(row["seed"])))
        assert (row["validations"], row["error"]) == ("2.0", "")


OVER = f"""{GOOD}

def extend_over(results):
    return Extension([Row("of all", {{results[0].job: 7.0}}, ".0f")], [f"{{len(results)}} in all"], {{"all": b"all"}})
"""


def test_of_several_values_each_is_extended_and_then_all(
    comparison: Comparison, extended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extended.write_text(OVER)
    assert comparison.run("--over", "model.gain", "0", ".25", "--trainer.max_epochs=2") == 0
    printed = capsys.readouterr().out
    markdown = (comparison.out / "comparison.md").read_text()
    for text in (printed, markdown):
        lines = [line.removeprefix("- ") for line in text.splitlines() if "were looked at" in line or "in all" in line]
        assert lines == ["4 in all", "0: 2 runs were looked at", ".25: 2 runs were looked at"]
    first, second = (cells(part) for part in markdown.split("## model.gain=")[1:])
    assert first["doubled"][:2] == ["1.0000", "1.2000"]
    assert second["doubled"][:2] == ["1.5000", "1.7000"]
    assert first["of all"] == ["7", "n/a", "n/a"]
    assert "of all" not in second, "a row without values of a section is not in it"
    figures = sorted(file.name.removeprefix("comparison_") for file in comparison.out.glob("comparison_*"))
    safe = file_name(".25")
    assert figures == sorted(["all.png", "0_one.png", "0_two.png", f"{safe}_one.png", f"{safe}_two.png"])
    assert [row["doubled"] for row in comparison.rows()] == ["1.0", "1.2", "1.5", "1.7"]
    assert [row["of all"] for row in comparison.rows()] == ["7.0", "", "", ""]


def test_failed_runs_have_no_value_in_added_rows(
    comparison: Comparison, extended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extended.write_text(GOOD)
    assert comparison.run("--model.fail=fit:xy-seed0") == 1
    assert cells(capsys.readouterr().out)["doubled"] == ["1.0000", "n/a", "n/a"]
    assert [row["doubled"] for row in comparison.rows()] == ["1.0", ""]


BROKEN = {
    "a mistake in it": ("def extend(results):\n    raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
    "a mistake on import": ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
    "no function": ("", f"AttributeError: module '{APP}.comparison' has no attribute 'extend'"),
    "no extension": ("def extend(results):\n    pass\n", "AttributeError: 'NoneType' object has no attribute"),
    "no numbers": (GOOD.replace('2 * result.metrics["test/iou"]', "'much'"), "ValueError: could not convert string"),
    "no picture": (GOOD.replace('b"second', '"second'), "TypeError: a bytes-like object is required"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_report_outlives_a_broken_extension(
    comparison: Comparison, extended: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run() == 0
    assert "comparison:" not in capsys.readouterr().out
    names = [comparison.out / f"comparison.{ending}" for ending in ("md", "csv", "png")]
    plain = [file.read_bytes() for file in names]
    for file in names:
        file.unlink()

    text, message = BROKEN[what]
    extended.write_text(text)
    assert comparison.run() == 1
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"failed:   {APP}.comparison, so the report is without its extension: {message}")
    assert [file.read_bytes() for file in names] == plain
    assert cells(printed)["test/iou"][:2] == ["0.5", "0.6"]
    assert f"figure:   {names[2]}\n" in printed


def test_a_broken_extension_shows_its_traceback_on_demand(
    comparison: Comparison, extended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extended.write_text(BROKEN["a mistake in it"][0])
    monkeypatch.setenv("COORDCONV_DEBUG", "1")
    with pytest.raises(RuntimeError, match="two"):
        comparison.run("--arms", "none")
    assert (comparison.out / "comparison.md").is_file()


def test_without_a_module_nothing_is_added(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run("--arms", "none") == 0
    assert sorted(file.name for file in comparison.out.glob("comparison*")) == [
        "comparison.csv",
        "comparison.json",
        "comparison.md",
        "comparison.png",
    ]
    assert list(cells(capsys.readouterr().out)) == ["", "----------", "test/loss", "test/iou", "parameters", "seconds"]


def test_a_result_without_folders_has_no_validations() -> None:
    assert Result(Job("xy", 0), error="fit failed").validations("val/iou") == {}
