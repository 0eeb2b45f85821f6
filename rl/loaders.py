"""The loaders of reinforcement learning: rollouts that are played when they are asked for, and evaluations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor

from coordconv_apps.training.checkpoints import save_before_error
from coordconv_apps.utils.distributed import gather_ranks
from rl.learning.actions import action_noise
from rl.learning.collector import DIVERGED, BrokenTraining, Collector, diverging, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightning.pytorch import Trainer
    from stable_baselines3.common.vec_env import VecEnv

    from rl.learning.advantages import Rollout
    from rl.learning.collector import Played
    from rl.task import RLTask

T = TypeVar("T")


class RolloutLoader:
    """Plays a rollout each time Lightning asks for a batch, with the policy as it is then.

    It has a length, and so Lightning does not ask for a batch ahead of time. The environments are opened for the first
    rollout, and go on from one to the next. They are not part of a checkpoint: a run that is resumed begins with new
    episodes, of other games than at its start, and what was under way in the last ones is lost.

    Args:
        trainer: The trainer.
        task: Whose policy plays.
        open_envs: Makes this process's environments.
        num_envs: How many there are, of all processes.
        seed: Fixes the actions that are drawn.
        length: Rollouts in an epoch.
    """

    def __init__(
        self,
        trainer: Trainer,
        task: RLTask,
        open_envs: Callable[[], VecEnv],
        *,
        num_envs: int,
        seed: int,
        length: int,
    ) -> None:
        self.trainer = trainer
        self.task = task
        self.open_envs = open_envs
        self.num_envs = num_envs
        self.own = num_envs // trainer.world_size
        self.first = self.own * trainer.global_rank
        self.seed = seed
        self.length = length
        self._collector: Collector | None = None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Rollout]:
        for _ in range(self.length):
            yield self.play()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the number of the next rollout is the task's. That there is a state tells Lightning to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Closes the environments."""
        if self._collector is not None:
            self._collector.env.close()
            self._collector = None

    def play(self) -> Rollout:
        """The next rollout. All processes call this together.

        Raises:
            BrokenTraining: An environment of any process failed: the task as it was before is in ``last.ckpt``. Or the
                policy predicts no finite numbers.
        """
        played, failure = None, None
        try:
            played = self._collect()
            gathered = torch.stack([played.advantages, played.values])
        except BrokenTraining as error:
            failure = error
            # The other processes wait for a rollout. This one tells them that it has none.
            gathered = torch.full((2, self.task.settings.n_steps, self.own), math.nan)
        gathered = self._gather(gathered.to(self.task.device))
        if not gathered.isfinite().all():
            self._stop(failure)
        assert played is not None
        self.task.count(played, gathered)
        return together(played, gathered, self.first)

    def _collect(self) -> Played:
        task = self.task
        if self._collector is None:
            self._collector = Collector(
                self.open_envs(),
                task.settings.n_steps,
                gamma=task.settings.gamma,
                gae_lambda=task.settings.gae_lambda,
                device=task.device,
            )
        noise = None
        if isinstance(space := self._collector.env.action_space, spaces.Discrete):
            every = action_noise(self.seed, task.rollouts, task.settings.n_steps, self.num_envs, int(space.n))
            noise = every[:, self.first : self.first + self.own]
        task.policy.set_training_mode(False)
        # Where the update computes in half precision, so does this, or the two would disagree on probabilities.
        with self.trainer.precision_plugin.forward_context(), diverging():
            return self._collector.collect(task.policy, noise, task.seconds)

    def _gather(self, own: Tensor) -> Tensor:
        """Advantages and values of all processes, ``(2, T, E)``."""
        if self.trainer.world_size == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts, dim=2)

    def _stop(self, failure: BrokenTraining | None) -> None:
        """Saves what was learned before, if it is of use, and raises the failure of whichever process it was."""
        messages = gather_ranks(None if failure is None else str(failure))
        message = next((message for message in messages if message is not None), DIVERGED)
        if message != DIVERGED:  # else it was learned to no end, and the checkpoint before is the one to go on from
            save_before_error(self.trainer, "batch")
        raise failure or BrokenTraining(message)


class OneBatch(Generic[T]):
    """A loader of a single batch: what this process plays in an evaluation.

    Args:
        batch: The batch.
    """

    def __init__(self, batch: T) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[T]:
        yield self.batch
