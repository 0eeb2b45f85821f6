"""Rules of CUDA that the CPU does not have: what it raises for, and where the host waits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_flatten

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
TAKE_CPU_SCALARS = {
    "clamp",
    "clamp_",
    "fill",
    "fill_",
    "index_fill",
    "index_fill_",
    "masked_fill",
    "masked_fill_",
    "where",
}
WAIT = {  # the host needs the size or the value of the result
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nms",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
    "unique_dim_consecutive",
}


NONDETERMINISTIC = {  # "Will throw a RuntimeError" in the documentation of torch.use_deterministic_algorithms
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "_ctc_loss_backward",
    "_roi_align_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "histc",
    "max_unpool2d",
    "max_unpool3d",
    "nll_loss2d_forward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "upsample_bicubic2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
}


class RefusedByCUDA(RuntimeError):
    """CUDA would raise an error here."""


def short_name(func: OpOverload) -> str:
    """Return the name of an operator without its namespace and overload."""
    return func._schema.name.split("::")[1]


def check_kernel(func: OpOverload) -> None:
    """Raise if torch has no CUDA kernel for an operator."""
    if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "CUDA"):
        raise NotImplementedError(f"Could not run '{func.name()}' with arguments from the 'CUDA' backend.")


def written_tensors(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an operator writes to."""
    arguments = func._schema.arguments
    written: list[Tensor] = []
    for number, argument in enumerate(arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[number] if number < len(args) else None)
            written += [x for x in tree_flatten(value)[0] if isinstance(x, Tensor)]
    return written


def check_devices(func: OpOverload, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if tensors are on several devices, unless CUDA allows it: CPU indices, CPU scalars that are only read."""
    name = short_name(func)
    written = written_tensors(func, args, kwargs)
    if name in INDEXING:
        indices = [index for index in args[1] if index is not None and index.is_cuda]
        tensors = [args[0], *indices, *(value for value in args[2:3] if isinstance(value, Tensor))]
        written = written[:1]
    scalars = torch.Tag.pointwise in func.tags or name in TAKE_CPU_SCALARS | INDEXING or "_foreach" in name

    def is_allowed(tensor: Tensor) -> bool:
        return scalars and tensor.is_cpu and tensor.dim() == 0 and not any(tensor is each for each in written)

    if len({tensor.device for tensor in tensors if not is_allowed(tensor)}) > 1:
        found = ", ".join(f"{tensor.device}{tuple(tensor.shape)}" for tensor in tensors)
        raise RefusedByCUDA(f"Expected all tensors to be on the same device, but {func} got {found}")


def check_determinism(func: OpOverload, kwargs: dict[str, Any]) -> None:
    """Raise if `torch.use_deterministic_algorithms` is on and the CUDA kernel has no deterministic form."""
    if not torch.are_deterministic_algorithms_enabled() or torch.is_deterministic_algorithms_warn_only_enabled():
        return
    name = short_name(func)
    if name in NONDETERMINISTIC or (name == "bincount" and kwargs.get("weights") is not None):
        raise RefusedByCUDA(f"{name} does not have a deterministic implementation on CUDA")


def waits(func: OpOverload, args: tuple[Any, ...]) -> bool:
    """Return whether the host waits for the result of an operator."""
    name = short_name(func)
    masks = (torch.bool, torch.uint8)
    by_mask = name in ("index", "index_put_") and any(t is not None and t.dtype in masks for t in args[1])
    return name in WAIT or by_mask
