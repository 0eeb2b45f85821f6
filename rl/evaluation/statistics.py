"""What scores of a few runs say: interquartile means, intervals over seeds, the probability of an improvement.

After Agarwal et al. (2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"), whose library is
rliable. It needs pandas, seaborn and arch for its figures and its bootstrap; the figures here are of a few lines, and
the same.

Scores are arrays ``(..., runs, games)``, for example of `rl.evaluation.scores.human_normalised`: one row
for each seed, one column for each game.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Resamples of a bootstrap: with these, an interval's ends vary by about a hundredth of its width."""


class Estimate(NamedTuple):
    """A figure and its confidence interval.

    Attributes:
        value: Of the scores themselves.
        low: The interval's lower end; nan if there is one run only, from which nothing can be said about others.
        high: Its upper end; nan likewise.
    """

    value: float
    low: float
    high: float


def interquartile_mean(scores: npt.ArrayLike) -> Scores:
    """Mean of the middle half of the scores of all runs and games, without the lowest and the highest quarter.

    Of ``n`` scores ``n // 4`` are left out at each end: none of fewer than 4, which makes it the mean.

    Args:
        scores: ``(..., runs, games)``.

    Returns:
        ``(...)``.
    """
    pooled = _checked("scores", scores)
    mean: Scores = np.asarray(stats.trim_mean(pooled.reshape(*pooled.shape[:-2], -1), 0.25, axis=-1))
    return mean


def probability_of_improvement(scores: npt.ArrayLike, others: npt.ArrayLike) -> Scores:
    """How likely a run of one kind scores higher than one of another kind at the same game, mean over the games.

    For each game that is the Mann-Whitney statistic over the number of pairs: the share of pairs of runs in which the
    first is higher, where pairs that tie count half.

    Args:
        scores: ``(..., runs, games)``.
        others: ``(..., other runs, games)``, of the same games in the same order.

    Returns:
        ``(...)``, in [0, 1]; above 0.5 the first kind is better.

    Raises:
        ValueError: The two are not of the same number of games.
    """
    first, second = _checked("scores", scores), _checked("others", others)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(f"others: {second.shape[-1]} games, must be as many as of scores, {first.shape[-1]}")
    first, second = first[..., :, None, :], second[..., None, :, :]
    pairs = (-3, -2, -1)
    share: Scores = np.asarray((first > second).mean(axis=pairs) + (first == second).mean(axis=pairs) / 2)
    return share


def bootstrap(
    statistic: Callable[..., Scores],
    *scores: npt.ArrayLike,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A figure with its stratified bootstrap confidence interval over runs, by percentiles.

    In a resample each game's runs are drawn with replacement from the runs of that game, as many as there are, apart
    from other games and from other arrays (Agarwal et al., 2021, section 4.1).

    Args:
        statistic: From arrays ``(..., runs, games)`` to ``(...)``: `interquartile_mean`, or of two arrays
            `probability_of_improvement`.
        scores: As many arrays as the figure takes, each ``(runs, games)``.
        generator: Source of random numbers.
        confidence: Share of the resamples that the interval holds, in (0, 1).
        resamples: How many.

    Returns:
        The figure and its interval; no interval where an array has one run only.

    Raises:
        ValueError: An argument is out of its range, or an array is not ``(runs, games)`` of finite scores.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must be in (0, 1)")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: must be an integer of at least 1")
    arrays = [_checked("scores", array, matrix=True) for array in scores]
    value = float(statistic(*arrays))
    if any(len(array) == 1 for array in arrays):
        return Estimate(value, float("nan"), float("nan"))
    drawn = statistic(*(_resample(array, resamples, generator) for array in arrays))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _resample(scores: Scores, resamples: int, generator: np.random.Generator) -> Scores:
    """``(resamples, runs, games)``: of each game, its runs with replacement."""
    runs, games = scores.shape
    return scores[generator.integers(runs, size=(resamples, runs, games)), np.arange(games)]


def _checked(name: str, scores: npt.ArrayLike, matrix: bool = False) -> Scores:
    array = np.asarray(scores, np.float64)
    if array.ndim < 2 or (matrix and array.ndim > 2) or 0 in array.shape:
        raise ValueError(f"{name}: an array of shape {array.shape}, must be (runs, games) with at least one of each")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: must be finite numbers")
    return array
