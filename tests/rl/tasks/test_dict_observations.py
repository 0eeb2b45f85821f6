"""Dict observations: updates are those of Stable-Baselines3's MultiInputPolicy, and every command works."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecFrameStack

import rl.evaluation.saliency
import rl.pictures
from coordconv_apps import Coordinates, coordconv_layers
from coordconv_apps.nn.coords import Coords
from coordconv_apps.runs.summary import read_summary
from rl.__main__ import main
from rl.data import RLData
from rl.envs.checks import BrokenEnvironment
from rl.envs.games import make_envs, open_envs
from rl.evaluation.films import newest_frame
from rl.evaluation.saliency import coordinate_maps, saliency, sample_observations
from rl.export import example_observations
from rl.learning.actions import action_noise, sample_actions
from rl.learning.collector import Collector
from rl.learning.minibatches import order_generator
from rl.learning.timings import Timings
from rl.observations import map_parts, observation_at
from rl.pictures import RLPictures
from rl.policies import CoordConvDQNMultiInputPolicy, CoordConvMultiInputPolicy
from rl.policy_files import load_safe
from rl.tasks import A2C, DQN, PPO
from tests.helpers.devices import EVERY_DEVICE
from tests.helpers.runs import last_command
from tests.rl.dict_games import CELLS, PIXELS, Everything
from tests.rl.rollouts import ENVIRONMENTS, STEPS
from tests.rl.tasks.test_dqn import SETTINGS, GivenEnvs, Parts, learned_by_sb3, train
from tests.rl.tasks.test_updates import AnyTask, assert_same, order_of_sb3, sb3_train, update

CATCH, EVERYTHING = "tests.rl.dict_games:CatchParts-v0", "tests.rl.dict_games:Everything-v0"


def everything(seed: int = 7, num_envs: int = ENVIRONMENTS) -> Any:  # noqa: ANN401  # a VecEnv
    return open_envs(EVERYTHING, num_envs, seed)


# ------------------------------------------------------------------ learning


@pytest.mark.parametrize(("kind", "coords"), [(A2C, "none"), (PPO, "xy")])
def test_a_rollout_and_its_update_are_those_of_sb3(
    kind: type[AnyTask],
    coords: Coords,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without coordinates, the policy is SB3's own MultiInputPolicy."""
    settings: dict[str, Any] = {"ent_coef": 0.01, "gamma": 0.9, "gae_lambda": 0.8}
    settings |= {"n_epochs": 2, "batch_size": 8} if kind is PPO else {}
    torch.manual_seed(0)
    task = kind(coords=coords, game=EVERYTHING, n_steps=STEPS, total_timesteps=1000, **settings)
    task.algorithm.num_timesteps = 300
    before = {name: value.clone() for name, value in task.policy.state_dict().items()}
    policy: Any = "MultiInputPolicy" if coords == "none" else CoordConvMultiInputPolicy
    arguments = {"features_extractor_kwargs": {"coords": coords}} if coords != "none" else {}
    algorithm = getattr(stable_baselines3, kind.__name__)
    model = algorithm(policy, everything(), n_steps=STEPS, policy_kwargs=arguments, device="cpu", **settings)
    model.policy.load_state_dict(task.policy.state_dict())
    _, callback = model._setup_learn(100, CallbackList([]))
    model.set_logger(Logger(None, []))
    noise = action_noise(0, 0, STEPS, ENVIRONMENTS, 2)
    coming = iter(noise)
    with monkeypatch.context() as patch:
        patch.setattr(model.policy, "forward", lambda seen: sample_actions(model.policy, seen, next(coming)))
        model.collect_rollouts(model.env, callback, model.rollout_buffer, STEPS)
    discount = {"gamma": 0.9, "gae_lambda": 0.8}
    collector = Collector(everything(), STEPS, **discount, device=torch.device("cpu"))
    rollout = collector.collect(task.policy, noise, Timings())
    buffer = model.rollout_buffer
    for key, stored in buffer.observations.items():
        own = cast("dict[str, torch.Tensor]", rollout.observations)[key]
        np.testing.assert_array_equal(own.numpy().reshape(stored.shape), stored, err_msg=key)
    np.testing.assert_allclose(rollout.advantages, buffer.advantages, rtol=1e-4, atol=1e-5)
    numbers = order_generator(0, 0)
    orders = [
        order_of_sb3(torch.randperm(STEPS * ENVIRONMENTS, generator=numbers)) for _ in range(2 if kind is PPO else 1)
    ]
    sb3_train(model, orders)
    update(task, rollout, tmp_path)
    # Adam amplifies the rounding of small gradients.
    assert_same(task, model, before, atol=2e-5 if kind is PPO else 2e-6)


@pytest.mark.parametrize("game", ["catch", EVERYTHING])
def test_every_image_is_seen_with_the_coordinates_of_the_arguments(game: str) -> None:
    policy = PPO(coords="xy", where="all", coord_init="zero", coord_scale=0.5, game=game).policy
    layers = coordconv_layers(policy.features_extractor).values()
    assert len(layers) == (3 if game == "catch" else 6)
    assert {layer.coords for layer in layers} == {Coordinates("xy", range=(-0.5, 0.5))}
    assert not any(layer.coord_weight.any() for layer in layers)


@pytest.mark.parametrize(*EVERY_DEVICE)
def test_a_rollout_on_a_device_is_that_of_the_cpu(device: str) -> None:
    torch.manual_seed(0)
    policy = A2C(coords="xy", game=EVERYTHING).policy
    noise = action_noise(0, 0, STEPS, ENVIRONMENTS, 2)
    played = []
    for place in ("cpu", device):
        collector = Collector(everything(), STEPS, gamma=0.9, gae_lambda=1.0, device=torch.device(place))
        played.append(collector.collect(policy.to(place), noise, Timings()))
    torch.testing.assert_close(map_parts(lambda part: part.cpu(), played[1].observations), played[0].observations)
    torch.testing.assert_close(played[1].advantages, played[0].advantages, rtol=1e-4, atol=1e-5)


def test_dqn_learns_as_sb3_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GivenEnvs, "open_training_envs", lambda self, *_: everything(num_envs=self.num_envs))
    torch.manual_seed(0)
    task = DQN(coords="xy", game=EVERYTHING, **SETTINGS, total_timesteps=96)
    weights = {name: value.clone() for name, value in task.policy.state_dict().items()}
    np.random.seed(5)
    parts: Parts = train(task, tmp_path)
    assert isinstance(parts.buffer, DictReplayBuffer)
    model = learned_by_sb3(CoordConvDQNMultiInputPolicy, everything(num_envs=2), weights, 96)
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, task.policy.state_dict()[name]), name
        assert not torch.equal(value, weights[name]), name


# ------------------------------------------------------------------ commands

SMALL = [
    f"--model.game={EVERYTHING}",
    "--model.coords=xy",
    "--data.num_envs=2",
    "--data.steps_per_epoch=32",
    "--data.num_eval_envs=2",
    "--data.eval_episodes=3",
    "--data.test_episodes=3",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
]
PPO_SMALL = ["--model=PPO", "--model.n_steps=8", "--model.batch_size=8", "--model.n_epochs=2", *SMALL]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs with a short training."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RLPictures, "draw", lambda *unused: {})
        main(["fit", f"--runs_dir={runs}", "--model.total_timesteps=32", "--episode_writer.film=false", *PPO_SMALL])
    return runs


def test_every_image_is_in_pictures_and_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.pictures, "_OBSERVATIONS", 1)
    monkeypatch.setattr(rl.evaluation.saliency, "_SPACING", 30)
    monkeypatch.setattr(rl.pictures, "sample_observations", partial(sample_observations, steps=3))
    drawn: dict[Any, Any] = {}
    monkeypatch.setattr(rl.pictures, "draw_saliency", lambda players, seen, key: drawn.update({key: seen}))
    monkeypatch.setattr(rl.pictures, "as_picture", lambda figure, dpi: figure)
    task = A2C(coords="xy", game=EVERYTHING)
    pictures = RLPictures().draw(task, RLData(num_eval_envs=1))
    assert list(pictures) == ["attention_camera", "coordinates_camera", "attention_depth", "coordinates_depth"]
    seen = drawn["depth"]
    depth, camera = (saliency(task.policy, seen, key=key) for key in ("depth", "camera"))
    assert depth.value.shape == (1, 48, 36)
    assert camera.policy.shape == (1, 36, 40)
    first, second = (coordinate_maps(task.policy, seen, key) for key in ("camera", "depth"))
    assert first is not None
    assert second is not None
    assert (first.shape, second.shape) == ((32, 8, 9), (32, 11, 8))
    frame = newest_frame(observation_at(seen, 0), task.observation_space)
    assert frame.shape == (48, 40 + 36, 3)
    np.testing.assert_array_equal(frame[:36, :40], np.moveaxis(seen["camera"][0], 0, -1))
    np.testing.assert_array_equal(frame[:, 40:, 1], seen["depth"][0, 0])

    monkeypatch.setattr(rl.pictures, "coordinate_maps", lambda *unused: None)
    monkeypatch.setattr(rl.pictures, "image_keys", lambda space: ["a b", "a_b"])
    assert len(RLPictures().draw(task, RLData(num_eval_envs=1))) == 2


def test_a_saved_policy_acts_the_same_in_every_form(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "rl" / "default" / "version_0" / "checkpoints" / "last.ckpt"
    task = PPO.load_from_checkpoint(checkpoint, map_location="cpu", game=EVERYTHING)
    seen: Any = everything().reset()
    actions = task.predict(seen, deterministic=True)[0]
    one = task.predict(observation_at(seen, 1), deterministic=True)[0]
    assert one.shape == ()
    assert one == actions[1]
    with torch.no_grad():
        logits, values = task.export_module()(*(torch.from_numpy(part) for part in seen.values()))
    np.testing.assert_array_equal(logits.argmax(1), actions)
    differences = task.export_more(tmp_path)
    assert max(differences.values()) < 1e-5
    safe: Any = load_safe(tmp_path / "policy.safe.zip")
    assert list(safe.observation_space) == list(task.observation_space) == list(seen)  # type: ignore[call-overload]  # Dicts
    plain: Any = stable_baselines3.PPO.load(tmp_path / "policy_plain.zip", device="cpu").policy
    for policy in (safe, plain):
        np.testing.assert_array_equal(policy.predict(seen, deterministic=True)[0], actions)
        found = policy.predict_values(policy.obs_to_tensor(seen)[0])[:, 0]
        torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observations_are_drawn_within_huge_bounds(dtype: type[np.floating[Any]]) -> None:
    largest = np.finfo(dtype).max
    space = spaces.Dict(far=spaces.Box(-largest, largest, (99,), dtype), free=spaces.Box(-np.inf, np.inf, (99,), dtype))
    seen: Any = example_observations(space, 2)
    far, free = seen["far"], seen["free"]
    assert 500 < far.abs().max() <= 1000
    assert 1 < free.abs().max() < 10
    assert space["far"].high[0] == largest  # type: ignore[attr-defined]  # a Box
    torch.testing.assert_close(example_observations(space, 2), seen, rtol=0, atol=0)


@pytest.mark.slow
def test_onnx_has_an_input_for_each_part(trained: Path) -> None:
    main(["export", f"--runs_dir={trained}", "--ckpt_path=last", f"--model.game={EVERYTHING}", "--format=all"])
    files = last_command(trained / "rl" / "default") / "export"
    import onnxruntime

    session = onnxruntime.InferenceSession(files / "network.onnx", providers=["CPUExecutionProvider"])
    seen: Any = everything().reset()
    assert [entry.name for entry in session.get_inputs()] == list(seen)
    tensors = [torch.from_numpy(part) for part in seen.values()]
    wanted = [output.detach().numpy() for output in torch.export.load(files / "network_plain.pt2").module()(*tensors)]
    for found, expected in zip(session.run(["logits", "values"], seen), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_policy_is_tested_and_predicts(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RLPictures, "draw", lambda *unused: {})
    arguments = [f"--runs_dir={trained}", "--ckpt_path=last", f"--model.game={EVERYTHING}"]
    main(["predict", *arguments])
    assert "episode 0: score" in capsys.readouterr().out
    main(["test", *arguments, "--episode_writer.film=false"])
    assert read_summary(last_command(trained / "rl" / "default"))["metrics"]["test/episodes"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [PPO_SMALL, ["--model=DQN", "--model.learning_starts=8", *SMALL]], ids=["PPO", "DQN"]
)
def test_a_resumed_training_is_the_same_each_time(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RLPictures, "draw", lambda *unused: {})
    weights = []
    for name in ("one", "other"):
        arguments = ["fit", f"--runs_dir={tmp_path}", f"--name={name}", "--episode_writer.film=false"]
        main([*arguments, "--model.total_timesteps=32", *command])
        main([*arguments, "--ckpt_path=last", "--model.total_timesteps=64", *command])
        last = tmp_path / "rl" / name / "version_0" / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(last, weights_only=True)
        assert checkpoint["rl"]["timesteps"] == 64
        weights.append(checkpoint["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


@pytest.mark.slow
def test_catch_is_learned_from_an_image_and_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RLPictures, "draw", lambda *unused: {})
    arguments = [f"--model.game={CATCH}", "--model.coords=xy", "--model=PPO", "--model.total_timesteps=80000"]
    arguments += ["--model.n_steps=64", "--model.batch_size=256", "--model.n_epochs=3", "--model.lr=0.001"]
    arguments += ["--model.gamma=0.95", "--model.ent_coef=0.005"]
    arguments += ["--data.num_envs=16", "--data.eval_episodes=200", "--trainer.accelerator=cpu"]
    main(["fit", f"--runs_dir={tmp_path}", *arguments])
    assert read_summary(tmp_path / "rl" / "default" / "version_0")["metrics"]["val/score"] > 0.9


# ------------------------------------------------------------------ environments


def test_parts_reach_a_policy_in_its_form() -> None:
    env = everything(num_envs=2)
    assert {key: (part.shape, part.dtype) for key, part in env.observation_space.spaces.items()} == {
        "camera": ((3, 36, 40), np.uint8),
        "depth": ((1, 48, 36), np.uint8),
        "joints": ((4,), np.float64),
        "gear": ((), np.int64),
        "switches": ((2,), np.int8),
        "dials": ((2,), np.int64),
        "patch": ((2, 3, 2), np.float32),
    }
    seen = env.reset()
    alone = Everything().reset(seed=8)[0]
    np.testing.assert_array_equal(seen["camera"][1], alone["camera"].transpose(2, 0, 1))
    assert np.abs(seen["depth"][1] / 127.5 - 1 - alone["depth"]).max() <= 0.5001 / 127.5
    for key in ("joints", "gear", "switches", "dials", "patch"):
        np.testing.assert_array_equal(seen[key][1], alone[key])
    while not (over := env.step(np.zeros(2, np.int64)))[2].any():
        pass
    info = over[3][int(np.flatnonzero(over[2])[0])]
    assert env.observation_space.contains(info["terminal_observation"])


def test_frames_of_images_and_vectors_are_stacked() -> None:
    env = make_envs(CATCH, 2, 0, frame_stack=3)
    assert isinstance(env, VecFrameStack)
    first: Any = make_envs(CATCH, 2, 0).reset()
    env.reset()
    seen: Any = env.step(np.array([0, 2]))[0]
    side = CELLS * PIXELS
    assert {key: part.shape for key, part in seen.items()} == {"ball": (2, 3, side, side), "paddle": (2, 3)}
    np.testing.assert_array_equal(seen["ball"][:, 1:2], first["ball"])
    np.testing.assert_array_equal(seen["paddle"][:, 1:2], first["paddle"])
    message = r"^model.frame_stack=2: must be 1 or null, since observations\['gear'\] is Discrete\(3\): only a Box "
    with pytest.raises(ValueError, match=message):
        make_envs(EVERYTHING, 1, 0, frame_stack=2)


CAMERA = spaces.Box(0, 255, (36, 40, 3), np.uint8)
REFUSED: dict[str, tuple[spaces.Space[Any], str]] = {
    "a Tuple": (spaces.Tuple([CAMERA, spaces.Discrete(2)]), " are Tuple(...): must be one image, "),
    "no image": (spaces.Dict(speed=spaces.Box(-1, 1, (2,))), " are Dict(...): must have at least one image, "),
    "nested": (spaces.Dict(a=CAMERA, b=spaces.Dict(c=spaces.Discrete(2))), "['b']=Dict(...): must not be a Dict in "),
    "a Tuple in it": (spaces.Dict(a=CAMERA, b=spaces.Tuple([CAMERA])), "['b']=Tuple(...): must be a Box of "),
    "words": (spaces.Dict(a=CAMERA, b=spaces.Text(9)), "['b']=Text(...): must be a Box of "),
    "from 1": (spaces.Dict(a=CAMERA, b=spaces.Discrete(3, start=1)), "['b']=Discrete(...): must count from 0"),
    "dials from 1": (
        spaces.Dict(a=CAMERA, b=spaces.MultiDiscrete([3, 2], start=[0, 1])),
        "['b']=MultiDiscrete(...): must count from 0",
    ),
    "no bounds": (
        spaces.Dict(a=CAMERA, b=spaces.Box(0, np.inf, (36, 40, 1))),
        "['b']=Box(...): an image must be uint8 ",
    ),
    "a key of torch": (spaces.Dict({"a": CAMERA, "items": spaces.Discrete(2)}), "observation_space['items']: the key "),
    "a dot": (spaces.Dict({"a.b": CAMERA}), "observation_space['a.b']: the key must be "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_observations_are_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space, words = REFUSED[name]

    def start(self: Everything) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)

    monkeypatch.setattr(Everything, "__init__", start)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        A2C(game=EVERYTHING)
    told = str(caught.value)
    assert all(part in told for part in words.split("(...)"))


def test_a_part_that_is_missing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    env = everything(num_envs=2)
    env.reset()
    observe = Everything.observe

    def without_gear(self: Everything) -> dict[str, Any]:
        return {key: part for key, part in observe(self).items() if key != "gear"}

    monkeypatch.setattr(Everything, "observe", without_gear)
    with pytest.raises(
        BrokenEnvironment, match=r"^model.game=.*: one of the environments 0 to 1 failed in step 1: .*$"
    ):
        env.step(np.zeros(2, np.int64))
