"""Gather what charts and pictures of a comparison show, by arm."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from coordconv_apps.compare.results import Result, arms_of, headline_of
from coordconv_apps.report.curves import Curve, read_curves, worth_drawing
from coordconv_apps.report.pictures import find_pictures


def curves_to_draw(results: Sequence[Result]) -> dict[str, dict[str, list[Curve]]]:
    """Return the curves of all finished trainings by metric and arm, as `worth_drawing` chooses and orders metrics.

    Every metric has all arms.
    """
    arms = arms_of(results)
    found: dict[str, dict[str, list[Curve]]] = {}
    for result in results:
        if not result.error and result.fit_folder is not None:
            for name, curve in read_curves(result.fit_folder).items():
                found.setdefault(name, {arm: [] for arm in arms})[result.job.arm].append(curve)
    of_all_arms = {name: list(chain(*of_arms.values())) for name, of_arms in found.items()}
    return {name: found[name] for name in worth_drawing(of_all_arms, headline_of(results))}


def final_values(results: Sequence[Result], name: str) -> dict[str, dict[int, float]]:
    """Return a test metric of all finished runs by arm and seed; all arms are there."""
    found: dict[str, dict[int, float]] = {arm: {} for arm in arms_of(results)}
    for result in results:
        if not result.error and name in result.metrics:
            found[result.job.arm][result.job.seed] = result.metrics[name]
    return found


def pictures_by_arm(results: Sequence[Result]) -> tuple[int | None, Mapping[str, Mapping[str, Path]]]:
    """Return the first seed that all arms finished, and its pictures by arm and name, those of the test first.

    The seed is None, and there are no pictures, if there is no such seed.
    """
    arms = arms_of(results)
    finished = {(result.job.seed, result.job.arm): result for result in results if not result.error}
    seeds = sorted({seed for seed, _ in finished if all((seed, arm) in finished for arm in arms)})
    if not seeds:
        return None, {}
    return seeds[0], {arm: find_pictures(reversed(finished[seeds[0], arm].folders)) for arm in arms}
