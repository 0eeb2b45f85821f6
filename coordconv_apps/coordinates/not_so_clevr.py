"""Not-so-Clevr (Liu et al., 2018, section 2): white squares on a black canvas, at every place where one fits.

A sample is determined by its centre ``(x, y)`` in integer pixels: x counts columns, y rows. So the data set is the list
of centres, and images are rendered from it on the device that needs them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.argument_checks import check_at_least

PositionSplit = Literal["uniform", "quadrant"]


class Centers(NamedTuple):
    """The centres of a split, int64 ``(n, objects, 2)``: x, y of each object in pixels."""

    train: Tensor
    test: Tensor


def all_centers(canvas_size: int = 64, square_size: int = 9) -> Tensor:
    """Return the centres of all squares that fit on the canvas, int64 ``(n, 2)``, row by row.

    Both x and y are in ``[square_size // 2, canvas_size - (square_size - 1) // 2)``. For the paper's 64 and 9: 4 to 59,
    3,136 centres. The centre of an even square is the pixel right of and below its middle.

    Raises:
        ValueError: The square is larger than the canvas, or has no pixels.

    >>> all_centers().shape
    torch.Size([3136, 2])
    >>> all_centers(canvas_size=4, square_size=3).tolist()
    [[1, 1], [2, 1], [1, 2], [2, 2]]
    """
    check_at_least(1, "data.", square_size=square_size)
    if square_size > canvas_size:
        raise ValueError(f"data.square_size={square_size}: must be at most data.canvas_size={canvas_size}")
    axis = torch.arange(square_size // 2, canvas_size - (square_size - 1) // 2)
    return torch.cartesian_prod(axis, axis).flip(1)


def split_centers(
    split: PositionSplit, canvas_size: int = 64, square_size: int = 9, test_fraction: float = 0.25, seed: int = 0
) -> Centers:
    """Split the centres into a training and a test set.

    Args:
        split: "uniform": each centre goes to the test set with probability ``test_fraction``. "quadrant": the test
            set is where both x and y are above half of the canvas, 729 of the paper's 3,136.
        canvas_size: Height and width of the canvas, in pixels.
        square_size: Side of the square, in pixels.
        test_fraction: For "uniform", in (0, 1).
        seed: Seed of the "uniform" split.

    Raises:
        ValueError: An argument is out of its range, or one of the sets is empty.

    >>> [len(centers) for centers in split_centers("quadrant")]
    [2407, 729]
    """
    centers = all_centers(canvas_size, square_size)
    if split == "uniform":
        if not 0 < test_fraction < 1:
            raise ValueError(f"data.test_fraction={test_fraction}: must be in (0, 1)")
        in_test = torch.rand(len(centers), generator=torch.Generator().manual_seed(seed)) < test_fraction
    elif split == "quadrant":
        in_test = (centers > canvas_size // 2).all(1)
    else:
        raise ValueError(f"data.split={split}: must be uniform or quadrant")
    for name, chosen in (("train", ~in_test), ("test", in_test)):
        if not chosen.any():
            fraction = f", data.test_fraction={test_fraction}" if split == "uniform" else ""
            raise ValueError(
                f"data.split={split}: leaves no {name} sample of {len(centers)} (data.canvas_size={canvas_size},"
                f" data.square_size={square_size}{fraction})"
            )
    return Centers(centers[~in_test].unsqueeze(1), centers[in_test].unsqueeze(1))


def draw_pairs(centers: Tensor, count: int, seed: int) -> Tensor:
    """Draw pairs ``(count, 2, 2)`` of centres ``(n, 1, 2)`` independently, so that squares may overlap."""
    chosen = torch.randint(len(centers), (count, 2), generator=torch.Generator().manual_seed(seed))
    return centers[chosen, 0]


def one_hot(centers: Tensor, canvas_size: int) -> Tensor:
    """Render images, float32 ``(B, H, W)``, that are 1 at the centres, int64 ``(B, objects, 2)``, and 0 elsewhere."""
    images = torch.zeros(len(centers), canvas_size**2, device=centers.device)
    images.scatter_(1, pixel_index(centers, canvas_size), 1.0)
    return images.view(-1, canvas_size, canvas_size)


def render(centers: Tensor, canvas_size: int, square_size: int) -> Tensor:
    """Render images, float32 ``(B, H, W)``: 1 in the squares around centres, int64 ``(B, objects, 2)``, 0 elsewhere.

    >>> render(torch.tensor([[[1, 2]]]), canvas_size=4, square_size=2)[0].int()
    tensor([[0, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 0, 0],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    first = centers.unsqueeze(-1) - square_size // 2
    pixels = torch.arange(canvas_size, device=centers.device)
    inside = (pixels >= first) & (pixels < first + square_size)  # (B, objects, 2, canvas_size)
    columns, rows = inside[:, :, 0, None, :], inside[:, :, 1, :, None]
    return (rows & columns).any(1).float()


def pixel_index(centers: Tensor, canvas_size: int) -> Tensor:
    """Return the indices, int64 ``(...)``, of pixels ``(..., 2)``, x and y, counted row by row.

    >>> pixel_index(torch.tensor([3, 2]), canvas_size=64)
    tensor(131)
    """
    return centers[..., 1] * canvas_size + centers[..., 0]
