"""The pictures: validation images with the positions found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw

from coordconv_apps.training.pictures import Pictures

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

SCALE, COUNT = 6, 8


class CrossPictures(Pictures):
    """Draw eight images in a row, with a ring around each position that the network found."""

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Return the picture ``found.png``."""
        images, _ = next(iter(datamodule.val_dataloader()))
        images = images[:COUNT]
        found = task(images.to(task.device)).cpu() * images.shape[-1] * SCALE
        row = torch.cat(list(images[:, 0]), 1).mul(255).byte()
        picture = Image.fromarray(row.numpy()).convert("RGB")
        picture = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(picture)
        for index, (x, y) in enumerate(found.tolist()):
            x += index * picture.width / len(images) + SCALE / 2
            y += SCALE / 2
            pen.ellipse((x - 20, y - 20, x + 20, y + 20), outline="red", width=3)
        return {"found": picture}
