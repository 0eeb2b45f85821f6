"""Statistics over seeds: mean and standard deviation, and paired differences with bootstrap intervals."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coordconv_apps.utils.statistics import bootstrap


def mean_and_deviation(values: ArrayLike) -> tuple[float, float | None]:
    """Return the mean of values ``(n,)`` and their sample standard deviation, the latter None for fewer than two.

    >>> mean_and_deviation([1, 2, 3])
    (2.0, 1.0)
    """
    data = np.asarray(values, dtype=np.float64)
    return float(data.mean()), float(data.std(ddof=1)) if data.size > 1 else None


def relative_difference(base: ArrayLike, other: ArrayLike) -> tuple[float, tuple[float, float] | None] | None:
    """Return the difference of two paired means in percent of the first, and its bootstrap interval.

    Seeds are resampled with replacement, each with both of its values, so that effects of a seed on both arms cancel.
    With few seeds such an interval is too narrow: read it as the observed spread, not as a test.

    Args:
        base: ``(n,)`` values of the first arm, one per seed.
        other: ``(n,)`` values of the other arm, with the same seeds.

    Returns:
        The difference and the 95 % percentile interval, which is None with one seed or where a resampled mean of the
        first arm is 0; None altogether without a pair, or where the mean of the first arm is 0.

    >>> relative_difference([2, 4], [3, 6])
    (50.0, (50.0, 50.0))
    """
    pairs = np.array([base, other], dtype=np.float64).T
    if len(pairs) == 0 or pairs[:, 0].mean() == 0:
        return None
    difference, low, high = bootstrap(_difference_in_percent, pairs, generator=np.random.default_rng(0), paired=True)
    return difference, None if np.isnan(low) else (low, high)


def _difference_in_percent(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference of the two columns' means in percent of the first; NaN where that is 0."""
    base, other = np.moveaxis(pairs.mean(axis=-2), -1, 0)
    base = np.where(base == 0, np.nan, base)
    difference: NDArray[np.float64] = 100 * (other - base) / abs(base)
    return difference
