"""Measure the strides behind which a model's layers see its input, for `coordconv_apps.nn.windows`."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from coordconv_apps.nn.window_layer import AxisSampling, coordinate_modules

_GROWTH = {1: 26880, 2: 26880, 3: 1920}
"""By how much an input is enlarged to measure strides, by its number of axes; strides must divide it."""

_LONGEST_PERIOD = 512


def measure_strides(
    model: nn.Module,
    input_size: Sequence[int],
    forward: Callable[[nn.Module, Tensor], object] | None = None,
) -> dict[str, list[tuple[float, ...]]]:
    """Measure how each coordinate layer's grid follows the model's input, as `coord_window` needs it.

    Call it once for a model; the result is kept on the layers, and copies and pickles of the model keep it. A copy of
    the model on the meta device is run at several sizes, so nothing is computed and the model is not changed.

    Args:
        model: A model whose layers' grids grow with the input, such as a fully convolutional one.
        input_size: Shape of an input that the model takes, batch included, such as ``(1, 3, 256, 256)``.
        forward: For models that cannot be run on one tensor: a function that runs the given model, or the parts of it
            that are to see windows, on the given tensor, such as ``lambda m, x: m.backbone(x)``.

    Returns:
        Input pixels per grid position along each axis, for every layer by name and for each of its calls within one
        run; infinite where a grid does not grow with the input.

    Raises:
        ValueError: If no layer has coordinates, ``input_size`` does not fit, the model cannot be run that way or runs
            its layers another number of times on a larger input, or the strides' common multiple is above 512.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> model = nn.Sequential(CoordConv2d(3, 8, 3, stride=2, padding=1), CoordConv2d(8, 8, 3, padding=1))
        >>> measure_strides(model, (1, 3, 32, 32))
        {'0': [(1.0, 1.0)], '1': [(2.0, 2.0)]}
    """
    layers = coordinate_modules(model)
    axes = {layer.ndim for layer in layers.values()}
    size = tuple(input_size) if isinstance(input_size, Sequence) and not isinstance(input_size, str) else ()
    if len(axes) != 1 or len(size) != min(axes) + 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(
            f"input_size={input_size!r}: must be the shape of one input, batch and channels included, with as many"
            f" spatial axes as every layer with coordinates has ({', '.join(map(str, sorted(axes)))})"
        )
    recorder = _Recorder(model, size, forward)
    samplings = _samplings(recorder)
    for name, layer in layers.items():
        layer.sampling = samplings.get(name)
        layer.set_windows(())  # a compiled program would notice an attribute that appears with the first window
    return {name: [tuple(axis.stride for axis in call) for call in calls] for name, calls in samplings.items()}


Grids = dict[tuple[str, int], tuple[int, ...]]
"""The size of the grid that a layer sees, by its name and the number of its call."""


class _Recorder:
    """Runs a copy of a model on the meta device and records the sizes of the grids that its layers see."""

    def __init__(
        self, model: nn.Module, size: tuple[int, ...], forward: Callable[[nn.Module, Tensor], object] | None
    ) -> None:
        self.model = _meta_copy(model).eval()
        self.size = size
        self.forward = forward or (lambda model, input: model(input))
        dtypes = [p.dtype for p in self.model.parameters() if p.dtype.is_floating_point or p.dtype.is_complex]
        self.dtype = dtypes[0] if dtypes else torch.get_default_dtype()

    def grids(self, growth: int) -> Grids:
        """Return the sizes of the grids for an input with ``growth`` more pixels along each axis."""
        seen: Grids = {}
        calls: Counter[str] = Counter()
        names: dict[object, str] = {layer: name for name, layer in coordinate_modules(self.model).items()}

        def record(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401 - a SeesWindows
            input = args[0] if args else kwargs["input"]
            name = names[layer]
            seen[name, calls[name]] = tuple(input.shape[-layer.ndim :])
            calls[name] += 1

        shape = (*self.size[:2], *(n + growth for n in self.size[2:]))
        handles = [m.register_forward_pre_hook(record, with_kwargs=True) for m in self.model.modules() if m in names]
        try:
            with torch.no_grad(), torch.device("meta"), torch.compiler.set_stance("force_eager"):
                self.forward(self.model, torch.zeros(shape, dtype=self.dtype))
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"input_size={self.size}: the model does not run on a meta tensor of shape {shape}; pass forward=..."
                f" that runs the parts with coordinates. {type(error).__name__}: {reason}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        return seen


def _samplings(recorder: _Recorder) -> dict[str, tuple[tuple[AxisSampling, ...], ...]]:
    """Return how every layer's grids follow the input, from runs at every phase of the largest stride."""
    size = recorder.size[2:]
    growth = _GROWTH[len(size)]
    base, large = recorder.grids(0), recorder.grids(growth)
    if base.keys() != large.keys():
        raise ValueError(
            f"input_size={recorder.size}: the layers run more or fewer times on a larger input; pass forward=..."
            " that runs each a fixed number of times"
        )
    rates = {call: [Fraction(b - a, growth) for a, b in zip(base[call], large[call], strict=True)] for call in base}
    period = math.lcm(*(rate.denominator for axes in rates.values() for rate in axes))
    if period > _LONGEST_PERIOD:
        raise ValueError(
            f"input_size={recorder.size}: the layers' strides have the common multiple {period}; at most"
            f" {_LONGEST_PERIOD} is supported"
        )
    phases: list[Grids | None] = [base]
    for more in range(1, period):
        try:
            phases.append(recorder.grids(more))
        except ValueError:  # such as a U-Net, which takes multiples of its stride only
            phases.append(None)
    samplings: dict[str, tuple[tuple[AxisSampling, ...], ...]] = {}
    for call, axes in rates.items():
        sampling = []
        for axis, rate in enumerate(axes):
            sizes = [
                float(base[call][axis] + more * rate if grids is None else grids[call][axis])
                for more, grids in enumerate(phases)
            ]
            sampling.append(AxisSampling(size[axis], tuple(sizes), int(rate * period)))
        name, _ = call
        samplings[name] = (*samplings.get(name, ()), tuple(sampling))
    return samplings


def _meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device, without copying values."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = (*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values())
        for value in held:
            if isinstance(value, Tensor):
                meta = torch.empty_like(value, device="meta", requires_grad=False)
                memo[id(value)] = nn.Parameter(meta, False) if isinstance(value, nn.Parameter) else meta
    return copy.deepcopy(model, memo)
