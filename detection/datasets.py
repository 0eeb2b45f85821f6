"""The datasets: canvases, images in COCO's format, and image files to predict on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image

from coordconv_apps.data.image_decoding import decode_image, read_image, to_rgb
from coordconv_apps.data.image_files import ImageFiles, OnBadImage
from coordconv_apps.utils.errors import printable
from detection.augmentation import Augmentation, train_transforms
from detection.batches import DetectionBatch, DetectionTarget, ImageBatch
from detection.canvas import Canvases
from detection.coco_files import CocoAnnotations

Sample = tuple[Tensor, DetectionTarget]


class BatchDataset(Dataset[DetectionBatch], ABC):
    """Images with their objects, read in batches."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> DetectionBatch:
        """Return a batch of images. The loader calls this once per batch."""


class ImageFileDataset(Dataset[ImageBatch]):
    """Image files, read on demand as uint8 ``(H, W)`` or ``(3, H, W)``. Unreadable ones are left out.

    Args:
        files: The files.
        prepare: Makes the network's input ``(C, H, W)`` in [0, 1] of such an image.
        ids: int64 ``(N,)``, the number of each image in the predictions; its index if not given.
    """

    def __init__(self, files: ImageFiles, prepare: Callable[[Tensor], Tensor], ids: Tensor | None = None) -> None:
        self.files, self.prepare = files, prepare
        self.ids = torch.arange(len(files)) if ids is None else ids

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """Return a batch of images. The loader calls this once per batch."""
        read = self.files.read_batch(indices, self.prepare)
        return {
            "indices": self.ids[list(read)].tolist(),
            "paths": [str(self.files.path(index)) for index in read],
            "images": list(read.values()),
        }


@dataclass(eq=False)
class CanvasDataset(BatchDataset):
    """Canvases as batches of floating point images."""

    canvases: Canvases

    def __len__(self) -> int:
        return len(self.canvases)

    def __getitems__(self, indices: Sequence[int]) -> DetectionBatch:
        """Return a batch of canvases. The loader calls this once per batch."""
        objects = (self.canvases.objects(index) for index in indices)
        return {
            "images": self.canvases.images[list(indices)].unsqueeze(1).float().div_(255),
            "targets": [{"boxes": boxes, "labels": labels} for boxes, labels in objects],
        }


class CocoImages(ImageFiles):
    """The images of a split, uint8 ``(3, H, W)`` in the sizes that their annotations have."""

    def __init__(self, annotations: CocoAnnotations, folder: Path, argument: str, on_bad_image: OnBadImage) -> None:
        names = [annotations.file_name(index) for index in range(len(annotations))]
        super().__init__(folder, names, argument, on_bad_image)
        self.annotations = annotations

    def decode(self, index: int) -> Tensor:
        """Read an image in its annotations' size: as stored, as COCO's tools do, or turned as its camera noted."""
        path, wanted = self.path(index), tuple(self.annotations.sizes[index].tolist())
        stored: Tensor = pil_to_tensor(decode_image(path, to_rgb, turn=False)).contiguous()
        if stored.shape[1:] == wanted:
            return stored
        turned = read_image(path)
        if turned.shape[1:] == wanted:
            return turned
        height, width = stored.shape[1:]
        raise ValueError(
            f"{printable(path)}: has {width} x {height} pixels, but {wanted[1]} x {wanted[0]} in its annotation file"
        )


class CocoTraining(Dataset[Sample]):
    """Training samples: an augmented image, float32 ``(3, H, W)`` in [0, 1], and its objects without crowds."""

    def __init__(self, images: CocoImages, augmentation: Augmentation) -> None:
        self.images, self.transforms = images, train_transforms(augmentation)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; that of the next image if this one cannot be read and ``on_bad_image="skip"``."""
        pixels, index = self.images.read_this_or_next(index)
        objects = self.images.annotations.objects(index)
        single = objects["iscrowd"] == 0
        size = (pixels.shape[-2], pixels.shape[-1])
        target = {
            "boxes": BoundingBoxes(objects["boxes"][single], format=BoundingBoxFormat.XYXY, canvas_size=size),
            "labels": objects["labels"][single],
        }
        image, target = self.transforms(Image(pixels), target)
        plain: DetectionTarget = {"boxes": target["boxes"].as_subclass(Tensor), "labels": target["labels"]}
        return image.as_subclass(Tensor), plain


@dataclass(eq=False)
class CocoEvaluation(BatchDataset):
    """Images as they are, with all of their objects; unreadable ones are left out."""

    images: CocoImages

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> DetectionBatch:
        """Return a batch of images. The loader calls this once per batch."""
        read = self.images.read_batch(indices, to_unit)
        return {
            "images": list(read.values()),
            "targets": [self.images.annotations.objects(i) for i in read],
        }


def to_unit(image: Tensor) -> Tensor:
    """Return a uint8 image as float32 in [0, 1]."""
    return image.float().div_(255)


def collate_samples(samples: Sequence[Sample]) -> DetectionBatch:
    """Make a batch of training samples, whose images may have different sizes."""
    return {"images": [image for image, _ in samples], "targets": [target for _, target in samples]}


def aspect_ratio_groups(sizes: Tensor, factor: int) -> Tensor:
    """Return the group of each image by its aspect ratio, as torchvision's detection references do.

    The borders between groups are ``2 * factor + 1`` ratios of width to height from 1/2 to 2, evenly spaced in the
    logarithm.

    Args:
        sizes: ``(N, 2)``, height and width of each image.
        factor: At least 1.

    Example:
        >>> aspect_ratio_groups(torch.tensor([[100, 40], [100, 90], [100, 110]]), 1).tolist()
        [0, 1, 2]
    """
    height, width = sizes.double().unbind(1)
    borders = (2 ** torch.linspace(-1, 1, 2 * factor + 1)).double()
    return torch.bucketize(width / height, borders, right=True)
