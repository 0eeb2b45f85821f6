"""Fuse batch normalisation into the convolutions before it, their coordinates included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.nn.layers import COORD_CLASSES
from coordconv_apps.nn.module_classes import become, behaves_like
from coordconv_apps.nn.torch_internals import ConvNd, has_forward_hooks

_CONVOLUTIONS = (*COORD_CLASSES, *COORD_CLASSES.values())
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_LOOKS = {"__get__", "dim", "size", "is_contiguous", "is_floating_point", "is_complex", "numel", "__len__"}
"""Names of functions that read no values of a tensor."""


def fuse_batch_norms(model: nn.Module, run: Callable[[], object]) -> None:
    """Fuse each batch norm that alone reads a convolution's output into that convolution, in place.

    The convolution's weight, coordinate weight and bias are scaled, and the batch norm becomes `torch.nn.Identity`.
    Layers with hooks, computed weights or replaced functions stay as they are, and so do batch norms without running
    statistics and those that more than one convolution leads to.

    Args:
        model: A model in evaluation mode.
        run: Runs the model on every kind of input that occurs.
    """
    uses = _Uses(model)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), uses:
        run()
    uses.remove_hooks()
    for norm in list(model.modules()):
        conv = uses.only_source(norm)
        if conv is not None and _fits(conv, norm):
            _fuse(conv, norm)
            become(norm, nn.Identity)


class _Uses(TorchFunctionMode):
    """Records which functions read the outputs of a model's convolutions while it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._outputs: dict[int, tuple[Tensor, nn.Module]] = {}  # holds the tensors: an id is given to another later
        self._readers: dict[nn.Module, list[object]] = {}
        """For each convolution a reader per output: the batch norm that reads it, or something else."""
        self._sources: dict[nn.Module, list[nn.Module | None]] = {}
        """For each batch norm the convolution whose output it reads, in every call."""
        self._norm: nn.Module | None = None
        self._owners: dict[int, list[nn.Module]] = {}
        """The convolutions that hold a parameter, by its id."""
        self._running: list[nn.Module] = []
        self._handles = []
        for conv in filter(_is_conv, model.modules()):
            self._handles.append(conv.register_forward_pre_hook(self._start))
            self._handles.append(conv.register_forward_hook(self._made))
            for parameter in conv.parameters(recurse=False):
                self._owners.setdefault(id(parameter), []).append(conv)
        self._handles.append(model.register_forward_hook(self._returned))
        for module in model.modules():
            if behaves_like(type(module), _NORMS):
                self._handles.append(module.register_forward_pre_hook(self._enter))
                self._handles.append(module.register_forward_hook(self._leave))

    def remove_hooks(self) -> None:
        """Remove the hooks that this has set."""
        for handle in self._handles:
            handle.remove()

    def _start(self, module: nn.Module, args: Any) -> None:  # noqa: ANN401 - a hook
        self._running.append(module)

    def _made(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ANN401 - a hook
        self._running.remove(module)
        if isinstance(output, Tensor):
            self._outputs[id(output)] = (output, module)
            self._readers.setdefault(module, [])

    def _enter(self, norm: nn.Module, args: Any) -> None:  # noqa: ANN401 - a hook
        self._norm = norm
        source = self._outputs.get(id(args[0])) if args else None
        self._sources.setdefault(norm, []).append(None if source is None else source[1])

    def _leave(self, norm: nn.Module, args: Any, output: Any) -> None:  # noqa: ANN401 - a hook
        self._norm = None

    def _returned(self, model: nn.Module, args: Any, output: Any) -> None:  # noqa: ANN401 - a hook
        self.note_all(tree_leaves(output))

    def note_all(self, values: list[Any], reader: object = "something else") -> None:
        """Note that something reads these values: a convolution's output, or its weights while it does not run."""
        for value in values:
            if isinstance(value, Tensor) and id(value) in self._outputs:
                self._readers[self._outputs[id(value)][1]].append(reader)
            owners = self._owners.get(id(value), [])
            if not any(owner in self._running for owner in owners):
                for owner in owners:
                    self._readers.setdefault(owner, []).append("something else")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if getattr(func, "__name__", "") not in _LOOKS:
            reader = self._norm if func is nn.functional.batch_norm else None
            self.note_all(tree_leaves((args, kwargs)), reader or "something else")
        return func(*args, **(kwargs or {}))

    def only_source(self, norm: nn.Module) -> nn.Module | None:
        """Return the convolution whose outputs this batch norm reads, and nothing else does; None if there is none."""
        sources = self._sources.get(norm, [None])
        conv = sources[0]
        if conv is None or any(source is not conv for source in sources):
            return None
        calls = sum(module is conv for _, module in self._outputs.values())
        readers = self._readers[conv]
        return conv if len(readers) == calls == len(sources) and all(reader is norm for reader in readers) else None


def _is_conv(module: nn.Module) -> bool:
    return behaves_like(type(module), _CONVOLUTIONS) is not None


def _fits(conv: nn.Module, norm: nn.Module) -> bool:
    """Return whether a pair may be fused."""
    assert isinstance(conv, ConvNd)
    assert isinstance(norm, _NORMS)
    values = [conv.weight, conv.bias, getattr(conv, "coord_weight", None)]
    return (
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.training
        and all(value is None or isinstance(value, nn.Parameter) for value in values)
        and not (conv.transposed and conv.groups > 1)  # one row of the weight then serves several output channels
        and not has_forward_hooks(conv)
        and not has_forward_hooks(norm)
        and not ({"forward", "_conv_forward"} & {*vars(conv), *vars(norm)})
        and not conv.weight.is_complex()
    )


def _fuse(conv: Any, norm: Any) -> None:  # noqa: ANN401 - checked by `_fits`
    """Scale the convolution's parameters so that it gives the batch norm's output."""
    precise = torch.promote_types(conv.weight.dtype, torch.float32)
    scale = torch.rsqrt(norm.running_var.to(precise) + norm.eps)
    shift = -norm.running_mean.to(precise) * scale
    if norm.weight is not None:
        scale, shift = scale * norm.weight, shift * norm.weight
    if norm.bias is not None:
        shift = shift + norm.bias
    if conv.bias is not None:
        shift = shift + conv.bias * scale

    def scaled(weight: nn.Parameter) -> nn.Parameter:
        shape = (1, -1) if conv.transposed else (-1, 1)
        factor = scale.reshape(*shape, *[1] * (weight.dim() - 2))
        return nn.Parameter((weight * factor).to(weight.dtype), weight.requires_grad)

    with torch.no_grad():
        conv.weight = scaled(conv.weight)
        if isinstance(conv, CoordLayer):
            conv.coord_weight = scaled(conv.coord_weight)
        conv.bias = nn.Parameter(shift.detach().to(conv.weight.dtype), conv.weight.requires_grad)
