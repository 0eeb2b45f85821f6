"""Policies with coordinates in Stable-Baselines3's own algorithms: equal heads, training, saving, evaluation."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from coordconv_apps import coordconv_layers
from rl import (
    CoordConvCnnPolicy,
    CoordConvDQNMultiInputPolicy,
    CoordConvDQNPolicy,
    CoordConvMultiInputPolicy,
    CoordConvNatureCNN,
)
from rl.learning.actions import values_and_logits
from rl.policies import register_policies
from rl.policy_files import export_zip
from tests.rl.tiny import Kind, Stripe

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"features_dim": 16}
OPTIONS: dict[type[BaseAlgorithm], dict[str, Any]] = {
    A2C: {"n_steps": 4},
    PPO: {"n_steps": 8, "batch_size": 4, "n_epochs": 2},
    DQN: {"buffer_size": 40, "learning_starts": 6, "batch_size": 4, "train_freq": 2, "target_update_interval": 8},
}
ALGORITHMS = list(OPTIONS)
EACH_POLICY = pytest.mark.parametrize("algorithm", [A2C, DQN])
"""PPO has the policies of A2C."""


def stripe(kind: Kind = "uint8", shape: tuple[int, int, int] = (36, 40, 1)) -> Stripe:
    """A tiny game; its images have their channels last, unless asked for others."""
    return Stripe(kind, shape, actions=2)


def make(
    algorithm: type[BaseAlgorithm],
    policy: str | type[BasePolicy] = "CoordConvCnnPolicy",
    env: gym.Env[Any, Any] | None = None,
    **policy_kwargs: Any,  # noqa: ANN401 - handed on
) -> BaseAlgorithm:
    """A tiny agent, always with the same seed."""
    options = OPTIONS[algorithm]
    env = stripe() if env is None else env
    return algorithm(policy, env, policy_kwargs=policy_kwargs, seed=5, device="cpu", **options)


def small(**kwargs: str) -> dict[str, Any]:
    """Arguments of a small NatureCNN, with or without those of its coordinates."""
    return {"features_extractor_kwargs": {**SMALL, **kwargs}}


def shapes(policy: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in policy.named_parameters()}


def coord_weights(policy: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in policy.named_parameters() if name.endswith("coord_weight")}


# ------------------------------------------------------------------ the arms of a comparison


@pytest.mark.parametrize(
    ("algorithm", "kind", "kwargs"),
    [
        (A2C, "uint8", {}),
        (A2C, "uint8", {"share_features_extractor": False}),
        (A2C, "dict", {}),
        (PPO, "uint8", {"ortho_init": False, "net_arch": [8]}),
        (DQN, "uint8", {}),
        (DQN, "uint8", {"net_arch": [8]}),
        (DQN, "dict", {}),
    ],
)
def test_arms_differ_in_the_coordinate_weights_alone(
    algorithm: type[BaseAlgorithm], kind: Kind, kwargs: dict[str, Any]
) -> None:
    name, env = "MultiInputPolicy" if kind == "dict" else "CnnPolicy", stripe(kind)
    size = {"cnn_output_dim" if kind == "dict" else "features_dim": 16}
    coordinates = {"coords": "xyr", "where": "all"}
    plain = make(algorithm, name, env, features_extractor_kwargs=size, **kwargs).policy
    ours = make(algorithm, f"CoordConv{name}", env, features_extractor_kwargs=size | coordinates, **kwargs).policy
    weights = dict(ours.named_parameters())
    added = {name: weights.pop(name) for name in coord_weights(ours)}
    assert weights.keys() == dict(plain.named_parameters()).keys()
    for name, weight in plain.named_parameters():
        assert torch.equal(weights[name], weight), name
    networks = 2 if algorithm is DQN or "share_features_extractor" in kwargs else 1
    assert sum(weight.numel() for weight in added.values()) == networks * 3 * (32 * 64 + 64 * 16 + 64 * 9)
    trained, trained_plain = (
        sum(len(group["params"]) for group in policy.optimizer.param_groups) for policy in (ours, plain)
    )
    assert trained - trained_plain == (3 if algorithm is DQN else 3 * networks)  # DQN's target is not trained


@EACH_POLICY
def test_sb3s_own_policy_takes_the_extractor_and_needs_an_empty_net_arch(
    algorithm: type[BaseAlgorithm],
) -> None:
    by_class = {"features_extractor_class": CoordConvNatureCNN, **small()}
    ours = shapes(make(algorithm, "CoordConvCnnPolicy", **small()).policy)
    assert shapes(make(algorithm, "CoordConvCnnPolicy", **by_class).policy) == ours
    assert shapes(make(algorithm, "CnnPolicy", **by_class, net_arch=[]).policy) == ours
    # What the documentation warns of.
    head = "q_net.q_net" if algorithm is DQN else "mlp_extractor.policy_net"
    assert shapes(make(algorithm, "CnnPolicy", **by_class).policy)[f"{head}.0.weight"] == (64, 16)


def test_lines_for_rl_zoos_files_give_equal_heads() -> None:
    """Those of the documentation, evaluated as RL Zoo does."""
    documented = (sys.modules["rl.policies"].__doc__ or "").splitlines()
    lines = [line.strip() for line in documented if line.strip().startswith(("policy: ", "policy_kwargs: "))]
    entries = [yaml.safe_load("\n".join(pair)) for pair in zip(lines[::2], lines[1::2], strict=True)]
    assert [entry["policy"] for entry in entries] == ["CoordConvCnnPolicy", "CnnPolicy"]
    for entry in entries:
        kwargs = eval(entry["policy_kwargs"])
        policy = make(PPO, entry["policy"], **kwargs).policy
        assert isinstance(policy, ActorCriticPolicy)
        assert policy.net_arch == []
        assert isinstance(policy.features_extractor, CoordConvNatureCNN)
        layers = coordconv_layers(policy.features_extractor)
        assert len(layers) == (3 if "all" in entry["policy_kwargs"] else 1)


def test_heads_after_other_extractors_are_sb3s() -> None:
    flat = gym.wrappers.FlattenObservation(stripe())
    for algorithm, policy in ((A2C, CoordConvCnnPolicy), (DQN, CoordConvDQNPolicy)):
        nature = make(algorithm, policy, features_extractor_class=NatureCNN, **small()).policy
        assert shapes(nature) == shapes(make(algorithm, "CnnPolicy", **small()).policy)
        other = shapes(make(algorithm, policy, flat, features_extractor_class=FlattenExtractor).policy)
        assert other == shapes(make(algorithm, "MlpPolicy", flat).policy)


@pytest.mark.parametrize("policy", ["CoordConvCnnPolicy", "CoordConvMultiInputPolicy"])
def test_coordinate_weights_of_actor_critics_are_drawn_orthogonally_like_their_convolutions(policy: str) -> None:
    env = stripe("dict" if "Multi" in policy else "uint8")

    def spread(ortho_init: bool) -> list[float]:
        weights = coord_weights(make(A2C, policy, env, ortho_init=ortho_init).policy).values()
        return [weight.square().mean().item() for weight in weights]

    fan_in = (1 + 2) * 64
    assert spread(True) == pytest.approx([2 / fan_in], rel=0.15)
    assert spread(False) == pytest.approx([1 / (3 * fan_in)], rel=0.15)


def test_actor_and_critic_with_extractors_of_their_own_start_differently() -> None:
    policy = make(A2C, share_features_extractor=False, **small()).policy
    actor, critic = coord_weights(policy).values()
    assert not torch.equal(actor, critic)


# ------------------------------------------------------------------ names


def test_names_are_known_to_each_algorithm_and_stand_for_its_own_policy() -> None:
    for algorithm in (A2C, PPO):
        assert isinstance(make(algorithm, "CoordConvCnnPolicy", **small()).policy, CoordConvCnnPolicy)
        assert algorithm.policy_aliases["CoordConvMultiInputPolicy"] is CoordConvMultiInputPolicy
        assert "CoordConvDQNPolicy" not in algorithm.policy_aliases
    for name in ("CoordConvCnnPolicy", "CoordConvDQNPolicy"):
        assert isinstance(make(DQN, name, **small()).policy, CoordConvDQNPolicy)
    for name in ("CoordConvMultiInputPolicy", "CoordConvDQNMultiInputPolicy"):
        assert DQN.policy_aliases[name] is CoordConvDQNMultiInputPolicy
    assert {"MlpPolicy", "CnnPolicy", "MultiInputPolicy"} <= A2C.policy_aliases.keys() & DQN.policy_aliases.keys()


def test_registration_leaves_the_dict_alone_that_others_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"MlpPolicy": ActorCriticPolicy}
    for algorithm in ALGORITHMS:
        monkeypatch.setattr(algorithm, "policy_aliases", shared)
    register_policies()
    assert list(shared) == ["MlpPolicy"]
    assert "CoordConvDQNPolicy" in DQN.policy_aliases
    assert "CoordConvDQNPolicy" not in PPO.policy_aliases


def test_importing_the_package_loads_neither_lightning_nor_emulators_and_makes_the_game_known() -> None:
    code = (
        "import sys, gymnasium, rl\n"
        "from rl.policy_files import load_safe\n"
        "heavy = ('lightning', 'ale_py', 'torchmetrics', 'matplotlib', 'rl.envs.catch')\n"
        "print([module for module in heavy if module in sys.modules])\n"
        "print(type(gymnasium.make('CoordConv/Catch-v0').unwrapped))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("[]\n<class 'rl.envs.catch.Catch'>\n", "")


# ------------------------------------------------------------------ training, saving, evaluation


@pytest.mark.parametrize(
    ("kind", "shape", "kwargs"),
    [
        ("uint8", (36, 40, 1), {}),
        ("float", (36, 40, 3), {"where": "all"}),
        ("dict", (1, 36, 40), {"coords": "xyr", "where": "all"}),
    ],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agents_train_are_evaluated_and_play_the_same_when_loaded(
    algorithm: type[BaseAlgorithm], kind: Kind, shape: tuple[int, int, int], kwargs: dict[str, str], tmp_path: Path
) -> None:
    env = stripe(kind, shape)
    policy = "CoordConvMultiInputPolicy" if kind == "dict" else "CoordConvCnnPolicy"
    size = {"cnn_output_dim" if kind == "dict" else "features_dim": 16}
    scaled = {"normalize_images": False} if kind == "float" else {}
    model = make(algorithm, policy, env, features_extractor_kwargs={**size, **kwargs}, **scaled)
    before = {name: weight.detach().clone() for name, weight in coord_weights(model.policy).items()}
    model.learn(16)
    for name, weight in coord_weights(model.policy).items():
        assert not torch.equal(weight, before[name]), f"{name} is trained"
    scores, lengths = evaluate_policy(model, DummyVecEnv([lambda: env]), 2, return_episode_rewards=True, warn=False)
    assert (np.array(scores) >= 0).all()
    assert (np.array(scores) <= lengths).all()

    model.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", env=stripe(kind, shape), device="cpu")
    state = model.policy.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in loaded.policy.state_dict().items())
    observations = [env.observation_space.sample() for _ in range(6)]
    actions = [model.predict(observation, deterministic=True)[0] for observation in observations]
    assert [loaded.predict(observation, deterministic=True)[0] for observation in observations] == actions
    loaded.learn(8, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 24


def test_agents_load_where_only_stable_baselines3_is_imported(tmp_path: Path) -> None:
    observations = np.random.default_rng(0).integers(256, size=(20, 36, 40, 1), dtype=np.uint8)
    np.save(tmp_path / "observations.npy", observations)
    expected = []
    for algorithm in ALGORITHMS:
        model = make(algorithm, **small(where="all"))
        model.learn(16)
        model.save(tmp_path / f"{algorithm.__name__}.zip")
        export_zip(model, tmp_path / f"{algorithm.__name__} exported.zip")
        expected += [str(model.predict(observations, deterministic=True)[0].tolist())] * 2
    code = """
import sys, numpy, stable_baselines3
assert "rl" not in sys.modules
observations = numpy.load(sys.argv[1] + "/observations.npy")
for name in ("A2C", "PPO", "DQN"):
    for file in (f"{name}.zip", f"{name} exported.zip"):
        model = getattr(stable_baselines3, name).load(f"{sys.argv[1]}/{file}", device="cpu")
        print(model.predict(observations, deterministic=True)[0].tolist())
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")


def values(policy: BasePolicy, observations: Tensor) -> Tensor:
    """What a policy thinks of its actions: log-probabilities and values, or Q-values."""
    with torch.no_grad():
        if isinstance(policy, ActorCriticPolicy):
            value, log_prob, _ = policy.evaluate_actions(observations, torch.zeros(len(observations)))
            return torch.cat([value, log_prob[:, None]], dim=1)
        return policy.q_net(observations)  # type: ignore[no-any-return, operator]  # a network


@pytest.mark.parametrize(("algorithm", "kwargs"), [(A2C, {}), (A2C, {"share_features_extractor": False}), (DQN, {})])
def test_a_policy_saved_alone_is_the_same_when_loaded(
    algorithm: type[BaseAlgorithm], kwargs: dict[str, Any], tmp_path: Path
) -> None:
    policy = make(algorithm, **small(coords="xyr"), **kwargs).policy
    observations = torch.randint(256, (5, 1, 36, 40), dtype=torch.uint8)
    expected = values(policy, observations)
    policy.save(str(tmp_path / "policy.pt"))
    assert torch.equal(values(type(policy).load(str(tmp_path / "policy.pt"), device="cpu"), observations), expected)
    assert torch.equal(values(copy.deepcopy(policy), observations), expected)


@EACH_POLICY
def test_acting_follows_every_update(algorithm: type[BaseAlgorithm]) -> None:
    """In evaluation the layers cache what coordinates add; an update of the weights is seen all the same."""
    model = make(algorithm, **small(where="all"))
    observations = torch.randint(256, (5, 1, 36, 40), dtype=torch.uint8)
    model.policy.set_training_mode(False)
    before = values(model.policy, observations)
    model.learn(16)
    model.policy.set_training_mode(False)
    after = values(model.policy, observations)
    assert not torch.allclose(after, before)
    assert torch.equal(values(copy.deepcopy(model.policy), observations), after), "copies cache nothing"


@EACH_POLICY
def test_weights_of_a_plain_agent_load_and_play_as_they_did(algorithm: type[BaseAlgorithm]) -> None:
    plain = make(algorithm, "CnnPolicy", **small()).policy
    ours = make(algorithm, **small(where="all")).policy
    observations = torch.randint(256, (5, 1, 36, 40), dtype=torch.uint8)
    assert not torch.allclose(values(ours, observations), values(plain, observations))
    ours.load_state_dict(plain.state_dict())
    assert not any(weight.any() for weight in coord_weights(ours).values())
    assert torch.allclose(values(ours, observations), values(plain, observations), atol=1e-6)


@EACH_POLICY
def test_parameters_of_a_plain_agent_are_set_without_its_optimizer(algorithm: type[BaseAlgorithm]) -> None:
    plain, ours = make(algorithm, "CnnPolicy", **small()), make(algorithm, **small(where="all"))
    expected = make(algorithm, **small(where="all"))
    plain.learn(16)
    expected.policy.load_state_dict(plain.policy.state_dict())
    parameters: Any = plain.get_parameters()  # SB3 declares it otherwise than it takes it
    ours.set_parameters({"policy": parameters["policy"]}, exact_match=False)
    torch.testing.assert_close(ours.policy.state_dict(), expected.policy.state_dict(), rtol=0, atol=0)
    before = coord_weights(copy.deepcopy(ours.policy))
    ours.learn(16)
    assert all(
        not torch.equal(weight, before[name])
        for name, weight in coord_weights(ours.policy).items()
        if "target" not in name
    )
    # An arm without coordinates is SB3's own, optimizer included.
    make(algorithm, **small(coords="none")).set_parameters(parameters)


# ------------------------------------------------------------------ bad input


@EACH_POLICY
@pytest.mark.parametrize(
    ("policy", "env", "kwargs", "message"),
    [
        ("CoordConvCnnPolicy", stripe("dict"), {}, "must be one image; for Dict observations use CoordConvMultiInput"),
        ("CoordConvMultiInputPolicy", stripe(), {}, "must be a Dict; for images alone use CoordConvCnnPolicy"),
        ("CoordConvCnnPolicy", stripe(), {"coords": "r"}, "coords='r': must be one of 'none', 'xy', 'xyr'"),
    ],
)
def test_bad_input_is_named_in_one_line(
    algorithm: type[BaseAlgorithm], policy: str, env: gym.Env[Any, Any], kwargs: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(algorithm, policy, env, features_extractor_kwargs=kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("model", "kind"), [(A2C, CoordConvCnnPolicy), (DQN, CoordConvDQNPolicy)])
def test_coordinate_weights_may_start_at_zero(model: Any, kind: Any) -> None:  # noqa: ANN401
    options = {"where": "all", "coord_init": "zero"}
    made = model(kind, stripe(), policy_kwargs={"features_extractor_kwargs": options}, seed=0, device="cpu")
    weights = {name: value for name, value in made.policy.named_parameters() if name.endswith("coord_weight")}
    assert len(weights) in (3, 6)  # of DQN the target network's, too
    assert not any(value.any() for value in weights.values())
    plain = model("CnnPolicy", stripe(), seed=0, device="cpu")
    pictures = np.random.default_rng(0).integers(256, size=(3, 1, 36, 40), dtype=np.uint8)
    observations, _ = made.policy.obs_to_tensor(pictures)
    with torch.no_grad():
        torch.testing.assert_close(*(values_and_logits(one.policy, observations)[1] for one in (made, plain)))
    with pytest.raises(ValueError, match=r"^coord_init='one': must be one of 'random', 'zero'$"):
        CoordConvNatureCNN(made.observation_space, coord_init="one")  # type: ignore[arg-type]
