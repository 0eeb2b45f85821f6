"""Measure time and peak memory of CoordConv layers, relative to `torch.nn.Conv2d`, and of concatenated coordinates.

    python benchmarks/layers.py                  # every shape, both memory formats, evaluation and training
    python benchmarks/layers.py --compile        # through torch.compile, a ReLU after each layer; also folded ones
    python benchmarks/layers.py --batch 1        # at another batch size
    python benchmarks/layers.py --windows        # the layer in windows of a larger image, against itself without
    python benchmarks/layers.py --device cuda

Every figure is a ratio to `torch.nn.Conv2d` on the same input; with --windows, to `CoordConv2d` without a window. The
layers take turns within one run, so that other load on the machine affects all of them alike. "Floor" is the least that
the addition costs in evaluation: a convolution without bias, and `add_` of a map that is ready. The last table shows
the memory of a network, where the layers' caches add up. benchmarks/models.py measures whole models.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from benchmarks.timing import in_turns, medians
from coordconv_apps import CoordConv2d, coord_window, fold, measure_strides

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


class Shape(NamedTuple):
    """One layer at one input size."""

    batch: int
    channels: int
    size: int
    out_channels: int
    kernel_size: int
    stride: int

    def __str__(self) -> str:
        s = self
        return (
            f"{s.batch}x{s.channels}x{s.size}x{s.size} -> {s.out_channels}, {s.kernel_size}x{s.kernel_size}/{s.stride}"
        )


SHAPES = (
    Shape(16, 64, 56, 64, 1, 1),  # ResNet's first bottleneck: the least arithmetic per output value
    Shape(16, 256, 28, 64, 1, 1),
    Shape(16, 64, 56, 64, 3, 1),
    Shape(16, 128, 28, 128, 3, 2),
    Shape(16, 256, 14, 256, 3, 1),
    Shape(16, 16, 64, 16, 3, 1),  # few channels: the coordinates weigh most
    Shape(16, 32, 64, 32, 5, 1),
    Shape(16, 3, 112, 64, 7, 2),  # ResNet's stem
    Shape(16, 4, 84, 32, 8, 4),  # the first layer of Atari's networks
    Shape(64, 1, 64, 32, 5, 1),  # the first layer of `detection`
)


class ConcatConv2d(nn.Module):
    """CoordConv as public implementations write it: concatenate coordinate channels to every sample, then convolve."""

    def __init__(self, in_channels: int, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed to torch
        super().__init__()
        self.conv = nn.Conv2d(in_channels + 2, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate x and y in [-1, 1] to ``x`` of shape ``(B, C, H, W)`` and convolve."""
        b, _, h, w = x.shape
        rows = torch.arange(h, device=x.device, dtype=x.dtype).view(1, 1, h, 1).repeat(b, 1, 1, w)
        columns = torch.arange(w, device=x.device, dtype=x.dtype).view(1, 1, 1, w).repeat(b, 1, h, 1)
        coords = [columns / (w - 1) * 2 - 1, rows / (h - 1) * 2 - 1]
        out: Tensor = self.conv(torch.cat([x, *coords], dim=1))
        return out


class ReadyMap(nn.Module):
    """The floor: a convolution without bias, and a map that is ready, bias included."""

    def __init__(self, conv: nn.Module, map: Tensor) -> None:
        super().__init__()
        self.conv, self.map = conv, map

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` of shape ``(B, C, H, W)`` and add the map."""
        out: Tensor = self.conv(x).add_(self.map)
        return out


LAYERS: dict[str, Callable[..., nn.Module]] = {
    "Conv2d": nn.Conv2d,
    "CoordConv2d": CoordConv2d,
    "concatenation": ConcatConv2d,
}


@dataclass
class Result:
    """Median seconds and peak bytes of each layer; ``bytes`` is empty where they cannot be counted."""

    seconds: dict[str, float]
    bytes: dict[str, int]

    @property
    def base(self) -> str:
        """The layer that the others are compared with: the first."""
        return next(iter(self.seconds))

    def ratio(self, layer: str) -> float:
        """Return the time of ``layer`` divided by that of the base."""
        return self.seconds[layer] / self.seconds[self.base]

    def memory_ratio(self, layer: str) -> float:
        """Return the peak memory of ``layer`` divided by that of the base; NaN if it was not measured."""
        return self.bytes[layer] / self.bytes[self.base] if self.bytes else math.nan


def make_input(shape: Shape, layout: torch.memory_format, training: bool, device: str) -> Tensor:
    """Return a random batch, the same for every layer."""
    torch.manual_seed(0)
    x = torch.randn(shape.batch, shape.channels, shape.size, shape.size, device=device)
    return x.contiguous(memory_format=layout).requires_grad_(training)


def make_layer(shape: Shape, make: Callable[..., nn.Module]) -> nn.Module:
    """Return a layer of a kind."""
    s = shape
    padding = s.kernel_size // 2 if s.stride < s.kernel_size / 2 or s.kernel_size < 4 else 0
    return make(s.channels, s.out_channels, s.kernel_size, stride=s.stride, padding=padding)


WINDOWS = ("one window", "a new window", "one per sample")


def make_window_steps(
    shape: Shape, layout: torch.memory_format, training: bool, device: str
) -> dict[str, Callable[[], None]]:
    """Return one step of CoordConv2d without a window, and in windows that are set anew for each step."""
    x = make_input(shape, layout, training, device)
    layers = {name: make_layer(shape, CoordConv2d) for name in ("no window", *WINDOWS)}
    layers = {name: layer.to(device).to(memory_format=layout).train(training) for name, layer in layers.items()}
    with torch.no_grad():
        grad = torch.randn_like(make_layer(shape, nn.Conv2d).to(device).to(memory_format=layout)(x))
    steps = {name: make_step(layer, layer, x, grad, training) for name, layer in layers.items()}
    return in_windows(layers, steps, x, torch.arange(2 * shape.batch, device=device).view(-1, 2))


def in_windows(
    networks: Mapping[str, nn.Module], steps: Mapping[str, Callable[[], None]], images: Tensor, places: Tensor
) -> dict[str, Callable[[], None]]:
    """Return the steps, those of `WINDOWS` in a window of images 4 times as large, which each step sets anew.

    Args:
        networks: Networks by name.
        steps: One step of each.
        images: What the steps run on, ``(B, C, size, size)``.
        places: Origins of the samples, ``(B, 2)``, for "one per sample".
    """
    size = images.shape[-1]
    turn = itertools.cycle([(0, 0), (0, size), (size, 0), (size, size)])
    next_origin: list[Callable[[], Any]] = [lambda: (size, 0), lambda: next(turn), lambda: places]

    def within(name: str, origin: Callable[[], Any]) -> Callable[[], None]:
        measure_strides(networks[name], (1, *images.shape[1:]))

        def step() -> None:
            with coord_window(networks[name], origin(), (4 * size, 4 * size)):
                steps[name]()

        return step

    return {**steps, **{name: within(name, origin) for name, origin in zip(WINDOWS, next_origin, strict=True)}}


def make_steps(
    shape: Shape, layout: torch.memory_format, training: bool, device: str, compiled: bool
) -> dict[str, Callable[[], None]]:
    """Return one step of each layer on the same input: a forward in evaluation, forward and backward in training."""
    x = make_input(shape, layout, training, device)
    layers = {name: make_layer(shape, make) for name, make in LAYERS.items()}
    if compiled and not training:  # as deployed
        layers["folded"] = fold(layers["CoordConv2d"], (1, *x.shape[1:]))
    layers = {name: layer.to(device).to(memory_format=layout).train(training) for name, layer in layers.items()}
    with torch.no_grad():
        grad = torch.randn_like(layers["Conv2d"](x))  # the others stay unused, so that their first step is measured
        if not compiled and not training:
            layer, conv = layers["CoordConv2d"], make_layer(shape, partial(nn.Conv2d, bias=False))
            assert isinstance(layer, CoordConv2d)
            ready = layer.coord_map(x, grad)[None].contiguous(memory_format=layout)
            layers["floor"] = ReadyMap(conv.to(device).to(memory_format=layout).eval(), ready)
    steps = {}
    for name, layer in layers.items():
        # Compiled layers are followed by a ReLU: the compiler fuses the addition with the next operation, and chooses
        # another memory layout for a convolution without one.
        run = torch.compile(nn.Sequential(layer, nn.ReLU()), fullgraph=True) if compiled else layer
        steps[name] = make_step(run, layer, x, grad, training)
    return steps


def make_step(run: Callable[..., Any], layer: nn.Module, x: Tensor, grad: Tensor, training: bool) -> Callable[[], None]:
    """Return a function that runs one step and keeps no gradients."""

    def train_step() -> None:
        run(x).backward(grad)
        x.grad = None
        layer.zero_grad(set_to_none=True)

    def eval_step() -> None:
        with torch.inference_mode():
            run(x)

    return train_step if training else eval_step


class _HeldBytes(TorchDispatchMode):
    """Count the bytes of the tensors that torch allocates and that are still held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        inputs = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_leaves(out) if isinstance(t, Tensor)):
            if storage._cdata not in inputs and storage not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._release, storage.nbytes())
        return out

    def _release(self, nbytes: int) -> None:
        self.now -= nbytes


def peak_bytes(step: Callable[[], None], device: str) -> int:
    """Return the peak bytes that the first two steps allocate, those that the layers cache in the first included."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return int(torch.cuda.max_memory_allocated()) - before
    held = _HeldBytes()
    with held:
        step()
        step()
    return held.peak


def print_network_memory(device: str) -> None:
    """Print the peak memory of ten layers in a row at batch size 1, with 16 channels at 512 x 512, in evaluation."""
    x = torch.rand(1, 16, 512, 512, device=device)
    print("\nevaluation at batch size 1, ten layers 1x16x512x512 -> 16, 3x3/1: peak memory in MiB")
    for name, make in LAYERS.items():
        network = nn.Sequential(*(make(16, 16, 3, padding=1) for _ in range(10))).eval().to(device)
        peak = peak_bytes(make_step(network, network, x, x, training=False), device)
        print(f"{name:34} {peak / 2**20:6.0f}", flush=True)


def print_table(title: str, results: Mapping[Any, Result]) -> None:
    """Print one line per shape or model, the layer's distance from the floor if there is one, and geometric means."""
    base, *others = next(iter(results.values())).seconds
    floor = "floor" in others
    print(f"\n{title}: time (peak memory) as a multiple of {base}")
    print(f"{'':34} {base:>10} " + " ".join(f"{name:>15}" for name in others) + "  CoordConv2d / floor" * floor)
    for name, result in results.items():
        cells = [f"{result.ratio(n):6.3f} ({result.memory_ratio(n):6.3f})" for n in others]
        cells += [f"{result.ratio('CoordConv2d') / result.ratio('floor'):6.3f}"] if floor else []
        print(f"{name!s:34} {result.seconds[base] * 1e3:7.3f} ms {' '.join(cells)}")
    ratios = {n: geometric_mean(r.ratio(n) for r in results.values()) for n in others}
    memory = {n: geometric_mean(r.memory_ratio(n) for r in results.values()) for n in others}
    means = [f"{ratios[n]:6.3f} ({memory[n]:6.3f})" for n in others]
    means += [f"{ratios['CoordConv2d'] / ratios['floor']:6.3f}"] if floor else []
    print(f"{'geometric mean':45} {' '.join(means)}", flush=True)


def main() -> None:
    """Measure the layers and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the layers run")
    parser.add_argument("--compile", action="store_true", help="measure the layers through torch.compile")
    parser.add_argument("--windows", action="store_true", help="measure the layer in windows of a larger image")
    parser.add_argument("--seconds", type=PositiveFloat, default=1.0, help="time spent on each layer at each shape")
    indices = range(len(SHAPES))
    parser.add_argument("--shapes", type=int, nargs="+", choices=indices, default=indices, help="shapes to measure")
    parser.add_argument("--batch", type=PositiveInt, help="batch size, in place of each shape's own")
    args = parser.parse_args()
    if args.windows and args.compile:
        sys.exit("error: --windows and --compile: choose one of them")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device=cuda, but torch finds no CUDA device; allowed here: cpu")
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}, {'compiled' if args.compile else 'eager'}, float32")
    for training in (False, True):
        for name, layout in FORMATS.items():
            results = {}
            for shape in (SHAPES[i] for i in args.shapes):
                shape = shape if args.batch is None else shape._replace(batch=args.batch)
                if args.compile:
                    torch._dynamo.reset()
                if args.windows:
                    steps = make_window_steps(shape, layout, training, args.device)
                else:
                    steps = make_steps(shape, layout, training, args.device, args.compile)
                # Allocations of code that is compiled for a CPU cannot be counted.
                counted = {} if args.compile and args.device == "cpu" else steps
                peaks = {n: peak_bytes(step, args.device) for n, step in counted.items()}
                times = in_turns(steps, args.seconds * len(steps), args.device, least=15)
                results[shape] = Result(medians(times), peaks)
            print_table(f"{'training (forward + backward)' if training else 'evaluation'}, {name}", results)
    if not args.compile and not args.windows:
        print_network_memory(args.device)


if __name__ == "__main__":
    main()
