"""Forms of a trained policy for ``export``: networks of plain tensors, and files for Stable-Baselines3."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor, nn

from coordconv_apps.utils.errors import one_line
from rl.learning.actions import values_and_logits
from rl.observations import Observations, stack_observations
from rl.plain_policy import export_plain_zip
from rl.policy_files import export_safe, export_zip, load_safe

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy
    from stable_baselines3.dqn.policies import QNetwork

_OUTPUTS = ("logits", "means", "q_values", "values")
_LARGEST = 1e3
_PIXELS = "pixels from 0 to 255; the frames of a stack are channels, the newest last"


def describe_inputs(space: spaces.Space[Any]) -> dict[str, str]:
    """Name and describe the inputs of both networks, for `ExportInterface`: ``observations``, or the keys of a Dict.

    >>> list(describe_inputs(spaces.Dict(image=spaces.Box(0, 255, (1, 36, 36)), logits=spaces.Discrete(3))))
    ['image', 'observations.logits']
    """
    if not isinstance(space, spaces.Dict):
        return {"observations": _PIXELS}
    return {
        f"observations.{key}" if key in _OUTPUTS else key: (
            _PIXELS if is_image_space(cast("spaces.Box", part)) else one_line(str(part))
        )
        for key, part in space.spaces.items()
    }


def example_observations(space: spaces.Space[Any], count: int) -> Observations:
    """Return random observations ``(count, ...)``, always the same ones."""
    space = copy.deepcopy(space)
    for part in space.spaces.values() if isinstance(space, spaces.Dict) else [space]:
        if isinstance(part, spaces.Box) and np.issubdtype(part.dtype, np.floating):
            for bounds in (part.low, part.high):  # those of some spaces are the largest numbers of their type
                np.copyto(bounds, bounds.clip(-_LARGEST, _LARGEST), where=np.isfinite(bounds))
    space.seed(0)
    return obs_as_tensor(stack_observations([space.sample() for _ in range(count)]), torch.device("cpu"))


class _Network(nn.Module):
    """Base of the networks: they take each part of Dict observations as one argument, in the order of the space."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.keys = list(space.spaces) if isinstance(space, spaces.Dict) else None

    def gather(self, parts: tuple[Tensor, ...]) -> Observations:
        """Return the observations that the arguments of ``forward`` are."""
        return parts[0] if self.keys is None else dict(zip(self.keys, parts, strict=True))


class LogitsAndValues(_Network):
    """Map observations ``(B, ...)`` to a policy's logits ``(B, A)`` and values ``(B,)``."""

    def __init__(self, policy: BasePolicy) -> None:
        super().__init__(policy.observation_space)
        self.policy: nn.Module = policy

    def forward(self, *observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and values."""
        values, logits = values_and_logits(cast("BasePolicy", self.policy), self.gather(observations))
        return logits, values


class QValues(_Network):
    """Map observations ``(B, ...)`` to Q-values ``(B, A)`` and the largest of them ``(B,)``."""

    def __init__(self, q_net: QNetwork) -> None:
        super().__init__(q_net.observation_space)
        self.q_net: nn.Module = q_net

    def forward(self, *observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q-values and the largest."""
        q = self.q_net(self.gather(observations))
        return q, q.amax(1)


def export_policy(algorithm: BaseAlgorithm, folder: Path) -> dict[Path, float]:
    """Write ``policy.zip`` (Stable-Baselines3's), ``policy_plain.zip`` and ``policy.safe.zip``, and load them again.

    ``policy_plain.zip`` opens without this package. Moves the policy to the CPU.

    Returns for each file the largest difference of the loaded policy's logits for some random observations.
    """
    observations = example_observations(algorithm.observation_space, 2)
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
