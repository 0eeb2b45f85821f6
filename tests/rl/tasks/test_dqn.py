"""DQN by Stable-Baselines3's own loop: in parts it is what it is in one, also under the command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from stable_baselines3.dqn.policies import DQNPolicy

import rl.envs.games
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.divergence import Diverged
from coordconv_apps.training.task import Task
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.seeds import mix_seeds
from coordconv_apps.utils.warning_filters import filter_warnings
from rl.data import RLData
from rl.envs.game_options import GameOptions
from rl.policies import CoordConvDQNPolicy
from rl.policy_files import load_safe
from rl.sb3_internals import get_updates
from rl.tasks import DQN
from tests.helpers.refusals import refusal
from tests.helpers.trainers import own_trainer
from tests.rl.tasks.test_on_policy import counts, fit, logged
from tests.rl.training import SIDE, TROUBLE, Dots, main

pytestmark = pytest.mark.usefixtures("dots")

SMALL = [
    "--model.game=dots",
    "--model.coords=xy",
    "--model=DQN",
    "--model.buffer_size=64",
    "--model.learning_starts=24",
    "--model.batch_size=8",
    "--model.target_update_interval=20",
    "--data.num_envs=2",
    "--data.steps_per_epoch=48",
    "--data.num_eval_envs=2",
    "--data.eval_episodes=3",
    "--trainer.max_epochs=-1",
    "--trainer.accelerator=cpu",
]
"""Epochs are of 48 steps, in one part. Updates come every 8 steps."""

SETTINGS: dict[str, Any] = {
    "buffer_size": 60,
    "learning_starts": 16,
    "batch_size": 8,
    "tau": 0.5,
    "target_update_interval": 12,
    "exploration_fraction": 0.7,
    "gradient_steps": 2,
}


def make_task(**settings: Any) -> DQN:  # noqa: ANN401  # of settings
    torch.manual_seed(0)
    return DQN(game="dots", coords="xy", **settings)


class GivenEnvs(RLData):
    """Opens the same environments in every training."""

    def open_training_envs(self, game: str, env_options: GameOptions, rollouts: int) -> VecEnv:
        return Dots(self.num_envs, 7)


class Parts(Callback):
    """Keeps the steps and the number of losses after each training step, and what the training ends with."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.updates: list[int] = []
        self.scores: list[float] = []
        self.buffer: ReplayBuffer | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ANN401  # Lightning's
        assert isinstance(pl_module, DQN)
        self.steps.append(pl_module.timesteps)
        self.updates.append(pl_module.updates)
        self.scores += [game["r"] for game in pl_module.algorithm.ep_info_buffer or ()]
        self.buffer = pl_module.algorithm.replay_buffer


def learned_by_sb3(
    policy: type[DQNPolicy],
    envs: VecEnv,
    weights: dict[str, torch.Tensor],
    total: int,
    **settings: Any,  # noqa: ANN401  # of settings
) -> stable_baselines3.DQN:
    """Return SB3's DQN with coordinates after ``learn``, from given weights and the same random numbers."""
    model = stable_baselines3.DQN(
        policy,
        envs,
        policy_kwargs={"features_extractor_kwargs": {"coords": "xy"}},
        device="cpu",
        **{**SETTINGS, **settings},
    )
    model.policy.load_state_dict(weights)
    model.policy.to(memory_format=torch.channels_last)
    model.action_space.seed(mix_seeds(3, 0) % 2**31)
    np.random.seed(5)
    model.set_logger(Logger(None, []))
    return model.learn(total)


def train(task: DQN, folder: Path, games: int = 2, steps_per_epoch: int = 24, data: type[RLData] = GivenEnvs) -> Parts:
    """Trains without the command line; the progress after each part."""
    parts = Parts()
    trainer = own_trainer(folder, max_epochs=-1, callbacks=[parts], limit_val_batches=0)
    with filter_warnings():
        trainer.fit(task, data(num_envs=games, steps_per_epoch=steps_per_epoch, seed=3))
    return parts


# ------------------------------------------------------------------ learning


def test_stacks_with_more_channels_than_rows_are_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_stacks(game: str, num_envs: int, seed: int, **_: Any) -> VecEnv:  # noqa: ANN401  # no options
        return VecFrameStack(Dots(num_envs, seed), 2 * SIDE, channels_order="first")

    monkeypatch.setattr(rl.envs.games, "make_envs", make_stacks)
    parts = train(make_task(**SETTINGS, total_timesteps=24), tmp_path, data=RLData)
    assert parts.updates[-1] > 0
    assert parts.buffer is not None
    assert parts.buffer.observations.shape[2:] == (2 * SIDE, SIDE, SIDE)


@pytest.mark.parametrize("games", [1, 2])
def test_parts_are_one_training_of_sb3(tmp_path: Path, games: int) -> None:
    total = 124  # more than fits into the replay buffer; not a multiple of the parts
    task = make_task(**SETTINGS, lr=1e-3, lr_schedule="linear", total_timesteps=total)
    weights = {name: value.clone() for name, value in task.policy.state_dict().items()}
    np.random.seed(5)
    parts = train(task, tmp_path, games)
    own = task.algorithm
    model = learned_by_sb3(
        CoordConvDQNPolicy, Dots(games, 7), weights, total, learning_rate=LinearSchedule(1e-3, 0.0, 1.0)
    )
    assert np.diff([0, *parts.steps]).tolist() == [24] * 5 + [4 if games == 1 else 8]
    assert own.num_timesteps == model.num_timesteps
    assert get_updates(own) == get_updates(model) > 0
    assert own._n_calls == model._n_calls
    assert own.exploration_rate == model.exploration_rate
    assert own.lr_schedule(own._current_progress_remaining) == model.policy.optimizer.param_groups[0]["lr"]
    buffers = parts.buffer, model.replay_buffer
    assert all(isinstance(buffer, ReplayBuffer) and buffer.full for buffer in buffers)
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "pos"):
        mine, theirs = (getattr(buffer, name) for buffer in buffers)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, task.policy.state_dict()[name]), name
        assert not torch.equal(value, weights[name]), name
    assert parts.scores == [info["r"] for info in model.ep_info_buffer or ()]
    assert task.algorithm.replay_buffer is None  # its memory is free again


def test_a_resumed_training_fills_its_replay_buffer_first(tmp_path: Path) -> None:
    task = make_task(**SETTINGS, total_timesteps=112)
    task.algorithm.num_timesteps = 80
    parts = train(task, tmp_path, steps_per_epoch=8)
    assert parts.steps == [88, 96, 104, 112]
    assert np.diff([0, *parts.updates]).tolist() == [0, 0, 2, 2]  # as for a new one, more than 16 steps
    assert task.algorithm._n_calls == 112 // 2


def test_a_short_rest_of_a_training_is_not_all_spent_on_filling(tmp_path: Path) -> None:
    task = make_task(**SETTINGS, total_timesteps=100)
    task.algorithm.num_timesteps = 80
    parts = train(task, tmp_path, games=1, steps_per_epoch=4)
    assert np.diff([0, *parts.updates]).tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("train_freq", "games", "steps_per_epoch", "steps"),
    [(4, 1, 250_000, 256), (5, 3, 250_000, 270), (4, 2, 60, 64), (1000, 1, 60, 1000)],
)
def test_parts_hold_whole_updates(
    monkeypatch: pytest.MonkeyPatch, train_freq: int, games: int, steps_per_epoch: int, steps: int
) -> None:
    task = make_task(train_freq=train_freq)
    monkeypatch.setattr(DQN, "data", RLData(num_envs=games, steps_per_epoch=steps_per_epoch))
    assert task.steps_per_training_step() == steps


def test_numbers_that_are_not_finite_end_a_training(tmp_path: Path) -> None:
    task = make_task(**SETTINGS, total_timesteps=100)
    with torch.no_grad():
        next(task.policy.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match=r"^model.lr=0.0001: training diverged .*; lower it$"):
        train(task, tmp_path)
    assert type(task.policy.optimizer) is torch.optim.Adam


def test_a_replay_buffer_that_is_too_large_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    task = make_task(**SETTINGS, total_timesteps=100)
    monkeypatch.setattr("stable_baselines3.common.buffers.ReplayBuffer.__init__", refuse)
    with pytest.raises(UserError, match=r"^model.buffer_size=60: must be smaller: Unable to allocate 9 GiB$"):
        train(task, tmp_path)


# ------------------------------------------------------------------ arguments


def test_defaults_are_those_of_sb3() -> None:
    model = stable_baselines3.DQN("CnnPolicy", Dots(1, 0), buffer_size=1, device="cpu")
    made = DQN(game="dots").algorithm
    for name in vars(model).keys() - {"policy", "policy_class", "policy_kwargs", "env", "replay_buffer", "buffer_size"}:
        theirs = getattr(model, name)
        if isinstance(theirs, int | float | str | tuple):
            assert getattr(made, name) == theirs, name
    assert made.buffer_size == 1_000_000
    assert made.lr_schedule(1) == model.lr_schedule(1)
    own, other = made.policy.optimizer, model.policy.optimizer
    assert type(own) is type(other)
    assert own.defaults == other.defaults


def test_evaluations_have_the_last_share_of_random_actions() -> None:
    task = make_task(**SETTINGS, exploration_final_eps=0.5)
    task.algorithm.exploration_rate = 1.0
    player: Any = task.player
    assert (player.exploration_rate, task.algorithm.exploration_rate) == (0.5, 1.0)
    assert player.policy is task.policy
    image = np.zeros((1, 1, SIDE, SIDE), np.uint8)
    greedy = int(player.predict(image, deterministic=True)[0][0])
    np.random.seed(0)
    player.action_space.seed(0)
    other = sum(int(task.player.predict(image)[0][0]) != greedy for _ in range(400))
    assert 60 < other < 140  # half of the actions are random, and half of these the other one: 100, give or take 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buffer_size": 0}, "model.buffer_size=0: must be an integer of at least 1"),
        ({"exploration_fraction": 0.0}, "model.exploration_fraction=0.0: must be above 0 and at most 1"),
        (
            {"learning_starts": 50, "total_timesteps": 50},
            "model.learning_starts=50: must be below model.total_timesteps, which is 50",
        ),
        ({"gradient_steps": 0}, "model.gradient_steps=0: must be an integer from 1 to 100000"),
        ({"train_freq": 10**9}, "model.train_freq=1000000000: must be an integer from 1 to 100000"),
        ({"tau": 2.0}, "model.tau=2.0: must be above 0 and at most 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_task(**arguments)


# ------------------------------------------------------------------ command line


def test_the_config_of_atari_trains_tests_and_exports(tmp_path: Path) -> None:
    config = Path(rl.__file__).parent / "configs" / "dqn_atari.yaml"
    zoo = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
    small = ["--model.game=dots", "--model.total_timesteps=80", *SMALL[3:], "--trainer.check_val_every_n_epoch=1"]
    fit(tmp_path, f"--config={config}", *small, "--trainer.log_every_n_steps=1")
    run = tmp_path / "rl" / "dqn_atari" / "version_0"
    assert zoo["class_path"] == "rl.DQN"
    assert counts(run)["timesteps"] == 80
    assert counts(run)["updates"] == 7  # after 32, 40, ... 80 steps
    assert counts(run)["exploration_rate"] == pytest.approx(0.01)
    assert read_summary(run)["steps"] == 7  # Lightning has counted them
    assert logged(run, "train/timesteps") == [48, 80]
    for name in ("train/loss", "train/score", "train/length", "val/score"):
        assert len(logged(run, name)) == 2, name
    last = run / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    assert saved["optimizer_states"][0]["state"][0]["step"] == 7
    task = DQN.load_from_checkpoint(last, weights_only=True)
    assert any("q_net_target" in name for name in task.state_dict())
    of_the_run = [f"--runs_dir={tmp_path}", "--name=dqn_atari", "--ckpt_path=last"]
    main(["test", *of_the_run, "--data.test_episodes=4"])
    assert read_summary(run / "test_0")["metrics"]["test/episodes"] == 4
    main(["export", *of_the_run])
    files = run / "export_0" / "export"
    loaded, safe = stable_baselines3.DQN.load(files / "policy.zip", device="cpu"), load_safe(files / "policy.safe.zip")
    assert set(json.loads((files / "network.json").read_text())["outputs"]) == {"q_values", "values"}
    assert (files / "network.onnx").is_file()
    assert loaded.buffer_size == 64
    assert loaded.exploration_rate == pytest.approx(0.01)
    images = np.random.default_rng(0).integers(256, size=(16, 1, SIDE, SIDE), dtype=np.uint8)
    wanted = task.policy.predict(images, deterministic=True)[0]
    for player in (loaded, safe):
        np.testing.assert_array_equal(player.predict(images, deterministic=True)[0], wanted)


def test_an_interrupted_training_resumes_with_its_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl.tasks.dqn.CHUNK", 16)  # three parts in an epoch
    settings = ["--model.total_timesteps=144", "--model.lr_schedule=linear", "--model.exploration_fraction=1"]
    monkeypatch.setenv(TROUBLE, "SIGINT@28")  # in the fourth part, the first of the second epoch
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, *SMALL, *settings)
    assert stopped.value.code == 130
    run = tmp_path / "rl" / "default" / "version_0"
    first = counts(run)
    assert (first["timesteps"], first["rollouts"], first["updates"]) == (64, 4, 5)  # after 32, 40, ... 64
    assert first["exploration_rate"] == pytest.approx(1 - 0.95 * 64 / 144)
    monkeypatch.delenv(TROUBLE)
    fit(tmp_path, "--ckpt_path=last")
    last = counts(run)
    assert (last["timesteps"], last["rollouts"]) == (144, 9)
    assert last["updates"] == 5 + 7  # after 64 + 32, and each 8 more
    assert last["exploration_rate"] == pytest.approx(0.05)
    assert logged(run, "train/timesteps") == [48, 96, 144]
    assert logged(run, "lr") == pytest.approx([1e-4 * (1 - done / 144) for done in (48, 96, 144)], abs=1e-9)


# In the middle of an epoch, in its last part, and in the last part of all.
@pytest.mark.parametrize(("step", "saved"), [(28, 54), (40, 78), (60, 118)])
def test_a_broken_environment_ends_the_training_after_saving(
    step: int, saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rl.tasks.dqn.CHUNK", 24)
    monkeypatch.setenv(TROUBLE, f"nan@{step}")
    told = refusal(capsys, fit, tmp_path, "--model.total_timesteps=120", *SMALL)
    assert told == f"model.game=dots: environment 1 failed in step {step}: its reward is NaN or infinite"
    run = tmp_path / "rl" / "default" / "version_0"
    assert counts(run)["timesteps"] == saved
    monkeypatch.delenv(TROUBLE)
    if saved < 118:  # before the end
        fit(tmp_path, "--ckpt_path=last")
        assert counts(run)["timesteps"] == 126  # 54 or 78, and steps of 8
        assert logged(run, "train/timesteps") == [48, 78, 126]


def test_another_precision_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = refusal(capsys, fit, tmp_path, *SMALL, "--trainer.precision=bf16-mixed")
    assert refused == "trainer.precision=bf16-mixed: must be 32-true for DQN"


@pytest.mark.parametrize(("devices", "nodes", "argument"), [(2, 1, "devices"), (1, 2, "num_nodes")])
def test_several_processes_are_refused(
    devices: int, nodes: int, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    monkeypatch.setattr(Task, "trainer", SimpleNamespace(num_devices=devices, num_nodes=nodes))
    with pytest.raises(ValueError, match=rf"^trainer\.{argument}=2: must be 1 for DQN, which one process trains$"):
        task.setup("fit")
