"""Statistics over seeds and games: interquartile means and the probability of improvement.

Both are from Agarwal et al. (2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"), whose
library rliable needs pandas, seaborn and arch. Their intervals are those of
`coordconv_apps.utils.statistics`.

Scores are arrays ``(..., runs, games)``, one row for each seed and one column for each game, for example from
`rl.evaluation.scores.human_normalised`; results are ``(...)``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from coordconv_apps.utils.statistics import Scores, check_scores


def interquartile_mean(scores: npt.ArrayLike) -> Scores:
    """Return the mean of the middle half of the scores of all runs and games.

    ``n // 4`` of ``n`` scores are left out at each end, so it is the plain mean of fewer than 4.

    Example:
        >>> interquartile_mean([[0, 100], [3, 4], [6, 1], [5, 2]]).item()
        3.5
    """
    pooled = check_scores("scores", scores)
    mean: Scores = np.asarray(stats.trim_mean(pooled.reshape(*pooled.shape[:-2], -1), 0.25, axis=-1))
    return mean


def probability_of_improvement(scores: npt.ArrayLike, others: npt.ArrayLike) -> Scores:
    """Return the probability that a run of one arm scores higher than a run of another arm, mean over games.

    For each game it is the Mann-Whitney statistic divided by the number of pairs of runs; ties count half. Above 0.5
    the first arm is better. Both arms need the same games in the same order.

    Example:
        >>> probability_of_improvement([[3.0], [4.0]], [[1.0], [3.0]]).item()
        0.875
    """
    first, second = check_scores("scores", scores), check_scores("others", others)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(f"others: {second.shape[-1]} games, must be as many as in scores, {first.shape[-1]}")
    first, second = first[..., :, None, :], second[..., None, :, :]
    pairs = (-3, -2, -1)
    share: Scores = np.asarray((first > second).mean(axis=pairs) + (first == second).mean(axis=pairs) / 2)
    return share
