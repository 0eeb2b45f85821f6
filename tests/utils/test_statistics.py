"""Statistics over runs, and confidence intervals against scipy's and against how often they contain the truth."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from coordconv_apps.utils.statistics import confidence_interval, mean_and_deviation, paired_difference


def draw(runs: int, columns: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).gamma(2.0, size=(runs, columns))


def trimmed_mean(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean: npt.NDArray[np.float64] = stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)
    return mean


def difference(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    return float(first.mean() - second.mean())


def median_of_means(scores: npt.NDArray[np.float64]) -> float:
    return float(np.median(scores.mean(axis=0)))


def test_mean_and_sample_deviation() -> None:
    assert mean_and_deviation([1.0, 2.0, 6.0]) == pytest.approx((3.0, np.sqrt((4 + 1 + 9) / 2)))
    assert mean_and_deviation([2.5]) == (2.5, None)


@pytest.mark.parametrize("runs", [3, 8])
def test_intervals_of_means_are_those_of_students_and_welchs_tests(runs: int) -> None:
    first, second = draw(runs, 1), 3 * draw(runs + 2, 1, seed=1)
    pairs = draw(runs, 2, seed=2)
    student = stats.ttest_1samp(first[:, 0], 0)
    welch = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False)
    paired = stats.ttest_rel(pairs[:, 1], pairs[:, 0])
    for ours, theirs in (
        (confidence_interval(np.mean, first), student),
        (confidence_interval(difference, first, second), welch),
        (paired_difference(pairs[:, 0], pairs[:, 1]), paired),
    ):
        expected = theirs.confidence_interval(0.95)
        assert ours[1:] == pytest.approx((expected.low, expected.high))
        assert ours.value == pytest.approx((expected.low + expected.high) / 2)


@pytest.mark.parametrize("noise", ["normal", "uniform", "laplace", "exponential"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_without_a_true_difference_95_of_100_intervals_contain_0(seeds: int, noise: str) -> None:
    generator = np.random.default_rng(0)
    draw_noise: Callable[..., npt.NDArray[np.float64]] = getattr(generator, noise)
    trials = 1500
    effects = 10 * generator.normal(size=(trials, 1, seeds))  # of a seed on both arms
    arms = effects + draw_noise(size=(trials, 2, seeds))
    held = [low <= 0 <= high for _, low, high in (paired_difference(*pair) for pair in arms)]
    # A percentile bootstrap holds 71 to 74 % with three seeds and 83 to 84 % with five.
    assert 0.93 <= np.mean(held) <= 0.98


@pytest.mark.parametrize(("statistic", "runs"), [(trimmed_mean, 3), (trimmed_mean, 5), (median_of_means, 3)])
def test_intervals_of_statistics_of_several_games_contain_the_truth(
    statistic: Callable[[npt.NDArray[np.float64]], float], runs: int
) -> None:
    games = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])  # symmetric: every statistic of centre is 0
    scores = games + np.random.default_rng(0).normal(size=(150, runs, len(games)))
    held = [low <= 0 <= high for _, low, high in (confidence_interval(statistic, sample) for sample in scores)]
    assert 0.91 <= np.mean(held) <= 0.99


@pytest.mark.parametrize(
    ("base", "other", "mean"),
    [
        ([0.5], [0.7], 0.2),
        ([0.5, 0.6], [0.7, 0.9], 0.25),  # its 95 % interval would be [-0.39, 0.89]
        ([5.0, 5.0, 5.0], [5.0, 5.0, 5.0], 0.0),
        ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], 0.1),  # equal up to rounding
    ],
)
def test_too_few_or_equal_runs_have_no_interval(base: list[float], other: list[float], mean: float) -> None:
    found = paired_difference(base, other)
    assert found.value == pytest.approx(mean)
    assert np.isnan(found[1:]).all()


def test_ends_lie_within_the_bounds() -> None:
    found = confidence_interval(np.mean, [[0.0], [1.0], [1.0]], bounds=(0, 1))
    assert list(found) == pytest.approx([2 / 3, 0, 1])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], r"scores: array of shape \(2,\), must be \(runs, columns\) with at least one of each"),
        (np.zeros((0, 3)), r"scores: array of shape \(0, 3\), must be \(runs, columns\) with at least one of each"),
        (np.zeros((2, 2, 2)), r"scores: array of shape \(2, 2, 2\), must be \(runs, columns\) with .*"),
        ([[1.0, np.nan]], "scores: must be finite numbers"),
    ],
)
def test_wrong_scores_are_refused_in_one_line(scores: npt.ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        confidence_interval(np.mean, scores)
