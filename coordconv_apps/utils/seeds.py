"""Derive seeds from numbers, such as a seed, an epoch and the index of a worker."""

from __future__ import annotations


def mix_seeds(*numbers: int) -> int:
    """Return a seed in ``[0, 2**63)`` that depends on all ``numbers``: neighbouring numbers give unrelated seeds.

    >>> mix_seeds(0, 1) == mix_seeds(0, 1), mix_seeds(0, 1) == mix_seeds(1, 0)
    (True, False)
    """
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64, chained
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state % 2**63
