"""Film episodes and write tables of their scores."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.trainer_access import attached_datamodule
from rl.data import EVALUATION_SEEDS, PREDICTION_SEED, RLData
from rl.envs.games import find_kind
from rl.evaluation.episodes import write_episodes
from rl.evaluation.films import MAX_STEPS, film_episode, write_gif
from rl.evaluation.window import Window
from rl.tasks.base import RLTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from lightning.pytorch import LightningModule, Trainer
    from numpy.typing import NDArray


class EpisodeWriter(Callback):
    """Write films and tables of episodes to the run's folder.

    Films of Atari games are in colour; those of other games show the observations.

    - ``pictures/episode.gif``: one episode after ``fit``, ``validate`` and ``test``.
    - ``episodes.csv``: unclipped score and length of each episode of a ``validate`` or ``test``.
    - ``predictions/<number>.gif``: each episode of a ``predict``.

    Args:
        film: Whether to film an episode after a training or an evaluation.
    """

    def __init__(self, film: bool = True) -> None:
        self.film = film

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Film an episode of the trained policy."""
        self._film_first(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the episodes of ``validate``; validations during a training log their metrics only."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write_table(trainer, pl_module)
            self._film_first(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the episodes of ``test``."""
        self._write_table(trainer, pl_module)
        self._film_first(trainer, pl_module)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[int],
        batch: list[int],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Film the episodes of this rank, show them with ``data.render_mode=human``, and print their scores."""
        with ExitStack() as stack:
            show = None
            if attached_datamodule(trainer, RLData).render_mode == "human":
                show = stack.enter_context(Window(_rl_task(pl_module).game)).show
            for number in outputs:
                path = run_dir(trainer) / "predictions" / f"{number:03d}.gif"
                score, length = _write_film(trainer, pl_module, path, PREDICTION_SEED + number, show)
                print(f"episode {number}: score {score:.10g} in {length} steps: {path}")

    def _film_first(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.film and trainer.is_global_zero:
            path = run_dir(trainer) / "pictures" / "episode.gif"
            _write_film(trainer, pl_module, path, EVALUATION_SEEDS["test"])

    @staticmethod
    def _write_table(trainer: Trainer, pl_module: LightningModule) -> None:
        task = _rl_task(pl_module)
        if trainer.is_global_zero and task.last_evaluation is not None:
            write_episodes(run_dir(trainer) / "episodes.csv", task.game, task.last_evaluation, task.normalise)


def _rl_task(pl_module: LightningModule) -> RLTask:
    if not isinstance(pl_module, RLTask):
        raise TypeError(f"EpisodeWriter needs a task of rl, got {type(pl_module).__name__}")
    return pl_module


def _write_film(
    trainer: Trainer,
    pl_module: LightningModule,
    path: Path,
    seed: int,
    show: Callable[[NDArray[np.uint8]], None] | None = None,
) -> tuple[float, int]:
    """Play and film one episode, and return its score and its length in steps. Each frame is passed to ``show``."""
    data, task = attached_datamodule(trainer, RLData), _rl_task(pl_module)
    in_colour = find_kind(task.game) == "atari"  # its observations are small and grey
    env = data.open_evaluation_envs(task.game, task.env_options, 1, seed, "rgb_array" if in_colour else None)
    with closing(env), torch.no_grad():
        film = film_episode(
            task.player,
            env,
            deterministic=data.deterministic,
            seed=seed,
            max_steps=data.eval_max_steps or MAX_STEPS,
            rendered=in_colour,
            show=show,
        )
    write_gif(path, film, f"{task.game}, coords={task.coords}")
    return float(film.scores[-1]), film.length
