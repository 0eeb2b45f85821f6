"""Seeds that are far apart for neighbouring numbers."""

from __future__ import annotations


def mix_seeds(*numbers: int) -> int:
    """A seed in ``[0, 2**63)`` that depends on all of ``numbers``: the same everywhere, far apart for close numbers."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64, chained
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state % 2**63
