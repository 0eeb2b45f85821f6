"""Features extractors with coordinates for Stable-Baselines3 (SB3): its NatureCNN and CombinedExtractor with CoordConv.

The network is that of Mnih et al. (2015); the layers that see coordinates are those of Liu et al. (2018), who gave
them to A2C's convolutions but did not publish to which: here it is a switch. The convolutions are built plain, as SB3
builds them, and converted. The coordinate weights are drawn aside, so that at one seed the arms of a comparison
start with the same weights everywhere else, heads included.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import Tensor, nn

from coordconv_apps import to_coordconv
from coordconv_apps.nn.coords import Coords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordconv_apps.nn.coord_layer import CoordLayer

Where = Literal["first", "all"]
CoordInit = Literal["random", "zero"]
"""Which convolutions see coordinates: the first, which sees the picture, or all three."""

SMALLEST_IMAGE = 36
"""Pixels per side that NatureCNN needs: from its last layer back, 1 + 2 = 3, 2 (3 - 1) + 4 = 8, 4 (8 - 1) + 8 = 36."""


class CoordConvNatureCNN(NatureCNN):
    """Stable-Baselines3's NatureCNN (Mnih et al., 2015) whose first convolution, or all, see where they are.

    Layers, their names in the state dict, and their weights at one seed are those of SB3's NatureCNN; each layer with
    coordinates has a ``coord_weight`` more. It is drawn as a convolution over features and coordinates together would
    draw it. Being a NatureCNN, it is told by SB3's policies when images are not to be scaled
    (``normalize_images=False``).

    `rl.CoordConvCnnPolicy` and `rl.CoordConvDQNPolicy` have this extractor. SB3's own ``"CnnPolicy"`` takes it too,
    but gives its empty head to no class other than NatureCNN itself, and two hidden layers of 64 units to any other:
    pass ``net_arch=[]``, or the comparison with NatureCNN is one of heads as well::

        A2C("CnnPolicy", env, policy_kwargs=dict(features_extractor_class=CoordConvNatureCNN, net_arch=[]))

    There the coordinate weights of A2C and PPO start as described above; SB3 draws the others anew, orthogonally, and
    larger. `rl.CoordConvCnnPolicy` draws them at that scale too.

    Args:
        observation_space: Images of shape ``(C, H, W)`` or ``(H, W, C)``, H and W at least 36. An axis shorter than
            that holds channels. (SB3 itself puts the channels of unscaled images first.)
        features_dim: Number of features.
        normalized_image: False for images of uint8 in [0, 255], which SB3's policies scale to [0, 1]; True for images
            of any type and range, which they hand over as they are.
        coords: ``"xy"``, ``"xyr"`` to add the distance from the centre, or ``"none"`` for SB3's NatureCNN itself.
        where: ``"first"`` convolution or ``"all"``.
        coord_init: How coordinate weights start: ``"random"``, as described above, or ``"zero"``: the features are at
            first those of SB3's NatureCNN.

    Raises:
        ValueError: If the observations are not such images, or an argument is none of the above.

    Shape:
        Input ``(B, C, H, W)`` or ``(B, H, W, C)``, as the space; output ``(B, features_dim)``, not negative.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 512,
        normalized_image: bool = False,
        coords: Coords = "xy",
        where: Where = "first",
        coord_init: CoordInit = "random",
    ) -> None:
        _check_arguments(coords, where, coord_init, features_dim=features_dim)
        images = _as_images(observation_space, normalized_image)
        super().__init__(_channels_first(images), features_dim, normalized_image)
        self._observation_space = images
        self._channels_last = is_channels_last(images)
        if coords != "none":
            with _random_numbers_aside():
                to_coordconv(self.cnn, where, coords, init="default" if coord_init == "random" else "zero")

    def forward(self, observations: Tensor) -> Tensor:
        """Features of a batch of images, in the range that the policy gives them: [0, 1] unless told otherwise."""
        return super().forward(observations.permute(0, 3, 1, 2) if self._channels_last else observations)


class CoordConvCombinedExtractor(CombinedExtractor):
    """Stable-Baselines3's CombinedExtractor, for Dict observations, with a `CoordConvNatureCNN` for each image.

    Other observations are flattened and appended, as SB3 does. `rl.CoordConvMultiInputPolicy` and
    `rl.CoordConvDQNMultiInputPolicy` have this extractor; SB3's own ``"MultiInputPolicy"`` takes it too, with the
    head that it gives to its own.

    Args:
        observation_space: Boxes and discrete spaces by name; the images among them as for `CoordConvNatureCNN`.
        cnn_output_dim: Number of features of each image.
        normalized_image: As for `CoordConvNatureCNN`; if True, every Box of three axes is an image.
        coords: As for `CoordConvNatureCNN`; ``"none"`` gives SB3's CombinedExtractor itself.
        where: As for `CoordConvNatureCNN`.
        coord_init: As for `CoordConvNatureCNN`.

    Raises:
        ValueError: If the space is no Dict, none of it is an image though coordinates are wanted, an image is too
            small, or an argument is none of the above.

    Shape:
        Input a dict of ``(B, *shape)``; output ``(B, features_dim)``.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        cnn_output_dim: int = 256,
        normalized_image: bool = False,
        coords: Coords = "xy",
        where: Where = "first",
        coord_init: CoordInit = "random",
    ) -> None:
        _check_arguments(coords, where, coord_init, cnn_output_dim=cnn_output_dim)
        if not isinstance(observation_space, spaces.Dict):
            raise ValueError(
                f"observation_space={_describe(observation_space)}: must be a Dict; for images alone use "
                "CoordConvCnnPolicy or CoordConvDQNPolicy"
            )
        images = {
            key: _as_images(space, normalized_image, name=f"observation_space[{key!r}]")
            for key, space in observation_space.spaces.items()
            if is_image_space(space, normalized_image=normalized_image)
        }
        if not images and coords != "none":
            raise ValueError(
                f"observation_space={_describe(observation_space)}: must hold an image, {_ALLOWED[normalized_image]}"
            )
        sizes = {
            key: cnn_output_dim if key in images else get_flattened_obs_dim(space)
            for key, space in observation_space.spaces.items()
        }
        # Not SB3's own constructor: it would build plain networks for the images.
        BaseFeaturesExtractor.__init__(self, observation_space, features_dim=sum(sizes.values()))
        self.extractors = nn.ModuleDict(
            {
                key: CoordConvNatureCNN(images[key], cnn_output_dim, normalized_image, coords, where, coord_init)
                if key in images
                else nn.Flatten()
                for key in sizes
            }
        )


def draw_orthogonal(layer: CoordLayer, gain: float) -> None:
    """Draw the coordinate weight of a convolution for a policy that is initialised orthogonally, in place.

    SB3 draws the kernels of A2C's and PPO's convolutions orthogonal, and thereby at another scale than torch. The
    coordinate weight becomes the coordinates' part of an orthogonal kernel over features and coordinates together,
    which is what a layer that concatenates them would be given. ``weight`` stays as it is, the same in both arms, and
    so does a coordinate weight that starts at 0.

    Args:
        layer: A CoordConv layer that is no transposed one.
        gain: Factor of the orthogonal kernel; SB3's is the square root of 2 for convolutions.
    """
    if not layer.coord_weight.any():
        return
    with torch.no_grad(), _random_numbers_aside():
        kernel = torch.cat([layer.weight, layer.coord_weight], dim=1)
        nn.init.orthogonal_(kernel, gain)
        layer.coord_weight.copy_(kernel[:, layer.weight.shape[1] :])


@contextmanager
def _random_numbers_aside() -> Iterator[None]:
    """Random numbers that depend on torch's seed, but leave its stream, and so all later weights, as it is."""
    with torch.random.fork_rng(devices=[]):
        # Not the very numbers that the next layer is drawn from.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device="cpu")))
        yield


def _check_arguments(coords: str, where: str, coord_init: str, **sizes: int) -> None:
    for name, value, choices in (
        ("coords", coords, get_args(Coords)),
        ("where", where, get_args(Where)),
        ("coord_init", coord_init, get_args(CoordInit)),
    ):
        if value not in choices:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, choices))}")
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: must be at least 1")


_ALLOWED = {
    False: "a Box of shape (C, H, W) or (H, W, C) of uint8 in [0, 255], or of anything with "
    "policy_kwargs=dict(normalize_images=False)",
    True: "a Box of shape (C, H, W) or (H, W, C)",
}
"""Words for the images that are allowed, by ``normalized_image``."""


def _as_images(space: spaces.Space[Any], normalized_image: bool, name: str = "observation_space") -> spaces.Box:
    """The space itself, if its observations are images that NatureCNN can take."""
    if isinstance(space, spaces.Dict):
        raise ValueError(
            f"{name}={_describe(space)}: must be one image; for Dict observations use CoordConvMultiInputPolicy or "
            "CoordConvDQNMultiInputPolicy"
        )
    if not (isinstance(space, spaces.Box) and is_image_space(space, normalized_image=normalized_image)):
        raise ValueError(f"{name}={_describe(space)}: must be an image, {_ALLOWED[normalized_image]}")
    first, last = min(space.shape[1:]), min(space.shape[:2])
    if max(first, last) < SMALLEST_IMAGE:
        height, width = space.shape[1:] if space.shape[0] == min(space.shape) else space.shape[:2]
        least = f"{SMALLEST_IMAGE}x{SMALLEST_IMAGE}"
        raise ValueError(f"{name}={_describe(space)}: images must be at least {least}, not {height}x{width}")
    return space


def is_channels_last(images: spaces.Box) -> bool:
    """Whether images that are large enough have their channels last: an axis too short for an image holds them.

    SB3 has put first the channels of images of uint8 already. A rule that goes by the shortest axis, as SB3's does
    for that, would put them first a second time where an image has more channels than columns.
    """
    return min(images.shape[1:]) < SMALLEST_IMAGE


def _channels_first(images: spaces.Box) -> spaces.Box:
    """The space of the same images with the channels first."""
    if not is_channels_last(images):
        return images
    low, high = (bound.transpose(2, 0, 1) for bound in (images.low, images.high))
    return spaces.Box(low, high, dtype=images.dtype.type)


def _describe(space: spaces.Space[Any]) -> str:
    """A space in one line: a Box whose bounds differ by pixel would print all of them."""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {_describe(value)}' for key, value in space.spaces.items())})"
    if isinstance(space, spaces.Box):
        return f"Box({space.low.min()}, {space.high.max()}, {space.shape}, {space.dtype})"
    return " ".join(str(space).split())
