"""Episodes as files: a film, and a table with the score of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng

from coordconv_apps.runs.folder import run_dir
from rl.data import EVALUATION_SEEDS, RLData
from rl.envs.games import find_kind
from rl.evaluation.episodes import write_episodes
from rl.evaluation.films import film_episode, write_gif
from rl.tasks.base import RLTask

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import LightningModule, Trainer

    from rl.data import EpisodeNumbers

LONGEST = 30_000
"""Steps of a film, where data.eval_max_steps sets no bound; Atari's games are cut off before."""

FILM, TABLE, FOLDER = "episode.gif", "episodes.csv", "predictions"


class EpisodeWriter(Callback):
    """Writes what was played into the run's folder.

    Films of Atari's games are in colour, as people know them; those of others show what the player sees.

    - ``pictures/episode.gif``: an episode, after ``fit``, ``validate`` and ``test``.
    - ``episodes.csv``: score, not clipped, and length of each episode of a ``validate`` or ``test``.
    - ``predictions/<number>.gif``: each episode of a ``predict``.

    Args:
        film: Whether to film an episode after a training or an evaluation.
    """

    def __init__(self, film: bool = True) -> None:
        self.film = film

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Films an episode of the trained policy."""
        self._film_one(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the episodes of ``validate``; those during a training are told by their mean alone."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write_table(trainer)
            self._film_one(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the episodes of ``test``."""
        self._write_table(trainer)
        self._film_one(trainer)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EpisodeNumbers,
        batch: EpisodeNumbers,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Films this process's episodes, and says what came of them."""
        data, _ = _parts(trainer)
        for number in outputs.numbers:
            path = run_dir(trainer) / FOLDER / f"{number:03d}.gif"
            score, length = _film(trainer, path, data.prediction_seed(number))
            print(f"episode {number}: score {score:g} in {length} steps: {path}")

    def _film_one(self, trainer: Trainer) -> None:
        if self.film and trainer.is_global_zero:
            _film(trainer, run_dir(trainer) / "pictures" / FILM, EVALUATION_SEEDS["test"])

    @staticmethod
    def _write_table(trainer: Trainer) -> None:
        data, task = _parts(trainer)
        if trainer.is_global_zero and task.last_evaluation is not None:
            write_episodes(run_dir(trainer) / TABLE, task.game, task.last_evaluation, data.normalise)


def _parts(trainer: Trainer) -> tuple[RLData, RLTask]:
    data, task = trainer.datamodule, trainer.lightning_module  # type: ignore[attr-defined]  # set by the trainer
    if not (isinstance(data, RLData) and isinstance(task, RLTask)):
        raise TypeError(f"{type(data).__name__} and {type(task).__name__} are not those of rl")
    return data, task


def _film(trainer: Trainer, path: Path, seed: int) -> tuple[float, int]:
    """Plays and films an episode; its score and its length."""
    data, task = _parts(trainer)
    in_colour = find_kind(task.game) == "atari"  # the player sees it in grey, and small
    env = data.open_evaluation_envs(task.game, task.env_options, 1, seed, "rgb_array" if in_colour else None)
    try:
        with torch.no_grad(), isolate_rng():
            film = film_episode(
                task.player,
                env,
                deterministic=data.deterministic,
                seed=seed,
                max_steps=data.eval_max_steps or LONGEST,
                rendered=in_colour,
            )
    finally:
        env.close()
    write_gif(path, film, f"{task.game}, coords={task.coords}")
    return float(film.scores[-1]), film.length
