"""Let the images of a padded batch have coordinates of their own in torchvision's detectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from coordconv_apps.nn.grid import Window
from coordconv_apps.nn.window_layer import SeesWindows


@contextmanager
def image_coords(network: nn.Module) -> Iterator[None]:
    """Let coordinates range over each image of a batch, instead of over the batch's padded size.

    Torchvision's detectors resize images and pad them at the right and at the bottom to one size, a multiple of 32
    pixels. Without this context, the coordinates of a pixel would depend on the other images of its batch, and differ
    between training and the prediction of a single image. Layers of the second stage, which see boxes of one size, keep
    the coordinates of the box.

    Args:
        network: A detector of torchvision. Other networks, and detectors without coordinates before the second stage,
            run as they are.
    """
    layers = _layers_that_see_images(network)
    if not layers:
        yield
        return
    fractions: list[Tensor] = []  # of the padded size, (B, 2) or (1, 2)

    def measure(_: nn.Module, __: Any, output: tuple[ImageList, Any]) -> None:  # noqa: ANN401 - torch's hook
        batch, sizes = output[0].tensors, output[0].image_sizes
        padded = tuple(batch.shape[-2:])
        fractions.clear()
        if any(size != padded for size in sizes):
            different = sizes if len(set(sizes)) > 1 else sizes[:1]  # one window for images of one size
            fractions.append(batch.new_tensor(different) / batch.new_tensor(padded))

    def place(layer: SeesWindows, args: tuple[Tensor, ...]) -> None:
        for fraction in fractions:
            size = fraction * fraction.new_tensor(args[0].shape[-2:])
            layer.set_windows((Window(torch.zeros_like(size), size),))

    hooks = [network.transform.register_forward_hook(measure)]  # type: ignore[union-attr]
    hooks += [layer.register_forward_pre_hook(place) for layer in layers]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            layer.set_windows(())


def _layers_that_see_images(network: nn.Module) -> list[SeesWindows]:
    """Return the layers with coordinates in the backbone and in the head that sees its whole output."""
    if not isinstance(getattr(network, "transform", None), nn.Module):
        return []
    parts = nn.ModuleList([network.backbone, getattr(network, "rpn", network).head])  # type: ignore[list-item]
    return [module for module in parts.modules() if isinstance(module, SeesWindows)]
