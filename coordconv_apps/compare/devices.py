"""Where the runs of a comparison run: which GPUs each may see, and how many of the cores it takes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def requested_gpus(configs: Sequence[Path], flags: Sequence[str]) -> int | None:
    """Returns how many GPUs a run asks for through `trainer.devices`; None where it names them, or takes all.

    Args:
        configs: The config files, a later one overriding an earlier one.
        flags: The flags for the application, which override the configs.

    Raises:
        ValueError: A config is not a YAML file of keys and values.
    """
    value: Any = None
    for config in configs:
        content = _read_config(config)
        trainer = content.get("trainer")
        value = trainer.get("devices", value) if isinstance(trainer, dict) else value
    for place, flag in enumerate(flags):
        name, equals, given = flag.partition("=")
        if name == "--trainer.devices":
            value = yaml.safe_load(given if equals else "".join(flags[place + 1 : place + 2]))
    if isinstance(value, list) or (isinstance(value, str) and "," in value) or value in (-1, "-1"):
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return max(value, 1) if isinstance(value, int) else 1


def _read_config(config: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {config}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {config}: must hold keys and values, not {type(content).__name__}")
    return content


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Returns the GPUs that this process may use, as entries for `CUDA_VISIBLE_DEVICES`."""
    import torch

    count = torch.cuda.device_count()  # asks the driver; takes no memory on the devices
    given = [entry.strip() for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    return given[:count] if given else [str(index) for index in range(count)]


def job_environments(
    parallel: int | None, gpus: Sequence[str], gpus_per_job: int | None, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """Returns the environment variables of each place where a job can run: its GPUs, its share of the cores.

    Args:
        parallel: Number of places; None makes one for each group of GPUs, at least one.
        gpus: The visible GPUs, as entries for `CUDA_VISIBLE_DEVICES`.
        gpus_per_job: Size of a group; None leaves the choice of GPUs to the runs.
        environment: The environment of this process; an `OMP_NUM_THREADS` in it is left as it is.
    """
    size = gpus_per_job or 1
    groups = [gpus[start : start + size] for start in range(0, len(gpus) - size + 1, size)] or [gpus]
    places = parallel if parallel is not None else (1 if gpus_per_job is None else len(groups))
    threads = max(1, _cores() // places)
    result = []
    for place in range(places):
        variables: dict[str, str] = {}
        if gpus and gpus_per_job is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(groups[place % len(groups)])
        if places > 1 and "OMP_NUM_THREADS" not in environment:
            variables["OMP_NUM_THREADS"] = str(threads)
        result.append(variables)
    return result


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
