"""The exported policy for plain Stable-Baselines3 needs nothing of this package, and acts like the policy itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from rl import CoordConvCnnPolicy
from rl.learning.actions import values_and_logits
from rl.plain_policy import export_plain_zip, plain_algorithm
from tests.rl.test_policy_files import make_player, observe

WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["rl"] = sys.modules["coordconv_apps"] = None  # as if they were not installed
import numpy as np, stable_baselines3
folder = sys.argv[1]
for kind, name in (("a2c", "A2C"), ("all", "A2C"), ("dqn", "DQN"), ("continuous", "A2C")):
    model = getattr(stable_baselines3, name).load(f"{folder}/{kind}.zip", device="cpu")
    actions, _ = model.predict(np.load(f"{folder}/images.npy"), deterministic=True)
    np.testing.assert_allclose(actions, np.load(f"{folder}/{kind}.npy"), atol=1e-4)
    model.save(f"{folder}/again.zip")
    print(type(model.policy).__module__, type(model.policy).__name__)
"""


def test_plain_zip_opens_and_plays_without_this_package(tmp_path: Path) -> None:
    for kind in ("a2c", "all", "dqn", "continuous"):
        player = make_player(kind)
        images = observe(player)
        np.save(tmp_path / "images.npy", images)
        np.save(tmp_path / f"{kind}.npy", player.predict(images, deterministic=True)[0])
        export_plain_zip(player, tmp_path / f"{kind}.zip")
    command = [sys.executable, "-c", WITHOUT_THIS_PACKAGE, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    own = "stable_baselines3.common.policies ActorCriticCnnPolicy"
    assert done.stdout.splitlines() == [own, own, "stable_baselines3.dqn.policies CnnPolicy", own]


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
