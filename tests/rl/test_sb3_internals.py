"""The private attributes of Stable-Baselines3 that are used here are still there, and mean what they did."""

from __future__ import annotations

import inspect
from typing import Any

from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.policies import ActorCriticCnnPolicy

from rl.sb3_internals import UNNEEDED_STATE, get_updates, has_own_predict, set_updates
from tests.rl.tiny import make_a2c, make_dqn


def test_a_policy_that_chooses_its_actions_by_itself_is_recognised() -> None:
    class First(ActorCriticCnnPolicy):
        def _predict(self, observation: Any, deterministic: bool = False) -> Any:  # noqa: ANN401  # as in SB3
            return super()._predict(observation, deterministic) * 0

    plain, own = (make_a2c(policy=policy).policy for policy in ("CnnPolicy", First))
    assert not has_own_predict(plain)
    assert has_own_predict(own)


def test_attributes_that_are_not_saved_exist() -> None:
    assert set(UNNEEDED_STATE) <= vars(make_a2c()).keys()


def test_algorithms_count_their_updates() -> None:
    for algorithm in (make_a2c(), make_dqn()):
        assert get_updates(algorithm) == 0
        set_updates(algorithm, 3)
        assert algorithm._n_updates == 3


def test_networks_are_created_apart_from_the_object() -> None:
    for algorithm in (A2C, PPO, DQN):
        assert "_init_setup_model" in inspect.signature(algorithm).parameters
        assert callable(algorithm._setup_model)


def test_dqn_prepares_its_loop_by_the_private_method() -> None:
    parameters = list(inspect.signature(DQN._setup_learn).parameters)
    assert parameters[:4] == ["self", "total_timesteps", "callback", "reset_num_timesteps"]
    assert make_dqn()._n_calls == 0
