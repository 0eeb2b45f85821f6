"""The extractors are Stable-Baselines3's, layer for layer and weight for weight, but for the coordinates."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import Tensor, nn

from coordconv_apps import coordconv_layers
from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.nn.coords import Coords
from rl.extractors import CoordConvCombinedExtractor, CoordConvNatureCNN, Where, orthogonal_coord_weight_
from tests.nn.reference import concatenated

ARMS: list[tuple[Coords, Where]] = [("xy", "first"), ("xyr", "all")]


def images(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def scaled(*shape: int) -> spaces.Box:
    return spaces.Box(0, 1, shape, np.float32)


def dictionary() -> spaces.Dict:
    return spaces.Dict(
        {
            "speed": spaces.Box(-1, 1, (3,), np.float32),
            "camera": images(3, 40, 36),
            "gear": spaces.Discrete(4),
            "map": images(1, 36, 44),
        }
    )


def batch_of(space: spaces.Dict, batch: int = 3) -> dict[str, Tensor]:
    """Observations as SB3's policies hand them to an extractor."""
    return {
        key: torch.rand(batch, *(space.shape or ())) if isinstance(space, spaces.Box) else torch.eye(4)[:batch]
        for key, space in space.spaces.items()
    }


# ------------------------------------------------------------------ the network is SB3's


@pytest.mark.parametrize(("coords", "where"), [("none", "first"), *ARMS])
def test_at_one_seed_arms_differ_in_coordinate_weights_alone(coords: Coords, where: Where) -> None:
    torch.manual_seed(3)
    plain = NatureCNN(images(4, 40, 48), features_dim=16)
    after = torch.rand(8)
    torch.manual_seed(3)
    ours = CoordConvNatureCNN(images(4, 40, 48), features_dim=16, coords=coords, where=where)
    assert torch.equal(torch.rand(8), after), "what is drawn later, such as heads, is the same as well"
    state = ours.state_dict()
    for name, weight in plain.state_dict().items():
        assert torch.equal(state.pop(name), weight), name
    channels = {"none": 0, "xy": 2, "xyr": 3}[coords]
    layers = [(0, 32, 8), (2, 64, 4), (4, 64, 3)][: 1 if where == "first" else 3] if channels else []
    assert {name: tuple(weight.shape) for name, weight in state.items()} == {
        f"cnn.{index}.coord_weight": (out, channels, kernel, kernel) for index, out, kernel in layers
    }


def test_coordinate_weights_follow_from_the_seed_and_are_drawn_like_torch_draws_a_convolution_over_both() -> None:
    def drawn(seed: int | None = None) -> list[Tensor]:
        if seed is not None:
            torch.manual_seed(seed)
        layers = coordconv_layers(CoordConvNatureCNN(images(4, 36, 36), where="all"))
        return [layer.coord_weight.detach() for layer in layers.values() if isinstance(layer, CoordLayer)]

    first = drawn(0)
    others = [drawn(), drawn(1)]  # of the same stream, and of another seed
    for weight, again in zip(first, drawn(0), strict=True):
        assert torch.equal(weight, again)
    for weight, *rest in zip(first, *others, strict=True):
        assert not any(torch.equal(weight, other) for other in rest)
    for weight, inputs in zip(first, (4, 32, 64), strict=True):
        bound = 1 / math.sqrt((inputs + 2) * weight[0, 0].numel())
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    # Nor are they the numbers that the next layer, or the head, is drawn from.
    torch.manual_seed(0)
    NatureCNN(images(4, 36, 36))
    following = 2 * torch.rand(first[0].numel()) - 1
    correlation = torch.corrcoef(torch.stack([following, first[0].flatten()]))[0, 1]
    assert correlation.abs() < 0.1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("coords", "where"), ARMS)
def test_features_are_those_of_concatenated_coordinates(coords: Coords, where: Where, training: bool) -> None:
    torch.manual_seed(0)
    extractor = CoordConvNatureCNN(images(3, 44, 52), features_dim=8, coords=coords, where=where).double()
    extractor.train(training)
    x = torch.rand(2, 3, 44, 52, dtype=torch.float64)
    expected = x
    for layer in extractor.cnn:
        expected = concatenated(layer, expected) if isinstance(layer, CoordLayer) else layer(expected)
    expected = extractor.linear(expected)
    assert expected.abs().max() > 0.05
    parameters = list(extractor.parameters())
    assert torch.allclose(extractor(x), expected, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(extractor(x).square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)


# ------------------------------------------------------------------ any image


def test_scaled_coordinates_act_as_smaller_coordinate_weights() -> None:
    def extractor(coord_scale: float) -> CoordConvNatureCNN:
        torch.manual_seed(0)
        return CoordConvNatureCNN(images(4, 36, 40), 16, coords="xyr", where="all", coord_scale=coord_scale)

    plain, small, batch = extractor(1.0), extractor(0.25), torch.rand(3, 4, 36, 40)
    with torch.no_grad():
        for layer in coordconv_layers(plain).values():
            layer.coord_weight.mul_(0.25)
        torch.testing.assert_close(small(batch), plain(batch))


@pytest.mark.parametrize("shape", [(1, 36, 36), (4, 36, 59), (3, 210, 160), (40, 40, 36)])
def test_images_of_any_size_have_the_features_asked_for(shape: tuple[int, int, int]) -> None:
    extractor = CoordConvNatureCNN(images(*shape), features_dim=7, where="all")
    features = extractor(torch.rand(2, *shape))
    assert features.shape == (2, extractor.features_dim) == (2, 7)
    plain = NatureCNN(images(*shape), features_dim=7)
    assert extractor.linear[0].in_features == plain.linear[0].in_features


@pytest.mark.parametrize(("space", "normalized"), [(images(50, 36, 4), False), (scaled(50, 36, 4), True)])
def test_channels_last_give_the_features_of_channels_first(space: spaces.Box, normalized: bool) -> None:
    first = spaces.Box(0, space.high.max(), (4, 50, 36), space.dtype.type)
    torch.manual_seed(0)
    expected = CoordConvNatureCNN(first, 16, normalized)
    torch.manual_seed(0)
    extractor = CoordConvNatureCNN(space, 16, normalized)
    x = torch.rand(2, 4, 50, 36)
    assert torch.allclose(extractor(x.permute(0, 2, 3, 1).contiguous()), expected(x), atol=1e-6)


def test_bounds_that_differ_by_pixel_are_an_image_too() -> None:
    low: NDArray[np.float32] = np.zeros((36, 40, 3), np.float32)
    low[:, 5] = -1
    extractor = CoordConvNatureCNN(spaces.Box(low, low + 2), 5, normalized_image=True)
    assert extractor(torch.rand(1, 36, 40, 3)).shape == (1, 5)


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (images(3, 35, 84), {}, r"Box\(0, 255, \(3, 35, 84\), uint8\): images must be at least 36x36, not 35x84"),
        (images(84, 20, 3), {}, r"images must be at least 36x36, not 84x20"),
        (images(84, 84), {}, r"observation_space=Box\(0, 255, \(84, 84\), uint8\): must be an image, a Box of shape"),
        (scaled(3, 84, 84), {}, r"float32\): must be an image.* policy_kwargs=dict\(normalize_images=False\)"),
        (spaces.Box(0, 1, (84,)), {"normalized_image": True}, r"must be an image, a Box of shape \(C, H, W\) or"),
        (spaces.Discrete(3), {}, r"observation_space=Discrete\(3\): must be an image"),
        (dictionary(), {}, r"observation_space=Dict\(.*\): must be one image; .* use CoordConvMultiInputPolicy"),
        (images(3, 84, 84), {"coords": "xyz"}, "coords='xyz': must be one of 'none', 'xy', 'xyr'"),
        (images(3, 84, 84), {"where": "cnn.0", "coords": "none"}, "where='cnn.0': must be one of 'first', 'all'"),
        (images(3, 84, 84), {"features_dim": 0}, "features_dim=0: must be an integer of at least 1"),
        (images(3, 84, 84), {"coord_scale": 0}, "coord_scale=0: must be a finite number above 0"),
        (images(3, 84, 84), {"coord_scale": math.inf}, "coord_scale=inf: must be a finite number above 0"),
    ],
)
def test_bad_input_is_named_in_one_line(space: spaces.Space[object], kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        CoordConvNatureCNN(space, **kwargs)  # type: ignore[arg-type]  # bad on purpose
    assert "\n" not in str(error.value)


def test_a_space_is_described_in_one_short_line_however_its_bounds_vary() -> None:
    low = np.arange(1200, dtype=np.float32).reshape(20, 20, 3)
    with pytest.raises(ValueError, match=r"^observation_space=Box\(.*, \(20, 20, 3\), float32\): images") as error:
        CoordConvNatureCNN(spaces.Box(low, low + 1), normalized_image=True)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1500


# ------------------------------------------------------------------ several observations


def test_combined_extractor_is_sb3s_but_for_the_coordinates_of_its_images() -> None:
    space = dictionary()
    torch.manual_seed(1)
    plain = CombinedExtractor(space, cnn_output_dim=8)
    after = torch.rand(8)
    observations = batch_of(space)
    torch.manual_seed(1)
    none = CoordConvCombinedExtractor(space, 8, coords="none")
    assert torch.equal(torch.rand(8), after)
    assert none.features_dim == plain.features_dim == 3 + 8 + 4 + 8
    assert torch.equal(none(observations), plain(observations))
    torch.manual_seed(1)
    ours = CoordConvCombinedExtractor(space, 8, coords="xyr", where="first")
    assert torch.equal(torch.rand(8), after)
    state = ours.state_dict()
    assert all(torch.equal(state.pop(name), weight) for name, weight in plain.state_dict().items())
    assert {name: tuple(weight.shape) for name, weight in state.items()} == {
        "extractors.camera.cnn.0.coord_weight": (32, 3, 8, 8),
        "extractors.map.cnn.0.coord_weight": (32, 3, 8, 8),
    }
    parts = torch.cat([ours.extractors[key](observations[key]) for key in space.spaces], dim=1)
    assert torch.equal(ours(observations), parts)


def test_combined_extractor_takes_scaled_images_with_their_channels_last() -> None:
    space = spaces.Dict({"camera": scaled(36, 40, 3), "speed": scaled(2)})
    extractor = CoordConvCombinedExtractor(space, 8, normalized_image=True)
    assert list(coordconv_layers(extractor)) == ["extractors.camera.cnn.0"]
    assert extractor({"camera": torch.rand(2, 36, 40, 3), "speed": torch.rand(2, 2)}).shape == (2, 10)


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (images(3, 84, 84), {}, r"observation_space=Box\(.*\): must be a Dict; .* use CoordConvCnnPolicy"),
        (spaces.Dict({"a": scaled(3, 84, 84)}), {}, r"=Dict\('a': Box\(.*\)\): must hold an image, a Box of shape"),
        (spaces.Dict({"a": images(3, 10, 12)}), {}, r"observation_space\['a'\]=.* must be at least 36x36, not 10x12"),
        (dictionary(), {"cnn_output_dim": 0}, "cnn_output_dim=0: must be an integer of at least 1"),
    ],
)
def test_bad_input_of_several_observations_is_named_in_one_line(
    space: spaces.Space[object], kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        CoordConvCombinedExtractor(space, **kwargs)  # type: ignore[arg-type]  # bad on purpose
    assert "\n" not in str(error.value)


def test_without_coordinates_no_image_is_needed() -> None:
    space = spaces.Dict({"speed": scaled(2)})
    assert CoordConvCombinedExtractor(space, coords="none").features_dim == 2


# ------------------------------------------------------------------ drawing, copying, compiling


@pytest.mark.parametrize("index", [0, 2, 4])
def test_orthogonal_coordinate_weights_have_the_scale_of_a_layer_that_concatenates(index: int) -> None:
    torch.manual_seed(0)
    layer = CoordConvNatureCNN(images(4, 36, 36), where="all").cnn[index]
    assert isinstance(layer, CoordLayer)
    nn.init.orthogonal_(layer.weight, math.sqrt(2))
    weight = layer.weight.detach().clone()
    stream = torch.get_rng_state()
    squares = []
    for _ in range(20):
        orthogonal_coord_weight_(layer, math.sqrt(2))
        part = layer.coord_weight.detach().flatten(1)
        # Part of a kernel whose rows are orthogonal and of length sqrt(2): no part of it is longer than that.
        assert torch.linalg.matrix_norm(part, 2) <= math.sqrt(2) + 1e-5
        squares.append(part.square().mean().item())
        torch.rand(1)
    fan_in = (layer.in_channels + 2) * math.prod(layer.kernel_size)
    assert np.mean(squares) == pytest.approx(2 / fan_in, rel=0.03)
    assert len(set(squares)) == 20
    assert torch.equal(layer.weight, weight)
    torch.set_rng_state(stream)
    orthogonal_coord_weight_(layer, math.sqrt(2))
    assert torch.equal(torch.get_rng_state(), stream)
    assert layer.coord_weight.square().mean().item() == squares[0]


def test_copies_pickles_and_compiled_extractors_give_the_same_features() -> None:
    extractor = CoordConvNatureCNN(scaled(40, 36, 4), 8, normalized_image=True, where="all")
    x = torch.rand(2, 40, 36, 4)
    expected = extractor(x)
    assert torch.equal(copy.deepcopy(extractor)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(extractor))(x), expected)
    compiled = torch.compile(extractor, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "channels"), [((40, 40, 48), 48), ((48, 40, 40), 48), ((90, 84, 84), 90)])
def test_a_stack_with_more_channels_than_rows_keeps_its_axes(shape: tuple[int, int, int], channels: int) -> None:
    extractor = CoordConvNatureCNN(spaces.Box(0, 255, shape, np.uint8), features_dim=8)
    layer: Any = extractor.cnn[0]
    assert layer.in_channels == channels
    seen: list[tuple[int, ...]] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    extractor(torch.rand(2, *shape))
    height, width = sorted(shape)[:2]
    assert seen == [(2, channels, height, width)]


def test_a_stack_that_sb3_has_transposed_wrongly_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^observation_space=Box\([^\n]*: Stable-Baselines3 has taken rows for channels"
    ):
        CoordConvNatureCNN(images(40, 48, 40))
