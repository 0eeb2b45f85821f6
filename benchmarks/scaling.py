"""Estimate how training scales: bytes all-reduced per step, and the efficiency expected on many GPUs.

Parameters and bytes are counted in the real networks. Times are estimates: the assumptions are arguments.
Run `python benchmarks/scaling.py`; `--help` lists them.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from classification.models import build_classifier
from coordconv_apps.nn.parameter_budget import parameter_count
from detection.models.coord_layers import add_coords
from detection.models.detectors import build_detector
from rl import CoordConvCnnPolicy

BYTES = 4  # of a gradient: parameters are float32 under mixed precision, too
GPUS_PER_MACHINE = 8
BUCKET = 25 * 2**20  # bytes that DDP reduces at once
BACKWARD = 2 / 3  # of a step: the gradients of early buckets are reduced while later ones are computed


class Workload(NamedTuple):
    """A network to train, and the assumed time of its step on one GPU."""

    name: str
    build: Callable[[], nn.Module]
    step_ms: float
    variation: float  # standard deviation of a step's time between processes, as a fraction of it


class Network(NamedTuple):
    """What the estimate assumes about the connections."""

    inside: float  # bytes per second and GPU, within a machine
    between: float  # between machines
    latency: float  # seconds per doubling of the number of GPUs, for each bucket


class Cluster(NamedTuple):
    """GPUs, and whether they are in one machine."""

    name: str
    gpus: int
    one_machine: bool


def cluster(text: str) -> Cluster:
    """Return the cluster that a text means: a number of GPUs in machines of 8, or machines x GPUs of each.

    >>> cluster("64"), cluster("2x4")
    (Cluster(name='64 GPUs', gpus=64, one_machine=False), Cluster(name='2 x 4 GPUs', gpus=8, one_machine=False))
    """
    numbers = [PositiveInt(number) for number in text.split("x", maxsplit=1)]
    gpus = math.prod(numbers)
    one_machine = numbers[0] == 1 if len(numbers) == 2 else gpus <= GPUS_PER_MACHINE
    return Cluster(f"{' x '.join(map(str, numbers))} GPUs", gpus, one_machine)


def resnet50() -> nn.Module:
    """Build the classifier of resnet50_imagefolder.yaml with coordinates."""
    return build_classifier("resnet50", num_classes=1000, coords="xyr", where="stem")


def paper_detector() -> nn.Module:
    """Build the detector of mnist.yaml with coordinates."""
    network = build_detector("paper")
    add_coords(network, "xy", "paper", "random")
    return network


def torchvision_detector() -> nn.Module:
    """Build torchvision's Faster R-CNN for photographs, with coordinates in its first layer."""
    network = build_detector("fasterrcnn_resnet50_fpn", num_classes=90)
    add_coords(network, "xy", "paper", "random")
    return network


def a2c_policy() -> nn.Module:
    """Build the policy of a2c_atari.yaml with coordinates, for six actions."""
    images = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    return CoordConvCnnPolicy(images, spaces.Discrete(6), lambda _: 1e-3)


WORKLOADS = (
    Workload("ResNet-50, 128 images", resnet50, 46.0, 0.01),
    Workload("Faster R-CNN (torchvision), 2 photographs", torchvision_detector, 80.0, 0.05),
    Workload("Faster R-CNN (paper), 16 canvases", paper_detector, 15.0, 0.03),
    Workload("A2C, 16 games x 5 steps", a2c_policy, 25.0, 0.05),
)


def all_reduce_seconds(size: float, cluster: Cluster, network: Network) -> float:
    """Return the time to sum ``size`` bytes over N GPUs: 2 (N - 1) / N of them pass through each connection.

    >>> network = Network(inside=200e9, between=25e9, latency=1e-5)
    >>> [round(1000 * all_reduce_seconds(100e6, cluster(name), network), 3) for name in ("8", "2x4")]
    [0.995, 7.12]
    """
    bandwidth = network.inside if cluster.one_machine else network.between
    buckets = math.ceil(size / BUCKET)
    return 2 * (cluster.gpus - 1) / cluster.gpus * size / bandwidth + buckets * network.latency * math.log2(
        cluster.gpus
    )


def efficiency(size: float, step: float, variation: float, cluster: Cluster, network: Network) -> float:
    """Return the fraction of N times the speed of one GPU that N GPUs are expected to reach.

    Args:
        size: Bytes of all gradients.
        step: Seconds of a step on one GPU.
        variation: Standard deviation of a step's time between processes, as a fraction of it.
        cluster: The N GPUs.
        network: The connections.
    """
    last = all_reduce_seconds(min(size, BUCKET), cluster, network)  # nothing is left to compute meanwhile
    exposed = max(last, all_reduce_seconds(size, cluster, network) - BACKWARD * step)
    slowest = step * (1 + variation * math.sqrt(2 * math.log(cluster.gpus)))  # expected maximum of N normal values
    return step / (slowest + exposed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    clusters = [cluster(text) for text in ("8", "2x4", "64", "512")]
    parser.add_argument(
        "--gpus", type=cluster, nargs="+", default=clusters, help="GPUs in machines of 8, or such as 2x4"
    )
    parser.add_argument("--inside", type=PositiveFloat, default=200.0, help="GB/s per GPU within a machine (NVLink)")
    parser.add_argument(
        "--between", type=PositiveFloat, default=25.0, help="GB/s per GPU between machines (200 Gbit/s)"
    )
    parser.add_argument("--latency", type=NonNegativeFloat, default=10.0, help="µs per doubling of GPUs and bucket")
    steps = [workload.step_ms for workload in WORKLOADS]
    parser.add_argument("--step_ms", type=PositiveFloat, nargs=len(steps), default=steps, help="ms of each step")
    args = parser.parse_args()
    network = Network(args.inside * 1e9, args.between * 1e9, args.latency * 1e-6)
    heads = ["on each GPU", "parameters", "MB all-reduced", "step, ms (assumed)", *(each.name for each in args.gpus)]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for workload, step_ms in zip(WORKLOADS, args.step_ms, strict=True):
        parameters = parameter_count(workload.build())
        size, step = BYTES * parameters, step_ms / 1000
        estimates = [f"{100 * efficiency(size, step, workload.variation, each, network):.0f} %" for each in args.gpus]
        cells = [workload.name, f"{parameters:,}", f"{size / 1e6:.1f}", f"{step_ms:g}", *estimates]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
