"""A simulated CUDA device: a CUDA build of torch without a GPU, whose operators run on the CPU. See ../README.md."""

from __future__ import annotations

import atexit
import os
import threading

import torch

from tests.simcuda.simulated import collectives, cpu_kernels, waits
from tests.simcuda.simulated.memory import host_view
from tests.simcuda.simulated.mode import SimulatedDevice
from tests.simcuda.simulated.rules import RefusedByCUDA
from tests.simcuda.simulated.runtime import races

__all__ = ["RefusedByCUDA", "install", "races"]


def install() -> None:
    """Turn the simulation on for good, in this thread and in all threads to come."""
    cpu_kernels.register()
    torch.backends.cudnn.enabled = False  # its operators have no CPU kernels
    for name in ("enable_flash_sdp", "enable_mem_efficient_sdp", "enable_cudnn_sdp"):
        getattr(torch.backends.cuda, name)(False)
    # A warning that Lightning's DistributedDataParallel causes on any GPU.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    SimulatedDevice().__enter__()
    _simulate_in_threads()
    _print_tensors_on_the_host()
    collectives.stand_in_for_nccl()
    if "SIM_CUDA_WAITS" in os.environ:
        atexit.register(waits.write)


def _simulate_in_threads() -> None:
    """Enter the dispatch mode in each new thread: torch's modes belong to a thread."""
    begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]  # private

    def simulated(self: threading.Thread) -> None:
        with SimulatedDevice():
            begin(self)

    threading.Thread._bootstrap_inner = simulated  # type: ignore[attr-defined]


def _print_tensors_on_the_host() -> None:
    """Print tensors from their memory: torch formats them with all modes off."""
    on_device = torch._tensor_str._tensor_str

    def on_host(tensor: torch.Tensor, indent: int) -> str:
        text: str = on_device(host_view(tensor) if tensor.is_cuda else tensor, indent)  # type: ignore[no-untyped-call]
        return text

    torch._tensor_str._tensor_str = on_host
