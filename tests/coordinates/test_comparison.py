"""What a comparison of the coordinate tasks tells, against hand-made runs whose numbers are known."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from coordconv_apps.compare.extension import Extension
from coordconv_apps.compare.jobs import Job, Plan
from coordconv_apps.compare.results import Result, collect
from coordconv_apps.compare.tables import metric_cells
from coordconv_apps.coordinates.__main__ import main
from coordconv_apps.coordinates.comparison import MEASURES, SAMPLED, extend
from coordconv_apps.report.charts import ARM_COLOURS
from coordconv_apps.utils.plotting import as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARAMETERS = {"none": 2500, "xy": 100, "xyr": 125}
Curve = Sequence[tuple[float, float, float]]  # seconds, train and test value of each validation


class Runs:
    """Run folders of a comparison, as the command line writes them.

    Args:
        out: Its folder.
        figure: The figure that counts.
    """

    def __init__(self, out: Path, figure: str) -> None:
        self.plan = Plan("coordconv_apps.coordinates", (), (), out)
        self.figure = figure
        self.results: list[Result] = []

    def add(
        self, arm: str, seed: int, curve: Curve, perfect: Mapping[str, float] | None = None, error: str = ""
    ) -> None:
        job = Job(arm, seed)
        folder = self.plan.out / "runs" / "coordinates" / job.name
        fit: dict[str, Any] = {
            "command": "fit",
            "status": "finished",
            "headline": f"val/{self.figure}",
            "metrics": {"train/loss": None, **(perfect or {})},
            "parameters": PARAMETERS[arm],
        }
        test = {"command": "test", "status": "finished", "metrics": {f"test/{self.figure}": curve[-1][2]}}
        for number, summary in enumerate((fit, test)):
            (folder / f"version_{number}").mkdir(parents=True)
            (folder / f"version_{number}" / "summary.json").write_text(json.dumps(summary))
        lines = [f"epoch,step,train/loss,val/{self.figure},val/seconds,val/train_{self.figure}"]
        for epoch, (seconds, train, value) in enumerate(curve):
            lines += [f"{epoch},{2 * epoch},0.5,,,", f"{epoch},{2 * epoch + 1},,{value},{seconds},{train}"]
        (folder / "version_0" / "metrics.csv").write_text("\n".join(lines) + "\n")
        self.results.append(collect(self.plan, job, error))

    def extension(self) -> Extension:
        return extend(self.results)


@pytest.fixture
def accuracy(tmp_path: Path) -> Runs:
    """Two arms and seeds; 0.6 is the best accuracy that all of them reach."""
    runs = Runs(tmp_path, "accuracy")
    runs.add("none", 0, [(10, 0.1, 0.1), (20, 0.6, 0.4), (30, 1.0, 0.8), (40, 1.0, 0.7)])
    runs.add("xy", 0, [(1, 0.3, 0.3), (2, 0.7, 0.7), (3, 1.0, 1.0)], {"time_to_perfect": 3.0, "epochs_to_perfect": 3.0})
    runs.add("none", 1, [(12, 0.3, 0.2), (24, 0.8, 0.5), (36, 0.9, 0.6)])
    runs.add("xy", 1, [(2, 0.6, 0.6), (4, 1.0, 1.0)], {"time_to_perfect": 4.0, "epochs_to_perfect": 2.0})
    return runs


def rows(extension: Extension) -> dict[str, dict[str, float]]:
    """The values of each row by the name of the job."""
    return {row.name: {job.name: value for job, value in row.values.items()} for row in extension.rows}


def test_times_and_ratios_of_known_runs(accuracy: Runs) -> None:
    extension = accuracy.extension()
    assert rows(extension) == {
        "time_to_perfect": {"xy-seed0": 3.0, "xy-seed1": 4.0},
        "epochs_to_perfect": {"xy-seed0": 3.0, "xy-seed1": 2.0},
        "seconds to accuracy 0.6": {"none-seed0": 30.0, "none-seed1": 36.0, "xy-seed0": 2.0, "xy-seed1": 2.0},
    }
    assert list(extension.notes) == [
        "runs that became perfect on both sets: none 0 of 2, xy 2 of 2; time_to_perfect is in seconds",
        "accuracy 0.6: the best test value that every run reached at some validation",
        "speed-up of xy over none at accuracy 0.6: 16.5 times (means over 2 seeds)",  # (30 + 36) / (2 + 2)
        "parameters: none has 25 times as many as xy",
    ]


@pytest.mark.parametrize("baseline", ["deconv", "null"])
def test_a_speed_up_by_more_than_the_layer_says_so(accuracy: Runs, baseline: str) -> None:
    before = list(accuracy.extension().notes)
    for result in accuracy.results:
        (result.folders[0] / "config.yaml").write_text(f"model: {{loss: sampled, baseline: {baseline}}}\n")
    more = [SAMPLED] if baseline == "deconv" else []  # otherwise both arms have it
    assert list(accuracy.extension().notes) == [*before[:3], *more, *before[3:]]


def test_runs_without_validations_are_named(accuracy: Runs) -> None:
    (accuracy.results[2].folders[0] / "metrics.csv").unlink()  # as with --trainer.logger=false
    extension = accuracy.extension()
    assert extension.notes[1] == "no speed-up: none-seed1 logged no validation"
    assert set(extension.figures) == {"train_test", "time"}, "of the other runs"


def test_an_arm_that_never_is_perfect_has_no_time_in_the_table(accuracy: Runs) -> None:
    cells = {name: own for name, *own in metric_cells(accuracy.results, accuracy.extension().rows)}
    assert cells["time_to_perfect"] == ["n/a", "3.5 ± 0.71", "n/a"]
    assert cells["epochs_to_perfect"] == ["n/a", "2.5 ± 0.71", "n/a"]
    assert cells["seconds to accuracy 0.6"][:2] == ["33.0 ± 4.2", "2.0"]
    assert cells["seconds to accuracy 0.6"][2] == "-31.0"


def test_a_failed_run_counts_nowhere(accuracy: Runs) -> None:
    poor: Curve = [(1, 0.0, 0.0)]
    before = accuracy.extension()
    accuracy.add("none", 2, poor, error="test failed")
    accuracy.add("xy", 2, [(5, 0.9, 0.9)], {"time_to_perfect": 5.0, "epochs_to_perfect": 1.0})
    accuracy.add("none", 3, [(90, 0.9, 0.7)])
    accuracy.add("xy", 3, poor, {"time_to_perfect": 9.0, "epochs_to_perfect": 1.0}, error="test failed")
    extension = accuracy.extension()
    seconds = rows(before)["seconds to accuracy 0.6"]
    assert rows(extension)["seconds to accuracy 0.6"] == {**seconds, "xy-seed2": 5.0, "none-seed3": 90.0}
    assert rows(extension)["time_to_perfect"] == {"xy-seed0": 3.0, "xy-seed1": 4.0, "xy-seed2": 5.0}
    assert "none 0 of 3, xy 3 of 3" in extension.notes[0]
    # Speed-ups are of seeds that both arms have: 2 and 3 have lost their partners.
    assert extension.notes[2] == before.notes[2]


def test_an_arm_of_failed_runs_has_no_speed_up(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "accuracy")
    runs.add("none", 0, [(1, 0.0, 0.0)], error="test failed")
    runs.add("xy", 0, [(1, 0.5, 0.5), (2, 0.9, 0.8)])
    extension = runs.extension()
    assert rows(extension) == {"seconds to accuracy 0.8": {"xy-seed0": 2.0}}
    assert not [line for line in extension.notes if "speed-up of" in line or "parameters" in line]
    assert set(extension.figures) == {"train_test", "time"}


def test_three_arms_are_compared_with_the_first(accuracy: Runs) -> None:
    for seed in (0, 1):
        accuracy.add("xyr", seed, [(0.1, 0.7, 0.7)])
    notes = accuracy.extension().notes
    assert "speed-up of xyr over none at accuracy 0.6: 330 times (means over 2 seeds)" in notes
    assert "parameters: none has 20 times as many as xyr" in notes


def test_smallest_distance_is_the_best(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "euclidean_distance")
    runs.add("none", 0, [(10, 5.0, 9.0), (20, 1.0, 2.5), (30, 0.5, 3.0)])
    runs.add("xy", 0, [(1, 2.0, 2.6), (2, 0.4, 0.5), (3, 0.05, 0.06)])
    extension = runs.extension()
    name = "Euclidean distance 2.5 pixels"
    assert rows(extension) == {f"seconds to {name}": {"none-seed0": 20.0, "xy-seed0": 2.0}}
    assert f"speed-up of xy over none at {name}: 10 times (means over 1 seed)" in extension.notes


@pytest.mark.parametrize(
    ("figure", "poor", "good", "limit"),
    [
        ("accuracy", 0.0, 1.0, "0.01"),
        ("iou", 0.05, 1.0, "0.08"),
        ("euclidean_distance", 22.0, 0.05, "21.4 pixels"),
    ],
)
def test_arms_without_a_common_value_have_no_speed_up(
    tmp_path: Path, figure: str, poor: float, good: float, limit: str
) -> None:
    runs = Runs(tmp_path, figure)
    runs.add("none", 0, [(10, good, poor), (20, good, poor)])
    runs.add("xy", 0, [(1, poor, poor), (2, good, good)], {"time_to_perfect": 2.0, "epochs_to_perfect": 2.0})
    extension = runs.extension()
    assert set(rows(extension)) == {"time_to_perfect", "epochs_to_perfect"}
    assert not [line for line in extension.notes if "speed-up of" in line]
    assert extension.notes[1].startswith("no speed-up: the test ")
    assert extension.notes[1].endswith(f" of some run was never better than {limit}")
    assert set(extension.figures) == {"train_test", "time"}


def test_trivial_values_are_those_of_one_answer_to_all_samples() -> None:
    grid = np.stack(np.meshgrid(np.arange(4, 60), np.arange(4, 60)), axis=-1).reshape(-1, 2)
    quadrant = grid[(grid > 32).all(axis=1)]
    assert len(quadrant) == 729
    distances = [np.linalg.norm(sample - 31.5, axis=1).mean() for sample in (grid, quadrant)]
    assert MEASURES["val/euclidean_distance"].trivial == pytest.approx(min(distances), abs=0.05)
    assert 1 / len(quadrant) < MEASURES["val/accuracy"].trivial
    overlaps = []
    for sample in (grid, quadrant):
        shared = np.clip(9 - np.abs(grid[:, None] - sample), 0, None).prod(axis=2)
        overlaps.append((shared / (2 * 81 - shared)).mean(axis=1).max())
    assert MEASURES["val/iou"].trivial == pytest.approx(max(overlaps), abs=0.01)


def test_a_run_whose_validations_are_not_finite_has_reached_nothing(accuracy: Runs) -> None:
    accuracy.add("xy", 2, [(1, float("nan"), float("nan"))])
    extension = accuracy.extension()
    assert set(rows(extension)) == {"time_to_perfect", "epochs_to_perfect"}
    assert "xy 2 of 3" in extension.notes[0]


def test_a_validation_that_is_not_finite_is_passed_over(accuracy: Runs) -> None:
    accuracy.add("xy", 2, [(1, 0.9, 0.9), (2, float("nan"), float("nan")), (3, 0.9, float("inf"))])
    assert rows(accuracy.extension())["seconds to accuracy 0.6"]["xy-seed2"] == 1.0


def test_without_a_finished_run_there_is_nothing_to_add(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "accuracy")
    runs.results.append(Result(Job("none", 0), error="fit failed"))
    assert runs.extension() == Extension()


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """Axes of the figures that are made, first those of `train_test`, then of `time`."""
    found: list[Axes] = []

    def keep(figure: Figure) -> bytes:
        found.extend(figure.axes)
        return as_png(figure)

    monkeypatch.setattr("coordconv_apps.coordinates.comparison.as_png", keep)
    return found


def points(axes: Axes, arm: str) -> list[list[float]]:
    """The points in an arm's colour that no line joins."""
    (line,) = [line for line in axes.lines if line.get_color() == ARM_COLOURS[arm] and line.get_linestyle() == "None"]
    return [list(point) for point in np.asarray(line.get_xydata())]


def ways(axes: Axes) -> list[list[list[float]]]:
    """The points of each line of a run."""
    return [np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_linestyle() == "-"]


def test_figures_show_the_last_validation_and_the_way_to_it(accuracy: Runs, axes: list[Axes]) -> None:
    figures = accuracy.extension().figures
    train_test, time = axes
    assert points(train_test, "none") == [[1.0, 0.7], [0.9, 0.6]]
    assert points(train_test, "xy") == [[1.0, 1.0], [1.0, 1.0]]
    assert points(time, "none") == [[40.0, 0.7], [36.0, 0.6]]
    assert ways(time)[0] == [[10.0, 0.1], [20.0, 0.4], [30.0, 0.8], [40.0, 0.7]]
    assert ways(train_test)[0] == [[0.1, 0.1], [0.6, 0.4], [1.0, 0.8], [1.0, 0.7]]
    assert len(ways(time)) == len(ways(train_test)) == 4
    assert (time.get_xscale(), time.get_yscale(), train_test.get_xscale()) == ("log", "linear", "linear")
    assert (train_test.get_xlabel(), train_test.get_ylabel()) == ("train accuracy", "test accuracy")
    for content in figures.values():
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 700


def test_distances_are_drawn_in_pixels_on_logarithmic_axes(tmp_path: Path, axes: list[Axes]) -> None:
    runs = Runs(tmp_path, "euclidean_distance")
    runs.add("xy", 0, [(1, 20.0, 21.0), (2, 0.4, 0.5)])
    runs.extension()
    train_test, time = axes
    assert points(train_test, "xy") == [[0.4, 0.5]]
    assert {train_test.get_xscale(), train_test.get_yscale(), time.get_xscale(), time.get_yscale()} == {"log"}
    assert train_test.get_ylabel() == time.get_ylabel() == "test Euclidean distance, in pixels"


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("CoordinateClassification", "accuracy"),
        ("CoordinateRegression", "Euclidean distance"),
        ("CoordinateRendering", "IoU"),
    ],
)
def test_results_of_a_real_run_are_read(tmp_path: Path, task: str, label: str, axes: list[Axes]) -> None:
    plan = Plan("coordconv_apps.coordinates", (), (), tmp_path)
    small = ["--data.canvas_size=14", "--model.canvas_size=14", "--data.square_size=9", "--model.square_size=9"]
    where = [f"--runs_dir={tmp_path / 'runs'}", "--name=xy-seed0", "--trainer.accelerator=cpu"]
    main(["fit", f"--model={task}", "--model.coords=xy", "--trainer.max_epochs=2", *small, *where])
    result = collect(plan, Job("xy", 0))
    extension = extend([result])
    assert "runs that became perfect on both sets: xy" in extension.notes[0]
    train_test, time = axes
    assert train_test.get_xlabel().startswith(f"train {label}")
    assert [len(way) for way in ways(time)] == [result.epochs]
