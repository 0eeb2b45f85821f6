"""Minibatches: any number of ranks has the samples that one has."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from rl.learning.minibatches import full_batch, minibatches, order_generator
from tests.rl.rollouts import ENVIRONMENTS, STEPS, as_rollout, random_buffer
from tests.rl.training import SIDE


def test_minibatches_of_two_processes_make_up_those_of_one() -> None:
    buffer = random_buffer()
    alone = list(minibatches(as_rollout(buffer), 8, order_generator(1, 0), normalize_advantage=True))
    parts = [
        list(
            minibatches(as_rollout(buffer, first, 2), 8, order_generator(1, 0), normalize_advantage=True, world_size=2)
        )
        for first in (0, 2)
    ]
    assert sorted(alone[0].log_probs.tolist()) != sorted(parts[0][0].log_probs.tolist())
    for number, batch in enumerate(alone):
        assert batch.size == 8
        assert sum(len(part[number].actions) for part in parts) == 8
        assert all(part[number].size == 4 for part in parts)
        for name in ("log_probs", "advantages", "values", "returns"):
            dealt = torch.cat([getattr(part[number], name) for part in parts])
            assert sorted(dealt.tolist()) == sorted(getattr(batch, name).tolist()), name
        assert batch.advantages.mean().item() == pytest.approx(0, abs=1e-6)
        assert batch.advantages.std().item() == pytest.approx(1, abs=1e-5)
    everything = torch.cat([batch.log_probs for batch in alone])
    assert sorted(everything.tolist()) == sorted(buffer.log_probs.flatten().tolist())


def test_samples_of_a_minibatch_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = random_buffer()
    rollout = as_rollout(buffer, first=1, number=2)
    samples = STEPS * ENVIRONMENTS
    monkeypatch.setattr(torch, "randperm", lambda number, generator: torch.arange(number))
    (batch,) = minibatches(rollout, samples, order_generator(1, 0), normalize_advantage=False, world_size=2)
    everything = full_batch(rollout, normalize_advantage=False, world_size=2)
    for own, other in zip(batch, everything, strict=True):
        torch.testing.assert_close(own, other)
    chosen = slice(1, 3)
    np.testing.assert_array_equal(batch.values.numpy(), buffer.values[:, chosen].flatten())
    np.testing.assert_allclose(batch.returns.numpy(), buffer.returns[:, chosen].flatten(), rtol=1e-6)
    images = cast("torch.Tensor", batch.observations)
    np.testing.assert_array_equal(images.numpy(), buffer.observations[:, chosen].reshape(-1, 1, SIDE, SIDE))
