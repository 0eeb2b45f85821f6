"""Saliency maps of a policy, and the maps that coordinates add to its first convolution.

A pixel of an observation matters as much as the value and the choice of an action change when its surroundings are
blurred (Greydanus et al., 2018, "Visualizing and Understanding Atari Agents"). Coordinates add a fixed map to the
output of each filter.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coordconv_apps.nn.coord_layer import CoordLayer
from rl.envs.images import is_channels_last
from rl.evaluation.films import image_keys
from rl.evaluation.play import evaluation_mode, play, policy_of
from rl.learning.actions import values_and_logits
from rl.observations import observation_at, stack_observations

if TYPE_CHECKING:
    from collections.abc import Callable

    from gymnasium import spaces
    from numpy.typing import NDArray
    from stable_baselines3.common.policies import BasePolicy
    from stable_baselines3.common.vec_env import VecEnv

    from rl.evaluation.play import Player

_SPACING = 5
"""Distance in pixels between the blurred positions, as in the paper."""

_MASK_SIGMA, _BLUR_SIGMA = 5.0, 3.0
"""Standard deviations in pixels of the mask and of the blur, as in the paper."""

_BATCH = 256


class Saliency(NamedTuple):
    """Saliency of each pixel for the value and for the choice of an action: float32 ``(B, H, W)``, not negative."""

    value: NDArray[np.float32]
    policy: NDArray[np.float32]


class _Images(NamedTuple):
    """The images of a batch of observations, and the policy as a function of images.

    ``evaluate`` returns values ``(N,)`` and logits ``(N, A)`` for images ``(N, C, H, W)`` and the indices ``(N,)`` of
    the observations whose image they replace.
    """

    images: Tensor  # float32 ``(B, C, H, W)``, in the units of the observations
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def saliency(
    player: Player,
    observations: Any,  # noqa: ANN401  # an array, or a dict of them
    key: str | None = None,
) -> Saliency:
    """Compute saliency maps of a policy.

    One position after the other is blurred in all frames of a stack. Its saliency is half the squared change of the
    value, and half the squared distance of the logits (Greydanus et al., 2018).

    Args:
        player: Policy of A2C, PPO or DQN, or such an algorithm.
        observations: ``(B, C, H, W)`` or ``(B, H, W, C)``, or a dict.
        key: Key of the image in a dict. None: its first image.

    Example:
        >>> from rl import CoordConvCnnPolicy
        >>> from rl.envs.catch import CatchVecEnv
        >>> env = CatchVecEnv(2, seed=0)
        >>> policy = CoordConvCnnPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
        >>> saliency(policy, env.reset()).value.shape
        (2, 84, 84)
    """
    policy = policy_of(player)
    with evaluation_mode(player), torch.no_grad():
        found = _by_blurring(_as_images(policy, observations, key))
    value, choice = (maps.float().cpu().numpy() for maps in found)
    return Saliency(value, choice)


def _as_images(policy: BasePolicy, observations: Any, key: str | None) -> _Images:  # noqa: ANN401  # or a dict
    space = policy.observation_space
    key = image_keys(space)[0] if key is None else key
    box = cast("spaces.Box", space if key is None else cast("spaces.Dict", space)[key])
    last = is_channels_last(box)
    tensors: Any = policy.obs_to_tensor(observations)[0]

    def evaluate_images(images: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        if last:
            images = images.permute(0, 2, 3, 1)
        if key is None:
            return values_and_logits(policy, images)
        return values_and_logits(policy, {**{name: value[places] for name, value in tensors.items()}, key: images})

    images: Tensor = (tensors if key is None else tensors[key]).float()
    return _Images(images.permute(0, 3, 1, 2) if last else images, evaluate_images)


def _by_blurring(inputs: _Images) -> tuple[Tensor, Tensor]:
    images, size = inputs.images, inputs.images.shape[-2:]
    rows, columns = map(_gaussian_rows, size)
    masks = torch.einsum("rh,cw->rchw", rows, columns).flatten(0, 1).to(images.device)  # (positions, H, W) in [0, 1]
    values, logits = inputs.evaluate(images, torch.arange(len(images)))
    maps = []
    for place, (image, blurred) in enumerate(zip(images, _blur(images), strict=True)):
        changes = []
        for part in masks.split(_BATCH):
            others = image + part[:, None] * (blurred - image)
            value, logit = inputs.evaluate(others, torch.full((len(part),), place))
            value_change = (value - values[place]).square() / 2
            changes.append(torch.stack([value_change, (logit - logits[place]).square().sum(1) / 2]))
        maps.append(torch.cat(changes, 1).view(2, len(rows), len(columns)))
    # Maps of the blurred positions become maps of all pixels.
    return F.interpolate(torch.stack(maps), size, mode="bilinear", align_corners=False).unbind(1)  # type: ignore[return-value]  # two


def _gaussian_rows(side: int) -> Tensor:
    """Return ``(positions, side)``: a Gaussian around every fifth pixel of a side, with equal margins."""
    positions = torch.arange((side - 1) % _SPACING // 2, side, _SPACING)
    return torch.exp(-(torch.arange(side)[None] - positions[:, None]).square() / (2 * _MASK_SIGMA**2))


def _blur(images: Tensor) -> Tensor:
    """Blur images ``(B, C, H, W)`` with a Gaussian, replicating the border."""
    reach = round(3 * _BLUR_SIGMA)
    kernel = torch.exp(-torch.arange(-reach, reach + 1, device=images.device).square() / (2 * _BLUR_SIGMA**2))
    kernel = (kernel / kernel.sum()).to(images.dtype)
    flat = F.pad(images.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, kernel[None, None, None]), kernel[None, None, :, None]).view_as(images)


def first_coord_layer(player: Player, key: str | None = None) -> CoordLayer | None:
    """Return the first layer of a policy with coordinates, or the first for the image with a key; None without one."""
    for name, module in policy_of(player).named_modules():
        if isinstance(module, CoordLayer) and (key is None or f".extractors.{key}." in name):
            return module
    return None


def without_coordinates(player: Player) -> BasePolicy:
    """Return a copy of a policy whose coordinate weights are 0.

    x and y are on average 0, so that this removes positions and no constant; the distance r is not.
    """
    policy = copy.deepcopy(policy_of(player))
    for module in policy.modules():
        if isinstance(module, CoordLayer):
            module.coord_weight.data.zero_()
    return policy


def coordinate_maps(player: Player, observations: Any, key: str | None = None) -> NDArray[np.float32] | None:  # noqa: ANN401  # or a dict
    """Return the maps that coordinates add to the outputs of `first_coord_layer`, without its bias.

    Returns:
        float32 ``(filters, h, w)``, the same for all observations of a size; None without such a layer.
    """
    policy, layer = policy_of(player), first_coord_layer(player, key)
    if layer is None:
        return None
    sizes: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: sizes.append((inputs[0], output)))
    with handle, evaluation_mode(player), torch.no_grad():
        values_and_logits(policy, policy.obs_to_tensor(observations)[0])
        maps = layer.coord_map(*sizes[0])
        if layer.bias is not None:
            maps = maps - layer.bias[:, None, None]
    added: NDArray[np.float32] = maps.float().cpu().numpy()
    return added


def sample_observations(
    player: Player, env: VecEnv, count: int, *, deterministic: bool, seed: int, steps: int = 400
) -> Any:  # noqa: ANN401  # an array, or a dict of them
    """Play some steps and return observations of the first environment, spaced evenly over them.

    Arguments are those of `rl.evaluation.episodes.play_episodes`. The result is ``(count, ...)``, or a dict of such
    arrays.
    """
    wanted = {round(place) for place in np.linspace(0, steps - 1, count)}
    found = []
    with evaluation_mode(player):
        for number, step in enumerate(play(player, env, deterministic=deterministic, seed=seed)):
            if number in wanted:  # copied, since an environment may reuse its memory
                found.append(copy.deepcopy(observation_at(step.observations, 0)))
            if number == steps - 1:
                break
    return stack_observations(found)
