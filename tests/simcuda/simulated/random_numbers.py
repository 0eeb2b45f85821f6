"""Random numbers of the device's generators: drawn by a CPU generator that their seed and offset determine."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload

from tests.simcuda.simulated.rules import RefusedByCUDA


def draw(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Any:  # noqa: ANN401
    """Run an operator that draws random numbers; the CPU's own generator is left alone.

    Args:
        func: The operator.
        args: Its arguments, on the CPU; a generator among them is a CUDA generator.
        kwargs: Its keyword arguments.
        device: The device of the tensors.
    """
    seed = _next_seed(_generator(args, kwargs, device))
    names = [argument.name for argument in func._schema.arguments]
    if "generator" not in names:
        return _with_global_seed(func, args, kwargs, seed)
    drawn_by = torch.Generator().manual_seed(seed)
    position = names.index("generator")
    if len(args) > position:
        return func(*args[:position], drawn_by, *args[position + 1 :], **kwargs)
    return func(*args, **{**kwargs, "generator": drawn_by})


def _generator(args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> torch.Generator:
    """Return the generator that CUDA would use."""
    given = [x for x in (kwargs.get("generator"), *args) if isinstance(x, torch.Generator)]
    if not given:
        assert device.index is not None
        return torch.cuda.default_generators[device.index]
    if given[0].device not in (device, torch.device("cuda")):
        raise RefusedByCUDA(f"Expected a '{device}' device type for generator but found '{given[0].device}'")
    return given[0]


def _next_seed(generator: torch.Generator) -> int:
    """Return a seed for the numbers that a CUDA generator draws next, and advance it."""
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    return hash((generator.initial_seed(), offset)) % 2**63


def _with_global_seed(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int) -> Any:  # noqa: ANN401
    """Run an operator that draws from the global generator of the CPU, and restore its state."""
    state = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(seed)
        return func(*args, **kwargs)
    finally:
        torch.default_generator.set_state(state)
