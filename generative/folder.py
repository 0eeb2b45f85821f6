"""Pictures of a folder as squares of one size."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from coordconv_apps.data.image_decoding import open_image


def read_picture(path: Path, size: int) -> Tensor:
    """Reads a picture of any format, size and colour mode as the square in its middle.

    The shorter side is resized (bilinear, anti-aliased), the longer one cut off on both sides. For colours see
    `coordconv_apps.data.image_decoding.open_image`.

    Args:
        path: The picture.
        size: Height and width of the result, in pixels.

    Returns:
        uint8 ``(3, size, size)``, red, green and blue.

    Raises:
        ValueError: The file is no readable picture.
    """
    # Twice the size: what JPEG's own reduction loses is then not to be seen.
    picture = open_image(path, draft=2 * size)
    pixels: Tensor = pil_to_tensor(ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)).contiguous()
    return pixels
