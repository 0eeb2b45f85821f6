"""Stable-Baselines3 (SB3) policies with coordinates in their convolutions and the heads of SB3's own policies.

    A2C(CoordConvCnnPolicy, env)
    PPO("CoordConvCnnPolicy", env, policy_kwargs=dict(features_extractor_kwargs=dict(coords="xyr", where="all")))
    DQN(CoordConvDQNPolicy, env)

Importing `rl` registers the names. In RL Zoo's hyperparameter files, ``--gym-packages rl`` does it::

    atari:
      policy: 'CoordConvCnnPolicy'
      policy_kwargs: "dict(features_extractor_kwargs=dict(coords='xyr', where='all'))"

RL Zoo evaluates the string as Python. To use one of SB3's own policies, name the extractor and the empty head::

      policy: 'CnnPolicy'
      policy_kwargs: "dict(features_extractor_class=__import__('rl').CoordConvNatureCNN, net_arch=[])"

Weights of SB3's own policies can be loaded. The coordinate weights become 0, so that the agent acts as before::

    model.policy.load_state_dict(plain.policy.state_dict())

``model.set_parameters`` works too, but without the state of the optimizer, which has other parameters::

    model.set_parameters({"policy": plain.get_parameters()["policy"]}, exact_match=False)
"""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import CnnPolicy as DQNCnnPolicy
from stable_baselines3.dqn.policies import MultiInputPolicy as DQNMultiInputPolicy
from torch import nn

from coordconv_apps.nn.coord_layer import CoordLayer
from rl.extractors import CoordConvCombinedExtractor, CoordConvNatureCNN, orthogonal_coord_weight_


class _CoordPolicy(BasePolicy):
    """Base of all policies: the feature extractor, and heads as small as those on SB3's NatureCNN.

    SB3 adds two hidden layers to a head after any extractor but NatureCNN, subclasses of NatureCNN included.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **options: Any,  # noqa: ANN401 - passed to Stable-Baselines3
    ) -> None:
        extractor = self.extractor_class if features_extractor_class is None else features_extractor_class
        if net_arch is None and issubclass(extractor, NatureCNN):
            net_arch = []
        super().__init__(
            observation_space, action_space, lr_schedule, net_arch, features_extractor_class=extractor, **options
        )


class _CoordActorCriticPolicy(_CoordPolicy, ActorCriticPolicy):
    """Base of the policies of A2C and PPO: initialisation of coordinate weights, and arguments in a saved policy."""

    @staticmethod
    def init_weights(module: nn.Module, gain: float = 1) -> None:
        """Initialise one layer orthogonally as SB3 does, its coordinate weight included."""
        ActorCriticPolicy.init_weights(module, gain)
        if isinstance(module, CoordLayer):
            orthogonal_coord_weight_(module, gain)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 omits this argument: a saved policy with two extractors would be loaded with the critic's for both.
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class CoordConvCnnPolicy(_CoordActorCriticPolicy, ActorCriticCnnPolicy):
    """Stable-Baselines3's ``CnnPolicy`` for A2C and PPO with a `rl.CoordConvNatureCNN`.

    The heads are those of SB3's ``CnnPolicy``: one linear layer each for actor and critic. With the same seed the two
    policies differ in the coordinate weights only, which are initialised as in a layer that concatenates coordinates:
    orthogonally, or with torch's default for ``ortho_init=False``.

    Args:
        observation_space: Images, as for `rl.CoordConvNatureCNN`.
        action_space: Any action space that SB3's ``CnnPolicy`` supports.
        lr_schedule: Learning rate as a function of the remaining progress, from 1 to 0.
        net_arch: Sizes of the hidden layers of both heads, or by head (``pi``, ``vf``). None: no hidden layers after a
            NatureCNN, with or without coordinates, and SB3's default after another extractor.
        features_extractor_class: Feature extractor. None: the class's own.
        **options: Other arguments of SB3's ``CnnPolicy``, such as ``features_extractor_kwargs=dict(coords="xyr",
            where="all")``, ``normalize_images`` or ``share_features_extractor``.

    Raises:
        ValueError: The observations are not images, or an argument of the extractor is not allowed.

    Example:
        >>> from stable_baselines3 import A2C
        >>> from rl.envs.catch import CatchVecEnv
        >>> model = A2C("CoordConvCnnPolicy", CatchVecEnv(2), device="cpu")
        >>> type(model.policy.features_extractor).__name__
        'CoordConvNatureCNN'
    """

    extractor_class = CoordConvNatureCNN


class CoordConvMultiInputPolicy(_CoordActorCriticPolicy, MultiInputActorCriticPolicy):
    """Stable-Baselines3's ``MultiInputPolicy`` for A2C and PPO with a `rl.CoordConvCombinedExtractor`.

    Observations are a Dict with images. The heads are those of SB3's ``MultiInputPolicy``, with two hidden layers of 64
    units. Arguments and the initialisation of the coordinate weights are those of `CoordConvCnnPolicy`.

    Example:
        >>> import numpy as np
        >>> space = spaces.Dict(image=spaces.Box(0, 255, (1, 36, 36), np.uint8), speed=spaces.Box(-1, 1, (2,)))
        >>> policy = CoordConvMultiInputPolicy(space, spaces.Discrete(3), lambda _: 1e-3)
        >>> action, _ = policy.predict(space.sample())
        >>> action.item() in range(3)
        True
    """

    extractor_class = CoordConvCombinedExtractor


class CoordConvDQNPolicy(_CoordPolicy, DQNCnnPolicy):
    """Stable-Baselines3's ``CnnPolicy`` for DQN with a `rl.CoordConvNatureCNN`.

    The head is that of SB3's ``CnnPolicy``, one linear layer. With the same seed the two policies differ in the
    coordinate weights only, which have torch's default initialisation of a layer that concatenates coordinates.
    Arguments are those of `CoordConvCnnPolicy`, with one list of sizes as ``net_arch``.

    Example:
        >>> from stable_baselines3 import DQN
        >>> from rl.envs.catch import CatchVecEnv
        >>> model = DQN(CoordConvDQNPolicy, CatchVecEnv(2), buffer_size=100, device="cpu")
        >>> type(model.q_net.features_extractor).__name__
        'CoordConvNatureCNN'
    """

    extractor_class = CoordConvNatureCNN


class CoordConvDQNMultiInputPolicy(_CoordPolicy, DQNMultiInputPolicy):
    """Stable-Baselines3's ``MultiInputPolicy`` for DQN with a `rl.CoordConvCombinedExtractor`.

    Observations are a Dict with images. The head is that of SB3's ``MultiInputPolicy``, with two hidden layers of 64
    units. Arguments are those of `CoordConvDQNPolicy`.
    """

    extractor_class = CoordConvCombinedExtractor


def register_policies() -> None:
    """Register the policies by name with A2C, PPO and DQN; importing `rl` does it.

    As with SB3's ``"CnnPolicy"``, one name stands for a different policy in each algorithm.
    """
    names: dict[str, type[BasePolicy]] = {
        "CoordConvCnnPolicy": CoordConvCnnPolicy,
        "CoordConvMultiInputPolicy": CoordConvMultiInputPolicy,
    }
    # New dicts, because another algorithm may share the present ones.
    A2C.policy_aliases = {**A2C.policy_aliases, **names}
    PPO.policy_aliases = {**PPO.policy_aliases, **names}
    DQN.policy_aliases = {
        **DQN.policy_aliases,
        **dict.fromkeys(("CoordConvCnnPolicy", "CoordConvDQNPolicy"), CoordConvDQNPolicy),
        **dict.fromkeys(("CoordConvMultiInputPolicy", "CoordConvDQNMultiInputPolicy"), CoordConvDQNMultiInputPolicy),
    }
