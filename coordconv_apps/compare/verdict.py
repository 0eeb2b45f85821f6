"""Say in a sentence what the figures of a comparison mean."""

import math
from collections.abc import Sequence

from coordconv_apps.compare.gather import final_values
from coordconv_apps.compare.results import Result, arms_of
from coordconv_apps.compare.tables import difference_text, headline_metric
from coordconv_apps.utils.statistics import MIN_RUNS, paired_difference


def verdict(results: Sequence[Result]) -> list[str]:
    """Return a sentence or two about each arm but the first: its difference from the first arm, and what it shows.

    They are about the headline metric in the test. If the test does not log it, they are about the first test metric,
    and say of no arm that it is better. There are none if the first arm has no value of the metric.
    """
    name = headline_metric(results)
    mode = next((result.mode for result in results if not result.error and result.test_headline == name), None)
    arms, values = arms_of(results), final_values(results, name)
    base = values[arms[0]] if arms else {}
    lines = []
    for arm in arms[1:] if base else ():
        seeds = [seed for seed in base if seed in values[arm]]
        if not seeds:
            lines.append(f"{name}: no seed has a value of both {arm} and {arms[0]}.")
            continue
        pairs = [base[seed] for seed in seeds], [values[arm][seed] for seed in seeds]
        difference, low, high = paired_difference(*pairs)
        shown = difference_text(*pairs, ".4g")
        relation = _relation(difference, mode)
        average, count = ("", "1 seed") if len(seeds) == 1 else (" on average", f"{len(seeds)} seeds")
        meaning = _meaning(low, high, len(seeds))
        lines.append(f"{name}: {arm} is {relation} {arms[0]}{average} ({shown}; {count}). {meaning}")
    return lines


def _relation(difference: float, mode: str | None) -> str:
    """Compare an arm with the first one in words, such as `better than`."""
    if difference == 0:
        return "equal to"
    if mode not in ("min", "max"):
        return "above" if difference > 0 else "below"
    return "better than" if (difference > 0) == (mode == "max") else "worse than"


def _meaning(low: float, high: float, seeds: int) -> str:
    if seeds < MIN_RUNS:
        return f"This may be chance: an interval needs {MIN_RUNS} seeds or more, such as --seeds 0 1 2."
    if math.isnan(low):
        return "All differences are equal, so there is no interval."
    if low <= 0 <= high:
        return f"The 95 % interval contains 0: these {seeds} seeds do not show which arm is better."
    return "The 95 % interval does not contain 0: the choice of seeds hardly explains the difference."
