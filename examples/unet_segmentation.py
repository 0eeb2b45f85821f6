"""Give a U-Net coordinates, where the class of a pixel depends on its position.

Each image shows blobs that all look alike. Those in the left half are class 1, those in the right half class 2, as the
left and the right kidney look alike in a scan. A convolution responds the same way everywhere, so the plain U-Net has
to work the side out from the padding at the border; with coordinates it reads the side off.

Run it from the clone, a minute on two CPU cores:

    python examples/unet_segmentation.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import to_coordconv

SIZE = 64
CLASSES = 3  # background, left, right


def draw_batch(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images ``(B, 1, 64, 64)`` of four noisy blobs each, and the class of every pixel, int64 ``(B, 64, 64)``."""
    centers = torch.randint(8, SIZE - 8, (number, 4, 2), generator=generator)  # x and y
    radii = torch.randint(3, 7, (number, 4), generator=generator)
    pixel = torch.arange(SIZE)
    x, y = centers[..., 0, None, None], centers[..., 1, None, None]
    blobs = (pixel - x) ** 2 + (pixel[:, None] - y) ** 2 <= radii[..., None, None] ** 2  # (B, 4, 64, 64)
    inside = blobs.any(1)
    sides = torch.where(pixel < SIZE // 2, 1, 2).expand_as(inside)
    noise = 0.3 * torch.randn(inside.shape, generator=generator)
    return (inside + noise)[:, None], torch.where(inside, sides, 0)


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two convolutions that keep the size, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers += [nn.Conv2d(channels, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with two levels: images ``(B, 1, H, W)`` to logits ``(B, classes, H, W)``."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = block(1, width), block(width, 2 * width)
        self.bottom = block(2 * width, 4 * width)
        self.up2, self.up1 = block(6 * width, 2 * width), block(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each pixel's classes."""
        fine = self.down1(images)
        coarse = self.down2(F.max_pool2d(fine, 2))
        deep = self.bottom(F.max_pool2d(coarse, 2))
        coarse = self.up2(torch.cat([coarse, F.interpolate(deep, scale_factor=2)], 1))
        fine = self.up1(torch.cat([fine, F.interpolate(coarse, scale_factor=2)], 1))
        logits: Tensor = self.head(fine)
        return logits


def train(network: nn.Module, steps: int, batch_size: int) -> None:
    """Train a network on freshly drawn batches, the same ones for every network."""
    generator = torch.Generator().manual_seed(1)
    # The optimizer is created after the conversion, so that it has the coordinate weights.
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    network.train()
    for _ in range(steps):
        images, classes = draw_batch(batch_size, generator)
        loss = F.cross_entropy(network(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def mean_iou(network: nn.Module, number: int = 100) -> float:
    """Return the intersection over union of the two sides' pixels, averaged over both, on images not trained on."""
    images, classes = draw_batch(number, torch.Generator().manual_seed(2))
    found = network.eval()(images).argmax(1)
    ious = [((found == k) & (classes == k)).sum() / ((found == k) | (classes == k)).sum() for k in (1, 2)]
    return float(torch.stack(ious).mean())


def main(args: Sequence[str] | None = None) -> dict[str, float]:
    """Train both networks from the same weights; print and return the IoU of each."""
    parser = argparse.ArgumentParser(description="Train a U-Net with and without coordinates.")
    parser.add_argument("--steps", type=int, default=150, help="updates of each network")
    parser.add_argument("--batch_size", type=int, default=16)
    options = parser.parse_args(args)
    for name in ("steps", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")

    ious = {}
    for coords in ("none", "xy"):
        torch.manual_seed(0)
        network = UNet(CLASSES)
        if coords != "none":
            # The first layer is at the finest level, and a skip connection passes its coordinates on.
            to_coordconv(network, where="first", coords=coords)
        train(network, options.steps, options.batch_size)
        ious[coords] = mean_iou(network)
        parameters = sum(p.numel() for p in network.parameters())
        print(f"coords {coords:4}  {parameters:,} parameters  IoU {ious[coords]:.1%}", flush=True)
    return ious


if __name__ == "__main__":
    main()
