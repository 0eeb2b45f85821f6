"""Statistics of runs against values by hand, against all resamples there are, and against scipy's."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from coordconv_apps.utils.statistics import Estimate, bootstrap
from rl.evaluation.statistics import interquartile_mean, probability_of_improvement


def draw(runs: int, games: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).gamma(2.0, size=(runs, games))


def estimate(scores: npt.ArrayLike, seed: int = 0, confidence: float = 0.95, resamples: int = 10_000) -> Estimate:
    generator = np.random.default_rng(seed)
    return bootstrap(interquartile_mean, scores, generator=generator, confidence=confidence, resamples=resamples)


# ------------------------------------------------------------------ interquartile mean


def test_the_interquartile_mean_is_that_of_the_middle_half_of_all_runs_and_games() -> None:
    # In order: 0 1 | 2 3 4 5 | 6 100; as the mean over games of each game's own it would be another.
    assert interquartile_mean([[0, 100], [3, 4], [6, 1], [5, 2]]) == pytest.approx(3.5)


def test_of_numbers_that_four_does_not_divide_a_quarter_is_rounded_down() -> None:
    assert interquartile_mean([[10], [1], [2], [3], [-50]]) == pytest.approx(2)
    assert interquartile_mean([[1], [2], [6]]) == pytest.approx(3), "the mean of three"


def test_leading_axes_are_figures_of_their_own() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    figures = interquartile_mean(scores)
    assert figures.shape == (3, 2)
    for which in np.ndindex(3, 2):
        middle = np.sort(scores[which].ravel())[5:15]
        assert figures[which] == pytest.approx(middle.mean())


# ------------------------------------------------------------------ probability of improvement


def test_the_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    # Game 1: 2 beats 1, ties with 2; 3 beats both: 3.5 of 4. Game 2: 0 of 4.
    assert probability_of_improvement([[2, 0], [3, 0]], [[1, 5], [2, 7]]) == pytest.approx((3.5 / 4 + 0) / 2)


def test_the_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    first, second = np.round(draw(6, 3), 1), np.round(draw(4, 3, seed=1), 1)
    assert set(first.ravel()) & set(second.ravel()), "with ties"
    shares = [stats.mannwhitneyu(first[:, game], second[:, game]).statistic / 24 for game in range(3)]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(shares))


def test_the_two_probabilities_add_up_to_one() -> None:
    first, second = np.round(draw(5, 4), 1), np.round(draw(5, 4, seed=1), 1)
    assert probability_of_improvement(first, second) + probability_of_improvement(second, first) == pytest.approx(1)
    assert probability_of_improvement(first, first) == pytest.approx(0.5)


# ------------------------------------------------------------------ intervals


def test_an_interval_is_that_of_all_resamples() -> None:
    scores = np.array([[0.0, 10.0], [1.0, 30.0], [5.0, 20.0]])
    choices = list(itertools.product(range(3), repeat=3))
    every = [
        interquartile_mean(np.stack([scores[list(first), 0], scores[list(second), 1]], axis=1))
        for first, second in itertools.product(choices, choices)  # the games' runs are drawn apart
    ]
    value, low, high = estimate(scores, confidence=0.9, resamples=100_000)
    assert value == pytest.approx(interquartile_mean(scores))
    # Few values are possible, and at these percentiles one of them for more than 1 % to either side.
    assert low == pytest.approx(np.quantile(every, 0.05, method="inverted_cdf"))
    assert high == pytest.approx(np.quantile(every, 0.95, method="inverted_cdf"))


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_an_interval_of_one_game_is_scipys(confidence: float) -> None:
    scores = draw(12, 1)
    ours = estimate(scores, confidence=confidence, resamples=20_000)
    theirs = stats.bootstrap(
        (scores[:, 0],),
        lambda drawn, axis: stats.trim_mean(drawn, 0.25, axis=axis),
        n_resamples=20_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_an_interval_of_the_probability_of_improvement_is_scipys() -> None:
    first, second = draw(8, 1), draw(6, 1, seed=1) + 0.5
    ours = bootstrap(probability_of_improvement, first, second, generator=np.random.default_rng(0), resamples=20_000)
    theirs = stats.bootstrap(
        (first[:, 0], second[:, 0]),
        lambda a, b: stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)),
        n_resamples=2_000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.value == pytest.approx(stats.mannwhitneyu(first[:, 0], second[:, 0]).statistic / 48)
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_games_are_strata() -> None:
    # Without noise within games nothing is left to vary, however different the games are.
    assert estimate(np.tile([0.0, 1.0, 50.0, 100.0], (5, 1))) == (25.5, 25.5, 25.5)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(size=(200, 40, 1))
    held = [low <= 0 <= high for _, low, high in (estimate(sample, resamples=500) for sample in samples)]
    assert 0.88 <= np.mean(held) <= 0.99


def test_a_generator_fixes_an_interval() -> None:
    scores = draw(5, 3)
    assert estimate(scores, seed=3) == estimate(scores, seed=3)
    assert estimate(scores, seed=3) != estimate(scores, seed=4)


def test_one_run_has_no_interval() -> None:
    value, low, high = estimate([[1.0, 2.0, 3.0]])
    assert value == 2
    assert np.isnan([low, high]).all()


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], r"scores: array of shape \(2,\), must be \(runs, columns\) with at least one of each"),
        (np.zeros((0, 3)), r"scores: array of shape \(0, 3\), must be \(runs, columns\) with at least one of each"),
        (np.zeros((2, 2, 2)), r"scores: array of shape \(2, 2, 2\), must be \(runs, columns\) with .*"),
        ([[1.0, np.nan]], "scores: must be finite numbers"),
    ],
)
def test_scores_that_are_none_are_told_in_one_line(scores: npt.ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        estimate(scores)


def test_wrong_arguments_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^confidence=1.0: must be in \(0, 1\)$"):
        estimate(draw(2, 2), confidence=1.0)
    with pytest.raises(ValueError, match=r"^resamples=0: must be an integer of at least 1$"):
        estimate(draw(2, 2), resamples=0)
    with pytest.raises(ValueError, match=r"^others: 3 games, must be as many as in scores, 2$"):
        probability_of_improvement(draw(2, 2), draw(2, 3))
