"""Small networks of many kinds of convolutions, for conversion and folding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn


class UNet(nn.Module):
    """Two levels; the way up asks the transposed convolution for the size of the way down, so odd sizes work."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, padding_mode="reflect")
        self.middle = nn.ModuleDict({"conv": nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=2)})
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip: Tensor = self.stem(x)
        x = torch.relu_(self.middle["conv"](torch.relu_(self.down(skip))))
        x = self.up(x, output_size=skip.shape[-2:])
        out: Tensor = self.head(torch.cat([skip, x], dim=1))
        return out


class SharedConv(nn.Module):
    """One convolution at two places of the tree, run at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(3, 3, 1), self.first])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks[1](torch.tanh(self.blocks[0](self.first(x))))
        return y


class OddConv3d(nn.Conv3d):
    """A subclass with a constructor and a static method of its own, like those of torchvision's video networks."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels, size, padding=size // 2)

    @staticmethod
    def stride_of(layer: nn.Conv3d) -> tuple[int, ...]:
        return layer.stride


def sequence_network() -> nn.Sequential:
    """For inputs (B, 3, W)."""
    return nn.Sequential(nn.Conv1d(3, 4, 5, stride=2), nn.ReLU(), nn.ConvTranspose1d(4, 2, 4, stride=2))


def volume_network() -> nn.Sequential:
    """For inputs (B, 3, D, H, W)."""
    return nn.Sequential(OddConv3d(3, 4, 3), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2, stride=2, bias=False))


def faster_rcnn() -> nn.Module:
    """For lists of small images (3, H, W)."""
    torch.manual_seed(0)
    model: nn.Module = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96, box_score_thresh=0.0
    )
    return model
