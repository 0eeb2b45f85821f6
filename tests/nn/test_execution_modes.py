"""The layers under torch's other ways of running a module: precisions, transforms, tracing, export, DDP."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.feature_extraction import create_feature_extractor

from coordconv_apps import AddCoords, CoordConv1d, CoordConv2d, CoordConv3d, CoordConvTranspose2d, coord_grid, fold
from tests.helpers.devices import EVERY_DEVICE
from tests.nn.reference import concatenated

if TYPE_CHECKING:
    from coordconv_apps.nn.coord_layer import CoordLayer


def layers(**options: Any) -> list[CoordLayer]:  # noqa: ANN401 - handed on
    torch.manual_seed(0)
    return [
        CoordConv2d(3, 4, 3, coords="xyr", **options),
        CoordConv2d(3, 4, 3, padding="same", padding_mode="reflect", **options),
        CoordConvTranspose2d(3, 4, 3, stride=2, output_padding=1, **options),
        CoordConv1d(3, 4, 3, stride=2, padding=1, **options),
        CoordConv3d(3, 4, 2, **options),
    ]


def sample(layer: CoordLayer, batch: int = 5, grow: int = 0) -> Tensor:
    """An input whose sizes are all different, so that a tracer cannot take one for another."""
    return torch.randn(batch, 3, *[9 + grow, 8 + 2 * grow, 7 + 3 * grow][: layer.ndim]).to(layer.weight)


@pytest.mark.parametrize(*EVERY_DEVICE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_weights_equal_concatenation(dtype: torch.dtype, training: bool, device: str) -> None:
    for layer in layers(dtype=dtype, device=device):
        x = sample(layer).requires_grad_()
        y = layer.train(training)(x)
        assert y.dtype == dtype
        y.float().square().sum().backward()
        exact = type(layer)(**exact_options(layer), dtype=torch.float64, device=device).requires_grad_()
        exact.load_state_dict(layer.state_dict())
        expected = concatenated(exact, x.detach().double())
        torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=0.02)
        expected.square().sum().backward()
        for parameter, reference in zip(layer.parameters(), exact.parameters(), strict=True):
            assert parameter.grad is not None
            assert parameter.grad.dtype == dtype
            assert reference.grad is not None
            error = (parameter.grad.double() - reference.grad).abs().max()
            assert error <= 0.02 * reference.grad.abs().max()
        with torch.no_grad():
            torch.testing.assert_close(layer(x), y)


def exact_options(layer: CoordLayer) -> dict[str, Any]:
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    options = {name: getattr(layer, name) for name in [*names, "coords"]}
    return options | ({"output_padding": layer.output_padding} if layer.transposed else {})


@pytest.mark.parametrize(*EVERY_DEVICE)
@pytest.mark.parametrize("training", [True, False])
def test_autocast_equals_concatenation(training: bool, device: str) -> None:
    for layer in layers(device=device):
        x = sample(layer).requires_grad_()
        layer.train(training)
        for _ in range(2):
            with torch.autocast(device, torch.bfloat16):
                y = layer(x)
            assert y.dtype == torch.bfloat16
            torch.testing.assert_close(y.float(), concatenated(layer, x), rtol=0.02, atol=0.02)
        y.float().square().sum().backward()
        reference = torch.autograd.grad(concatenated(layer, x).square().sum(), list(layer.parameters()))
        for parameter, expected in zip(layer.parameters(), reference, strict=True):
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
            assert (parameter.grad - expected).abs().max() <= 0.02 * expected.abs().max()
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            torch.testing.assert_close(layer(x), y)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_low_precision_does_not_blur_coordinates(autocast: bool, training: bool) -> None:
    """On 1,000 columns neighbours differ by 0.002, a quarter of bfloat16's step near 1: only the sum is rounded."""
    layer = CoordConv2d(1, 2, 1, bias=False, dtype=torch.float32 if autocast else torch.bfloat16).train(training)
    with torch.no_grad():
        layer.weight.zero_()
        layer.coord_weight.copy_(torch.tensor([[64.0, -1.0], [0.0, 1.0]])[..., None, None])
    x = torch.zeros(1, 1, 3, 1000, dtype=layer.weight.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)[0]
    columns, rows = coord_grid((3, 1000))
    assert torch.equal(y[0], (64 * columns - rows).bfloat16())
    assert torch.equal(y[1], rows.bfloat16())


def test_per_sample_gradients_and_ensembles_equal_single_calls() -> None:
    ensemble = [CoordConv2d(3, 4, 3, dtype=torch.float64) for _ in range(3)]
    layer, x = ensemble[0], torch.randn(2, 3, 6, 5, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, parameters, (x,))
        return y.square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for i in range(2):
        expected = torch.autograd.grad(concatenated(layer, x[i]).square().sum(), list(layer.parameters()))
        torch.testing.assert_close([g[i] for g in gradients.values()], list(expected))
    stacked, _ = torch.func.stack_module_state(ensemble)
    gradients = torch.func.vmap(torch.func.grad(loss), (0, None))(stacked, x)
    for i, member in enumerate(ensemble):
        expected = torch.autograd.grad(concatenated(member, x).square().sum(), list(member.parameters()))
        torch.testing.assert_close([g[i] for g in gradients.values()], list(expected))
    for training in (True, False):
        layer.train(training)
        with torch.no_grad():
            layer(x)
            outputs = torch.func.vmap(lambda p: torch.func.functional_call(layer, p, (x,)))(stacked)
            torch.testing.assert_close(outputs, torch.stack([concatenated(member, x) for member in ensemble]))


@pytest.mark.parametrize("names", [["input"], ["coord_weight"], ["bias"], ["weight", "bias", "coord_weight", "input"]])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own forward-mode rules
def test_forward_mode_derivatives_equal_central_differences(names: list[str], training: bool) -> None:
    for layer in layers(dtype=torch.float64):
        layer.train(training)
        values = {"input": sample(layer), **{name: p.detach() for name, p in layer.named_parameters()}}
        tangents = {name: torch.randn_like(values[name]) for name in names}
        with torch.no_grad():
            layer(values["input"])

        def run(moving: dict[str, Tensor], layer: CoordLayer = layer, values: dict[str, Tensor] = values) -> Tensor:
            parameters = values | moving
            y: Tensor = torch.func.functional_call(layer, parameters, (parameters.pop("input"),))
            return y

        # The layer is affine in each argument: central differences of any width are exact, but for products of them.
        step = 1e-3
        ahead, behind = (run({n: values[n] + s * tangents[n] for n in names}) for s in (step, -step))
        expected = ((ahead - behind) / (2 * step)).detach()
        y, tangent, *_ = torch.func.jvp(run, ({n: values[n] for n in names},), (tangents,))
        torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(y, run({}))
        for grad in (True, False):
            with forward_ad.dual_level(), torch.set_grad_enabled(grad):
                dual = run({n: forward_ad.make_dual(values[n], tangents[n]) for n in names})
                torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(run({}), concatenated(layer, values["input"]))


def test_compiled_by_inductor_with_dynamic_shapes() -> None:
    """Inductor cannot save views of symbolic size for the backward; without padding the grid was one."""
    torch.compiler.reset()
    layer = CoordConv2d(3, 4, 3)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    x = sample(layer).requires_grad_()
    inputs = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x).square().mean(), inputs)
    torch.testing.assert_close(torch.autograd.grad(compiled(x).square().mean(), inputs), expected)


def test_compiled_once_for_all_shapes() -> None:
    """Without graph break or recompilation, whatever ran without compilation in between."""
    for layer in layers():
        torch.compiler.reset()
        compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
        for training in (True, False):
            layer.train(training)
            for grow in range(3):
                x = sample(layer, batch=5 + grow, grow=grow).requires_grad_(training)
                with torch.set_grad_enabled(training), torch._dynamo.config.patch(error_on_recompile=grow > 0):
                    y = compiled(x)
                    torch.testing.assert_close(y, layer(x))
                    if training:
                        inputs = [x, *layer.parameters()]
                        gradients = torch.autograd.grad(y.square().sum(), inputs)
                        expected = torch.autograd.grad(layer(x).square().sum(), inputs)
                        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


def test_compiled_under_autocast() -> None:
    torch.compiler.reset()
    layer = CoordConv2d(3, 4, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = sample(layer)
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x)
        torch.testing.assert_close(y, layer(x))
    y.float().sum().backward()
    assert layer.coord_weight.grad is not None


@pytest.mark.parametrize("cached", [True, False])
def test_exported_with_dynamic_shapes(cached: bool) -> None:
    auto = torch.export.Dim.AUTO
    for layer in layers():
        layer.eval()
        x = sample(layer)
        with torch.no_grad():
            if cached:
                layer(x)
            axes = {axis: auto for axis in range(x.dim()) if axis != 1}
            program = torch.export.export(layer, (x,), dynamic_shapes=(axes,))
            for batch, grow in [(5, 0), (2, 3), (7, 1)]:
                other = sample(layer, batch, grow)
                torch.testing.assert_close(program.module()(other), concatenated(layer, other))


def test_onnx_runs_at_sizes_it_was_not_traced_at(tmp_path: Path) -> None:
    model = nn.Sequential(
        CoordConv2d(3, 4, 3, padding="same", coords="xyr"), nn.ReLU(), CoordConvTranspose2d(4, 2, 3, stride=2)
    ).eval()
    with torch.no_grad():
        model(torch.randn(2, 3, 9, 8))
    file = str(tmp_path / "model.onnx")
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    torch.onnx.export(
        model, (torch.randn(2, 3, 9, 8),), file, dynamo=True, dynamic_shapes=(axes,), verbose=False, input_names=["x"]
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for shape in [(2, 3, 9, 8), (5, 3, 12, 7), (1, 3, 6, 20)]:
        x = torch.randn(shape)
        (y,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cached", [True, False])
def test_traced_by_torch_jit(cached: bool) -> None:
    for layer in layers():
        layer.eval()
        x = sample(layer)
        with torch.no_grad(), warnings.catch_warnings():
            # torch.jit.trace is deprecated, and warns of every size that becomes part of the trace.
            warnings.simplefilter("ignore")
            if cached:
                layer(x)
            traced = torch.jit.trace(layer, (x,))
            for batch in (5, 2):
                other = sample(layer, batch)
                torch.testing.assert_close(traced(other), concatenated(layer, other))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_torch_jit_script_is_refused_in_words() -> None:
    modules: list[nn.Module] = [*layers(), AddCoords()]
    for layer in modules:
        with pytest.raises(TypeError, match=rf"does not compile {type(layer).__name__}; fold the model first"):
            torch.jit.script(nn.Sequential(layer))


def test_torch_fx_keeps_the_layers_as_modules() -> None:
    class Model(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(torch.relu(x))
            return y * 2

    for layer in layers():
        x = sample(layer)
        for module in (layer, fold(layer, x.shape), AddCoords("x", layer.ndim)):
            model = Model(module).eval()
            graph = torch.fx.symbolic_trace(model)
            assert [node.op for node in graph.graph.nodes][2] == "call_module"
            assert graph.layer is module
            torch.testing.assert_close(graph(x), model(x))
    extractor = create_feature_extractor(Model(layer), {"layer": "features"})
    torch.testing.assert_close(extractor(x)["features"], layer(torch.relu(x)))


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        CoordConv2d(3, 4, 3, coords="xyr"), nn.ReLU(inplace=True), CoordConvTranspose2d(4, 2, 3, stride=2, bias=False)
    )
    return model.double()


def ddp_step(rank: int, folder: str) -> None:
    """One of two processes: two training steps on its half of the batch; the gradients and weights are saved."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = DistributedDataParallel(make_model(), find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.load(f"{folder}/input.pt")[rank::2]
    for _ in range(2):  # a parameter that got no gradient would stop the second step
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    torch.save([(p.detach(), p.grad) for p in model.module.parameters()], f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    x = torch.randn(4, 3, 6, 5, dtype=torch.float64)
    torch.save(x, tmp_path / "input.pt")
    spawn(ddp_step, (str(tmp_path),), nprocs=2)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    expected = [(p.detach(), p.grad) for p in model.parameters()]
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), expected)
