"""Save a policy as a zip that plain Stable-Baselines3 (SB3) opens, without this package.

The policy in it is SB3's own ``CnnPolicy`` or ``MultiInputPolicy``. Coordinates add a constant map to the outputs of a
convolution, since observations have one size; the maps are stored in place of the coordinate weights.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from coordconv_apps.nn.coord_layer import CoordLayer
from rl import folded_extractor
from rl.extractors import CoordConvNatureCNN
from rl.folded_extractor import FoldedCombinedExtractor, FoldedNatureCNN
from rl.policy_files import export_zip

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.base_class import BaseAlgorithm


def export_plain_zip(algorithm: BaseAlgorithm, path: Path | str) -> None:
    """Write SB3's zip with SB3's own policy, atomically. Programs without this package can open it.

    The policy acts like the algorithm's. A training that continues from it learns no coordinates: its maps are
    constant, and the optimizer starts anew. The code of two small classes is in the file, so that the Python version
    must be the same; newer versions of torch and SB3 may be used.

    Args:
        algorithm: A2C, PPO or DQN with one of this package's policies, on the CPU.
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
    """Return a copy of an algorithm with SB3's own policy for its observations, which acts like the algorithm's."""
    space = algorithm.observation_space
    state = {name: value for name, value in algorithm.policy.state_dict().items() if not name.endswith("coord_weight")}
    shapes: dict[str, dict[int, tuple[int, ...]]] = {}  # by the key of the image in a Dict
    features_dim = 0
    for name, module in algorithm.policy.named_modules(remove_duplicate=False):
        if isinstance(module, CoordConvNatureCNN):
            features_dim, key = module.features_dim, name.rpartition(".")[2]
            image = space[key] if isinstance(space, spaces.Dict) else space
            maps = _constant_maps(module, image.shape or ())
            state |= {f"{name}.map_{index}": constant for index, constant in maps.items()}
            shapes[key] = {index: tuple(constant.shape) for index, constant in maps.items()}
    arguments: dict[str, Any] = {**algorithm.policy_kwargs, "net_arch": algorithm.policy.net_arch}
    if isinstance(space, spaces.Dict):
        kind = algorithm.policy_aliases["MultiInputPolicy"]
        arguments["features_extractor_class"] = FoldedCombinedExtractor
        arguments["features_extractor_kwargs"] = {"maps": shapes, "cnn_output_dim": features_dim}
    else:
        kind = algorithm.policy_aliases["CnnPolicy"]
        arguments["features_extractor_class"] = FoldedNatureCNN
        arguments["features_extractor_kwargs"] = {"maps": next(iter(shapes.values())), "features_dim": features_dim}
    exploration = {"use_sde": algorithm.use_sde} if isinstance(algorithm, OnPolicyAlgorithm) else {}
    plain = copy.copy(algorithm)
    plain.policy_class, plain.policy_kwargs = kind, arguments
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
        plain.policy = kind(space, algorithm.action_space, algorithm.lr_schedule, **exploration, **arguments)
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
