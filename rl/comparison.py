"""Extend reports of `coordconv_apps.compare` with intervals over seeds, and aggregates over games.

The aggregates are those of Agarwal et al. (2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice"). ``--over model.game`` compares several games.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coordconv_apps.compare.extension import NOTHING, Extension, Row
from coordconv_apps.compare.results import arms_of, by_value
from coordconv_apps.report.charts import ARM_COLOURS
from coordconv_apps.utils.plotting import as_png
from coordconv_apps.utils.statistics import MIN_RUNS, Estimate, confidence_interval
from rl.evaluation.statistics import interquartile_mean, probability_of_improvement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from coordconv_apps.compare.results import Result
    from coordconv_apps.utils.statistics import Scores

SCORE = "test/score"
NORMALISED = "test/human_normalised"
GAME = "model.game"

SCALE = "normalised score: random actions score 0, a human 1; for Catch, the best possible score is 1"
QUARTERS = "the interquartile mean leaves out the lowest and highest quarter of the scores (Agarwal et al., 2021)"
MEANING = (
    "intervals: 95 %, by Student's t with jackknife standard errors, from 3 seeds on; runs that are all equal give none"
)


AGGREGATES: dict[str, Callable[[Scores], Scores]] = {
    "interquartile mean": interquartile_mean,
    "mean": lambda scores: scores.mean(axis=(-2, -1)),
    "median of the games' means": lambda scores: np.median(scores.mean(axis=-2), axis=-1),
    "optimality gap": lambda scores: 1 - np.minimum(scores, 1).mean(axis=(-2, -1)),
}
"""Aggregates of the normalised scores of all games, from ``(..., runs, games)`` to ``(...)``.

The optimality gap is the mean distance of the scores from 1, with scores above 1 counted as 1; smaller is better. All
are defined in Agarwal et al. (2021, section 4.3).
"""


class Games(NamedTuple):
    """Normalised scores of all games, for the seeds that all arms finished in all games."""

    names: list[str]
    seeds: list[int]
    scores: dict[str, Scores]  # by arm, (seeds, games)


def extend(results: Sequence[Result]) -> Extension:
    """Return the row of normalised scores and each arm's mean with its interval, for one game.

    The arm of the first result is the baseline.
    """
    finished = _finished(results)
    if not finished:
        return NOTHING
    normalised = {result.job: result.metrics[NORMALISED] for result in finished if NORMALISED in result.metrics}
    rows = [Row("normalised score", normalised, ".3f")] if normalised else []
    notes = _one_game(finished, arms_of(results))
    if results[0].job.value is None:  # otherwise `extend_over` adds these notes once
        notes += [*_caveats(finished), *([SCALE] if normalised else [])]
    return Extension(rows, notes)


def extend_over(results: Sequence[Result]) -> Extension:
    """Return aggregates over all games for each arm, and the improvement of the other arms over the first.

    There are no aggregates if an argument other than the game varies.
    """
    finished = _finished(results)
    if not finished:
        return NOTHING
    caveats = [*_caveats(finished), *([SCALE] if any(NORMALISED in result.metrics for result in finished) else [])]
    groups = by_value(finished)
    if len({str(group[0].argument(GAME) or "") for group in groups.values()}) < len(groups):  # the values are not games
        return Extension(notes=caveats)
    games, notes = _all_games(results)
    if games is None:
        return Extension(notes=[*notes, *caveats])
    arms = list(games.scores)
    count = f"{_many(len(games.names), 'game')}, {_many(len(games.seeds), 'seed')} of each"
    aggregates = {
        name: {arm: confidence_interval(figure, games.scores[arm]) for arm in arms}
        for name, figure in AGGREGATES.items()
    }
    for name, of_arms in aggregates.items():
        values = ", ".join(f"{arm} {_interval(estimate, '.3f')}" for arm, estimate in of_arms.items())
        notes.append(f"{name} of normalised scores ({count}): {values}")
    differences = {arm: _differences(games, arm) for arm in arms[1:]}
    for arm, by_game in differences.items():
        better = _better(games.scores[arm], games.scores[arms[0]])
        notes.append(f"{_improvement(arm, arms[0], better)}, mean over games")
        notes.append(f"{arm} against {arms[0]}: {_tally(by_game)}")
    figures = {"aggregates": as_png(_draw_aggregates(aggregates, count))}
    if differences:
        figures["games"] = as_png(_draw_games(differences, arms[0]))
    return Extension(notes=[*notes, QUARTERS, *caveats], figures=figures)


def _finished(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if not result.error and SCORE in result.metrics]


def _all_games(results: Sequence[Result]) -> tuple[Games | None, list[str]]:
    """Return the scores that can be compared, and a note about omitted games."""
    arms = arms_of(results)
    scores: dict[str, dict[int, dict[str, float]]] = {}  # by game, seed and arm
    left_out = []
    for value, group in by_value(results).items():
        finished = _finished(group)
        by_seed: dict[int, dict[str, float]] = {}
        for result in finished:
            if NORMALISED in result.metrics:
                by_seed.setdefault(result.job.seed, {})[result.job.arm] = result.metrics[NORMALISED]
        complete = {seed: of_arms for seed, of_arms in by_seed.items() if len(of_arms) == len(arms)}
        if complete:
            scores[str(value)] = complete
        else:
            why = "no seed finished by all arms" if by_seed or not finished else "no normalised scores"
            left_out.append(f"{value} ({why})")
    notes = [f"omitted from the aggregates over games: {', '.join(left_out)}"] if left_out else []
    seeds = sorted(set.intersection(*(set(of_game) for of_game in scores.values()))) if scores else []
    if not seeds:
        why = "no seed was finished by all arms in all games" if scores else "all games are omitted"
        return None, [*notes, f"no aggregates over games: {why}"]
    names = list(scores)
    tables = {arm: np.array([[scores[game][seed][arm] for game in names] for seed in seeds]) for arm in arms}
    return Games(names, seeds, tables), notes


def _one_game(finished: Sequence[Result], arms: Sequence[str]) -> list[str]:
    columns = {arm: np.array([[r.metrics[SCORE]] for r in finished if r.job.arm == arm]) for arm in arms}
    columns = {arm: column for arm, column in columns.items() if len(column)}
    means = {arm: confidence_interval(np.mean, column) for arm, column in columns.items()}
    values = [f"{arm} {_interval(mean, '.5g')} ({_many(len(columns[arm]), 'seed')})" for arm, mean in means.items()]
    lines = [f"mean of {SCORE}: {', '.join(values)}"]
    base = arms[0]
    for arm in columns if base in columns else ():
        if arm != base:
            lines.append(_improvement(arm, base, _better(columns[arm], columns[base])))
    return lines


def _better(scores: Scores, others: Scores) -> Estimate:
    return confidence_interval(probability_of_improvement, scores, others, bounds=(0, 1))


def _improvement(arm: str, base: str, probability: Estimate) -> str:
    return f"probability that a run of {arm} scores higher than a run of {base}: {_interval(probability, '.2f')}"


def _differences(games: Games, arm: str) -> dict[str, Estimate]:
    """Return, for each game, an arm's mean normalised score minus that of the first arm."""
    own, base = games.scores[arm], next(iter(games.scores.values()))
    return {
        name: confidence_interval(lambda a, b: a.mean() - b.mean(), own[:, [place]], base[:, [place]])
        for place, name in enumerate(games.names)
    }


def _tally(differences: dict[str, Estimate]) -> str:
    """Count the games in which an arm is better and worse, as Liu et al. (2018) do."""
    if all(np.isnan(estimate.low) for estimate in differences.values()):
        higher, lower = (sum(sign * e.value > 0 for e in differences.values()) for sign in (1, -1))
        equal = len(differences) - higher - lower
        return f"higher in {higher}, lower in {lower}, equal in {equal} games; no intervals to rule out chance"
    higher = sum(estimate.low > 0 for estimate in differences.values())
    lower = sum(estimate.high < 0 for estimate in differences.values())
    rest = len(differences) - higher - lower
    return f"better in {higher}, worse in {lower}, undecided in {rest} games"


def _caveats(finished: Sequence[Result]) -> list[str]:
    """Explain the intervals, or why there are none."""
    fewest = min(Counter((result.job.value, result.job.arm) for result in finished).values())
    missing = f"too few seeds for intervals: they need at least {MIN_RUNS}, and some arm has {fewest}"
    return [missing if fewest < MIN_RUNS else MEANING]


def _interval(estimate: Estimate, form: str) -> str:
    if np.isnan(estimate.low):
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _many(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _draw_aggregates(aggregates: dict[str, dict[str, Estimate]], count: str) -> Figure:
    """Draw each aggregate with its interval, arm by arm (Agarwal et al., 2021, figure 9)."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import MaxNLocator

    arms = list(next(iter(aggregates.values())))
    figure = Figure(figsize=(11, 1.4 + 0.5 * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(aggregates), sharey=True)
    for axes, (name, of_arms) in zip(panels, aggregates.items(), strict=True):
        for place, (arm, estimate) in enumerate(of_arms.items()):
            if not np.isnan(estimate.low):
                width = estimate.high - estimate.low
                axes.barh(place, width, 0.6, left=estimate.low, color=ARM_COLOURS[arm], alpha=0.35)
            axes.plot([estimate.value] * 2, [place - 0.3, place + 0.3], color=ARM_COLOURS[arm], linewidth=2.5)
        axes.set(title=name, xlabel="normalised score")
        axes.use_sticky_edges = False  # bars do not begin at the edge
        axes.autoscale_view()
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.suptitle(f"All games ({count})")
    return figure


def _draw_games(differences: dict[str, dict[str, Estimate]], base: str) -> Figure:
    """Draw each arm's difference to the first arm's mean normalised score, sorted by game from best to worst."""
    from matplotlib.figure import Figure

    first = next(iter(differences.values()))
    names = sorted(first, key=lambda name: first[name].value, reverse=True)
    thickness = 0.8 / len(differences)
    figure = Figure(figsize=(8, 1.4 + 0.38 * len(names) * max(1, len(differences) / 1.5)), layout="constrained")
    axes = figure.subplots()
    for number, (arm, by_game) in enumerate(differences.items()):
        places = np.arange(len(names)) + (number - (len(differences) - 1) / 2) * thickness
        values = np.array([by_game[name].value for name in names])
        axes.barh(places, values, thickness * 0.9, color=ARM_COLOURS[arm], alpha=0.8, label=f"{arm} - {base}")
        ends = np.array([[by_game[name].low, by_game[name].high] for name in names])
        known = ~np.isnan(ends[:, 0])
        axes.hlines(places[known], ends[known, 0], ends[known, 1], color="black", linewidth=1.2)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel="difference of mean normalised scores", title="Each game: difference to the first arm")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(differences))  # inside it would cover a bar
    return figure
