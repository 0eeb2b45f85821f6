"""A tiny network, noisy pictures in class folders, and tiny trainers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model

from classification.data import ClassificationData
from classification.tasks import Classifier
from tests.classification.images import CLASSES
from tests.helpers.trainers import own_trainer

if TYPE_CHECKING:
    from pathlib import Path

# A MobileNetV2 of a tenth of its channels: batch norm and dropout, and a step in a hundredth of a second.
NETWORK: dict[str, Any] = {"network": "mobilenet_v2", "network_args": {"width_mult": 0.1}, "num_classes": 3}
ARGUMENTS = ["--model.network=mobilenet_v2", "--model.network_args={width_mult: 0.1}"]
SIZE = 16
"""Of the images to train on. The pictures have 24 x 20 pixels."""


def save_noise(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder with so many pictures of each class: noise, the brighter the later the class."""
    rng = np.random.default_rng(seed)
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(30 * label, 160 + 30 * label, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def save_parts(root: Path) -> Path:
    """24 pictures to train and 11 to validate on, of three classes."""
    save_noise(root / "train", dict(zip(CLASSES, (8, 9, 7), strict=True)))
    save_noise(root / "val", dict(zip(CLASSES, (4, 4, 3), strict=True)), seed=1)
    return root


def weights_file(path: Path, num_classes: int = 3) -> Path:
    """Weights of the network with outputs that tell images apart: those of random ones are all the same."""
    torch.manual_seed(0)
    network = get_model(NETWORK["network"], num_classes=num_classes, **NETWORK["network_args"])
    network.classifier[1].weight.data.normal_(std=0.05)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, 3, SIZE, SIZE))
    for layer in norms:  # channels that hardly vary would amplify rounding errors
        assert layer.running_var is not None
        layer.running_var.clamp_(min=0.01)
    torch.save(network.state_dict(), path)
    return path


def task(**arguments: Any) -> Classifier:  # noqa: ANN401  # handed on as they are
    return Classifier(**(NETWORK | arguments))


def data(root: Path, **arguments: Any) -> ClassificationData:  # noqa: ANN401  # handed on as they are
    small: dict[str, Any] = {
        "root": str(root),
        "image_size": SIZE,
        "crop": "padded",
        "batch_size": 8,
        "eval_batch_size": 4,
    }
    return ClassificationData(**(small | arguments))


trainer = partial(own_trainer, max_epochs=1, limit_val_batches=0)
