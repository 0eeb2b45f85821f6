"""Base task for A2C and PPO: collect rollouts and make updates on all ranks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from gymnasium import spaces
from lightning.pytorch.core.optimizer import LightningOptimizer
from stable_baselines3.common.utils import explained_variance
from torch import Tensor, nn

from coordconv_apps.utils.argument_checks import FRACTION, NON_NEGATIVE, POSITIVE_INT
from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.errors import UserError
from rl.learning.actions import action_noise, values_and_logits
from rl.learning.collector import Collector
from rl.observations import Observations, map_parts
from rl.sb3_internals import set_updates
from rl.tasks.base import RLTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.policies import ActorCriticPolicy
    from torch.optim import Optimizer

    from rl.learning.rollouts import Rollout


class OnPolicyTask(RLTask):
    """Collect rollouts with the policy that is trained, and average gradients over ranks.

    A subclass calls `collect_rollout`, `update` and `log_losses` in its ``training_step``.
    """

    changeable_args: ClassVar[frozenset[str]] = RLTask.changeable_args | {
        "gae_lambda",
        "ent_coef",
        "vf_coef",
        "normalize_advantage",
    }
    divergence_args: ClassVar[tuple[str, ...]] = ("ent_coef", "vf_coef")
    ranges = RLTask.ranges | {
        "n_steps": POSITIVE_INT,
        "gae_lambda": FRACTION,
        "ent_coef": NON_NEGATIVE,
        "vf_coef": NON_NEGATIVE,
    }
    policy: ActorCriticPolicy
    algorithm: A2C | PPO
    _collector: Collector | None = None
    _last_observations: Observations | None = None

    def setup(self, stage: str) -> None:
        """Check that advantages can be normalised."""
        if stage == "fit" and self.steps_per_training_step() == 1 and self.algorithm.normalize_advantage:
            raise ValueError("model.n_steps=1: must be at least 2 with data.num_envs=1 and normalize_advantage")

    def teardown(self, stage: str) -> None:
        """Close the environments."""
        if self._collector is not None:
            self._collector.env.close()
            self._collector = None

    def steps_per_training_step(self) -> int:
        """Return the number of samples in a rollout of all ranks."""
        return self.algorithm.n_steps * self.data.num_envs

    # ----------------------------------------------------------------- rollouts

    def collect_rollout(self) -> Rollout:
        """Collect the next rollout. All ranks call this together.

        The environments are opened for the first rollout and continue from one to the next. They are not part of a
        checkpoint: a resumed run starts new episodes, and unfinished ones are lost.

        Raises:
            UserError: An environment of any rank failed (``last.ckpt`` has the state before the rollout), or the
                training has diverged.
        """
        own, failure = None, None
        try:
            own = self._collect_own()
            gathered = torch.stack([own.advantages, own.values])
        except UserError as error:
            failure = error
            # The other ranks wait for this one's rollout. NaN means that it failed.
            gathered = torch.full((2, self.algorithm.n_steps, len(self.data.own_envs)), math.nan)
        gathered = gathered.to(self.device)
        if self.trainer.world_size > 1:
            parts = [torch.empty_like(gathered) for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather(parts, gathered)  # Lightning's calls a deprecated function of torch
            gathered = torch.cat(parts, dim=2)
        if not gathered.isfinite().all():
            self.raise_if_any_failed(failure, "batch")
            raise self.nan_error()
        assert own is not None
        self.rollouts += 1
        self.algorithm.num_timesteps += gathered[0].numel()
        self.add_games(own.games)
        values, returns = (part.flatten().cpu().numpy() for part in (gathered[1], gathered.sum(0)))
        if math.isfinite(explained := explained_variance(values, returns)):  # NaN if all returns are equal
            self.add_to_mean("train/explained_variance", explained, 1)
        self._last_observations = map_parts(lambda part: part[-1], own.observations)
        return own._replace(advantages=gathered[0], values=gathered[1], first=self.data.own_envs.start)

    def _collect_own(self) -> Rollout:
        """Collect this rank's part of a rollout."""
        data, n_steps = self.data, self.algorithm.n_steps
        if self._collector is None:
            self._collector = Collector(
                data.open_training_envs(self.game, self.env_options, self.rollouts),
                n_steps,
                gamma=self.algorithm.gamma,
                gae_lambda=self.algorithm.gae_lambda,
                device=self.device,
            )
        noise = None
        if isinstance(self.action_space, spaces.Discrete):
            noise = action_noise(data.seed, self.rollouts, n_steps, data.num_envs, int(self.action_space.n))
            noise = noise[:, data.own_envs.start : data.own_envs.stop]
        self.policy.set_training_mode(False)
        with self.nan_as_divergence():
            return self._collector.collect(self.policy, noise, self.timings)

    def on_train_epoch_end(self) -> None:
        """Log the means over the epoch, unless the policy produces NaN or infinity for the latest observations."""
        is_finite = True
        if self._last_observations is not None:
            with torch.no_grad():
                outputs = values_and_logits(self.policy, self._last_observations)
            is_finite = all(bool(output.isfinite().all()) for output in outputs)
        if not all(gather_ranks(is_finite)):
            raise self.nan_error()
        super().on_train_epoch_end()

    # ------------------------------------------------------------------ updates

    @property
    def progress_remaining(self) -> float:
        """The fraction of the training that is left: 1 at its start, below 0 if the last rollout exceeds its end."""
        return 1.0 - self.timesteps / self.total_timesteps

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
        """Clip the gradients, which in half precision are unscaled by now."""
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.algorithm.max_grad_norm)

    def count_pass(self) -> None:
        """Count a pass over a rollout, as Stable-Baselines3 does."""
        set_updates(self.algorithm, self.updates + 1)

    def log_losses(self, losses: Mapping[str, Tensor], samples: int) -> None:
        """Add a rollout's mean losses, weighted by its number of samples, to the means of the epoch, and log them."""
        for name, value in losses.items():
            self.add_to_mean(f"train/{name}", value * float(samples), samples)
        if self.is_log_step():
            means = self.mean_over_processes(losses, samples)
            steps = {f"train/{name}_step": value for name, value in means.items()}
            self.log_dict(steps, on_step=True, on_epoch=False, batch_size=1)
