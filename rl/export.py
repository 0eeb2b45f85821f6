"""Forms of a trained policy for ``export``: networks of plain tensors, and files for Stable-Baselines3."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rl.learning.actions import values_and_logits
from rl.plain_policy import export_plain_zip
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
    """Write ``policy.zip`` (Stable-Baselines3's), ``policy_plain.zip`` and ``policy.safe.zip``, and load them again.

    ``policy_plain.zip`` opens without this package. Moves the policy to the CPU.

    Returns for each file the largest difference of the loaded policy's logits for these observations, uint8
    ``(B, C, H, W)`` on the CPU.
    """
    of_sb3, plain, safe = (folder / f"policy{end}.zip" for end in ("", "_plain", ".safe"))
    folder.mkdir(parents=True, exist_ok=True)
    expected = values_and_logits(algorithm.policy.cpu(), observations)[1]
    export_zip(algorithm, of_sb3)
    export_plain_zip(algorithm, plain)
    export_safe(algorithm, safe)
    with torch.no_grad():
        small = {"buffer_size": 1}  # DQN's replay buffer would take gigabytes
        policies = {
            path: type(algorithm).load(path, device="cpu", custom_objects=small).policy for path in (of_sb3, plain)
        }
        policies[safe] = load_safe(safe)
        return {
            path: float((values_and_logits(policy, observations)[1] - expected).abs().max())
            for path, policy in policies.items()
        }
