"""The private attributes of Stable-Baselines3 that are used here are still there, and mean what they did."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.policies import ActorCriticCnnPolicy

from rl.sb3_internals import UNNEEDED_STATE, has_own_predict
from tests.rl.tiny import make_a2c


def test_a_policy_that_chooses_its_actions_by_itself_is_recognised() -> None:
    class First(ActorCriticCnnPolicy):
        def _predict(self, observation: Any, deterministic: bool = False) -> Any:  # noqa: ANN401  # as in SB3
            return super()._predict(observation, deterministic) * 0

    plain, own = (make_a2c(policy=policy).policy for policy in ("CnnPolicy", First))
    assert not has_own_predict(plain)
    assert has_own_predict(own)


def test_attributes_that_are_not_saved_exist() -> None:
    assert set(UNNEEDED_STATE) <= vars(make_a2c()).keys()
