"""Play whole episodes for unbiased scores, the same with any number of processes, and write a table of them.

Scores are those of the whole game, not clipped: Stable-Baselines3's `Monitor` and our own environments report them in
``infos[i]["episode"]`` when the game, not only a life, is over.
"""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.files import atomic_write
from rl.evaluation.play import evaluation_mode, play

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv

    from rl.evaluation.play import Player

COLUMNS = ("game", "episode", "seed", "score", "length", "human_normalised", "complete", "success")
"""Columns of the table of episodes."""

FRAMES = "episode_frame_number"
"""Entry of the infos of ale-py and `rl.envs.atari`: emulator frames of the episode so far."""


class Episodes(NamedTuple):
    """Episodes that were played: those of the first environment in the order of playing, then those of the next.

    Attributes:
        scores: float64 ``(N,)``, sums of rewards, not clipped where the environment reports them.
        lengths: int64 ``(N,)``, as the environment reports them (for Atari in emulator frames, as with SB3, also of
            episodes that were cut off), otherwise in steps.
        seeds: int64 ``(N,)``, seed of the environment of each episode.
        complete: bool ``(N,)``, false for episodes that ``max_steps`` cut off.
        successes: float64 ``(N,)``, 1 or 0 where the environment reports ``is_success`` at the end, as SB3 expects it;
            NaN for other episodes.
    """

    scores: NDArray[np.float64]
    lengths: NDArray[np.int64]
    seeds: NDArray[np.int64]
    complete: NDArray[np.bool_]
    successes: NDArray[np.float64]


class EpisodeShard(NamedTuple):
    """The part of an evaluation that one process plays."""

    first_env: int  # from 0: add it to the seed of the evaluation
    num_envs: int  # 0 for some processes if there are more processes than environments
    num_episodes: int


def shard_episodes(num_episodes: int, num_envs: int, rank: int = 0, world_size: int = 1) -> EpisodeShard:
    """Return the part of an evaluation that one process plays; together the parts equal an evaluation by one process.

    Environment ``i`` plays ``(num_episodes + i) // num_envs`` episodes, a number fixed beforehand as in SB3's
    ``evaluate_policy``: among the episodes that end first, short ones are over-represented. Both numbers are those of
    all processes.

    Example:
        >>> [shard_episodes(10, 4, rank, 2) for rank in range(2)]  # doctest: +NORMALIZE_WHITESPACE
        [EpisodeShard(first_env=0, num_envs=2, num_episodes=4),
         EpisodeShard(first_env=2, num_envs=2, num_episodes=6)]
    """
    first, end = (number * num_envs // world_size for number in (rank, rank + 1))
    return EpisodeShard(first, end - first, sum((num_episodes + i) // num_envs for i in range(first, end)))


def play_episodes(
    player: Player,
    env: VecEnv,
    num_episodes: int,
    *,
    deterministic: bool,
    seed: int,
    max_steps: int | None = None,
    before: Callable[[], None] | None = None,
) -> Episodes:
    """Play a number of episodes that is fixed beforehand for each environment, as `shard_episodes` describes.

    Networks play in evaluation mode. Afterwards, their mode and the global random number generators are restored.

    Args:
        player: Policy or algorithm.
        env: Environments. They are seeded and reset.
        num_episodes: Number of episodes; 0 plays none.
        deterministic: Whether to take the most probable actions instead of sampling.
        seed: Seed of the first environment, as for `rl.evaluation.play.play`.
        max_steps: Steps of each environment after which playing ends. Unfinished episodes then count with the rewards
            so far, as the environment returns them; episodes that have not begun are left out.
        before: Called before each step; an exception ends playing.

    Example:
        >>> from rl import CoordConvCnnPolicy
        >>> from rl.envs.catch import CatchVecEnv
        >>> env = CatchVecEnv(2)
        >>> policy = CoordConvCnnPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
        >>> episodes = play_episodes(policy, env, 3, deterministic=False, seed=0)
        >>> episodes.lengths, episodes.seeds
        (array([59, 59, 59]), array([0, 1, 1]))
    """
    count = env.num_envs
    wanted = [(num_episodes + i) // count for i in range(count)]
    found: list[list[tuple[float, int, int, bool, float]]] = [[] for _ in range(count)]
    scores, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
    with evaluation_mode(player):
        steps = play(player, env, deterministic=deterministic, seed=seed, before=before) if num_episodes else ()
        for number, step in enumerate(steps, start=1):
            scores += step.rewards
            lengths += 1
            last = number == max_steps
            for i in range(count) if last else np.flatnonzero(step.over).tolist():
                if len(found[i]) < wanted[i]:
                    info = step.infos[i] if step.over[i] else {}
                    reported = info.get("episode", {})
                    # The frames of an Atari game so far, so that all its lengths have one unit.
                    steps_or_frames = lengths[i] if step.over[i] else step.infos[i].get(FRAMES, lengths[i])
                    score, length = reported.get("r", scores[i]), reported.get("l", steps_or_frames)
                    success = float(info.get("is_success", np.nan))
                    found[i].append((float(score), int(length), seed + i, bool(step.over[i]), success))
                scores[i], lengths[i] = 0.0, 0
            if last or all(len(f) >= w for f, w in zip(found, wanted, strict=True)):
                break
    types = (np.float64, np.int64, np.int64, np.bool_, np.float64)
    rows = [row for rows in found for row in rows]
    table = np.array(rows, list(zip(Episodes._fields, types, strict=True)))
    return Episodes(*(table[name].copy() for name in Episodes._fields))


def gather_episodes(episodes: Episodes) -> Episodes:
    """Return the episodes of all ranks, in the order of one process. All ranks must call it together."""
    parts = gather_ranks(episodes)
    return Episodes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def write_episodes(path: Path, game: str, episodes: Episodes, normalise: Callable[[float], float | None]) -> None:
    """Write a CSV file with one line for each episode, atomically.

    ``normalise`` returns the human-normalised score for a score, or None if there is none; those of episodes that were
    cut off are left out.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        columns = (column.tolist() for column in episodes)
        for number, (score, length, seed, complete, success) in enumerate(zip(*columns, strict=True)):
            normalised = normalise(score) if complete else None
            successful = None if math.isnan(success) else int(success)
            writer.writerow([game, number, seed, score, length, normalised, int(complete), successful])


class EpisodeScores(Metric):
    """Mean, spread and quantiles of episode scores, over the episodes of all ranks.

    - ``score``: mean; ``score_std``: population standard deviation, as in SB3's ``evaluate_policy``.
    - ``score_median``, and ``score_iqm``, the mean of the middle half (Agarwal et al., 2021, section 4.3).
    - ``length``: mean length, in the unit of `Episodes`.
    - ``episodes``: number of episodes.
    - ``success_rate``: fraction of successful episodes among those whose environment reports it; left out if none do.

    Example:
        >>> import numpy as np
        >>> metric = EpisodeScores()
        >>> scores, unknown = np.array([1.0, 5.0]), np.array([np.nan, np.nan])
        >>> metric.update(Episodes(scores, np.array([59, 59]), np.array([0, 1]), np.array([True, True]), unknown))
        >>> {name: value.item() for name, value in metric.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
        {'score': 3.0, 'score_std': 2.0, 'score_median': 3.0, 'score_iqm': 3.0, 'length': 59.0, 'episodes': 2.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    scores: list[Tensor]
    lengths: list[Tensor]
    successes: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("lengths", [], dist_reduce_fx="cat")
        self.add_state("successes", [], dist_reduce_fx="cat")

    def update(self, episodes: Episodes) -> None:
        """Add episodes; there may be none."""
        if len(episodes.scores):
            # Single precision, since not every device has doubles. It represents integers up to 16 million.
            self.scores.append(torch.as_tensor(episodes.scores, dtype=torch.float32, device=self.device))
            self.lengths.append(torch.as_tensor(episodes.lengths, dtype=torch.float32, device=self.device))
            self.successes.append(torch.as_tensor(episodes.successes, dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars by name; before the first episode all but ``episodes`` are NaN."""
        states = (self.scores, self.lengths, self.successes)
        scores, lengths, successes = (
            dim_zero_cat(state).cpu().double() if len(state) else torch.zeros(0).double() for state in states
        )
        cut = len(scores) // 4
        figures = {
            "score": scores.mean(),
            "score_std": (scores - scores.mean()).square().mean().sqrt(),
            "score_median": scores.quantile(0.5) if len(scores) else scores.mean(),
            "score_iqm": scores.sort().values[cut : len(scores) - cut].mean(),
            "length": lengths.mean(),
            "episodes": torch.tensor(float(len(scores))),
        }
        if len(reported := successes[~successes.isnan()]):
            figures["success_rate"] = reported.mean()
        return {name: value.to(self.device, torch.float32) for name, value in figures.items()}
