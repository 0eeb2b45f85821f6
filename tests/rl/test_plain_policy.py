"""The exported policy for plain Stable-Baselines3 needs nothing of this package, and acts like the policy itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import A2C

from rl import CoordConvCnnPolicy
from rl.learning.actions import values_and_logits
from rl.plain_policy import export_plain_zip, plain_algorithm
from tests.rl.players import make_player, observe
from tests.rl.tiny import make_a2c, make_env

WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["rl"] = sys.modules["coordconv_apps"] = None  # as if they were not installed
import numpy as np, stable_baselines3
folder = sys.argv[1]
for kind in sys.argv[2:]:
    algorithm = stable_baselines3.DQN if "dqn" in kind else stable_baselines3.A2C
    model = algorithm.load(f"{folder}/{kind}.zip", device="cpu")
    seen = dict(np.load(f"{folder}/{kind}.npz"))
    expected = seen.pop("actions")
    actions, _ = model.predict(seen if "dict" in kind else seen["image"], deterministic=True)
    np.testing.assert_allclose(actions, expected, atol=1e-4)
    model.save(f"{folder}/again.zip")
    print(type(model.policy).__module__, type(model.policy).__name__)
"""


def test_plain_zip_opens_and_plays_without_this_package(tmp_path: Path) -> None:
    kinds = ("a2c", "all", "dqn", "continuous", "dict", "dqn dict")
    for kind in kinds:
        player = make_player(kind)
        seen = observe(player)
        parts = seen if isinstance(seen, dict) else {"image": seen}
        np.savez(tmp_path / f"{kind}.npz", actions=player.predict(seen, deterministic=True)[0], **parts)
        export_plain_zip(player, tmp_path / f"{kind}.zip")
    command = [sys.executable, "-c", WITHOUT_THIS_PACKAGE, str(tmp_path), *kinds]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    own = "stable_baselines3.common.policies ActorCriticCnnPolicy"
    own_dict = own.replace("ActorCriticCnnPolicy", "MultiInputActorCriticPolicy")
    of_dqn = "stable_baselines3.dqn.policies CnnPolicy"
    of_dqn_dict = "stable_baselines3.dqn.policies MultiInputPolicy"
    assert done.stdout.splitlines() == [own, own, of_dqn, own, own_dict, of_dqn_dict]


def test_a_plain_policy_gives_the_same_values_and_leaves_the_other_alone() -> None:
    player = make_player("all")
    before = {name: value.clone() for name, value in player.policy.state_dict().items()}
    tensors, _ = player.policy.obs_to_tensor(observe(player))
    with torch.no_grad():
        for ours, plain in zip(
            values_and_logits(player.policy, tensors),
            values_and_logits(plain_algorithm(player).policy, tensors),
            strict=True,
        ):
            torch.testing.assert_close(plain, ours, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in player.policy.state_dict().items())
    assert player.policy_class is CoordConvCnnPolicy


def test_a_policy_with_state_dependent_exploration_is_exported(tmp_path: Path) -> None:
    player = make_a2c(make_env(actions=0), policy=CoordConvCnnPolicy, use_sde=True)
    export_plain_zip(player, tmp_path / "policy.zip")
    actions, expected = (
        one.predict(observe(player), deterministic=True)[0] for one in (A2C.load(tmp_path / "policy.zip"), player)
    )
    np.testing.assert_allclose(actions, expected, atol=1e-5)
