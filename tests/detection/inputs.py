"""Random boxes and targets for the tests of detection."""

import torch
from torch import Tensor


def random_boxes(*shape: int, seed: int = 0, spread: float = 45.0) -> Tensor:
    """Boxes ``(*shape, 4)`` of 10 to 22 pixels a side, whose first corners lie in [0, spread]."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * spread
    return torch.cat((corner, corner + 10 + torch.rand(*shape, 2, generator=generator) * 12), dim=-1)


def targets(*counts: int, seed: int = 0, size: int = 64) -> list[dict[str, Tensor]]:
    """True boxes of images with the given numbers of objects."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * (size - 26)
        sides = 12 + torch.rand(count, 2, generator=generator) * 13
        labels = torch.randint(1, 11, (count,), generator=generator)
        result.append({"boxes": torch.cat((corner, corner + sides), dim=1), "labels": labels})
    return result
