"""Batches of uint8 images for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from classification.class_folders import ClassFolder
from classification.in_memory import InMemoryImages
from classification.transforms import EvalTransform, TrainTransform, resize_shorter
from coordconv_apps.data.image_files import ImageFiles


class LabelledBatch(NamedTuple):
    """Images and their classes.

    Attributes:
        images: uint8 ``(B, 3, S, S)``, RGB.
        labels: int64 ``(B,)``: the classes, from 0.
        indices: int64 ``(B,)``: the index of each image in its split, from 0.

    In evaluation, B is 0 if all files of a batch are unreadable and skipped.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class ImageBatch(NamedTuple):
    """Images to predict.

    Attributes:
        images: uint8 ``(B, 3, S, S)``, RGB.
        indices: int64 ``(B,)``: the index of each image, from 0.
        paths: The file of each.
    """

    images: Tensor
    indices: Tensor
    paths: list[str]


_LARGE = 2**16
"""Number of pixels above which images are resized one by one; smaller ones are faster to resize in a batch."""

Images = ClassFolder | InMemoryImages
"""The labelled images of a split."""


@dataclass(eq=False)
class _SplitDataset(Dataset[LabelledBatch]):
    """The images of a split. Where a subclass has ``__getitems__``, the loader calls it once for a batch."""

    samples: Images

    def __len__(self) -> int:
        return len(self.samples.labels)


@dataclass(eq=False)
class TrainDataset(_SplitDataset):
    """Training images, one at a time: ``repeats`` copies of each, augmented with the global random generators."""

    transform: TrainTransform
    repeats: int = 1

    def __getitem__(self, index: int) -> LabelledBatch:
        """Return the augmented copies of an image."""
        if isinstance(self.samples, ClassFolder):
            image, index = self.samples.read_this_or_next(index)
        else:
            image = self.samples.images[index]
        label = int(self.samples.labels[index])
        images = torch.stack([self.transform(image) for _ in range(self.repeats)])
        return LabelledBatch(images, torch.full((self.repeats,), label), torch.full((self.repeats,), index))


@dataclass(eq=False)
class BatchedTrainDataset(_SplitDataset):
    """Training images, a batch at a time: as `TrainDataset` with a seed for each image, but faster."""

    transform: TrainTransform
    repeats: int = 1

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> LabelledBatch:
        """Return a batch of images, each given by index and seed."""
        indices, seeds = torch.tensor([index for index, _ in keys]), [seed for _, seed in keys]
        if isinstance(self.samples, InMemoryImages):
            images = self.transform.batch(self.samples.images[indices], seeds, self.repeats)
        else:
            read = [self._read(self.samples, index) for index, _ in keys]
            indices = torch.tensor([index for _, index in read])  # another one where a file is unreadable
            images = self._augment([image for image, _ in read], seeds)
        repeated = indices.repeat_interleave(self.repeats)
        return LabelledBatch(images, self.samples.labels[repeated], repeated)

    def _read(self, files: ClassFolder, index: int) -> tuple[Tensor, int]:
        """Read an image, already resized if it is large: a batch of such images may not fit into memory."""
        image, index = files.read_this_or_next(index)
        is_large = image.shape[1] * image.shape[2] > _LARGE
        return (resize_shorter(image, self.transform.settings.size) if is_large else image), index

    def _augment(self, images: list[Tensor], seeds: Sequence[int]) -> Tensor:
        if len({image.shape for image in images}) == 1:
            return self.transform.batch(torch.stack(images), seeds, self.repeats)
        one_by_one = zip(images, seeds, strict=True)
        return torch.cat([self.transform.batch(image[None], [seed], self.repeats) for image, seed in one_by_one])


@dataclass(eq=False)
class EvalDataset(_SplitDataset):
    """Centre crops of labelled images. Unreadable files are left out, with on_bad_image="skip"."""

    transform: EvalTransform

    def __getitems__(self, indices: Sequence[int]) -> LabelledBatch:
        """Return a batch of images."""
        chosen = torch.as_tensor(indices)
        if isinstance(self.samples, InMemoryImages):
            images = self.transform(self.samples.images[chosen])
        else:
            read = self.samples.read_batch(indices, self.transform)
            images = _stack([*read.values()], self.transform.size)
            chosen = torch.tensor([*read], dtype=torch.int64)
        return LabelledBatch(images, self.samples.labels[chosen], chosen)


@dataclass(eq=False)
class PredictDataset(Dataset[ImageBatch]):
    """Centre crops of the images to predict, see `EvalDataset`."""

    files: ImageFiles
    transform: EvalTransform

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """Return a batch of images."""
        read = self.files.read_batch(indices, self.transform)
        images = _stack([*read.values()], self.transform.size)
        paths = [str(self.files.path(index)) for index in read]
        return ImageBatch(images, torch.tensor([*read], dtype=torch.int64), paths)


def concatenate(batches: Sequence[LabelledBatch]) -> LabelledBatch:
    """Concatenate batches to one."""
    images, labels, indices = zip(*batches, strict=True)
    return LabelledBatch(torch.cat(images), torch.cat(labels), torch.cat(indices))


def _stack(images: Sequence[Tensor], size: int) -> Tensor:
    return torch.stack(list(images)) if images else torch.zeros(0, 3, size, size, dtype=torch.uint8)
