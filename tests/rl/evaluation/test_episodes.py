"""Episodes are those of SB3's own evaluation, without its bias, and the same by one process and by two."""

from __future__ import annotations

import csv
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import stats
from stable_baselines3.common.evaluation import evaluate_policy

from rl import A2C
from rl.envs.game_options import GameOptions
from rl.envs.games import open_envs
from rl.evaluation.episodes import (
    COLUMNS,
    Episodes,
    EpisodeScores,
    play_episodes,
    shard_episodes,
    write_episodes,
)
from rl.evaluation.play import play
from tests.rl.players import make_player
from tests.rl.tiny import make_a2c, make_env

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.vec_env import VecEnv


def sb3_episodes(model: Any, env: VecEnv, episodes: int, deterministic: bool) -> list[tuple[float, int]]:  # noqa: ANN401
    env.seed(5)
    found = evaluate_policy(model, env, episodes, deterministic=deterministic, return_episode_rewards=True, warn=False)
    return sorted(zip(*found, strict=True))


def pairs(episodes: Episodes) -> list[tuple[float, int]]:
    return sorted(zip(episodes.scores.tolist(), episodes.lengths.tolist(), strict=True))


@pytest.mark.parametrize("lives", [False, True], ids=["whole games", "lives"])
@pytest.mark.parametrize("monitor", [True, False], ids=["monitor", "no monitor"])
@pytest.mark.parametrize("count", [1, 8])
def test_episodes_are_those_of_evaluate_policy(count: int, monitor: bool, lives: bool) -> None:
    model = make_a2c()
    expected = sb3_episodes(model, make_env(monitor=monitor, lives=lives), count, True)
    env = make_env(monitor=monitor, lives=lives)
    for player in (model, model.policy):
        found = play_episodes(player, env, count, deterministic=True, seed=5)
        np.testing.assert_allclose(pairs(found), expected, rtol=1e-6)
        assert found.complete.all()
        assert [found.seeds.tolist().count(5 + i) for i in range(3)] == [(count + i) // 3 for i in range(3)]


def test_drawn_actions_are_distributed_as_the_policy_says() -> None:
    model = make_a2c(make_env(64))
    env = make_env(64)
    drawn = np.zeros(3)
    expected = np.zeros(3)
    for number, step in enumerate(play(model, env, deterministic=False, seed=0)):
        distribution: Any = model.policy.get_distribution(model.policy.obs_to_tensor(step.observations)[0])
        expected += distribution.distribution.probs.detach().numpy().sum(0)
        drawn += np.bincount(step.actions, minlength=3)
        if number == 49:
            break
    assert expected.max() > 1.5 * expected.min(), "a test of nothing else"
    assert stats.chisquare(drawn, expected * drawn.sum() / expected.sum()).pvalue > 0.01


@pytest.mark.parametrize("name", ["a2c", "continuous", "dqn"])
def test_stochastic_play_depends_on_its_seed_alone(name: str) -> None:
    player = make_player(name)
    player.exploration_rate = 0.7  # of DQN, which acts at random as often
    env = make_env(actions=0 if name == "continuous" else 3)
    same = [play_episodes(player, env, 6, deterministic=False, seed=1) for _ in range(2)]
    other = play_episodes(player, env, 6, deterministic=False, seed=2)
    assert same[0].scores.tolist() == same[1].scores.tolist()
    assert same[0].scores.tolist() != other.scores.tolist()


@pytest.mark.parametrize("name", ["a2c", "continuous", "dqn"])
def test_random_numbers_and_modes_of_training_stay_as_they_are(name: str) -> None:
    player = make_player(name)
    env = make_env(actions=0 if name == "continuous" else 3)

    def draw() -> list[Any]:
        return [torch.rand(1).item(), np.random.rand(), random.random(), np.asarray(player.action_space.sample())]

    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        player.action_space.seed(0)

    seed()
    expected = draw()
    seed()
    player.policy.set_training_mode(True)
    modes = [module.training for module in player.policy.modules()]
    play_episodes(player, env, 3, deterministic=False, seed=7)
    for found, value in zip(draw(), expected, strict=True):
        np.testing.assert_array_equal(found, value)
    assert [module.training for module in player.policy.modules()] == modes


@pytest.mark.parametrize("world_size", [3, 5])
def test_shares_make_up_what_one_process_plays(world_size: int) -> None:
    model = make_a2c()
    alone = play_episodes(model, make_env(4), 10, deterministic=False, seed=2)
    parts = []
    for rank in range(world_size):
        own = shard_episodes(10, 4, rank, world_size)
        if own.num_envs:
            env = make_env(own.num_envs)
            seed = 2 + own.first_env
            parts.append(play_episodes(model, env, own.num_episodes, deterministic=False, seed=seed))
        else:
            assert own.num_episodes == 0
    together = Episodes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    assert together.scores == pytest.approx(alone.scores)
    assert together.lengths.tolist() == alone.lengths.tolist()
    assert together.seeds.tolist() == alone.seeds.tolist()


def test_a_bound_on_steps_counts_games_under_way_as_they_stand() -> None:
    model = make_a2c()
    env = make_env()
    full = play_episodes(model, env, 30, deterministic=True, seed=4)
    cut = play_episodes(model, env, 30, deterministic=True, seed=4, max_steps=20)
    assert 0 < len(cut.scores) < 30
    for seed in (4, 5, 6):
        of_cut, of_full = cut.seeds == seed, full.seeds == seed
        lengths = cut.lengths[of_cut]
        assert lengths.sum() == 20
        whole = lengths[cut.complete[of_cut]]
        assert whole.tolist() == full.lengths[of_full][: len(whole)].tolist()
    assert play_episodes(model, env, 0, deterministic=True, seed=4).scores.shape == (0,)


@pytest.mark.parametrize("arguments", [{}, {"mode": 4}], ids=["emulator", "mode"])
def test_lengths_of_atari_games_are_frames_whether_they_ended_or_not(arguments: dict[str, int]) -> None:
    task = A2C(game="breakout", arguments=arguments)
    options = GameOptions(episodic_life=False, clip_rewards=False, arguments=arguments)
    env = open_envs("breakout", 2, 2_000_000, options)
    whole = play_episodes(task.policy, env, 2, deterministic=False, seed=2_000_000)
    cut = play_episodes(task.policy, env, 2, deterministic=False, seed=2_000_000, max_steps=100)
    env.close()
    assert (whole.complete.tolist(), cut.complete.tolist()) == ([True] * 2, [False] * 2)
    assert (cut.lengths >= 4 * 100).all()  # the first action of a game is played before its first step
    assert (cut.lengths < whole.lengths).all()


# ------------------------------------------------------------------------- files


def some(scores: list[float], successes: list[float] | None = None) -> Episodes:
    count = len(scores)
    complete = np.arange(count) != count - 1
    reported = np.full(count, np.nan) if successes is None else np.array(successes, np.float64)
    return Episodes(np.array(scores, np.float64), np.arange(count) + 1, np.full(count, 9), complete, reported)


def test_file_has_a_line_for_each_episode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "episodes.csv"
    write_episodes(path, "pong", some([20.0, -3.5], [1.0, np.nan]), lambda score: score / 10)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        list(COLUMNS),
        ["pong", "0", "9", "20.0", "1", "2.0", "1", "1"],
        ["pong", "1", "9", "-3.5", "2", "", "0", ""],
    ]
    write_episodes(path, "dots", some([1.0, 2.0]), lambda score: None)
    assert path.read_text(encoding="utf-8").splitlines()[1:] == ["dots,0,9,1.0,1,,1,", "dots,1,9,2.0,2,,0,"]
    assert [p.name for p in path.parent.iterdir()] == ["episodes.csv"]


# ----------------------------------------------------------------------- figures


@pytest.mark.parametrize("count", [1, 4, 7])
def test_metrics_are_those_of_numpy_and_scipy(count: int) -> None:
    scores = np.random.default_rng(count).normal(100, 50, count).astype(np.float32).astype(np.float64)
    metric = EpisodeScores()
    for part in np.array_split(scores, 3):
        metric.update(some(part.tolist()))
    figures = {name: value.item() for name, value in metric.compute().items()}
    lengths = np.concatenate([np.arange(len(part)) + 1 for part in np.array_split(scores, 3)])
    assert figures == {
        "score": pytest.approx(scores.mean()),
        "score_std": pytest.approx(scores.std(), abs=1e-5),
        "score_median": pytest.approx(np.median(scores)),
        "score_iqm": pytest.approx(stats.trim_mean(scores, 0.25)),
        "length": pytest.approx(lengths.mean()),
        "episodes": count,
    }
    metric.reset()
    metric.update(some([]))
    figures = {name: value.item() for name, value in metric.compute().items()}
    assert figures.pop("episodes") == 0
    assert all(np.isnan(value) for value in figures.values())


def test_the_success_rate_counts_the_episodes_that_report_it() -> None:
    metric = EpisodeScores()
    metric.update(some([1.0, 2.0]))
    assert "success_rate" not in metric.compute()
    metric.update(some([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, np.nan, 1.0]))
    assert metric.compute()["success_rate"].item() == pytest.approx(2 / 3)
