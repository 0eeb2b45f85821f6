"""Tables of a comparison: the differences of arms, their intervals, and the notes under them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from coordconv_apps.compare import plots
from coordconv_apps.compare.arguments import ARMS
from coordconv_apps.compare.extension import Row
from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.results import Result
from coordconv_apps.compare.tables import metric_cells, table_note
from coordconv_apps.report.charts import ARM_COLOURS


def table_cells(results: list[Result], *rows: Row) -> dict[str, list[str]]:
    return {name: cells for name, *cells in metric_cells(results, rows)}


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_a_difference_has_two_digits_of_the_interval_of_the_paired_t_test(scale: float) -> None:
    # Seeds differ far more than arms.
    none, xy = scale * np.array([1.0, 5.0, 9.0, 3.0]), scale * np.array([1.2, 5.1, 9.3, 3.5])
    results = [Result(Job("none", 0)), Result(Job("xy", 0))]
    values = {Job(arm, seed): float(v) for arm, own in (("none", none), ("xy", xy)) for seed, v in enumerate(own)}
    cell = table_cells(results, Row("seconds to 1", values, ".1f"))["seconds to 1"][2]
    expected = stats.ttest_rel(xy, none).confidence_interval()
    unit = 0.01 * scale  # of the second digit of the half width, 0.27
    mean, low, high = (float(text.strip("[],").replace(",", "")) for text in cell.split())
    assert (mean, low, high) == pytest.approx((0.275 * scale, expected.low, expected.high), abs=0.5001 * unit)
    assert max(abs(number / unit - round(number / unit)) for number in (mean, low, high)) < 1e-6


def test_differences_are_in_the_units_of_the_row_and_pair_the_seeds_that_both_have() -> None:
    def result(arm: str, seed: int, value: float, error: str = "") -> Result:
        return Result(Job(arm, seed), error, {"test/iou": value}, {"none": 1000, "xy": 2200, "xyr": 2400}[arm], 3.0)

    results = [
        result("none", 0, 0.5),
        result("xy", 0, 0.6),
        result("xyr", 0, 0.7),
        result("none", 1, 0.7),
        result("xy", 1, 0.9, "fit failed"),
        result("xyr", 1, 0.7),
        result("none", 2, 0.6),
        result("xyr", 2, 0.9),
    ]
    cells = table_cells(results)
    assert cells[""] == ["none", "xy", "xyr", "xy - none", "xyr - none"]
    means = ["0.6 ± 0.1 (seeds 0, 1, 2)", "0.6 (seed 0)", "0.7667 ± 0.12 (seeds 0, 1, 2)"]
    assert cells["test/iou"] == [*means, "+0.1", "+0.17 [-0.21, +0.55]"]
    assert cells["parameters"][1:] == ["2,200 (seed 0)", "2,400 (seeds 0, 1, 2)", "+1,200", "+1,400"], "no interval"
    assert cells["seconds"][3:] == ["+0.0", "+0.0"]
    note = table_note(results)
    assert "(finished: none 3, xy 1, xyr 3)" in note
    assert "xy - none: mean difference over the 1 seed that both finished; a 95 % interval needs 3 seeds" in note
    assert "xyr - none: mean difference over the 3 seeds that both finished; in brackets its 95 % interval" in note


def test_two_seeds_have_no_interval_and_a_missing_arm_no_difference() -> None:
    values = {Job("none", 0): 1.0, Job("none", 1): 2.0, Job("xy", 0): 1.5, Job("xy", 1): 3.5}
    results = [Result(job) for job in (*values, Job("xyr", 0))]
    assert table_cells(results, Row("score", values, ".4g"))["score"][3:] == ["+1", "n/a"]


def test_a_row_that_lacks_a_finished_seed_in_all_arms_names_its_seeds() -> None:
    results = [
        Result(Job(arm, seed), metrics={"test/loss": value} | ({} if seed == 1 else {"test/iou": value}))  # 1: NaN
        for arm, values in (("none", [0.2, 0.3, 0.4]), ("xy", [0.5, 0.6, 0.7]))
        for seed, value in enumerate(values)
    ]
    perfect = Row("time_to_perfect", {Job("xy", 2): 7.0}, ".1f")  # no run without coordinates became perfect
    cells = table_cells(results, perfect)
    assert cells["test/loss"][:2] == ["0.3 ± 0.1", "0.6 ± 0.1"]
    assert cells["test/iou"][:2] == ["0.3 ± 0.14 (seeds 0, 2)", "0.6 ± 0.14 (seeds 0, 2)"]
    assert cells["time_to_perfect"] == ["n/a", "7.0 (seed 2)", "n/a"]


def test_table_shows_the_mean_of_real_data_beside_the_name() -> None:
    def result(arm: str, seed: int, value: float, floor: float) -> Result:
        metrics = {"test/iou": value, "test/floor/iou": floor, "test/other": 1.0}
        return Result(Job(arm, seed), "", metrics, 10, 3.0)

    results = [
        result("none", 0, 0.5, 0.91),
        result("none", 1, 0.7, 0.93),
        result("xy", 0, 0.6, 0.92),
        result("xy", 1, 0.8, 0.94),
    ]
    cells = table_cells(results)
    assert list(cells)[1:] == ["test/iou (real data 0.925)", "test/other", "parameters", "seconds"]
    assert cells["test/iou (real data 0.925)"][:2] == ["0.6 ± 0.14", "0.7 ± 0.14"]
    assert cells["test/other"][:2] == ["1", "1"]


def test_every_arm_has_a_colour() -> None:
    assert set(ARM_COLOURS) == set(ARMS)


def validated(folder: Path, epochs: Sequence[int]) -> Result:
    """Return a run that logged its headline metric in some epochs."""
    rows = "".join(f"{epoch},{epoch},0.4\n" for epoch in epochs)
    (folder / "metrics.csv").write_text(f"epoch,step,val/iou\n{rows}")
    return Result(Job("none", 0), metrics={"test/iou": 0.5}, headline="val/iou", fit_folder=folder)


def test_a_plot_without_validations_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts: list[list[str]] = []
    monkeypatch.setattr(plots, "as_png", lambda figure: texts.append([t.get_text() for t in figure.axes[0].texts]))
    for epochs in ([], [0]):
        plots.plot_results([validated(tmp_path, epochs)])
    assert texts == [["no run logged a validation"], []]


@pytest.mark.parametrize(("epochs", "shown"), [([0], (0, 2)), ([7], (7, 9)), ([0, 1], (0.95, 2.05))])
def test_the_axis_of_a_single_epoch_shows_whole_epochs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, epochs: list[int], shown: tuple[float, float]
) -> None:
    limits: list[tuple[float, float]] = []
    monkeypatch.setattr(plots, "as_png", lambda figure: limits.append(figure.axes[0].get_xlim()))
    plots.plot_results([validated(tmp_path, epochs)])
    assert limits == [pytest.approx(shown)]
