"""What `compare` says of generative models besides its table."""

import io
from pathlib import Path

import pytest
from PIL import Image

from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.results import Result
from generative.comparison import extend
from tests.helpers.planted import EPS, forbid_ghostscript

COLOURS = {"none": (200, 0, 0), "xy": (0, 0, 200)}


def result(folder: Path, arm: str, seed: int, coverage: float, *, error: str = "") -> Result:
    run, test = folder / f"{arm}{seed}", folder / f"{arm}{seed}test"
    (test / "pictures").mkdir(parents=True)
    Image.new("RGB", (30, 20 + seed), COLOURS[arm]).save(test / "pictures" / "centers.png")
    metrics = {"test/coverage": coverage, "test/floor/coverage": 0.8}
    return Result(Job(arm, seed), error=error, metrics={} if error else metrics, fit_folder=run, test_folder=test)


def test_coverage_is_shown_relative_to_that_of_real_data(tmp_path: Path) -> None:
    results = [result(tmp_path, "none", 0, 0.2), result(tmp_path, "xy", 0, 0.76)]
    (row,) = extend(results).rows
    assert row.values == {Job("none", 0): pytest.approx(0.25), Job("xy", 0): pytest.approx(0.95)}


def test_pictures_of_all_arms_are_one_above_the_other(tmp_path: Path) -> None:
    results = [result(tmp_path, arm, seed, 0.5) for arm in ("none", "xy") for seed in (1, 2)]
    extension = extend(results)
    assert extension.notes == ["pictures of seed 1, from top to bottom: none, xy"]
    assert list(extension.figures) == ["centers"]
    picture = Image.open(io.BytesIO(extension.figures["centers"]))
    assert picture.size == (30, 2 * 21 + 12)
    assert (picture.getpixel((5, 5)), picture.getpixel((5, 50))) == (COLOURS["none"], COLOURS["xy"])


def test_a_program_for_ghostscript_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_ghostscript(monkeypatch)
    results = [result(tmp_path, arm, 1, 0.5) for arm in ("none", "xy")]
    for picture in tmp_path.rglob("centers.png"):
        picture.write_bytes(EPS)
    with pytest.raises(OSError, match="cannot identify image file"):
        extend(results)


def test_failed_runs_and_missing_pictures_add_nothing(tmp_path: Path) -> None:
    failed = [result(tmp_path, "none", 0, 0.2, error="stopped"), result(tmp_path, "xy", 0, 0.5)]
    extension = extend(failed)
    assert not extension.figures
    assert [list(row.values) for row in extension.rows] == [[Job("xy", 0)]]
    without = [Result(Job(arm, 0), metrics={"test/loss": 1.0}) for arm in ("none", "xy")]
    assert extend(without).rows == []
    assert not extend(without).figures
