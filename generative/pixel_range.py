"""Conversion between uint8 images and floating-point images in [-1, 1]."""

from __future__ import annotations

from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images, 0 to 255, to float32 of the same shape, -1 to 1.

    Example:
        >>> import torch
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Convert floating-point images, -1 to 1, to uint8 of the same shape, 0 to 255, on the CPU.

    Other values are clipped, and NaN becomes gray.

    Example:
        >>> import torch
        >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 7.0, float("nan")])).tolist()
        [0, 128, 255, 255, 128]
    """
    return (images.float().nan_to_num(0.0).clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu()
