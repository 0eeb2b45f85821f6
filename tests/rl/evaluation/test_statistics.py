"""Statistics over games against values by hand and against scipy's."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from coordconv_apps.utils.statistics import confidence_interval
from rl.evaluation.statistics import interquartile_mean, probability_of_improvement


def draw(runs: int, games: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).gamma(2.0, size=(runs, games))


def test_the_interquartile_mean_is_that_of_the_middle_half_of_all_runs_and_games() -> None:
    # In order: 0 1 | 2 3 4 5 | 6 100; as the mean over games of each game's own it would be another.
    assert interquartile_mean([[0, 100], [3, 4], [6, 1], [5, 2]]) == pytest.approx(3.5)


def test_of_numbers_that_four_does_not_divide_a_quarter_is_rounded_down() -> None:
    assert interquartile_mean([[10], [1], [2], [3], [-50]]) == pytest.approx(2)
    assert interquartile_mean([[1], [2], [6]]) == pytest.approx(3), "the mean of three"


def test_leading_axes_give_values_of_their_own() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    figures = interquartile_mean(scores)
    assert figures.shape == (3, 2)
    for which in np.ndindex(3, 2):
        middle = np.sort(scores[which].ravel())[5:15]
        assert figures[which] == pytest.approx(middle.mean())


def test_the_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    # Game 1: 2 beats 1, ties with 2; 3 beats both: 3.5 of 4. Game 2: 0 of 4.
    assert probability_of_improvement([[2, 0], [3, 0]], [[1, 5], [2, 7]]) == pytest.approx((3.5 / 4 + 0) / 2)


def test_the_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    first, second = np.round(draw(6, 3), 1), np.round(draw(4, 3, seed=1), 1)
    assert set(first.ravel()) & set(second.ravel()), "with ties"
    shares = [stats.mannwhitneyu(first[:, game], second[:, game]).statistic / 24 for game in range(3)]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(("seeds", "games"), [(3, 1), (5, 1), (3, 4)])
def test_intervals_of_the_probability_contain_the_truth(seeds: int, games: int) -> None:
    """A percentile bootstrap holds about 75 % with three seeds."""
    generator, trials = np.random.default_rng(0), 200
    held, found = 0, 0
    for _ in range(trials):
        first, second = generator.normal(size=(2, seeds, games))
        interval = confidence_interval(probability_of_improvement, first, second, bounds=(0, 1))
        found += not np.isnan(interval.low)
        held += interval.low <= 0.5 <= interval.high
    assert found > 0.85 * trials
    assert held / found >= 0.9


def test_different_numbers_of_games_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^others: 3 games, must be as many as in scores, 2$"):
        probability_of_improvement(draw(2, 2), draw(2, 3))
