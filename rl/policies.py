"""Stable-Baselines3 (SB3) policies whose convolutions see coordinates, with the heads of SB3's own policies.

    A2C(CoordConvCnnPolicy, env)
    PPO("CoordConvCnnPolicy", env, policy_kwargs=dict(features_extractor_kwargs=dict(coords="xyr", where="all")))
    DQN(CoordConvDQNPolicy, env)

Names work once `rl` is imported, also from RL Zoo's files of hyperparameters, where ``--gym-packages rl`` imports it::

    atari:
      policy: 'CoordConvCnnPolicy'
      policy_kwargs: "dict(features_extractor_kwargs=dict(coords='xyr', where='all'))"

RL Zoo evaluates a string as Python. To keep one of SB3's own policies, name the class and the empty head::

      policy: 'CnnPolicy'
      policy_kwargs: "dict(features_extractor_class=__import__('rl').CoordConvNatureCNN, net_arch=[])"

Weights of SB3's own policies load as they are. Those of the coordinates become zero: the agent plays as it did::

    model.policy.load_state_dict(plain.policy.state_dict())

``model.set_parameters`` takes them too, but not the state of an optimizer that has other parameters::

    model.set_parameters({"policy": plain.get_parameters()["policy"]}, exact_match=False)
"""

from __future__ import annotations

from typing import Any

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
from rl.extractors import CoordConvCombinedExtractor, CoordConvNatureCNN, draw_orthogonal

NetArch = list[int] | dict[str, list[int]]
"""Sizes of hidden layers, of both heads or by name."""


class _CoordActorCriticPolicy(ActorCriticPolicy):
    """What the policies of A2C and PPO share: how coordinate weights are drawn, and what a saved policy holds."""

    @staticmethod
    def init_weights(module: nn.Module, gain: float = 1) -> None:
        """Draw one layer orthogonally as SB3 does, and its coordinate weight as `rl.extractors.draw_orthogonal`."""
        ActorCriticPolicy.init_weights(module, gain)
        if isinstance(module, CoordLayer):
            draw_orthogonal(module, gain)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves it out: a policy of two extractors would load as one of a single, the critic's.
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class CoordConvCnnPolicy(_CoordActorCriticPolicy, ActorCriticCnnPolicy):
    """Stable-Baselines3's ``CnnPolicy`` for A2C and PPO with a `rl.CoordConvNatureCNN`.

    The heads are those of SB3's ``CnnPolicy``: one linear layer each for actor and critic. With one seed the two
    policies differ in the coordinate weights alone. These start as in a layer that concatenates coordinates: as the
    coordinates' part of an orthogonal kernel, or of torch's own distribution with ``ortho_init=False``.

    Args:
        observation_space: Images, as for `rl.CoordConvNatureCNN`.
        action_space: Any that SB3's ``CnnPolicy`` takes.
        lr_schedule: Learning rate by the part of the training that is left, 1 to 0.
        net_arch: Sizes of hidden layers of the heads. None is no hidden layers after a NatureCNN, with or without
            coordinates, and SB3's default after another extractor.
        features_extractor_class: Another extractor instead.
        **options: All others of SB3's ``CnnPolicy``, such as ``features_extractor_kwargs=dict(coords="xyr",
            where="all")``, ``normalize_images`` or ``share_features_extractor``.

    Raises:
        ValueError: If the observations are no images, or the extractor's arguments are not allowed.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: NetArch | None = None,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] = CoordConvNatureCNN,
        **options: Any,  # noqa: ANN401 - handed on to Stable-Baselines3
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            _head(net_arch, features_extractor_class),
            features_extractor_class=features_extractor_class,
            **options,
        )


class CoordConvMultiInputPolicy(_CoordActorCriticPolicy, MultiInputActorCriticPolicy):
    """Stable-Baselines3's ``MultiInputPolicy`` for A2C and PPO with a `rl.CoordConvCombinedExtractor`.

    The heads are those of SB3's ``MultiInputPolicy``, with two hidden layers of 64 units. Coordinate weights start as
    in `CoordConvCnnPolicy`.

    Args:
        observation_space: A Dict with images in it, as for `rl.CoordConvCombinedExtractor`.
        action_space: Any that SB3's ``MultiInputPolicy`` takes.
        lr_schedule: Learning rate by the part of the training that is left, 1 to 0.
        net_arch: Sizes of hidden layers of the heads; None is SB3's default.
        features_extractor_class: Another extractor instead.
        **options: All others of SB3's ``MultiInputPolicy``.

    Raises:
        ValueError: If no observation is an image, or the extractor's arguments are not allowed.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: NetArch | None = None,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] = CoordConvCombinedExtractor,
        **options: Any,  # noqa: ANN401 - handed on to Stable-Baselines3
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            features_extractor_class=features_extractor_class,
            **options,
        )


class CoordConvDQNPolicy(DQNCnnPolicy):
    """Stable-Baselines3's ``CnnPolicy`` for DQN with a `rl.CoordConvNatureCNN`.

    The head is that of SB3's ``CnnPolicy``, one linear layer. With one seed the two policies differ in the coordinate
    weights alone, which start as torch draws those of a layer that concatenates coordinates.

    Args:
        observation_space: Images, as for `rl.CoordConvNatureCNN`.
        action_space: The actions.
        lr_schedule: Learning rate by the part of the training that is left, 1 to 0.
        net_arch: Sizes of hidden layers of the head, as for `CoordConvCnnPolicy`.
        features_extractor_class: Another extractor instead.
        **options: All others of SB3's ``CnnPolicy``.

    Raises:
        ValueError: If the observations are no images, or the extractor's arguments are not allowed.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] = CoordConvNatureCNN,
        **options: Any,  # noqa: ANN401 - handed on to Stable-Baselines3
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            _head(net_arch, features_extractor_class),
            features_extractor_class=features_extractor_class,
            **options,
        )


class CoordConvDQNMultiInputPolicy(DQNMultiInputPolicy):
    """Stable-Baselines3's ``MultiInputPolicy`` for DQN with a `rl.CoordConvCombinedExtractor`.

    The head is that of SB3's ``MultiInputPolicy``, with two hidden layers of 64 units.

    Args:
        observation_space: A Dict with images in it, as for `rl.CoordConvCombinedExtractor`.
        action_space: The actions.
        lr_schedule: Learning rate by the part of the training that is left, 1 to 0.
        net_arch: Sizes of hidden layers of the head; None is SB3's default.
        features_extractor_class: Another extractor instead.
        **options: All others of SB3's ``MultiInputPolicy``.

    Raises:
        ValueError: If no observation is an image, or the extractor's arguments are not allowed.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] = CoordConvCombinedExtractor,
        **options: Any,  # noqa: ANN401 - handed on to Stable-Baselines3
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            features_extractor_class=features_extractor_class,
            **options,
        )


def _head(net_arch: Any, features_extractor_class: type[BaseFeaturesExtractor]) -> Any:  # noqa: ANN401 - lists or dicts
    """Hidden layers of a head: SB3 gives none to NatureCNN itself, but two to any other class, even one made of it."""
    return [] if net_arch is None and issubclass(features_extractor_class, NatureCNN) else net_arch


def register_policies() -> None:
    """Make the policies known to A2C, PPO and DQN by name, as SB3's own are; importing `rl` does it.

    As with SB3's ``"CnnPolicy"``, one name stands for each algorithm's own policy.
    """
    names: dict[str, type[BasePolicy]] = {
        "CoordConvCnnPolicy": CoordConvCnnPolicy,
        "CoordConvMultiInputPolicy": CoordConvMultiInputPolicy,
    }
    dqn_names: dict[str, type[BasePolicy]] = {
        "CoordConvCnnPolicy": CoordConvDQNPolicy,
        "CoordConvMultiInputPolicy": CoordConvDQNMultiInputPolicy,
        "CoordConvDQNPolicy": CoordConvDQNPolicy,
        "CoordConvDQNMultiInputPolicy": CoordConvDQNMultiInputPolicy,
    }
    # New dicts: an algorithm of someone else's may hold the old ones as its own.
    A2C.policy_aliases = {**A2C.policy_aliases, **names}
    PPO.policy_aliases = {**PPO.policy_aliases, **names}
    DQN.policy_aliases = {**DQN.policy_aliases, **dqn_names}
