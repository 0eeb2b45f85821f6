"""What a module that computes coordinates knows of windows: how its grid follows the input, and the present window."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from coordconv_apps.nn.grid import Window


class AxisSampling(NamedTuple):
    """How a layer's grid follows the model's input along one axis.

    The grid of an input of ``first + i`` pixels has ``sizes[i]`` positions; it grows by ``growth`` positions with every
    ``len(sizes)`` pixels, by 0 if it does not follow the input, as behind global pooling.
    """

    first: int
    sizes: tuple[float, ...]
    growth: int

    @property
    def stride(self) -> float:
        """Input pixels from one position of the grid to the next; infinite if the grid does not follow the input."""
        return len(self.sizes) / self.growth if self.growth else math.inf

    def place(self, origin: Any, whole: Any) -> tuple[Any, Any]:  # noqa: ANN401 - both integers or both tensors
        """Return the window's origin within the grid of the whole image, and that grid's size."""
        period = len(self.sizes)
        if isinstance(origin, Tensor):
            if period == 1:
                return origin * self.growth, whole * self.growth + (self.sizes[0] - self.first * self.growth)
            periods = torch.div(whole - self.first, period, rounding_mode="floor")
            phase = torch.remainder(whole - self.first, period).long()
            size = torch.tensor(self.sizes, device=origin.device)[phase] + periods * self.growth
            return origin * self.growth / period, size
        pixels = origin * self.growth
        first = pixels // period if pixels % period == 0 else pixels / period
        size = self.sizes[(whole - self.first) % period] + (whole - self.first) // period * self.growth
        # Integers where possible: coordinates are then computed as without a window.
        return first, int(size) if size == int(size) else size


class SeesWindows:
    """Base of modules that compute coordinates: the window that `coord_window` sets, and the strides for it.

    The attributes begin as those of the class: `to_coordconv` changes a layer's class without calling a constructor.
    """

    ndim: int
    sampling: tuple[tuple[AxisSampling, ...], ...] | None = None
    """One entry per axis, for each call within a run of the model: a shared head may see several grids in turn."""
    windows: tuple[Window, ...] = ()
    window: Window | None = None
    calls_made = -1
    not_copied: ClassVar[frozenset[str]] = frozenset({"windows", "window", "calls_made"})

    def next_window(self) -> None:
        """Choose the window for the next of the calls within a run of the model."""
        if len(self.windows) > 1:
            self.calls_made = (self.calls_made + 1) % len(self.windows)
            self.window = self.windows[self.calls_made]

    def set_windows(self, windows: tuple[Window, ...]) -> None:
        """Set the windows of the calls within one run of the model: one, or one per call."""
        self.windows, self.calls_made = windows, -1
        self.window = windows[0] if windows else None

    def __prepare_scriptable__(self) -> nn.Module:
        """Refuse `torch.jit.script` in words; its own error is about an annotation."""
        raise TypeError(
            f"torch.jit.script does not compile {type(self).__name__}; fold the model first (CoordConv layers), or use"
            " torch.export or torch.jit.trace"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles leave out the window, which is set for a block of code, and what can be computed again.
        return {key: value for key, value in self.__dict__.items() if key not in self.not_copied}


def check_window_count(grid: Tensor, input: Tensor, ndim: int) -> None:
    """Raise a ValueError if coordinates ``(N, C, *size)`` are of several windows, but not of one for each sample."""
    batch = input.shape[0] if input.dim() == ndim + 2 else 1
    if grid.shape[0] != 1 and grid.shape[0] != batch:  # no tuple: these may be symbols of torch.compile
        raise ValueError(f"origin or full_size names {grid.shape[0]} windows, and the input has batch size {batch}")


def coordinate_modules(model: nn.Module) -> dict[str, SeesWindows]:
    """Return the modules that compute coordinates by name; raise a ValueError if there are none."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SeesWindows)}
    if not layers:
        raise ValueError("the model has no CoordConv layer or AddCoords that could see a window")
    return layers
