"""Assign GPUs and CPU cores to the jobs of a comparison."""

import os
from collections.abc import Mapping, Sequence


def requested_gpus(devices: object) -> int | None:
    """Return how many GPUs a run with this `trainer.devices` asks for; None where it names them or takes all of them.

    >>> requested_gpus(2), requested_gpus("2"), requested_gpus("auto")
    (2, 2, 1)
    >>> requested_gpus([1, 2]), requested_gpus("0,1"), requested_gpus(-1)
    (None, None, None)
    """
    if isinstance(devices, list) or (isinstance(devices, str) and "," in devices) or devices in (-1, "-1"):
        return None
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    return max(devices, 1) if isinstance(devices, int) else 1


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that this process may use, as entries for `CUDA_VISIBLE_DEVICES`."""
    import torch

    count = torch.cuda.device_count()  # asks the driver; takes no memory on the devices
    given = [entry.strip() for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    return given[:count] if given else [str(index) for index in range(count)]


def job_environments(
    parallel: int | None, gpus: Sequence[str], gpus_per_job: int | None, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the environment variables of each slot that runs jobs: its GPUs and its share of the cores.

    Args:
        parallel: Number of slots; None makes one for each group of GPUs, at least one.
        gpus: The visible GPUs, as entries for `CUDA_VISIBLE_DEVICES`.
        gpus_per_job: Size of a group; None leaves the choice of GPUs to the runs.
        environment: The environment of this process; an `OMP_NUM_THREADS` in it is kept.
    """
    size = gpus_per_job or 1
    groups = [gpus[start : start + size] for start in range(0, len(gpus) - size + 1, size)] or [gpus]
    slots = parallel if parallel is not None else (1 if gpus_per_job is None else len(groups))
    threads = max(1, _cores() // slots)
    result = []
    for slot in range(slots):
        variables = {}
        if gpus and gpus_per_job is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(groups[slot % len(groups)])
        if slots > 1 and "OMP_NUM_THREADS" not in environment:
            variables["OMP_NUM_THREADS"] = str(threads)
        result.append(variables)
    return result


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
