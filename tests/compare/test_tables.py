"""The figures of a comparison, against formulas and against every resample there is."""

import itertools

import numpy as np
import pytest

from coordconv_apps.compare.arguments import ARMS
from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.plots import ARM_COLOURS
from coordconv_apps.compare.results import Result
from coordconv_apps.compare.statistics import mean_and_deviation, relative_difference
from coordconv_apps.compare.tables import metric_table, table_note


def test_figures_are_mean_and_sample_deviation() -> None:
    mean, deviation = mean_and_deviation([1.0, 2.0, 6.0])
    assert mean == pytest.approx(3.0)
    assert deviation == pytest.approx(np.sqrt((4 + 1 + 9) / 2))
    assert mean_and_deviation([2.5]) == (2.5, None)


def test_relative_difference_agrees_with_every_resample() -> None:
    base, other = np.array([0.5, 0.4, 0.6, 0.45]), np.array([0.55, 0.5, 0.58, 0.5])
    every = [
        100 * (other[list(drawn)].mean() / base[list(drawn)].mean() - 1)
        for drawn in itertools.product(range(4), repeat=4)
    ]
    found = relative_difference(base, other)
    assert found is not None
    assert found[1] is not None
    assert found[0] == pytest.approx(100 * (other.mean() / base.mean() - 1))
    assert found[1] == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=0.5)


def test_the_bootstrap_is_paired() -> None:
    # Seeds differ far more than arms: a constant ratio leaves no uncertainty, however much the seeds differ.
    base = np.array([1.0, 10.0, 100.0])
    found = relative_difference(base, 1.1 * base)
    assert found is not None
    assert found[1] == pytest.approx((10.0, 10.0))


def test_relative_difference_has_the_sign_of_the_change_for_negative_values() -> None:
    found = relative_difference([-2.0], [-1.0])
    assert found == (50.0, None)


@pytest.mark.parametrize(("base", "other"), [([], []), ([0.0], [1.0]), ([-1.0, 1.0], [1.0, 1.0])])
def test_relative_difference_is_not_available(base: list[float], other: list[float]) -> None:
    assert relative_difference(base, other) is None


def test_no_interval_where_a_resampled_base_is_zero() -> None:
    found = relative_difference([0.0, 1.0], [1.0, 1.0])
    assert found == (100.0, None)


def test_table_of_three_arms_pairs_the_seeds_that_both_have() -> None:
    def result(arm: str, seed: int, value: float, error: str = "") -> Result:
        return Result(Job(arm, seed), error, {"test/iou": value}, {"none": 10, "xy": 12, "xyr": 14}[arm], 3.0)

    results = [
        result("none", 0, 0.5),
        result("xy", 0, 0.6),
        result("xyr", 0, 0.7),
        result("none", 1, 0.7),
        result("xy", 1, 0.9, "fit failed"),
        result("xyr", 1, 0.7),
    ]
    lines = metric_table(results).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines}
    assert len({len(line) for line in lines}) == 1
    assert cells[""] == ["none", "xy", "xyr", "xy against none", "xyr against none"]
    assert cells["test/iou"] == ["0.6 ± 0.14", "0.6", "0.7", "+20.0 %", "+16.7 % [+0.0, +40.0]"]
    assert cells["parameters"] == ["10", "12", "14", "+20.0 %", "+40.0 %"]
    note = table_note(results)
    assert "none 2, xy 1, xyr 2" in note
    assert "xy against none: difference of the means in percent; the 95 % interval is not available" in note


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
    lines = metric_table(results).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines}
    assert len({len(line) for line in lines}) == 1
    assert list(cells)[2:] == ["test/iou (real data 0.925)", "test/other", "parameters", "seconds"]
    assert cells["test/iou (real data 0.925)"][:2] == ["0.6 ± 0.14", "0.7 ± 0.14"]
    assert cells["test/other"][:2] == ["1", "1"]


def test_every_arm_has_a_colour() -> None:
    assert set(ARM_COLOURS) == set(ARMS)
