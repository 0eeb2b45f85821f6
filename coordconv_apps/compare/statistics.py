"""Statistics over seeds: mean and standard deviation, and paired differences with bootstrap intervals."""

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)  # percentiles


def mean_and_deviation(values: ArrayLike) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation, the latter None for fewer than two values.

    Args:
        values: ``(n,)``, n > 0.

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
    pairs = np.stack([np.asarray(base, dtype=np.float64), np.asarray(other, dtype=np.float64)])
    count = pairs.shape[1]
    if count == 0 or pairs[0].mean() == 0:
        return None
    means = pairs.mean(axis=1)
    difference = float(100 * (means[1] - means[0]) / abs(means[0]))
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    resampled = pairs[:, drawn].mean(axis=2)
    if count == 1 or (resampled[0] == 0).any():
        return difference, None
    low, high = np.percentile(100 * (resampled[1] - resampled[0]) / abs(resampled[0]), INTERVAL)
    return difference, (float(low), float(high))
