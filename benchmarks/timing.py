"""Time functions in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def in_turns(
    runs: Mapping[str, Callable[[], object]], seconds: float, device: str = "cpu", least: int = 5
) -> dict[str, list[float]]:
    """Time functions in turns; return the seconds that each took, round by round.

    Args:
        runs: Functions by name. Their order is fixed, so that none runs twice in a row, with warm caches.
        seconds: Duration of the measurement, after three rounds that do not count.
        device: Device to synchronise with before the clock is read.
        least: Smallest number of rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    number, end = -3, 0.0  # rounds below 0 do not count
    while number < least or time.perf_counter() < end:
        if number == 0:
            end = time.perf_counter() + seconds
        for name, once in runs.items():
            _synchronize(device)
            start = time.perf_counter()
            once()
            _synchronize(device)
            if number >= 0:
                times[name].append(time.perf_counter() - start)
        number += 1
    return times


def best_times(repeats: int, *runs: Callable[[], object]) -> list[float]:
    """Return the shortest CPU time of each function, in seconds, which excludes other programs; they take turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, own in zip(runs, times, strict=True):
            start = time.process_time()
            run()
            own.append(time.process_time() - start)
    return [min(own) for own in times]


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median seconds of each function."""
    return {name: statistics.median(own) for name, own in times.items()}


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the ratios of each round, which the load of a whole round does not affect."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def verdict(is_met: bool) -> str:
    """Return the word for a bar that was met or missed."""
    return "met" if is_met else "missed"
