"""Feature extractors for Stable-Baselines3 (SB3): its NatureCNN and CombinedExtractor with CoordConv layers.

The network is that of Mnih et al. (2015). Liu et al. (2018) added coordinates to the convolutions of A2C but did not
publish to which; here ``where`` chooses. The convolutions are built by SB3 and then converted. The coordinate weights
come from a separate random stream, so that with the same seed all other weights, heads included, are equal in all arms
of a comparison.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import Tensor, nn

from coordconv_apps import Coordinates, to_coordconv
from coordconv_apps.nn.coords import Coords
from coordconv_apps.utils.argument_checks import check_at_least
from coordconv_apps.utils.errors import one_line, shortened
from rl.envs.images import SMALLEST_IMAGE, has_unclear_channels, is_channels_last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordconv_apps.nn.coord_layer import CoordLayer

Where = Literal["first", "all"]
"""Choices of the convolutions that get coordinates: the first, or all three."""
CoordInit = Literal["random", "zero"]
"""Choices of the initial coordinate weights."""


class CoordConvNatureCNN(NatureCNN):
    """Stable-Baselines3's NatureCNN (Mnih et al., 2015) with coordinates in its first or in all convolutions.

    With the same seed, the layers, their names in the state dict and their weights are those of SB3's NatureCNN. Each
    layer with coordinates has an additional ``coord_weight``, distributed as in a convolution over the concatenation of
    features and coordinates.

    `rl.CoordConvCnnPolicy` and `rl.CoordConvDQNPolicy` use this extractor. SB3's own ``"CnnPolicy"`` accepts it too,
    but adds two hidden layers of 64 units after any extractor other than NatureCNN itself. Pass ``net_arch=[]`` to keep
    the heads equal::

        A2C("CnnPolicy", env, policy_kwargs=dict(features_extractor_class=CoordConvNatureCNN, net_arch=[]))

    In that case SB3 initialises the other weights of A2C and PPO orthogonally, which makes them larger than the
    coordinate weights. `rl.CoordConvCnnPolicy` scales the coordinate weights, too.

    Args:
        observation_space: Images of shape ``(C, H, W)`` or ``(H, W, C)``, with H and W at least 36. An axis shorter
            than that holds channels.
        features_dim: Number of features.
        normalized_image: False for uint8 images in [0, 255], which SB3's policies scale to [0, 1]; True for images of
            any type and range, which they pass on unchanged.
        coords: ``"xy"``, ``"xyr"`` to add the distance from the centre, or ``"none"`` for SB3's NatureCNN itself.
        where: ``"first"`` convolution or ``"all"``.
        coord_init: ``"random"`` as described above, or ``"zero"``, which starts with the features of SB3's NatureCNN.
        coord_scale: Factor of the coordinates: x and y lie in [-coord_scale, coord_scale]. With a factor
            below 1, training changes the effect of the coordinates more slowly.

    Raises:
        ValueError: The observations are not such images, or an argument is not allowed.

    Shape:
        - Input: ``(B, C, H, W)`` or ``(B, H, W, C)``, as in the space
        - Output: ``(B, features_dim)``, not negative

    Example:
        >>> import numpy as np
        >>> from gymnasium import spaces
        >>> extractor = CoordConvNatureCNN(spaces.Box(0, 255, (4, 84, 84), np.uint8), coords="xyr", where="all")
        >>> extractor(torch.rand(2, 4, 84, 84)).shape
        torch.Size([2, 512])
        >>> extractor.cnn[0].coord_weight.shape
        torch.Size([32, 3, 8, 8])
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 512,
        normalized_image: bool = False,
        coords: Coords = "xy",
        where: Where = "first",
        coord_init: CoordInit = "random",
        coord_scale: float = 1.0,
    ) -> None:
        _check_arguments(coords, where, coord_init, coord_scale, features_dim=features_dim)
        images = _as_images(observation_space, normalized_image)
        super().__init__(_channels_first(images), features_dim, normalized_image)
        self._observation_space = images
        self._channels_last = is_channels_last(images)
        if coords != "none":
            coordinates = Coordinates(coords, range=(-coord_scale, coord_scale))
            with _forked_random_state():
                to_coordconv(self.cnn, where, coordinates, init="default" if coord_init == "random" else "zero")

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features of a batch of images, which SB3's policies scale to [0, 1] by default."""
        return super().forward(observations.permute(0, 3, 1, 2) if self._channels_last else observations)


class CoordConvCombinedExtractor(CombinedExtractor):
    """Stable-Baselines3's CombinedExtractor, for Dict observations, with a `CoordConvNatureCNN` for each image.

    Other observations are flattened and concatenated, as in SB3. `rl.CoordConvMultiInputPolicy` and
    `rl.CoordConvDQNMultiInputPolicy` use this extractor; SB3's own ``"MultiInputPolicy"`` accepts it too, with the
    same head. With ``coords="none"`` it is SB3's CombinedExtractor itself.

    Args:
        observation_space: Boxes and discrete spaces by name; images among them as for `CoordConvNatureCNN`.
        cnn_output_dim: Number of features of each image.
        normalized_image: As for `CoordConvNatureCNN`; if True, every Box with three axes is an image.
        coords: As for `CoordConvNatureCNN`, like the other arguments.

    Raises:
        ValueError: The space is not a Dict, has no image although ``coords`` asks for coordinates, an image is too
            small, or an argument is not allowed.

    Shape:
        - Input: dict of ``(B, *shape)``
        - Output: ``(B, features_dim)``

    Example:
        >>> import numpy as np
        >>> from gymnasium import spaces
        >>> space = spaces.Dict(image=spaces.Box(0, 255, (1, 36, 36), np.uint8), speed=spaces.Box(-1, 1, (2,)))
        >>> extractor = CoordConvCombinedExtractor(space)
        >>> extractor({"image": torch.rand(5, 1, 36, 36), "speed": torch.rand(5, 2)}).shape
        torch.Size([5, 258])
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        cnn_output_dim: int = 256,
        normalized_image: bool = False,
        coords: Coords = "xy",
        where: Where = "first",
        coord_init: CoordInit = "random",
        coord_scale: float = 1.0,
    ) -> None:
        _check_arguments(coords, where, coord_init, coord_scale, cnn_output_dim=cnn_output_dim)
        if not isinstance(observation_space, spaces.Dict):
            raise ValueError(
                f"observation_space={_shown(observation_space)}: must be a Dict; for images alone use "
                "CoordConvCnnPolicy or CoordConvDQNPolicy"
            )
        extractors: dict[str, nn.Module] = {}
        features_dim = 0
        for key, space in observation_space.spaces.items():
            _check_key(key)
            if is_image_space(space, normalized_image=normalized_image):
                images = _as_images(space, normalized_image, name=f"observation_space[{key!r}]")
                extractors[key] = CoordConvNatureCNN(
                    images, cnn_output_dim, normalized_image, coords, where, coord_init, coord_scale
                )
                features_dim += cnn_output_dim
            else:
                extractors[key] = nn.Flatten()
                features_dim += get_flattened_obs_dim(space)
        if coords != "none" and not any(isinstance(extractor, NatureCNN) for extractor in extractors.values()):
            described = _shown(observation_space)
            raise ValueError(f"observation_space={described}: must hold an image, {_ALLOWED_IMAGES[normalized_image]}")
        # CombinedExtractor's constructor would build plain networks for the images.
        BaseFeaturesExtractor.__init__(self, observation_space, features_dim=features_dim)
        self.extractors = nn.ModuleDict(extractors)


def orthogonal_coord_weight_(layer: CoordLayer, gain: float) -> None:
    """Initialise the coordinate weight of a convolution for a policy with orthogonal initialisation, in place.

    SB3 initialises the convolutions of A2C and PPO orthogonally, with a gain of the square root of 2, and thereby at
    another scale than torch. The coordinate weight becomes the part for the coordinates of an orthogonal kernel over
    features and coordinates, as in a layer that concatenates them. ``weight`` does not change, so that it is the same
    in both arms; a coordinate weight of 0 stays 0.
    """
    if not layer.coord_weight.any():
        return
    with torch.no_grad(), _forked_random_state():
        kernel = torch.cat([layer.weight, layer.coord_weight], dim=1)
        nn.init.orthogonal_(kernel, gain)
        layer.coord_weight.copy_(kernel[:, layer.weight.shape[1] :])


@contextmanager
def _forked_random_state() -> Iterator[None]:
    """Draw random numbers that depend on torch's seed, but do not advance its generator and so change later weights."""
    with torch.random.fork_rng(devices=[]):
        # A new seed, since the next layer is drawn from the present state.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield


def _check_arguments(coords: str, where: str, coord_init: str, coord_scale: float, **sizes: int) -> None:
    for name, value, kind in (
        ("coords", coords, Coords),
        ("where", where, Where),
        ("coord_init", coord_init, CoordInit),
    ):
        if value not in get_args(kind):
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, get_args(kind)))}")
    if not 0 < coord_scale < math.inf:
        raise ValueError(f"coord_scale={coord_scale!r}: must be a finite number above 0")
    check_at_least(1, **sizes)


def _check_key(key: Any) -> None:  # noqa: ANN401  # of a Dict space
    """Raise `ValueError` if SB3 cannot name a layer by the key of an observation."""
    if not isinstance(key, str) or not key or "." in key or hasattr(nn.ModuleDict(), key):
        raise ValueError(
            f"observation_space[{key!r}]: the key must be a text without dots that torch.nn.ModuleDict does not use"
            " itself, as it does keys, items, values and type; rename this part"
        )


_ALLOWED_IMAGES = {
    False: "a Box of shape (C, H, W) or (H, W, C) of uint8 in [0, 255], or of anything with "
    "policy_kwargs=dict(normalize_images=False)",
    True: "a Box of shape (C, H, W) or (H, W, C)",
}
"""Description of the images that are allowed, by ``normalized_image``."""


def _shown(space: spaces.Space[Any]) -> str:
    """Return a space on one line; bounds that vary by pixel would fill a terminal."""
    return shortened(one_line(str(space)))


def _as_images(space: spaces.Space[Any], normalized_image: bool, name: str = "observation_space") -> spaces.Box:
    """Return the space, or raise `ValueError` if NatureCNN cannot process its observations."""
    if isinstance(space, spaces.Dict):
        allowed = (
            "must be one image; for Dict observations use CoordConvMultiInputPolicy or CoordConvDQNMultiInputPolicy"
        )
        raise ValueError(f"{name}={_shown(space)}: {allowed}")
    if not (isinstance(space, spaces.Box) and is_image_space(space, normalized_image=normalized_image)):
        raise ValueError(f"{name}={_shown(space)}: must be an image, {_ALLOWED_IMAGES[normalized_image]}")
    first, last = min(space.shape[1:]), min(space.shape[:2])
    if max(first, last) < SMALLEST_IMAGE:
        height, width = space.shape[1:] if space.shape[0] == min(space.shape) else space.shape[:2]
        least = f"{SMALLEST_IMAGE}x{SMALLEST_IMAGE}"
        raise ValueError(f"{name}={_shown(space)}: images must be at least {least}, not {height}x{width}")
    if has_unclear_channels(space):
        raise ValueError(
            f"{name}={_shown(space)}: Stable-Baselines3 has taken rows for channels; stack fewer than"
            f" {SMALLEST_IMAGE} channels, or images whose channels are last"
        )
    return space


def _channels_first(images: spaces.Box) -> spaces.Box:
    if not is_channels_last(images):
        return images
    low, high = (bound.transpose(2, 0, 1) for bound in (images.low, images.high))
    return spaces.Box(low, high, dtype=images.dtype.type)
