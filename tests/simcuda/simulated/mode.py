"""The dispatch mode that runs operators on CUDA tensors on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from tests.simcuda.simulated import collectives, copies, cpu_kernels, memory, random_numbers, rules
from tests.simcuda.simulated.waits import wait

aten = torch.ops.aten
UNINITIALISED = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}
WITHOUT_KERNEL = UNINITIALISED | {
    aten.set_.source_Storage_storage_offset,
    aten.set_.source_Tensor,
    aten.set_.default,
    aten.set_.source_Storage,
    aten.resize_.default,
    aten.record_stream.default,
    aten.is_pinned.default,
    aten._pin_memory.default,
    aten._efficientzerotensor.default,
    aten._unsafe_view.default,
    aten.lift_fresh.default,
    aten._has_compatible_shallow_copy_type.default,
}


class SimulatedDevice(TorchDispatchMode):
    """While it is on, operators on CUDA tensors run on the CPU, on the same memory, after the checks of CUDA."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's

    def __enter__(self) -> SimulatedDevice:
        super().__enter__()  # type: ignore[no-untyped-call]  # torch's
        return self

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  # whatever the operator returns
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        creates = wanted is not None and wanted.type == "cuda"
        if not creates and not any(tensor.is_cuda for tensor in tensors):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode, such operators arrive undivided
                return func.decompose(*args, **kwargs)
        if func.namespace == "c10d":
            collectives.check(func, tensors)
            return func(*args, **kwargs)
        if func in WITHOUT_KERNEL or func.is_view:
            result = func(*args, **kwargs)
            return memory.poison(result) if memory.POISON and func in UNINITIALISED else result
        if func is aten.copy_.default:
            return copies.copy_(*args, **kwargs)
        if func is aten._to_copy.default:
            return copies.to_copy(*args, **kwargs)
        rules.check_kernel(func)
        rules.check_devices(func, tensors, args, kwargs)
        rules.check_determinism(func, kwargs)
        if rules.waits(func, args):
            wait(func)
        return _run_on_cpu(func, args, kwargs, tensors, wanted)


def _run_on_cpu(
    func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor], wanted: torch.device | None
) -> Any:  # noqa: ANN401  # whatever the operator returns
    """Run an operator on CPU tensors over the memory of the CUDA tensors; return its results on the device."""
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), wanted)
    assert device is not None
    if device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    views = {id(tensor): memory.host_view(tensor) for tensor in tensors if tensor.is_cuda}
    originals = {id(views[id(tensor)]): (views[id(tensor)], tensor) for tensor in tensors if tensor.is_cuda}
    shapes = {key: view.shape for key, (view, _) in originals.items()}
    flat, structure = tree_flatten((args, kwargs))
    host_args, host_kwargs = tree_unflatten(
        [views.get(id(x), x) if isinstance(x, Tensor) else x for x in flat], structure
    )
    if wanted is not None and wanted.type == "cuda":
        host_kwargs["device"] = torch.device("cpu")
    kernel: Callable[..., Any] = cpu_kernels.SUBSTITUTES.get(func, func)
    if torch.Tag.nondeterministic_seeded in func.tags:
        result = random_numbers.draw(func, host_args, host_kwargs, device)
    else:
        result = kernel(*host_args, **host_kwargs)
    for key, (view, original) in originals.items():
        if view.shape != shapes[key]:  # an output that the operator resized
            original.resize_(view.shape)
            memory.host_view(original).copy_(view)
    stays_on_host = wanted is not None and wanted.type == "cpu"

    def returned(tensor: Tensor) -> Tensor:
        if id(tensor) in originals:
            return originals[id(tensor)][1]
        return tensor if stays_on_host else memory.device_copy(tensor, device)

    return tree_map_only(Tensor, returned, result)
