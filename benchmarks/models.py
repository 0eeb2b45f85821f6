"""Measure time and peak memory of whole models with coordinates, relative to the same models without.

    python benchmarks/models.py                  # evaluation, one image at a time
    python benchmarks/models.py --batch 4
    python benchmarks/models.py --training --batch 2
    python benchmarks/models.py --windows --batch 16  # in windows of a larger image

ResNet-50 and Faster R-CNN are torchvision's, with random weights; the U-Net is that of examples/unet_segmentation.py.
"first" gives coordinates to the first convolution, "all" to every one. With --windows, the fully convolutional U-Net
with coordinates in all convolutions is compared with itself without a window. The models take turns within one run.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import fasterrcnn_resnet50_fpn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from benchmarks.layers import WINDOWS, Result, in_windows, peak_bytes, print_table
from benchmarks.timing import in_turns, medians
from coordconv_apps import to_coordconv
from examples.unet_segmentation import UNet


class Model(NamedTuple):
    """A model, and how it is run on a batch of images; ``train`` returns the loss."""

    make: Callable[[], nn.Module]
    channels: int
    size: int
    run: Callable[[nn.Module, Tensor], Any]
    train: Callable[[nn.Module, Tensor], Tensor]


def detection_loss(model: nn.Module, images: Tensor) -> Tensor:
    """Return the loss of a detector on images with one object each."""
    target = {"boxes": torch.tensor([[20.0, 30.0, 120.0, 140.0]]), "labels": torch.tensor([1])}
    losses: dict[str, Tensor] = model(list(images), [target] * len(images))
    return torch.stack(list(losses.values())).sum()


def detector() -> nn.Module:
    """Return a detector that keeps the size of its input."""
    model: nn.Module = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=11, min_size=320, max_size=320
    )
    return model


def plain_loss(model: nn.Module, images: Tensor) -> Tensor:
    """Return a loss of the outputs, which costs next to nothing itself."""
    loss: Tensor = model(images).square().mean()
    return loss


UNET = "U-Net of 64 channels, 128 x 128"

MODELS = {
    "ResNet-50, 224 x 224": Model(lambda: resnet50(weights=None), 3, 224, lambda m, x: m(x), plain_loss),
    "Faster R-CNN, 320 x 320": Model(detector, 3, 320, lambda m, x: m(list(x)), detection_loss),
    UNET: Model(lambda: UNet(3, width=64), 1, 128, lambda m, x: m(x), plain_loss),
}


def make_step(model: Model, network: nn.Module, images: Tensor, training: bool) -> Callable[[], None]:
    """Return one step of a network: forward and backward in training, a forward in evaluation."""

    def train_step() -> None:
        model.train(network, images).backward()
        network.zero_grad(set_to_none=True)

    def eval_step() -> None:
        with torch.inference_mode():
            model.run(network, images)

    return train_step if training else eval_step


def make_steps(model: Model, batch: int, training: bool) -> dict[str, Callable[[], None]]:
    """Return one step of the model without coordinates, and with them in its first and in all convolutions."""
    torch.manual_seed(0)
    images = torch.rand(batch, model.channels, model.size, model.size)
    plain = model.make().train(training)
    models = {"plain": plain}
    for where in ("first", "all"):
        models[where] = to_coordconv(copy.deepcopy(plain), where)
    return {name: make_step(model, network, images, training) for name, network in models.items()}


def make_window_steps(model: Model, batch: int, training: bool) -> dict[str, Callable[[], None]]:
    """Return one step with coordinates in all convolutions, without a window and in windows set anew for each step."""
    torch.manual_seed(0)
    images = torch.rand(batch, model.channels, model.size, model.size)
    first = to_coordconv(model.make().train(training), "all")
    networks = {name: copy.deepcopy(first) for name in ("no window", *WINDOWS)}
    steps = {name: make_step(model, network, images, training) for name, network in networks.items()}
    return in_windows(networks, steps, images, 16 * torch.arange(2 * batch).view(-1, 2))


def main() -> None:
    """Measure the models and print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", action="store_true", help="measure the U-Net in windows of a larger image")
    parser.add_argument("--training", action="store_true", help="measure forward and backward, not evaluation")
    parser.add_argument("--batch", type=PositiveInt, default=1, help="batch size")
    parser.add_argument(
        "--seconds", type=PositiveFloat, default=4.0, help="time spent on each model, at least seven steps"
    )
    args = parser.parse_args()
    if args.batch < 1 + args.training:
        sys.exit(f"error: --batch={args.batch}: must be at least {1 + args.training}")
    print(f"torch {torch.__version__}, CPU, {torch.get_num_threads()} threads, eager, float32")
    results = {}
    for name in (UNET,) if args.windows else MODELS:
        steps = (make_window_steps if args.windows else make_steps)(MODELS[name], args.batch, args.training)
        peaks = {arm: peak_bytes(step, "cpu") for arm, step in steps.items()}
        results[name] = Result(medians(in_turns(steps, args.seconds * len(steps), least=7)), peaks)
    print_table(f"{'training' if args.training else 'evaluation'} at batch size {args.batch}", results)


if __name__ == "__main__":
    main()
