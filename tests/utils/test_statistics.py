"""Bootstrap intervals against all resamples there are, and against scipy's."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from coordconv_apps.utils.statistics import Estimate, bootstrap


def draw(runs: int, columns: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).gamma(2.0, size=(runs, columns))


def trimmed_mean(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean: npt.NDArray[np.float64] = stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)
    return mean


def estimate(scores: npt.ArrayLike, seed: int = 0, confidence: float = 0.95, resamples: int = 10_000) -> Estimate:
    generator = np.random.default_rng(seed)
    return bootstrap(trimmed_mean, scores, generator=generator, confidence=confidence, resamples=resamples)


def test_an_interval_is_that_of_all_resamples() -> None:
    scores = np.array([[0.0, 10.0], [1.0, 30.0], [5.0, 20.0]])
    choices = list(itertools.product(range(3), repeat=3))
    every = [
        trimmed_mean(np.stack([scores[list(first), 0], scores[list(second), 1]], axis=1))
        for first, second in itertools.product(choices, choices)  # the columns' runs are drawn separately
    ]
    value, low, high = estimate(scores, confidence=0.9, resamples=100_000)
    assert value == pytest.approx(trimmed_mean(scores))
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


def test_columns_are_strata() -> None:
    # Without noise within columns nothing is left to vary, however different the columns are.
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


def test_pairs_are_resampled_together() -> None:
    base = draw(9, 1)
    scores = np.concatenate([base, base + 0.5], axis=1)

    def difference(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        means = scores.mean(axis=-2)
        return np.asarray(means[..., 1] - means[..., 0])

    paired, stratified = (
        bootstrap(difference, scores, generator=np.random.default_rng(0), paired=paired) for paired in (True, False)
    )
    assert paired == pytest.approx((0.5, 0.5, 0.5)), "what a seed does to both cancels"
    assert stratified.low < 0.4 < 0.6 < stratified.high
    # The same draws as with indices of rows.
    rows = np.random.default_rng(0).integers(9, size=(10_000, 9))
    expected = np.quantile(trimmed_mean(scores[rows]), [0.025, 0.975])
    found = bootstrap(trimmed_mean, scores, generator=np.random.default_rng(0), paired=True)
    assert [found.low, found.high] == pytest.approx(expected.tolist())


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
        estimate(scores)


def test_wrong_arguments_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^confidence=1.0: must be in \(0, 1\)$"):
        estimate(draw(2, 2), confidence=1.0)
    with pytest.raises(ValueError, match=r"^resamples=0: must be an integer of at least 1$"):
        estimate(draw(2, 2), resamples=0)
