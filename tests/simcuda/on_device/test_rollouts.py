"""The rollout collector keeps one pinned buffer for observations, and overwrites it in each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3 import A2C

from rl.learning import collector
from rl.learning.actions import action_noise, sample_actions
from rl.learning.timings import Timings
from tests.rl.training import Dots
from tests.simcuda.simulated import races

STEPS, GAMES = 10, 3


def collect(rollouts: int = 2) -> None:
    """Collect rollouts on the device."""
    policy = A2C("CnnPolicy", Dots(GAMES, 0), device="cuda").policy
    own = collector.Collector(Dots(GAMES, 7), STEPS, gamma=0.9, gae_lambda=0.8, device=torch.device("cuda"))
    for number in range(rollouts):
        own.collect(policy, action_noise(0, number, STEPS, GAMES, 2), Timings())


def test_observations_are_copied_before_the_next_ones_come() -> None:
    before = races()
    collect()
    assert races() == before


@pytest.mark.races
def test_without_waiting_for_the_actions_they_would_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: fetching the actions is what the collector waits with."""

    class Unfetched(torch.Tensor):
        """Actions whose ``cpu`` does not wait."""

        def cpu(self, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401  # torch's
            return torch.zeros(len(self), dtype=torch.int64)

    def unfetched(*args: Any) -> tuple[torch.Tensor, ...]:  # noqa: ANN401  # handed on
        actions, *others = sample_actions(*args)
        return actions.as_subclass(Unfetched), *others

    monkeypatch.setattr(collector, "sample_actions", unfetched)
    before = races()
    collect()
    assert races() > before
