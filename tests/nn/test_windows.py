"""`coord_window`: a tile's outputs are the whole image's, away from borders of the tile that are none of the image."""

from __future__ import annotations

import copy
import pickle
import re
from contextlib import nullcontext
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from coordconv_apps import (
    AddCoords,
    CoordConv2d,
    Coordinates,
    WindowedModel,
    coord_window,
    coordconv_layers,
    fold,
    measure_strides,
    to_coordconv,
)
from tests.nn.networks import SharedConv, UNet
from tests.nn.test_cached_map import convolutions
from tests.nn.test_layers import seamless

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


IMAGE = (72, 88)


class Pyramid(nn.Module):
    """One head that sees feature maps of two strides in turn, as those of detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        coarse = self.head(self.second(fine))
        fine = self.head(fine)
        out: Tensor = fine + nn.functional.interpolate(coarse, fine.shape[-2:])
        return out


class Squeeze(nn.Module):
    """A convolution whose grid does not grow with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.AdaptiveAvgPool2d(3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.pool(0 * x))
        return y


def unpadded() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, stride=2), nn.Tanh(), nn.Conv2d(4, 2, 2)
    )


def upsampling() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, stride=2), nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 4, stride=4), nn.ReLU(), nn.Conv2d(4, 2, 1),
    )  # fmt: skip


def ready(model: nn.Module, coords: Any = "xyr", size: int = 32) -> nn.Module:  # noqa: ANN401 - any coordinates
    """The model with random coordinate weights and known strides, in double precision and evaluation mode."""
    torch.manual_seed(0)
    to_coordconv(model, "all", coords, init="default")
    measure_strides(model, (1, 3, size, size))
    return model.double().eval()


def tile_errors(
    model: nn.Module, scale: float, margin: int, tensors: bool, image: tuple[int, int] = IMAGE
) -> list[float]:
    """Largest differences of tiles from the whole image's output, ``margin`` outputs away from the tiles' borders."""
    torch.manual_seed(1)
    x, tile, errors = torch.randn(2, 3, *image, dtype=torch.float64), 48, []
    with torch.no_grad():
        whole = model(x)
        for row, column in [(0, 0), (8, 16), (16, 24), (24, 40)]:
            place: list[Any] = [(row, column), image]
            with coord_window(model, *(torch.tensor(p) if tensors else p for p in place)):
                y = model(x[..., row : row + tile, column : column + tile])
            start = [round(n * scale) for n in (row, column)]
            expected = whole[..., start[0] : start[0] + y.shape[-2], start[1] : start[1] + y.shape[-1]]
            inner = (..., slice(margin, y.shape[-2] - margin), slice(margin, y.shape[-1] - margin))
            assert y[inner].numel()
            errors.append((y - expected)[inner].abs().max().item())
    return errors


# A model, its outputs per input pixel, and how far the borders of a tile reach into its output.
MODELS: dict[str, tuple[Callable[[], nn.Module], float, int]] = {
    "unpadded, strided": (unpadded, 1 / 4, 0),
    "upsampling": (upsampling, 2, 0),
    "U-Net": (UNet, 1, 10),
    "shared at two strides": (Pyramid, 1 / 2, 4),
    "shared, one object": (SharedConv, 1 / 4, 3),
    "even kernel, same": (lambda: nn.Conv2d(3, 4, 4, padding="same", dilation=2, padding_mode="reflect"), 1, 6),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch, about its own copy
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_tiles_equal_the_whole_image(name: str, tensors: bool) -> None:
    make, scale, margin = MODELS[name]
    model = ready(make())
    assert max(tile_errors(model, scale, margin, tensors)) < 1e-12
    with torch.no_grad():  # the test can fail: without a window the tile has its own coordinates
        x = torch.randn(1, 3, *IMAGE, dtype=torch.float64)
        part = model(x[..., :48, :48])
    assert (part - model(x)[..., : part.shape[-2], : part.shape[-1]]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "coords",
    [
        Coordinates("y"),
        Coordinates("xr", range=(0, 1), align_corners=False),
        Coordinates("xy", function=lambda grid: torch.cat([grid.sin(), grid.prod(0, keepdim=True)])),
    ],
)
def test_other_coordinates_equal_the_whole_image(coords: Coordinates) -> None:
    for tensors in (False, True):
        assert max(tile_errors(ready(unpadded(), coords), 1 / 4, 0, tensors)) < 1e-12


@pytest.mark.parametrize("image", [(73, 89), (79, 95)])
def test_tiles_equal_a_whole_image_that_strides_do_not_divide(image: tuple[int, int]) -> None:
    """The size of a whole image's grid is rounded, differently for every layer."""
    for make, scale, margin in (MODELS["unpadded, strided"], MODELS["U-Net"], MODELS["shared, one object"]):
        for size in (32, 45):
            model = ready(make(), size=size)
            for tensors in (False, True):
                assert max(tile_errors(model, scale, margin, tensors, image)) < 1e-12


def test_strides_are_measured_by_layer_name() -> None:
    model = to_coordconv(UNet().train(), "all")
    strides = measure_strides(model, (2, 3, 16, 16))
    assert model.training
    assert {name: calls[0] for name, calls in strides.items()} == {
        "stem.0": (1, 1), "down": (1, 1), "middle.conv": (2, 2), "up": (2, 2), "head": (1, 1)
    }  # fmt: skip
    assert measure_strides(to_coordconv(Pyramid(), "head"), (1, 3, 32, 32)) == {"head": [(4, 4), (2, 2)]}
    assert measure_strides(to_coordconv(Squeeze()), (1, 3, 32, 32)) == {"conv": [(torch.inf, torch.inf)]}
    assert not any(p.is_meta for p in model.parameters())


def test_a_grid_of_fixed_size_has_its_own_coordinates() -> None:
    model = ready(Squeeze())
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    for place in [((8, 8), (64, 64)), (torch.tensor([8, 8]), torch.tensor([64, 64]))]:
        with coord_window(model, *place):  # type: ignore[arg-type]  # each pair is of one kind
            torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("coords", "channels_last"), [("xy", True), ("xyr", False)])
def test_windows_per_sample_equal_samples_one_by_one(coords: str, channels_last: bool) -> None:
    model = ready(unpadded(), coords)
    origins, sizes = torch.tensor([[0, 0], [8, 20], [40, 4]]), torch.tensor([[64, 64], [80, 96], [72, 51]])
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    for full_size in (sizes, sizes[:1], (64, 90)):
        with coord_window(model, origins, full_size):
            y = model(x)
            with torch.no_grad():
                torch.testing.assert_close(model(x), y)
        alone = []
        for i in range(3):
            size = tuple(full_size[i % len(full_size)].tolist()) if isinstance(full_size, Tensor) else full_size
            with coord_window(model, origins[i].tolist(), size):
                alone.append(model(x[i : i + 1]))
        expected = torch.cat(alone)
        torch.testing.assert_close(y, expected)
        gradients = (torch.autograd.grad(out.square().sum(), parameters) for out in (y, expected))
        torch.testing.assert_close(*gradients)


def test_training_and_evaluation_in_one_window() -> None:
    """The map is cached in evaluation and drawn from a cached grid in training; neither is used for another window."""
    model = CoordConv2d(3, 4, 3, padding=1).double()
    measure_strides(model, (1, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    places: list[Any] = [None, (0, 0), (8, 0), (0, 8), None, (8, 8)] * 2
    wanted: dict[Any, Tensor] = {}
    for mode in (True, False):
        for place in places:
            model.train(mode)
            if place is None:
                y = model(x)
            else:
                with coord_window(model, place, (16, 16)), torch.set_grad_enabled(mode):
                    y, again = model(x), model(x)
                    assert torch.equal(y, again)
            torch.testing.assert_close(y, wanted.setdefault(place, y.detach()))
    assert len({float(y.sum()) for y in wanted.values()}) == 5


def test_a_layer_caches_the_map_of_its_window() -> None:
    """The same window again costs what no window costs; another one costs the map of one sample."""
    layer = CoordConv2d(3, 4, 3, padding=1).eval()
    measure_strides(layer, (1, 3, 8, 8))
    counts = []
    for place in [None, None, (8, 0), (8, 0), (0, 0), (0, 0)]:
        with coord_window(layer, place, (16, 16)) if place else nullcontext():
            counts.append(convolutions(layer, torch.randn(16, 3, 8, 8)))
    assert counts == [2, 1, 2, 1, 2, 1]


def test_a_window_ends_with_its_block_and_is_not_copied() -> None:
    model = ready(UNet())
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        with coord_window(model, (0, 0), (32, 32)):
            outer = model(x)
            with coord_window(model, (16, 16), (32, 32)):
                assert not torch.equal(model(x), outer)
            with pytest.raises(RuntimeError, match="to have 3 channels"), coord_window(model, (16, 16), (32, 32)):
                model(x[:, :2])
            assert torch.equal(model(x), outer)
            copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for one in (model, *copies):
            assert torch.equal(one(x), expected)
            with coord_window(one, (0, 0), (32, 32)):  # copies keep the strides
                assert torch.equal(one(x), outer)


def test_a_shared_head_starts_anew_in_every_window() -> None:
    model: Any = ready(Pyramid())
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    handle = model.second.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError), coord_window(model, (0, 0), (64, 64)):
        model(x)
    handle.remove()
    assert max(tile_errors(model, 1 / 2, 4, tensors=False)) < 1e-12


def test_add_coords_and_replaced_convolutions_see_the_window() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        AddCoords("xyr"),
        nn.Conv2d(7, 4, 2, stride=2),
        AddCoords(Coordinates("y")),
        nn.Conv2d(5, 2, 3),
    )
    to_coordconv(model, r"^4$", init="default")
    model[4]._conv_forward = MethodType(lambda self, x, w, b: nn.functional.conv2d(x, w, b), model[4])
    model.double().eval()
    measure_strides(model, (1, 3, 32, 32))
    for tensors in (False, True):
        assert max(tile_errors(model, 1 / 2, 0, tensors)) < 1e-12
    tiling: Any = CoordConv2d(3, 4, 3, padding=1).double()
    tiling._conv_forward = MethodType(seamless, tiling)
    measure_strides(tiling, (1, 3, 16, 16))
    assert max(tile_errors(tiling, 1, 1, tensors=True)) < 1e-12


def test_half_precision_and_unbatched_inputs_see_the_window() -> None:
    layer = CoordConv2d(3, 4, 1, dtype=torch.bfloat16)
    measure_strides(layer, (1, 3, 8, 8))
    x = torch.randn(3, 8, 8, dtype=torch.bfloat16)
    exact = copy.deepcopy(layer).float()
    for place in [((512, 8), (1024, 1024)), (torch.tensor([512, 8]), torch.tensor([[1024, 1024]]))]:
        with coord_window(layer, *place), coord_window(exact, *place):  # type: ignore[arg-type]  # of one kind each
            torch.testing.assert_close(layer(x), exact(x.float()).bfloat16(), rtol=0.02, atol=0.02)


def test_sliding_window_inference_of_monai_equals_the_whole_image() -> None:
    """With an overlap, and the borders of tiles given no weight, tiles make up the whole image's output."""
    model, margin, roi = ready(UNet()), 10, (32, 48)
    x = torch.randn(2, 3, 80, 96, dtype=torch.float64)
    weight = torch.full(roi, 1e-12, dtype=torch.float64)
    weight[margin:-margin, margin:-margin] = 1

    def predict(tiles: Tensor, places: list[list[slice]]) -> Tensor:
        origins = torch.tensor([[axis.start for axis in place[2:]] for place in places])
        with coord_window(model, origins, x.shape[2:]):
            y: Tensor = model(tiles)
        return y

    with torch.no_grad():
        whole = model(x)
        options: dict[str, Any] = {"overlap": 0.75, "roi_weight_map": weight}
        tiled: Any = sliding_window_inference(x, roi, 3, predict, with_coord=True, **options)
        without: Any = sliding_window_inference(x, roi, 3, model, **options)
    inner = (slice(None), slice(None), slice(margin, -margin), slice(margin, -margin))
    torch.testing.assert_close(tiled[inner], whole[inner], rtol=1e-9, atol=1e-9)
    assert (without[inner] - whole[inner]).abs().max() > 1e-2


def test_a_window_is_folded() -> None:
    model = ready(UNet())
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad(), coord_window(model, (16, 8), (64, 64)):
        expected = model(x)
        folded = fold(model, (1, 3, 16, 24))
    assert not coordconv_layers(folded)
    torch.testing.assert_close(folded(x), expected)
    assert (folded(x) - model(x)).abs().max() > 1e-3
    with (
        coord_window(model, torch.tensor([[16, 8], [0, 0]]), (64, 64)),
        pytest.raises(ValueError, match="fold needs one window for all samples, and this model sees 2"),
    ):
        fold(model, (2, 3, 16, 24))

    def within(*places: Any) -> Callable[[nn.Module], None]:  # noqa: ANN401 - origins
        def forward(folding: nn.Module) -> None:
            for place in places:
                with coord_window(folding, place, (64, 64)):
                    folding(x)

        return forward

    torch.testing.assert_close(fold(model, forward=within((16, 8), (16, 8)))(x), expected)
    with pytest.raises(ValueError, match=r"one window for each input size: call it within coord_window"):
        fold(model, forward=within((16, 8), (0, 0)))
    with pytest.raises(ValueError, match="one map for all samples needs one window, and the layer sees 2"):
        fold(model, forward=within(torch.tensor([[16, 8], [0, 0]])))


def test_compiled_once_for_all_windows() -> None:
    torch.compiler.reset()
    model = WindowedModel(ready(Pyramid()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    inputs = [x, *model.parameters()]
    for i, origin in enumerate([(0, 0), (8, 4), (40, 32)]):
        place = torch.tensor([origin, origin[::-1]]), torch.tensor([[64, 80 + i]])
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            y = compiled(x, *place)
        expected: Any = model(x, *place)
        torch.testing.assert_close(y, expected)
        gradients = (torch.autograd.grad(out.square().sum(), inputs) for out in (y, expected))
        torch.testing.assert_close(*gradients)


def test_compiled_model_sees_the_window() -> None:
    torch.compiler.reset()
    model = ready(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 2, 3)))
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    for origin in [(0, 0), (16, 8)]:
        for place in [(origin, (64, 64)), (torch.tensor(origin), torch.tensor([64, 64]))]:
            with coord_window(compiled, *place):  # type: ignore[arg-type]  # each pair is of one kind
                torch.testing.assert_close(compiled(x), model(x))
    torch.testing.assert_close(compiled(x), model(x))


def test_onnx_takes_windows_as_inputs(tmp_path: Path) -> None:
    model = WindowedModel(ready(unpadded()).float()).eval()
    x, origins, sizes = torch.randn(2, 3, 32, 32), torch.tensor([[0, 0], [8, 4]]), torch.tensor([[64, 64], [65, 90]])
    file, batch = str(tmp_path / "model.onnx"), torch.export.Dim("batch")
    torch.onnx.export(
        model, (x, origins, sizes), file, dynamo=True, verbose=False, input_names=["x", "origin", "full_size"],
        dynamic_shapes=({0: batch}, {0: torch.export.Dim.AUTO}, {0: torch.export.Dim.AUTO}),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for i in (2, 1, 3):
        x, origins = torch.randn(i, 3, 32, 32), torch.arange(2 * i).view(i, 2) * 4
        sizes = torch.arange(61, 61 + 2 * i).view(i, 2)
        (y,) = session.run(None, {"x": x.numpy(), "origin": origins.numpy(), "full_size": sizes.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(y, model(x, origins, sizes).numpy(), rtol=1e-4, atol=1e-5)


def test_one_window_of_a_model_is_exported_as_constants() -> None:
    model = ready(unpadded())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad(), coord_window(model, (8, 4), (64, 64)):
        program = torch.export.export(model, (x,))
        expected = model(x)
    torch.testing.assert_close(program.module()(x), expected)


SIZE = (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("origin", "full_size", "message"),
    [
        (8, (64, 64), "origin=8: must be 2 integers, one per spatial axis, or a tensor of shape (2,) or (B, 2)"),
        ((8, 0.5), (64, 64), "origin=(8, 0.5): must be 2 integers"),
        (torch.zeros(3), (64, 64), "origin=a tensor of shape (3,) and type torch.float32: must be 2 integers"),
        ((0, 0), "ab", "full_size='ab': must be 2 integers"),
        ((0, 64), (64, 64), "origin=(0, 64), full_size=(64, 64): the window begins behind the image (64 of 64 pixels)"),
        ((0, 0), (64, 0), "full_size=(64, 0): the window begins behind the image"),
    ],
)
def test_invalid_windows_are_refused(origin: Any, full_size: Any, message: str) -> None:  # noqa: ANN401 - wrong on purpose
    model = ready(UNet())
    with pytest.raises(ValueError, match=re.escape(message)), coord_window(model, origin, full_size):
        raise AssertionError


def test_models_that_cannot_see_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="the model has no CoordConv layer or AddCoords that could see a window"):
        measure_strides(UNet(), SIZE)
    model = to_coordconv(UNet(), "up|head")
    with pytest.raises(ValueError, match=r"strides of up, head are not known; call measure_strides\(model, input_"):
        coord_window(model, (0, 0), (64, 64)).__enter__()
    for size in [32, (1, 3, 32, 0), (1, 3, 8, 8, 8)]:
        with pytest.raises(ValueError, match=r"be the shape of one input.* every layer with coordinates has \(2\)"):
            measure_strides(model, size)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"input_size=\(1, 2, 8, 8\): the model does not run on a meta tensor of shap"):
        measure_strides(model, (1, 2, 8, 8))
    replaced: Any = CoordConv2d(3, 4, 3)
    replaced._conv_forward = MethodType(lambda self, x, w, b: nn.functional.conv2d(x, w, b), replaced)
    for layer in (CoordConv2d(3, 4, 3), replaced, AddCoords("xy")):
        measure_strides(layer, SIZE)
        for shape, batch in (((2, 3, 8, 8), 2), ((1, 3, 8, 8), 1), ((3, 8, 8), 1)):
            with (
                coord_window(layer, torch.zeros(3, 2), (64, 64)),
                pytest.raises(ValueError, match=f"names 3 windows, and the input has batch size {batch}"),
            ):
                layer(torch.zeros(shape))


def test_parts_of_a_model_are_measured_with_a_function() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = CoordConv2d(3, 4, 3, 2, 1)

        def forward(self, images: list[Tensor]) -> list[Tensor]:
            return [self.features(image[None] - image.min().item()) for image in images]

    model: Any = Detector()
    with pytest.raises(ValueError, match=r"does not run on a meta tensor.*pass forward=\.\.\."):
        measure_strides(model, SIZE)
    assert measure_strides(model, SIZE, forward=lambda m, x: m.features(x)) == {"features": [(1, 1)]}  # type: ignore[operator]
