"""Save a policy as a zip that plain Stable-Baselines3 (SB3) opens, without this package.

The policy in it is SB3's own ``CnnPolicy``. Coordinates add a constant map to the outputs of a convolution, since
observations have one size; the maps are stored in place of the coordinate weights.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.policies import ActorCriticCnnPolicy, BasePolicy
from stable_baselines3.dqn.policies import CnnPolicy
from torch import Tensor

from coordconv_apps.nn.coord_layer import CoordLayer
from rl import folded_extractor
from rl.extractors import CoordConvNatureCNN
from rl.folded_extractor import FoldedNatureCNN
from rl.policy_files import export_zip

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.base_class import BaseAlgorithm


def export_plain_zip(algorithm: BaseAlgorithm, path: Path | str) -> None:
    """Write SB3's zip with SB3's own ``CnnPolicy``, atomically. Programs without this package can open it.

    The policy acts like the algorithm's. A training that continues from it learns no coordinates: its maps are
    constant, and the optimizer starts anew. The code of one small class is in the file, so that the Python version must
    be the same; newer versions of torch and SB3 may be used.

    Args:
        algorithm: A2C, PPO or DQN with one of this package's policies for images, on the CPU.
        path: The file, with its suffix.

    Example:
        >>> import tempfile
        >>> from stable_baselines3 import A2C
        >>> from rl.envs.catch import CatchVecEnv
        >>> model = A2C("CoordConvCnnPolicy", CatchVecEnv(2), device="cpu")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_plain_zip(model, f"{folder}/policy.zip")
        ...     type(A2C.load(f"{folder}/policy.zip", device="cpu").policy).__name__
        'ActorCriticCnnPolicy'
    """
    cloudpickle.register_pickle_by_value(folded_extractor)
    try:
        export_zip(plain_algorithm(algorithm), path)
    finally:
        cloudpickle.unregister_pickle_by_value(folded_extractor)


def plain_algorithm(algorithm: BaseAlgorithm) -> BaseAlgorithm:
    """Return a copy of an algorithm with SB3's own ``CnnPolicy``, which acts like the algorithm's."""
    state = {name: value for name, value in algorithm.policy.state_dict().items() if not name.endswith("coord_weight")}
    shapes: dict[int, tuple[int, ...]] = {}
    features_dim = 0
    for name, module in algorithm.policy.named_modules(remove_duplicate=False):
        if isinstance(module, CoordConvNatureCNN):
            features_dim = module.features_dim
            for index, constant in _constant_maps(module, algorithm.observation_space.shape or ()).items():
                state[f"{name}.map_{index}"] = constant
                shapes[index] = tuple(constant.shape)
    arguments: dict[str, Any] = {
        **algorithm.policy_kwargs,
        "net_arch": algorithm.policy.net_arch,
        "features_extractor_class": FoldedNatureCNN,
        "features_extractor_kwargs": {"features_dim": features_dim, "maps": shapes},
    }
    plain = copy.copy(algorithm)
    kind: type[BasePolicy] = CnnPolicy if isinstance(algorithm, DQN) else ActorCriticCnnPolicy
    plain.policy_class, plain.policy_kwargs = kind, arguments
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
        plain.policy = kind(algorithm.observation_space, algorithm.action_space, algorithm.lr_schedule, **arguments)
    plain.policy.load_state_dict(state)
    plain.policy.set_training_mode(False)
    return plain


def _constant_maps(extractor: CoordConvNatureCNN, image: tuple[int, ...]) -> dict[int, Tensor]:
    """Return what the coordinates add to the outputs of convolutions, by their index: ``(channels, height, width)``."""
    maps: dict[int, Tensor] = {}
    features = torch.zeros(1, *image)
    with torch.no_grad():
        for index, layer in enumerate(extractor.cnn):
            inputs, features = features, layer(features)
            if isinstance(layer, CoordLayer):
                maps[index] = layer.coord_map(inputs, features).clone()
                if layer.bias is not None:
                    maps[index] -= layer.bias[:, None, None]  # the plain convolution adds it
    return maps
