"""The map that evaluation caches: used where nothing changed, never where something did."""

from __future__ import annotations

import copy
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from coordconv_apps import CoordConv2d, CoordConvTranspose2d, Coordinates
from tests.nn.reference import concatenated

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordconv_apps.nn.coord_layer import CoordLayer

X = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class CountConvolutions(TorchDispatchMode):
    """Counts the convolutions that run: one for the features, and one for the map where it is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        self.count += int("conv" in func.name())
        return func(*args, **(kwargs or {}))


def convolutions(layer: nn.Module, x: Tensor = X) -> int:
    """How many convolutions one evaluation takes: 1 where the map is cached, else 2."""
    mode = CountConvolutions()
    with torch.no_grad(), mode:
        layer(x)
    return mode.count


def check(layer: CoordLayer, x: Tensor = X) -> None:
    """The layer's output, twice, is that of its present parameters."""
    with torch.no_grad():
        expected = concatenated(layer, x)
        for _ in range(2):
            torch.testing.assert_close(layer(x), expected)


def with_cached_map(**options: Any) -> CoordConv2d:  # noqa: ANN401 - handed on
    """A layer that has its map for `X` ready."""
    torch.manual_seed(0)
    layer = CoordConv2d(3, 4, 3, padding=1, dtype=torch.float64, **options).eval()
    check(layer)
    assert convolutions(layer) == 1
    return layer


def moved(layer: CoordLayer, change: Callable[[], object]) -> None:
    """A change of the layer shows in its outputs at once."""
    with torch.no_grad():
        before = layer(X)
        change()
        assert not torch.equal(layer(X), before)
    check(layer)


@pytest.mark.parametrize("cls", [CoordConv2d, CoordConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
def test_only_evaluation_without_gradients_caches_the_map(
    cls: type[CoordConv2d | CoordConvTranspose2d], bias: bool
) -> None:
    layer = cls(3, 4, 3, bias=bias, dtype=torch.float64)
    assert [convolutions(layer) for _ in range(3)] == [2, 2, 2]
    layer.eval()
    assert [convolutions(layer) for _ in range(3)] == [2, 1, 1]
    with torch.inference_mode(), CountConvolutions() as mode:
        layer(X)
    assert mode.count == 1
    with CountConvolutions() as mode:
        assert layer(X).requires_grad
    assert mode.count == 2
    layer.eval()  # as some programs do before each call
    assert convolutions(layer) == 1
    for switch in (layer.train, layer.eval):
        switch()
        check(layer)
    layer.requires_grad_(False)
    assert convolutions(layer) == 1


OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    lambda p: torch.optim.Adam(p, foreach=True, lr=0.1),
    lambda p: torch.optim.Adam(p, foreach=False, lr=0.1),
    lambda p: torch.optim.Adam(p, fused=True, lr=0.1),
    lambda p: torch.optim.AdamW(p, fused=True, lr=0.1, weight_decay=0.5),
]


@pytest.mark.parametrize("names", [{"weight", "bias", "coord_weight"}, {"bias"}, {"coord_weight"}, {"weight"}])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_step_in_evaluation_mode_counts(make: Callable[[Any], torch.optim.Optimizer], names: set[str]) -> None:
    layer = with_cached_map()
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name in names)
    optimizer = make(p for p in layer.parameters() if p.requires_grad)
    for _ in range(2):
        layer(X).square().sum().backward()
        moved(layer, optimizer.step)


def renew(layer: CoordConv2d, name: str) -> None:
    setattr(layer, name, nn.Parameter(layer.get_parameter(name) + 1))


def set_data(layer: CoordConv2d, name: str) -> None:
    layer.get_parameter(name).data = layer.get_parameter(name).data + 1


def load(layer: CoordConv2d, name: str, assign: bool = False) -> None:
    layer.load_state_dict({name: layer.get_parameter(name) + 1}, strict=False, assign=assign)


def set_vector(layer: CoordConv2d, name: str) -> None:
    parameter = layer.get_parameter(name)
    nn.utils.vector_to_parameters(parameter.flatten() + 1, [parameter])


CHANGES: dict[str, Callable[[CoordConv2d, str], object]] = {
    "in place": lambda layer, name: layer.get_parameter(name).mul_(2),
    "one value": lambda layer, name: layer.get_parameter(name)[1].add_(9),
    "through detach": lambda layer, name: layer.get_parameter(name).detach().mul_(2),
    "through the state dict": lambda layer, name: layer.state_dict()[name].mul_(2),
    "out=": lambda layer, name: torch.mul(X.mean(), layer.get_parameter(name), out=layer.get_parameter(name)),
    "init": lambda layer, name: nn.init.normal_(layer.get_parameter(name)),
    "reset_parameters": lambda layer, name: layer.reset_parameters(),
    "load_state_dict": load,
    "load_state_dict(assign=True)": lambda layer, name: load(layer, name, assign=True),
    "vector_to_parameters": set_vector,
    "another parameter": renew,
    "data assigned": set_data,
    # Moving averages, target networks and other processes write like this, and no version counter tells of it.
    "data in place": lambda layer, name: layer.get_parameter(name).data.mul_(2),
    "data in place, then eval": lambda layer, name: (layer.get_parameter(name).data.mul_(2), layer.eval()),
    "data in place, then train": lambda layer, name: (layer.get_parameter(name).data.mul_(2), layer.train()),
    "numpy": lambda layer, name: layer.get_parameter(name).detach().numpy().__imul__(2),
}


@pytest.mark.parametrize("name", ["bias", "coord_weight"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_a_parameter_counts(change: Callable[[CoordConv2d, str], object], name: str) -> None:
    layer = with_cached_map()
    for _ in range(2):
        moved(layer, lambda: change(layer, name))


def test_swapped_and_moved_parameters_count() -> None:
    layer = with_cached_map()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        moved(layer, lambda: layer.load_state_dict(CoordConv2d(3, 4, 3).state_dict()))
        layer.float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    check(layer, X.float())
    layer.double()
    check(layer)
    layer.to(memory_format=torch.channels_last)
    check(layer)
    check(layer, X.contiguous(memory_format=torch.channels_last))
    moved(layer.share_memory(), lambda: layer.coord_weight.data.mul_(2))


def test_new_parameters_in_freed_memory_count() -> None:
    layer = with_cached_map()
    for _ in range(20):  # allocators hand a freed block to the next tensor of its size
        layer.coord_weight = nn.Parameter(torch.randn(4, 2, 3, 3, dtype=torch.float64))
        check(layer)


def test_sizes_and_batches_may_alternate() -> None:
    layer = with_cached_map(coords="xyr")
    for shape in [(2, 3, 5, 6), (2, 3, 6, 5), (1, 3, 6, 5), (0, 3, 6, 5), (3, 6, 5), (2, 3, 1, 1), (2, 3, 6, 5)] * 2:
        check(layer, torch.randn(shape, dtype=torch.float64))


def test_large_maps_are_cached_where_they_are_small_beside_the_batch() -> None:
    """Otherwise a network caches much more than it needs at once: it holds the output of one layer at a time."""
    layer, large = CoordConv2d(1, 4, 1, coords="xyr").eval(), torch.randn(16, 1, 256, 256)  # a map of 1 MiB
    for batch in (1, 2, 15):
        assert [convolutions(layer, large[:batch]) for _ in range(3)] == [2, 2, 2]
    assert convolutions(layer, large[0]) == convolutions(layer, large[0]) == 2
    assert layer._cached_map is None
    layer(large[:1])
    assert layer._grid is not None
    with torch.no_grad():
        expected = layer(large)
        for x in (large[:1], large[:1].contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(layer(x), expected[:1])
    assert convolutions(layer, large) == 1
    other = CoordConv2d(3, 1, 1).eval()
    convolutions(other, torch.randn(1, 3, 300, 300))
    assert other._grid is None, "coordinates are twice as large as the output"
    for size in (32, 64):
        assert [convolutions(layer, large[:1, :, :size, :size]) for _ in range(2)] == [2, 1]


def test_rows_and_columns_of_large_maps_are_cached() -> None:
    """They take a few KiB, so single large images need no computation either."""
    layer, large = CoordConv2d(1, 4, 3, padding=1).eval(), torch.randn(16, 1, 256, 256)  # a map of 1 MiB
    with torch.no_grad():
        expected = concatenated(layer, large)
        for batch in (1, 2, 15):
            assert [convolutions(layer, large[:batch]) for _ in range(3)] == [3, 1, 1]
            torch.testing.assert_close(layer(large[:batch]), expected[:batch])
            assert layer._cached_map is not None
            assert layer._cached_map.value.nbytes < 2**16
        layer.coord_weight.data.mul_(2)
        torch.testing.assert_close(layer(large[:15]), concatenated(layer, large[:15]))


def test_inputs_of_several_sizes_may_give_one_output_size() -> None:
    layer = CoordConv2d(3, 4, 3, stride=2, padding=1, dtype=torch.float64).eval()
    for size in [(5, 5), (5, 6), (6, 5), (6, 6)] * 2:
        check(layer, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.parametrize("channels_last", [False, True])
def test_output_sizes_of_a_transposed_layer_may_alternate(channels_last: bool) -> None:
    layer = CoordConvTranspose2d(3, 4, 3, stride=3, dtype=torch.float64).eval()
    batch = X
    if channels_last:  # a single sample's strides do not tell its height then
        layer, batch = layer.to(memory_format=torch.channels_last), X.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for x in (batch, batch[:1], batch[:1][0]):
            for size in [(18, 15), (19, 15), (18, 17), (18, 15)] * 2:
                torch.testing.assert_close(layer(x, output_size=size), concatenated(layer, x, size))


def test_settings_changed_in_evaluation_count() -> None:
    layer = with_cached_map()
    moved(layer, lambda: setattr(layer, "padding_mode", "circular"))
    moved(layer, lambda: setattr(layer, "padding_mode", "zeros"))

    def dilate() -> None:
        layer.dilation = layer.padding = (2, 2)

    moved(layer, dilate)
    layer.coords = Coordinates("xy", range=(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(layer(X), copy.deepcopy(layer)(X))  # a copy has no cached map


def test_memory_formats_and_autocast_may_alternate() -> None:
    layer = with_cached_map().float()
    contiguous, last = X.float(), X.float().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = concatenated(layer, contiguous)
        for x in (contiguous, last) * 2:
            y = layer(x)
            assert y.is_contiguous(memory_format=torch.channels_last) == (x is last)
            torch.testing.assert_close(y, expected)
            with torch.autocast("cpu", torch.bfloat16):
                half = layer(x)
            assert half.dtype == torch.bfloat16
            torch.testing.assert_close(half.float(), expected, rtol=0.03, atol=0.03)


def test_outputs_are_right_in_inference_mode_then_no_grad_then_with_gradients() -> None:
    torch.manual_seed(0)
    layer = CoordConv2d(3, 4, 3, dtype=torch.float64).eval()
    with torch.inference_mode():
        first = layer(X).clone()
    with torch.no_grad():
        torch.testing.assert_close(layer(X), first.clone())
    y = layer(X)
    y.square().sum().backward()
    assert layer.coord_weight.grad is not None
    with torch.inference_mode():
        made_inside = CoordConv2d(3, 4, 3, dtype=torch.float64).eval()
        check(made_inside)
        made_inside.coord_weight.add_(1)  # counts no versions
        check(made_inside)


def test_an_inference_output_is_not_the_cached_map() -> None:
    layer = with_cached_map()
    with torch.no_grad():
        layer(X).zero_()
        layer(X[:0])
    check(layer)


def test_threads_may_share_a_layer() -> None:
    layer = CoordConv2d(3, 4, 3, padding=1, dtype=torch.float64).eval()
    inputs = [torch.randn(1, 3, 4 + i, 9 - i, dtype=torch.float64) for i in range(6)]
    with torch.no_grad():
        expected = [concatenated(layer, x) for x in inputs]

    def work(i: int) -> None:
        with torch.no_grad():
            for _ in range(150):
                torch.testing.assert_close(layer(inputs[i]), expected[i])
        for _ in range(50):
            torch.testing.assert_close(layer(inputs[i]).detach(), expected[i])

    with ThreadPoolExecutor(len(inputs)) as pool:
        list(pool.map(work, range(len(inputs))))


def test_functional_call_uses_the_given_parameters() -> None:
    layer = with_cached_map()
    other = CoordConv2d(3, 4, 3, padding=1, dtype=torch.float64).eval()
    with torch.no_grad():
        for _ in range(2):
            for names in (["weight", "bias", "coord_weight"], ["bias"], ["coord_weight"], ["weight"]):
                swapped: dict[str, Tensor] = {name: other.get_parameter(name).detach() for name in names}
                mixed = copy.deepcopy(layer)
                mixed.load_state_dict({**layer.state_dict(), **swapped})
                y = torch.func.functional_call(layer, swapped, (X,))
                torch.testing.assert_close(y, concatenated(mixed, X))
                check(layer)


@pytest.mark.parametrize("name", ["weight", "coord_weight", "bias"])
@pytest.mark.parametrize("first", [True, False])
def test_maps_of_parametrised_and_pruned_parameters_are_not_cached(name: str, first: bool) -> None:
    """What is computed anew for each forward is never taken from memory, whether it was there before or not."""
    wraps: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
        (lambda m: parametrizations.weight_norm(m, name), lambda m: m.parametrizations[name].original0.mul_(2)),
        (lambda m: prune.l1_unstructured(m, name, 0.5), lambda m: m.get_parameter(name + "_orig").mul_(2)),
    ]
    for wrap, change in wraps:
        torch.manual_seed(0)
        layer: Any = CoordConv2d(3, 4, 3, padding=1, dtype=torch.float64).eval()
        if first:
            check(layer)
        wrap(layer)
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                for _ in range(2):
                    torch.testing.assert_close(layer(X), concatenated(layer, X))
        moved(layer, functools.partial(change, layer))


def test_a_parametrisation_may_be_cached_and_removed() -> None:
    layer: Any = parametrizations.spectral_norm(with_cached_map(), "coord_weight")
    layer.eval()
    with torch.nn.utils.parametrize.cached():
        check(layer)
    check(layer)
    torch.nn.utils.parametrize.remove_parametrizations(layer, "coord_weight")
    check(layer)
    assert convolutions(layer) == 1


def test_a_replica_of_data_parallel_works() -> None:
    layer = with_cached_map()
    replica = layer._replicate_for_data_parallel()  # type: ignore[no-untyped-call]  # what nn.DataParallel calls
    for name, parameter in layer.named_parameters():
        setattr(replica, name, parameter.detach() + 1)
    check(replica)
    check(layer)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool, training: bool) -> None:
    torch.manual_seed(0)
    layer = CoordConv2d(3, 4, 3, dtype=torch.float64).train(training)
    x = X.clone().requires_grad_()
    inputs = (x, *layer.parameters())
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    expected = torch.autograd.grad(concatenated(layer, x).square().sum(), inputs)
    torch.testing.assert_close([t.grad for t in inputs], list(expected), rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_a_frozen_layer() -> None:
    layer = with_cached_map().requires_grad_(False)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x)
    (expected,) = torch.autograd.grad(concatenated(layer, x).square().sum(), x)
    torch.testing.assert_close(gradient, expected)
