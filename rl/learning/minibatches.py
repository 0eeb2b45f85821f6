"""Cut rollouts into minibatches, as Stable-Baselines3 does.

The gradients of several processes add up to those of one: sums over samples are divided by ``size``, which is chosen
so that DistributedDataParallel's mean of the processes' gradients is the gradient of the mean over all samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from rl.learning.advantages import Rollout

if TYPE_CHECKING:
    from collections.abc import Iterator


EPSILON = 1e-8
"""What is added to the standard deviation that advantages are divided by; Stable-Baselines3's."""


class Batch(NamedTuple):
    """B of a rollout's samples, those of one process.

    Attributes:
        observations: uint8 ``(B, C, H, W)``.
        actions: int64 ``(B,)``, or float32 ``(B, A)``.
        log_probs: float32 ``(B,)``, of the actions when they were drawn.
        advantages: float32 ``(B,)``, normalised if asked for.
        values: float32 ``(B,)``, as predicted when the actions were drawn.
        returns: float32 ``(B,)``, what the values should have been.
        size: What sums over these samples are divided by: B for one process.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    size: float


def whole(rollout: Rollout, *, normalize_advantage: bool, world_size: int = 1) -> Batch:
    """All samples of a rollout as one batch: `batches` has the details.

    Args:
        rollout: With T steps of the E environments of all processes.
        normalize_advantage: Whether to subtract the mean and to divide by the standard deviation (with N - 1).
        world_size: Number of processes.
    """
    everyone = rollout.advantages
    if normalize_advantage:
        everyone = (everyone - everyone.mean()) / (everyone.std() + EPSILON)
    own = slice(rollout.first, rollout.first + rollout.log_probs.shape[1])
    values = rollout.values[:, own].flatten()
    return Batch(
        rollout.observations.flatten(0, 1),
        rollout.actions.flatten(0, 1),
        rollout.log_probs.flatten(),
        everyone[:, own].flatten(),
        values,
        rollout.advantages[:, own].flatten() + values,
        everyone.numel() / world_size,
    )


def batches(
    rollout: Rollout, order: Tensor, batch_size: int, *, normalize_advantage: bool, world_size: int = 1
) -> Iterator[Batch]:
    """A rollout's samples in batches, each of them once.

    All processes deal the same samples into the same batches: each has those of its own environments, of a batch more
    and of another fewer or none. Advantages are normalised by mean and standard deviation over the whole batch. So the
    number of processes makes no difference, and to one process this is what Stable-Baselines3 does.

    Args:
        rollout: With T steps of the E environments of all processes.
        order: int64 ``(T * E,)`` on the CPU, a permutation: sample ``t * E + e`` is step t of environment e.
        batch_size: Samples of all processes in a batch; it divides T * E.
        normalize_advantage: Whether to subtract the mean and to divide by the standard deviation (with N - 1), unless
            a batch is a single sample.
        world_size: Number of processes.
    """
    environments, own = rollout.advantages.shape[1], rollout.log_probs.shape[1]
    device = rollout.log_probs.device
    everyone, values = rollout.advantages.flatten(), rollout.values.flatten()
    # In the order in which they lie in memory, so that they are copied in one piece each.
    pixels, actions = rollout.observations.flatten(0, 1).permute(0, 2, 3, 1), rollout.actions.flatten(0, 1)
    log_probs = rollout.log_probs.flatten()
    for samples in order.split(batch_size):
        numbers = samples % environments - rollout.first
        mine = (numbers >= 0) & (numbers < own)
        here, local = samples[mine], (samples // environments * own + numbers)[mine]
        samples, here, local = (indices.to(device, non_blocking=True) for indices in (samples, here, local))
        advantage = everyone[here]
        if normalize_advantage and batch_size > 1:
            chosen = everyone[samples]
            advantage = (advantage - chosen.mean()) / (chosen.std() + EPSILON)
        returns = everyone[here] + values[here]
        size = batch_size / world_size
        observations = pixels.index_select(0, local).permute(0, 3, 1, 2)
        yield Batch(observations, actions[local], log_probs[local], advantage, values[here], returns, size)
