"""Forms of a trained policy for ``export``: networks of plain tensors, and files for Stable-Baselines3."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rl.learning.actions import values_and_logits
from rl.policy_files import export_safe, export_zip, load_safe

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy


OBSERVATIONS = {"observations": "pixels from 0 to 255; the frames of a stack are channels, the newest last"}
"""The input of both networks, for `ExportInterface`."""


class LogitsAndValues(nn.Module):
    """Map observations uint8 ``(B, C, H, W)`` to a policy's logits ``(B, A)`` and values ``(B,)``."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and values."""
        values, logits = values_and_logits(cast("BasePolicy", self.policy), observations)
        return logits, values


class QValues(nn.Module):
    """Map observations uint8 ``(B, C, H, W)`` to Q-values ``(B, A)`` and the largest of them ``(B,)``."""

    def __init__(self, q_net: nn.Module) -> None:
        super().__init__()
        self.q_net = q_net

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q-values and the largest."""
        q = self.q_net(observations)
        return q, q.amax(1)


def export_policy(algorithm: BaseAlgorithm, observations: Tensor, folder: Path) -> dict[Path, float]:
    """Write ``policy.zip`` (Stable-Baselines3's) and ``policy.safe.zip``, and load them again.

    Moves the policy to the CPU. Returns for each file the largest difference of the loaded policy's logits for these
    observations, uint8 ``(B, C, H, W)`` on the CPU.
    """
    of_sb3, safe = folder / "policy.zip", folder / "policy.safe.zip"
    folder.mkdir(parents=True, exist_ok=True)
    export_zip(algorithm, of_sb3)
    export_safe(algorithm, safe)
    with torch.no_grad():
        expected = values_and_logits(algorithm.policy.cpu(), observations)[1]
        # DQN's replay buffer would take gigabytes.
        loaded = type(algorithm).load(of_sb3, device="cpu", custom_objects={"buffer_size": 1})
        policies = {of_sb3: loaded.policy, safe: load_safe(safe)}
        return {
            path: float((values_and_logits(policy, observations)[1] - expected).abs().max())
            for path, policy in policies.items()
        }
