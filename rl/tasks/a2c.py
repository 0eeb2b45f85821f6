"""Advantage actor-critic (A2C)."""

from __future__ import annotations

from typing import Any

import stable_baselines3

from coordconv_apps.nn.coords import Coords
from rl.extractors import CoordInit, Where
from rl.learning.actions import evaluate_actions
from rl.learning.losses import a2c_loss
from rl.learning.minibatches import full_batch
from rl.sb3_objects import OptimizerName, Schedule
from rl.tasks.on_policy import OnPolicyTask


class A2C(OnPolicyTask):
    """Train a policy by advantage actor-critic (Mnih et al., 2016), with the defaults of Stable-Baselines3.

    Each rollout is used for a single update, with all of its samples. Numbers of steps, environments and samples are
    those of all processes together: the number of processes changes the speed only.

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
        gamma: Discount factor, in [0, 1].
        gae_lambda: Decay of later temporal differences in generalised advantage estimation, in [0, 1]; with 1,
            advantages are returns minus values.
        ent_coef: Weight of the entropy bonus in the loss.
        vf_coef: Weight of the value loss, a squared error.
        max_grad_norm: Largest norm of the gradient; a larger gradient is scaled down to it.
        normalize_advantage: Whether the advantages of a rollout are normalised.
        lr: Initial learning rate.
        lr_schedule: Whether the learning rate stays "constant" or falls to 0 over the training ("linear").
        optimizer: "adam", "rmsprop", or "rmsprop_tf", RMSprop as in TensorFlow.
        optimizer_eps: Epsilon in the optimizer's denominator.

    Raises:
        ValueError: An argument is out of its range, or the game's action space is not supported.
    """

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
        n_steps: int = 5,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        normalize_advantage: bool = False,
        lr: float = 7e-4,
        lr_schedule: Schedule = "constant",
        optimizer: OptimizerName = "rmsprop",
        optimizer_eps: float = 1e-5,
    ) -> None:
        super().__init__(coords)  # saves all arguments in self.hparams, from which SB3's A2C gets the others
        self.ent_coef, self.vf_coef = ent_coef, vf_coef
        self.normalize_advantage = normalize_advantage
        self.create_algorithm(stable_baselines3.A2C)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Collect a rollout and make an update with all of its samples."""
        rollout = self.collect_rollout()
        with self.timings.measure("updating"):
            self.start_updates()
            samples = full_batch(
                rollout, normalize_advantage=self.normalize_advantage, world_size=self.trainer.world_size
            )
            predictions = evaluate_actions(self.policy, samples.observations, samples.actions)
            losses = a2c_loss(predictions, samples, ent_coef=self.ent_coef, vf_coef=self.vf_coef)
            self.update(losses["loss"])
            self.count_pass()
        self.log_losses({name: value.detach() for name, value in losses.items()}, rollout.advantages.numel())
        self.stop_at_end()
