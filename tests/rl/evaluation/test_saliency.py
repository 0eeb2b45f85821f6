"""Maps of what matters to a policy are what they are defined to be, and the pictures show all of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from PIL import Image
from scipy.ndimage import gaussian_filter

from coordconv_apps.nn.coords import coord_grid
from coordconv_apps.utils.plotting import as_png
from rl import CoordConvCnnPolicy
from rl.evaluation.saliency import (
    coordinate_maps,
    first_coord_layer,
    saliency,
    sample_observations,
    without_coordinates,
)
from rl.evaluation.saliency_figures import draw_coordinate_maps, draw_saliency
from rl.learning.actions import values_and_logits
from tests.rl.players import make_player
from tests.rl.tiny import SIDE, make_a2c, make_env

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

KINDS = ("a2c", "unshared", "continuous", "dqn", "dict")


def observe(player: Any, count: int = 2) -> Any:  # noqa: ANN401
    kind = "dict" if isinstance(player.observation_space, spaces.Dict) else "uint8"
    return sample_observations(player, make_env(kind=kind), count, deterministic=True, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_logits_are_those_of_the_policy(kind: str) -> None:
    player = make_player(kind)
    tensors, _ = player.policy.obs_to_tensor(observe(player, 5))
    with torch.no_grad():
        values, preferences = values_and_logits(player.policy, tensors)
        if kind == "dqn":
            expected = player.q_net(tensors)
            torch.testing.assert_close(values, expected.max(1).values)
            torch.testing.assert_close(preferences.diff(dim=1), expected.diff(dim=1))
            return
        torch.testing.assert_close(values, player.policy.predict_values(tensors)[:, 0])
        distribution = player.policy.get_distribution(tensors).distribution
        found = preferences if kind == "continuous" else preferences.log_softmax(1)
        torch.testing.assert_close(found, distribution.mean if kind == "continuous" else distribution.logits)


def test_blurring_is_that_of_its_definition() -> None:
    player = make_player("a2c")
    observations = np.random.default_rng(0).integers(0, 256, (2, 2, SIDE, SIDE), dtype=np.uint8)
    found = saliency(player, observations)
    y, x = np.mgrid[:SIDE, :SIDE]
    # 8 places on each side, 5 pixels apart: the maps have their values in between.
    places = [2 + 5 * n for n in range(8)]
    values, choices = np.zeros((2, 2, 8, 8), np.float32)
    for number, image in enumerate(observations.astype(np.float64)):
        blurred = np.stack([gaussian_filter(channel, 3, mode="nearest", truncate=3) for channel in image])
        for row, i in enumerate(places):
            for column, j in enumerate(places):
                mask = np.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * 25))
                both = np.stack([image, image * (1 - mask) + blurred * mask]).astype(np.float32)
                with torch.no_grad():
                    value, logits = values_and_logits(player.policy, torch.from_numpy(both))
                values[number, row, column] = (value[0] - value[1]).square() / 2
                choices[number, row, column] = (logits[0] - logits[1]).square().sum() / 2
    for maps, expected in ((found.value, values), (found.policy, choices)):
        np.testing.assert_allclose(maps[:, 2::5, 2::5], expected, rtol=0.02, atol=1e-3 * expected.max())


@pytest.mark.parametrize("kind", ["a2c", "dqn", "dict"])
def test_only_what_is_there_matters(kind: str) -> None:
    player = make_player(kind)
    shape = (2, SIDE, SIDE)
    image = np.zeros((1, *shape), np.uint8)
    image[:, :, 26:31, 6:10] = 255
    observations: Any = {"image": image, "vector": np.ones((1, 2), np.float32)} if kind == "dict" else image
    found = saliency(player, observations)
    for maps in found:
        assert maps.shape == (1, SIDE, SIDE)
        assert maps.dtype == np.float32
        assert maps.min() >= 0
        assert maps.max() > 0
        row, column = np.unravel_index(maps[0].argmax(), (SIDE, SIDE))
        assert abs(row - 28) <= 12, "within the reach of the masks"
        assert abs(column - 8) <= 12
        assert maps[0, :8, 25:].max() < 0.02 * maps.max(), "blurring a black place changes nothing"


def test_channels_may_be_last() -> None:
    player = make_player("a2c")
    observations = observe(player)
    for first, last in zip(
        saliency(player, observations), saliency(player, np.moveaxis(observations, 1, -1)), strict=True
    ):
        np.testing.assert_array_equal(first, last)


def test_channels_that_the_policy_has_last_are_no_places() -> None:
    # Unlike those of bytes, Stable-Baselines3 leaves such images as they are.
    space = spaces.Box(0, 1, (48, 40, 3), np.float32)
    extractor = {"features_dim": 16, "coord_init": "zero"}
    kwargs: dict[str, Any] = {"normalize_images": False, "features_extractor_kwargs": extractor}
    last = CoordConvCnnPolicy(space, spaces.Discrete(3), lambda _: 1e-3, **kwargs)
    first = CoordConvCnnPolicy(spaces.Box(0, 1, (3, 48, 40), np.float32), spaces.Discrete(3), lambda _: 1e-3, **kwargs)
    first.load_state_dict(last.state_dict())
    observations = np.random.default_rng(0).random((2, 48, 40, 3), np.float32)
    found, same = saliency(last, observations), saliency(first, np.moveaxis(observations, -1, 1))
    assert found.value.shape == (2, 48, 40)
    for one, other in zip(found, same, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------- coordinates


def test_without_coordinates_a_policy_is_a_plain_one() -> None:
    player = make_player("a2c")
    plain = make_a2c()
    weights = {name: value for name, value in player.policy.state_dict().items() if "coord_weight" not in name}
    plain.policy.load_state_dict(weights)
    observations, _ = player.policy.obs_to_tensor(observe(player, 4))
    before = values_and_logits(player.policy, observations)[0]
    with torch.no_grad():
        for found, expected in zip(
            values_and_logits(without_coordinates(player), observations),
            values_and_logits(plain.policy, observations),
            strict=True,
        ):
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(values_and_logits(player.policy, observations)[0], before, rtol=0, atol=0)
    assert not torch.allclose(before, values_and_logits(plain.policy, observations)[0])


@pytest.mark.parametrize("kind", ["dqn", "dict"])
def test_coordinate_maps_are_convolved_coordinates(kind: str) -> None:
    player = make_player(kind)
    layer = first_coord_layer(player)
    assert layer is not None
    layer.bias.data.uniform_(-1, 1)  # type: ignore[union-attr]  # it has one
    maps = coordinate_maps(player, observe(player))
    assert maps is not None
    expected = F.conv2d(coord_grid((SIDE, SIDE))[None], layer.coord_weight, stride=4)[0]
    np.testing.assert_allclose(maps, expected.detach().numpy(), atol=1e-5)


def test_plain_policies_have_no_coordinate_maps() -> None:
    player = make_a2c()
    assert coordinate_maps(player, observe(player)) is None
    assert first_coord_layer(player) is None


# ---------------------------------------------------------------------- pictures


def drawn(figure: Figure) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(as_png(figure, 50))) as picture:
        return np.asarray(picture.convert("RGB"))


def shown(axes: Axes, number: int = 0) -> NDArray[Any]:
    """What one of the images of a part of a figure shows."""
    return np.asarray(axes.images[number].get_array())


@pytest.mark.parametrize("kind", ["a2c", "dict"])
def test_figure_has_rows_for_both_arms(kind: str) -> None:
    player = make_player(kind)
    observations = observe(player, 3)
    figure = draw_saliency({"with": player, "without": without_coordinates(player)}, observations)
    assert len(figure.axes) == 5 * 3
    labels = [axes.get_ylabel() for axes in figure.axes[::3]]
    assert labels == ["observation", "with\nvalue", "with\naction", "without\nvalue", "without\naction"]
    maps = saliency(player, observations).policy
    np.testing.assert_array_equal(shown(figure.axes[2 * 3 + 1], 1), maps[1])
    frame = (observations["image"] if kind == "dict" else observations)[1, -1]
    np.testing.assert_array_equal(shown(figure.axes[1])[..., 0], frame)
    assert drawn(figure).std() > 10


def test_figure_of_a_policy_that_looks_at_nothing_can_be_drawn() -> None:
    player = make_player("a2c")
    for parameter in player.policy.parameters():
        parameter.data.zero_()
    figure = draw_saliency({"blind": player}, observe(player, 1))
    assert len(figure.axes) == 3
    assert drawn(figure).std() > 10


def test_figure_has_a_picture_of_each_filter() -> None:
    maps = np.random.default_rng(0).normal(size=(13, 9, 9)).astype(np.float32)
    figure = draw_coordinate_maps(maps)
    pictures = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert len(pictures) == len(maps)
    for axes, values in zip(pictures, maps, strict=True):
        np.testing.assert_array_equal(shown(axes), values)
        assert axes.images[0].get_clim() == pytest.approx((-np.abs(maps).max(), np.abs(maps).max()))
    assert drawn(figure).std() > 10


def test_observations_are_spread_over_the_steps() -> None:
    player = make_player("a2c")
    every = sample_observations(player, make_env(), 21, deterministic=True, seed=0, steps=21)
    some = sample_observations(player, make_env(), 5, deterministic=True, seed=0, steps=21)
    np.testing.assert_array_equal(some, every[::5])
    assert len(np.unique(every, axis=0)) > 10
