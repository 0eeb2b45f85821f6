"""Proximal policy optimization (PPO)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import stable_baselines3
import torch

from coordconv_apps.nn.coords import Coords
from coordconv_apps.utils.argument_checks import POSITIVE, POSITIVE_INT, int_up_to, one_of
from rl.extractors import CoordInit, Where
from rl.learning.actions import evaluate_actions
from rl.learning.losses import ppo_loss
from rl.learning.minibatches import minibatches, order_generator
from rl.sb3_objects import OptimizerName, Schedule, make_schedule
from rl.tasks.on_policy import OnPolicyTask

if TYPE_CHECKING:
    from torch import Tensor

    from rl.learning.rollouts import Rollout


class PPO(OnPolicyTask):
    """Train a policy by proximal policy optimization (Schulman et al., 2017), with the defaults of Stable-Baselines3.

    Numbers of steps, environments and samples are those of all processes together: the number of processes changes the
    speed only.

    Args:
        coords: Coordinates that the policy's convolutions see: "none" (the plain-convolution baseline), "xy", or "xyr"
            with the distance from the centre.
        where: Convolutions that see coordinates: the "first", or "all".
        coord_init: Initial coordinate weights: "random" as in a layer that concatenates coordinates, or "zero", with
            which the policy starts as the plain one.
        coord_scale: Factor of the coordinates: x and y lie in [-coord_scale, coord_scale].
        game: "catch"; an Atari game, such as "pong"; or a Gymnasium environment whose observations are images, or a
            Dict of images and vectors.
        frame_stack: Number of stacked frames in an observation; null: 4 for Atari games, 1 for others.
        full_action_space: Atari: whether to offer all 18 actions instead of those that do something in the game.
        image_size: Atari: height and width of observations, in pixels.
        arguments: Gymnasium: arguments of the environment, such as {continuous: false} of CarRacing. Atari: mode and
            difficulty of the game, such as {mode: 1, difficulty: 2}, which is slower.
        total_timesteps: Steps of all environments in the training. It ends with the rollout that completes them.
        n_steps: Steps of each environment in a rollout.
        n_epochs: Epochs of updates on each rollout, at most 1000.
        batch_size: Samples in a minibatch; must divide n_steps times data.num_envs.
        gamma: Discount factor, in [0, 1].
        gae_lambda: Decay of later temporal differences in generalised advantage estimation, in [0, 1]; with 1,
            advantages are returns minus values.
        ent_coef: Weight of the entropy bonus in the loss.
        vf_coef: Weight of the value loss, a squared error.
        max_grad_norm: Largest norm of the gradient; a larger gradient is scaled down to it.
        normalize_advantage: Whether advantages are normalised in each minibatch.
        target_kl: Updates on a rollout stop once the approximate KL exceeds 1.5 times this, in nats. Null for no limit.
        clip_range: The probability ratio is clipped to [1 - clip_range, 1 + clip_range].
        clip_schedule: Whether clip_range stays "constant" or falls to 0 over the training ("linear").
        clip_range_vf: The change of a value since the rollout is clipped to [-clip_range_vf, clip_range_vf]. Null: not
            clipped.
        lr: Initial learning rate.
        lr_schedule: Whether the learning rate stays "constant" or falls to 0 over the training ("linear").
        optimizer: "adam", "rmsprop", or "rmsprop_tf", RMSprop as in TensorFlow.
        optimizer_eps: Epsilon in the optimizer's denominator.

    Raises:
        ValueError: An argument is out of its range, or the game's action space is not supported.
    """

    changeable_args: ClassVar[frozenset[str]] = OnPolicyTask.changeable_args | {
        "n_epochs",
        "batch_size",
        "target_kl",
        "clip_range",
        "clip_schedule",
        "clip_range_vf",
    }
    ranges = OnPolicyTask.ranges | {
        "n_epochs": int_up_to(1000),
        "batch_size": POSITIVE_INT,
        "target_kl": POSITIVE,
        "clip_range": POSITIVE,
        "clip_schedule": one_of(Schedule),
        "clip_range_vf": POSITIVE,
    }
    algorithm: stable_baselines3.PPO

    def __init__(
        self,
        coords: Coords = "none",
        where: Where = "first",
        coord_init: CoordInit = "random",
        coord_scale: float = 1.0,
        game: str = "catch",
        frame_stack: int | None = None,
        full_action_space: bool = False,
        image_size: int = 84,
        arguments: dict[str, Any] | None = None,
        total_timesteps: int = 1_000_000,
        n_steps: int = 2048,
        n_epochs: int = 10,
        batch_size: int = 64,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        normalize_advantage: bool = True,
        target_kl: float | None = None,
        clip_range: float = 0.2,
        clip_schedule: Schedule = "constant",
        clip_range_vf: float | None = None,
        lr: float = 3e-4,
        lr_schedule: Schedule = "constant",
        optimizer: OptimizerName = "adam",
        optimizer_eps: float = 1e-5,
    ) -> None:
        super().__init__(coords)  # saves all arguments in self.hparams, from which SB3's PPO gets the others
        self.n_epochs, self.batch_size, self.target_kl = n_epochs, batch_size, target_kl
        self.ent_coef, self.vf_coef, self.normalize_advantage = ent_coef, vf_coef, normalize_advantage
        self.clip_range_vf = clip_range_vf
        self.create_algorithm(stable_baselines3.PPO, clip_range=make_schedule(clip_range, clip_schedule))

    def setup(self, stage: str) -> None:
        """Check that rollouts can be cut into minibatches."""
        super().setup(stage)
        if stage == "fit" and (samples := self.steps_per_training_step()) % self.batch_size:
            raise ValueError(
                f"model.batch_size={self.batch_size}: must divide model.n_steps times data.num_envs, which is {samples}"
            )

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Collect a rollout and make updates with its minibatches."""
        rollout = self.collect_rollout()
        with self.timings.measure("updating"):
            self.start_updates()
            measured = self._learn(rollout)
            means = torch.stack([torch.stack(list(values.values())) for values in measured]).mean(0)
        self.log_losses(dict(zip(measured[0], means, strict=True)), rollout.advantages.numel())
        self.stop_at_end()

    def _learn(self, rollout: Rollout) -> list[dict[str, Tensor]]:
        """Make the updates of a rollout; return the losses of each."""
        measured = []
        clip_range = self.algorithm.clip_range(self.progress_remaining)  # type: ignore[operator]  # SB3's set-up has made it a schedule
        generator = order_generator(self.data.seed, self.rollouts)
        for _ in range(self.n_epochs):
            for minibatch in minibatches(
                rollout,
                self.batch_size,
                generator,
                normalize_advantage=self.normalize_advantage,
                world_size=self.trainer.world_size,
            ):
                predictions = evaluate_actions(self.policy, minibatch.observations, minibatch.actions)
                losses = ppo_loss(
                    predictions,
                    minibatch,
                    clip_range=clip_range,
                    clip_range_vf=self.clip_range_vf,
                    ent_coef=self.ent_coef,
                    vf_coef=self.vf_coef,
                )
                measured.append({name: value.detach() for name, value in losses.items()})
                if self._exceeds_target_kl(measured[-1]["approx_kl"]):
                    self.count_pass()
                    return measured
                self.update(losses["loss"])
            self.count_pass()
        return measured

    def _exceeds_target_kl(self, approx_kl: Tensor) -> bool:
        """Return whether the policy has changed too much, on all ranks alike."""
        if self.target_kl is None:
            return False
        mean = self.trainer.strategy.reduce(approx_kl.clone(), reduce_op="mean")
        return float(mean) > 1.5 * self.target_kl
