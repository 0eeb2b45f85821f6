"""What a policy looks at, with its coordinates and without them.

Two measures of how much each place of an observation matters to the value and to the choice of an action: the change
when the place is blurred (Greydanus et al., 2018, "Visualizing and Understanding Atari Agents") and the gradient. And
what coordinates add to the first convolution, a fixed picture for each of its filters.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coordconv_apps.nn.functional import CoordLayer
from rl.evaluation.films import image_key
from rl.evaluation.play import evaluation_mode, play, policy_of
from rl.extractors import is_channels_last
from rl.learning.actions import values_and_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gymnasium import spaces
    from numpy.typing import NDArray
    from stable_baselines3.common.policies import BasePolicy
    from stable_baselines3.common.vec_env import VecEnv

    from rl.evaluation.play import Player

Method = Literal["blur", "gradient"]

_SPACING = 5
"""Pixels between the places that are blurred; the paper blurs at every fifth pixel."""

_PATCH, _BLUR = 5.0, 3.0
"""Standard deviations in pixels, of the mask that says where to blur, and of the blur: those of the paper."""

_SMOOTH = 2.0
"""Standard deviation in pixels by which gradients, noisy from pixel to pixel, are smoothed."""

_BATCH = 256


class Saliency(NamedTuple):
    """How much the places of observations matter.

    Attributes:
        value: float32 ``(B, H, W)``, to the estimated value; not negative.
        policy: float32 ``(B, H, W)``, to the choice of an action; not negative.
    """

    value: NDArray[np.float32]
    policy: NDArray[np.float32]


class _Images(NamedTuple):
    """A batch of observations, and how to see another image in their place.

    Attributes:
        images: float32 ``(B, C, H, W)``, in the units of the observations.
        evaluate: Values ``(B,)`` and preferences ``(B, A)`` for the observations with other images instead, of which
            there may be several for each of the observations at the given places.
    """

    images: Tensor
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def saliency(player: Player, observations: Any, method: Method = "blur") -> Saliency:  # noqa: ANN401  # or a dict
    """How much each place of observations matters to a policy.

    With ``blur``, places are blurred one after the other in all frames of a stack: of the value half the squared
    change counts, of the policy half the squared distance of the logits (Greydanus et al., 2018).
    With ``gradient``, the absolute derivatives of the value and of the preferred action's logit by each pixel, summed
    over the channels and smoothed.

    Args:
        player: A policy of A2C, PPO or DQN, or such an algorithm.
        observations: ``(B, C, H, W)`` or ``(B, H, W, C)``, or a dict of which the first image counts.
        method: The measure.

    Returns:
        Maps of the observations' height and width.

    Raises:
        ValueError: There is no image in the observations, or the policy is of another kind.
    """
    policy = required_policy(player)
    measure = {"blur": _by_blurring, "gradient": _by_gradient}[method]
    # Gradients even where the caller has none, as callbacks do; of the images only, none is added to the parameters'.
    with evaluation_mode(player), torch.inference_mode(False):
        found = measure(_as_images(policy, observations))
    value, choice = (maps.detach().float().cpu().numpy() for maps in found)
    return Saliency(value, choice)


def required_policy(player: Player) -> BasePolicy:
    """The policy that plays.

    Raises:
        ValueError: It is none of Stable-Baselines3's.
    """
    policy = policy_of(player)
    if policy is None:
        raise ValueError(f"player={type(player).__name__}: must be a policy or an algorithm of Stable-Baselines3")
    return policy


def _as_images(policy: BasePolicy, observations: Any) -> _Images:  # noqa: ANN401  # an array, or a dict of them
    space = policy.observation_space
    key = image_key(space)
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


def _by_blurring(seen: _Images) -> tuple[Tensor, Tensor]:
    images, (height, width) = seen.images, seen.images.shape[-2:]
    rows, columns = (_grid(side) for side in (height, width))
    masks = _masks(rows, columns, (height, width)).to(images.device)
    with torch.no_grad():
        values, preferences = seen.evaluate(images, torch.arange(len(images)))
        maps = []
        for place, (image, blurred) in enumerate(zip(images, _gaussian(images, _BLUR), strict=True)):
            changes = []
            for part in masks.split(_BATCH):
                others = image + part[:, None] * (blurred - image)
                value, preference = seen.evaluate(others, torch.full((len(part),), place))
                of_value = (value - values[place]).square() / 2
                changes.append(torch.stack([of_value, (preference - preferences[place]).square().sum(1) / 2]))
            maps.append(torch.cat(changes, 1).view(2, len(rows), len(columns)))
    return _spread(torch.stack(maps), (height, width))


def _grid(side: int) -> list[int]:
    """Every fifth pixel of a side, with as much of it before the first as after the last."""
    return list(range((side - 1) % _SPACING // 2, side, _SPACING))


def _masks(rows: Sequence[int], columns: Sequence[int], size: tuple[int, int]) -> Tensor:
    """How much to blur each pixel, ``(rows * columns, H, W)`` in [0, 1], 1 at one place each."""
    down, across = (
        torch.exp(-(torch.arange(side)[None] - torch.tensor(places)[:, None]).square() / (2 * _PATCH**2))
        for places, side in zip((rows, columns), size, strict=True)
    )
    return torch.einsum("rh,cw->rchw", down, across).flatten(0, 1)


def _spread(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maps ``(B, 2, rows, columns)`` of single places as two of all pixels, ``(B, H, W)``."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False).unbind(1)  # type: ignore[return-value]  # two


def _by_gradient(seen: _Images) -> tuple[Tensor, Tensor]:
    maps = []
    with torch.enable_grad():
        images = seen.images.clone().requires_grad_()
        values, preferences = seen.evaluate(images, torch.arange(len(images)))
        for outputs in (values, preferences.amax(1)):
            (gradient,) = torch.autograd.grad(outputs.sum(), images, retain_graph=True)
            maps.append(_gaussian(gradient.abs().sum(1, keepdim=True), _SMOOTH).squeeze(1))
    return maps[0], maps[1]


def _gaussian(images: Tensor, deviation: float) -> Tensor:
    """Images ``(B, C, H, W)`` blurred by a Gaussian, in pixels, with their border continued."""
    reach = round(3 * deviation)
    kernel = torch.exp(-torch.arange(-reach, reach + 1, device=images.device).square() / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).to(images.dtype)
    flat = F.pad(images.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, kernel[None, None, None]), kernel[None, None, :, None]).view_as(images)


# ------------------------------------------------------------------- coordinates


def first_coord_layer(player: Player) -> CoordLayer | None:
    """The first layer of a policy that sees coordinates; None without one."""
    return next((module for module in required_policy(player).modules() if isinstance(module, CoordLayer)), None)


def without_coordinates(player: Player) -> BasePolicy:
    """A copy of a policy in which coordinates count for nothing: their weights are 0. It is the player's otherwise.

    Coordinates are in [-1, 1] and on average about 0: what is taken away is where things are, not a constant.
    """
    policy = copy.deepcopy(required_policy(player))
    for module in policy.modules():
        if isinstance(module, CoordLayer):
            module.coord_weight.data.zero_()
    return policy


def coordinate_maps(player: Player, observations: Any) -> NDArray[np.float32] | None:  # noqa: ANN401  # or a dict
    """What coordinates add to the outputs of the first layer that sees them, before its bias.

    Args:
        player: A policy of A2C, PPO or DQN, or such an algorithm.
        observations: As for `saliency`; only their size counts.

    Returns:
        float32 ``(filters, h, w)``, the same for all observations; None without such a layer.
    """
    layer = first_coord_layer(player)
    if layer is None:
        return None
    sizes: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: sizes.append((inputs[0], output)))
    try:
        with evaluation_mode(player), torch.no_grad():
            seen = _as_images(required_policy(player), observations)
            seen.evaluate(seen.images, torch.arange(len(seen.images)))
            maps = layer.coord_map(*sizes[0])
            if layer.bias is not None:
                maps = maps - layer.bias[:, None, None]
    finally:
        handle.remove()
    added: NDArray[np.float32] = maps.float().cpu().numpy()
    return added


# ------------------------------------------------------------------- observations


def watch(player: Player, env: VecEnv, count: int, *, deterministic: bool, seed: int, steps: int = 400) -> Any:  # noqa: ANN401  # an array, or a dict of them
    """Observations of the first environment to look at, spread evenly over some steps of playing.

    Args:
        player: Who plays. Its networks are in evaluation mode meanwhile.
        env: It is seeded and reset.
        count: How many.
        deterministic: Whether to take the most probable actions, not drawn ones.
        seed: As of `rl.evaluation.episodes.play_episodes`.
        steps: To play; at least ``count``.

    Returns:
        ``(count, ...)``, or a dict of such arrays.

    Raises:
        ValueError: A number is out of its range.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"count={count}: must be an integer from 1 to {steps}, the number of steps")
    wanted = {round(place) for place in np.linspace(0, steps - 1, count)}
    found = []
    with evaluation_mode(player):
        for number, step in enumerate(play(player, env, deterministic=deterministic, seed=seed)):
            if number in wanted:
                found.append(copy.deepcopy(step.observations))  # an environment may use its memory again
            if number == steps - 1:
                break
    if isinstance(found[0], dict):
        return {key: np.stack([seen[key][0] for seen in found]) for key in found[0]}
    return np.stack([seen[0] for seen in found])
