"""Playing whole episodes: unbiased scores, the same by one process and by several, and a file of each episode.

Scores are those of the game, not clipped, as `stable_baselines3.common.monitor.Monitor` and our own environments report
them in ``infos[i]["episode"]`` when the game, not only a life, is over.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.files import atomic_write
from rl.evaluation.play import evaluation_mode, play

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv

    from rl.evaluation.play import Player

COLUMNS = ("game", "episode", "seed", "score", "length", "human_normalised", "complete")
"""Of the file of episodes."""


class Episodes(NamedTuple):
    """Episodes that were played: those of the first environment in the order of playing, then those of the next.

    Attributes:
        scores: float64 ``(N,)``, sums of rewards, not clipped where the environment tells them.
        lengths: int64 ``(N,)``, as the environment tells them (of Atari in the emulator's frames, as with SB3), else in
            steps.
        seeds: int64 ``(N,)``, of the environment that each was played in.
        complete: bool ``(N,)``, false for those that a bound on the steps has cut.
    """

    scores: NDArray[np.float64]
    lengths: NDArray[np.int64]
    seeds: NDArray[np.int64]
    complete: NDArray[np.bool_]


_Row = tuple[float, int, int, bool]


def _as_episodes(rows: list[_Row]) -> Episodes:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    kinds = (np.float64, np.int64, np.int64, np.bool_)
    return Episodes(*(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))


class Share(NamedTuple):
    """What one of several processes plays.

    Attributes:
        first: The number of its first environment, from 0: what to add to the seed of the evaluation.
        environments: How many it has; 0 for some processes if there are fewer environments than processes.
        episodes: How many it plays in them.
    """

    first: int
    environments: int
    episodes: int


def share(episodes: int, environments: int, rank: int = 0, world_size: int = 1) -> Share:
    """Deals an evaluation out to processes, so that all of them together play the episodes that one would play.

    Environment i plays ``(episodes + i) // environments`` episodes, a number fixed beforehand as in SB3's
    ``evaluate_policy``: of the episodes that are over first, too many would be short ones.

    Args:
        episodes: In all.
        environments: In all.
        rank: Of this process, from 0.
        world_size: Number of processes.

    Raises:
        ValueError: Not both numbers are positive.
    """
    for name, value in (("episodes", episodes), ("environments", environments)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be an integer of at least 1")
    first, end = (number * environments // world_size for number in (rank, rank + 1))
    return Share(first, end - first, sum((episodes + i) // environments for i in range(first, end)))


def play_episodes(
    player: Player, env: VecEnv, episodes: int, *, deterministic: bool, seed: int, max_steps: int | None = None
) -> Episodes:
    """Plays a number of episodes, fixed beforehand for each environment as `share` describes.

    Args:
        player: A policy or an algorithm. Its networks are in evaluation mode meanwhile.
        env: It is seeded and reset.
        episodes: How many; 0 plays none.
        deterministic: Whether to take the most probable actions, not drawn ones.
        seed: Of the first environment; see `play`. The global random number generators are left as they are.
        max_steps: Steps of every environment after which no more is played. The episodes under way then count as
            they stand (of rewards as the environment gives them), those not begun are left out.

    Returns:
        The episodes, from each environment as many as it was to play.

    Raises:
        ValueError: A number is out of its range.
    """
    if episodes < 0:
        raise ValueError(f"episodes={episodes}: must be an integer of at least 0")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps={max_steps}: must be an integer of at least 1")
    if episodes == 0:
        return _as_episodes([])
    count = env.num_envs
    wanted = [(episodes + i) // count for i in range(count)]
    found: list[list[_Row]] = [[] for _ in range(count)]
    scores, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
    with evaluation_mode(player):
        for number, step in enumerate(play(player, env, deterministic=deterministic, seed=seed), start=1):
            scores += step.rewards
            lengths += 1
            last = number == max_steps
            for i in range(count) if last else np.flatnonzero(step.over).tolist():
                if len(found[i]) < wanted[i]:
                    told = step.infos[i].get("episode", {}) if step.over[i] else {}
                    score, length = told.get("r", scores[i]), told.get("l", lengths[i])
                    found[i].append((float(score), int(length), seed + i, bool(step.over[i])))
                scores[i], lengths[i] = 0.0, 0
            if last or all(len(f) >= w for f, w in zip(found, wanted, strict=True)):
                break
    return _as_episodes([row for rows in found for row in rows])


def gather_episodes(episodes: Episodes) -> Episodes:
    """The episodes of all processes, in the order in which one process would have them. All call it together."""
    parts = gather_ranks(episodes)
    return Episodes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def write_episodes(
    path: Path, game: str, episodes: Episodes, normalise: Callable[[str, float], float | None] | None = None
) -> None:
    """Writes a CSV file with one line for each episode, aside first, then over what was there.

    Args:
        path: The file.
        game: Its name.
        episodes: What was played.
        normalise: Makes a human-normalised score of the game's name and a score, or None where there is none. Episodes
            that were cut have none in any case.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        columns = (column.tolist() for column in episodes)
        for number, (score, length, seed, complete) in enumerate(zip(*columns, strict=True)):
            normalised = normalise(game, score) if complete and normalise is not None else None
            writer.writerow([game, number, seed, score, length, normalised, int(complete)])


class EpisodeScores(Metric):
    """Figures of episodes' scores, over those of all processes.

    - ``score``: their mean; ``score_std``: their standard deviation, as SB3's ``evaluate_policy`` gives it (by N).
    - ``score_median``, and ``score_iqm``, the mean of the middle half (Agarwal et al., 2021, section 4.3).
    - ``length``: the mean length, in the unit of `Episodes`.
    - ``episodes``: how many there are.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    scores: list[Tensor]
    lengths: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("lengths", [], dist_reduce_fx="cat")

    def update(self, episodes: Episodes) -> None:
        """Adds episodes, of which there may be none."""
        if len(episodes.scores):
            # In single precision: not every device has doubles. It holds integers up to 16 million.
            self.scores.append(torch.as_tensor(episodes.scores, dtype=torch.float32, device=self.device))
            self.lengths.append(torch.as_tensor(episodes.lengths, dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """The figures by name, scalars; not numbers, but for ``episodes``, before the first episode."""
        scores, lengths = (_joined(values) for values in (self.scores, self.lengths))
        cut = len(scores) // 4
        middle = scores.sort().values[cut : len(scores) - cut]
        figures = {
            "score": scores.mean(),
            "score_std": (scores - scores.mean()).square().mean().sqrt(),
            "score_median": scores.quantile(0.5) if len(scores) else scores.mean(),
            "score_iqm": middle.mean(),
            "length": lengths.mean(),
            "episodes": torch.tensor(float(len(scores))),
        }
        return {name: value.to(self.device, torch.float32) for name, value in figures.items()}


def _joined(values: list[Tensor] | Tensor) -> Tensor:
    """All values in double precision, on the CPU: one tensor if they were gathered, else a list of them."""
    parts = [values] if isinstance(values, Tensor) else values
    return torch.cat([part.cpu().double() for part in parts] or [torch.zeros(0, dtype=torch.float64)])
