"""Collect rollouts and make updates on all ranks: what A2C and PPO share."""

from __future__ import annotations

import math
from abc import ABC
from typing import TYPE_CHECKING

import torch
from gymnasium import spaces
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from coordconv_apps.utils.errors import UserError
from rl.learning.actions import action_noise
from rl.learning.advantages import explained_variance
from rl.learning.collector import Collector, merge_rollouts
from rl.learning.divergence import Diverged, raise_on_divergence
from rl.sb3_internals import set_updates
from rl.tasks.base import RLTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.policies import ActorCriticPolicy
    from torch.optim import Optimizer

    from rl.learning.advantages import Rollout
    from rl.learning.collector import LocalRollout


class OnPolicyTask(RLTask, ABC):
    """Collect rollouts with the policy that is trained, and average gradients over ranks.

    A subclass sets these attributes and calls `collect_rollout`, `update` and `log_losses` in its ``training_step``.

    Attributes:
        n_steps: Steps of each environment in a rollout.
        gamma: Discount factor.
        gae_lambda: Weight of later temporal differences in the advantages.
        normalize_advantage: Whether advantages are normalised in each minibatch.
        max_grad_norm: Norm that gradients are clipped to.
    """

    mean_metrics = (*RLTask.mean_metrics, "train/explained_variance")
    policy: ActorCriticPolicy
    algorithm: A2C | PPO
    n_steps: int
    gamma: float
    gae_lambda: float
    normalize_advantage: bool
    max_grad_norm: float
    _collector: Collector | None = None

    def setup(self, stage: str) -> None:
        """Check that advantages can be normalised.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: A rollout has a single sample.
        """
        if stage == "fit" and self.steps_per_training_step() == 1 and self.normalize_advantage:
            raise ValueError("model.n_steps=1: must be at least 2 with data.num_envs=1 and normalize_advantage")

    def teardown(self, stage: str) -> None:
        """Close the environments.

        Args:
            stage: What the trainer has done.
        """
        if self._collector is not None:
            self._collector.env.close()
            self._collector = None

    def steps_per_training_step(self) -> int:
        """Return the number of samples in a rollout of all ranks."""
        return self.n_steps * self.data.num_envs

    # ----------------------------------------------------------------- rollouts

    def collect_rollout(self) -> Rollout:
        """Collect the next rollout. All ranks call this together.

        The environments are opened for the first rollout and continue from one to the next. They are not part of a
        checkpoint: a resumed run starts new episodes, and those that were under way are lost.

        Raises:
            UserError: An environment of any rank failed: ``last.ckpt`` has the task as it was before. Or the training
                has diverged.
        """
        own, failure = None, None
        try:
            own = self._collect_own()
            gathered = torch.stack([own.advantages, own.values])
        except UserError as error:
            failure = error
            # The other ranks wait for this one's rollout. NaN tells them that there is none.
            gathered = torch.full((2, self.n_steps, len(self.data.own_envs)), math.nan)
        gathered = self._gather(gathered.to(self.device))
        if not gathered.isfinite().all():
            self.raise_if_any_failed(failure, "batch")
            raise Diverged(self.lr)
        assert own is not None
        self.rollouts += 1
        self.algorithm.num_timesteps += gathered[0].numel()
        self.add_games(own.scores, own.lengths)
        explained = explained_variance(gathered[1], gathered.sum(0))
        self.add_to_mean("train/explained_variance", explained.nan_to_num(), explained.isfinite())
        self._last_observations = own.observations[-1]
        return merge_rollouts(own, gathered, self.data.own_envs.start)

    def _collect_own(self) -> LocalRollout:
        """Collect this rank's part of a rollout."""
        data = self.data
        if self._collector is None:
            self._collector = Collector(
                data.open_training_envs(self.game, self.env_options, self.rollouts),
                self.n_steps,
                gamma=self.gamma,
                gae_lambda=self.gae_lambda,
                device=self.device,
            )
        noise = None
        if isinstance(self.action_space, spaces.Discrete):
            noise = action_noise(data.seed, self.rollouts, self.n_steps, data.num_envs, int(self.action_space.n))
            noise = noise[:, data.own_envs.start : data.own_envs.stop]
        self.policy.set_training_mode(False)
        with raise_on_divergence(self.lr):
            return self._collector.collect(self.policy, noise, self.timings)

    def _gather(self, own: Tensor) -> Tensor:
        """Gather the advantages and values of all ranks, ``(2, T, E)``."""
        world_size = self.trainer.world_size
        if world_size == 1:
            return own
        gathered = [torch.empty_like(own) for _ in range(world_size)]
        torch.distributed.all_gather(gathered, own)
        return torch.cat(gathered, dim=2)

    # ------------------------------------------------------------------ updates

    def start_updates(self) -> None:
        """Put the policy into training mode, and set the learning rate of its schedule."""
        self.policy.set_training_mode(True)
        for group in self.policy.optimizer.param_groups:
            group["lr"] = self.algorithm.lr_schedule(self.progress_remaining)

    def update(self, loss: Tensor) -> None:
        """Take an optimizer step; DistributedDataParallel averages the gradients over the ranks."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradients, which in half precision are unscaled by now.

        Args:
            optimizer: The policy's.
        """
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)

    def count_pass(self) -> None:
        """Count a pass over a rollout, as Stable-Baselines3 does."""
        set_updates(self.algorithm, self.updates + 1)

    def log_losses(self, losses: Mapping[str, Tensor], samples: int) -> None:
        """Add the losses of a rollout to the means of the epoch, and log them as trainer.log_every_n_steps says.

        Args:
            losses: Means over the updates, by name.
            samples: Samples in the rollout, the weight of these values in the mean.
        """
        for name, value in losses.items():
            self.add_to_mean(f"train/{name}", value * float(samples), samples)
        if self.is_log_step():
            steps = {f"train/{name}_step": value for name, value in losses.items()}
            self.log_dict(steps, on_step=True, on_epoch=False, batch_size=1)
