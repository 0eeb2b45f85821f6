"""Bootstrap confidence intervals over independent runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Number of resamples: with these, the ends of an interval vary by about a hundredth of its width."""


class Estimate(NamedTuple):
    """A statistic and the ends of its confidence interval: NaN for a single run, which says nothing about others."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., Scores],
    *scores: npt.ArrayLike,
    generator: np.random.Generator,
    paired: bool = False,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate a statistic with its percentile bootstrap confidence interval over runs.

    By default the bootstrap is stratified (Agarwal et al., 2021, section 4.1): the runs of each column are resampled
    with replacement on their own, and so are those of each array. With ``paired``, whole rows are resampled: the
    effect of a seed on all columns cancels in their difference.

    Args:
        statistic: Function from arrays ``(..., runs, columns)`` to ``(...)``.
        scores: Arrays ``(runs, columns)``, one for each argument of the statistic.
        generator: Source of random numbers.
        paired: Whether to resample whole rows.
        confidence: Fraction of the resampled statistics inside the interval, in (0, 1).
        resamples: Number of resamples.

    Raises:
        ValueError: An argument is out of its range, or an array is not ``(runs, columns)`` of finite numbers.

    Example:
        >>> mean = lambda scores: scores.mean(axis=(-2, -1))
        >>> bootstrap(mean, [[1.0], [2.0], [3.0]], generator=np.random.default_rng(0))
        Estimate(value=2.0, low=1.0, high=3.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must be in (0, 1)")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: must be an integer of at least 1")
    arrays = [check_scores("scores", array, matrix=True) for array in scores]
    value = float(statistic(*arrays))
    if any(len(array) == 1 for array in arrays):
        return Estimate(value, float("nan"), float("nan"))
    drawn = statistic(*(_resample(array, resamples, generator, paired) for array in arrays))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _resample(scores: Scores, resamples: int, generator: np.random.Generator, paired: bool) -> Scores:
    """Return ``(resamples, runs, columns)``: runs drawn with replacement."""
    runs, columns = scores.shape
    drawn = generator.integers(runs, size=(resamples, runs, 1 if paired else columns))
    return scores[drawn, np.arange(columns)]


def check_scores(name: str, scores: npt.ArrayLike, matrix: bool = False) -> Scores:
    """Return scores as an array ``(..., runs, columns)`` of doubles. ``matrix`` allows no leading axes.

    Raises:
        ValueError: The shape is another one, or a number is not finite; the message starts with ``name``.
    """
    array = np.asarray(scores, np.float64)
    if array.ndim < 2 or (matrix and array.ndim > 2) or 0 in array.shape:
        raise ValueError(f"{name}: array of shape {array.shape}, must be (runs, columns) with at least one of each")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: must be finite numbers")
    return array
