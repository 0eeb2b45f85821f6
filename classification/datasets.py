"""Samples as batches of uint8 images: to train on, to evaluate on, and without a class to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from classification.bundled import HeldImages
from classification.folder import ClassFolder, LabelledImage
from classification.transforms import EvalTransform, TrainTransform
from coordconv_apps.data.image_files import ImageFiles


class LabelledBatch(NamedTuple):
    """Images and their classes.

    Attributes:
        images: ``(B, 3, S, S)``, red, green and blue: uint8 as a loader makes them; on the device, as a task gets them,
            float32 with mean and standard deviation of the colours taken out.
        labels: int64 ``(B,)``: the number of each class, from 0.
        indices: int64 ``(B,)``: the number of each image in its part, from 0.

    To evaluate, B is 0 if all of a batch's images cannot be read and are left out.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class ImageBatch(NamedTuple):
    """The user's own pictures.

    Attributes:
        images: ``(B, 3, S, S)``, as in `LabelledBatch`.
        indices: int64 ``(B,)``: the number of each picture, from 0.
        paths: The file of each.
    """

    images: Tensor
    indices: Tensor
    paths: list[str]


Pictures = ClassFolder | HeldImages
"""Where labelled pictures come from."""


def get_picture(pictures: Pictures, index: int) -> LabelledImage:
    """A picture to train on, see `ClassFolder`."""
    if isinstance(pictures, ClassFolder):
        return pictures[index]
    return LabelledImage(pictures.images[index], int(pictures.labels[index]), index, f"image {index}")


class TrainDataset(Dataset[LabelledBatch]):
    """Augmented pictures, one at a time, by the global random generators.

    Args:
        pictures: Where they come from.
        transform: Augments one.
        repeats: How many times to augment each.
    """

    def __init__(self, pictures: Pictures, transform: TrainTransform, repeats: int = 1) -> None:
        self.pictures = pictures
        self.transform = transform
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, index: int) -> LabelledBatch:
        """A picture, augmented ``repeats`` times."""
        image, label, number, name = get_picture(self.pictures, index)
        images = torch.stack([self.transform(image, name) for _ in range(self.repeats)])
        return LabelledBatch(images, torch.full((self.repeats,), label), torch.full((self.repeats,), number))


class BatchedTrainDataset(Dataset[LabelledBatch]):
    """Augmented pictures, a batch at a time: the same as `TrainDataset` with a seed for each, and faster.

    Args:
        pictures: Where they come from.
        transform: Augments a batch.
        repeats: How many times to augment each.
    """

    def __init__(self, pictures: Pictures, transform: TrainTransform, repeats: int = 1) -> None:
        self.pictures = pictures
        self.transform = transform
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, key: Any, /) -> LabelledBatch:  # noqa: ANN401  # as in `SeededSamples`
        """A picture by number and seed, augmented ``repeats`` times."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> LabelledBatch:
        """A batch of pictures, each by number and seed. The loader calls this once for a batch."""
        numbers, seeds = torch.tensor([number for number, _ in keys]), [seed for _, seed in keys]
        if isinstance(self.pictures, HeldImages):
            images = self.transform.batch(self.pictures.images[numbers], seeds, self.repeats, _any_of(numbers))
        else:
            read = [self.pictures[number] for number, _ in keys]
            numbers = torch.tensor([one.number for one in read])  # of stand-ins, with on_bad_image="skip"
            images = self._augment(read, seeds)
        repeated = numbers.repeat_interleave(self.repeats)
        return LabelledBatch(images, self.pictures.labels[repeated], repeated)

    def _augment(self, read: Sequence[LabelledImage], seeds: Sequence[int]) -> Tensor:
        if len({one.image.shape for one in read}) == 1:
            return self.transform.batch(torch.stack([one.image for one in read]), seeds, self.repeats, read[0].name)
        one_by_one = zip(read, seeds, strict=True)
        return torch.cat([self.transform.batch(one.image[None], [s], self.repeats, one.name) for one, s in one_by_one])


class EvalDataset(Dataset[LabelledBatch]):
    """The middles of pictures as batches. Those that cannot be read are left out, with on_bad_image="skip".

    Args:
        pictures: Where they come from.
        transform: Cuts the middle out.
    """

    def __init__(self, pictures: Pictures, transform: EvalTransform) -> None:
        self.pictures = pictures
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, index: int) -> LabelledBatch:
        """A batch of one picture."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> LabelledBatch:
        """A batch of pictures. The loader calls this once for a batch."""
        chosen = torch.as_tensor(indices)
        if isinstance(self.pictures, HeldImages):
            images = self.transform(self.pictures.images[chosen], _any_of(chosen))
        else:
            read = [one for one in map(self.pictures.get, indices) if one is not None]
            images = _stack([self.transform(one.image, one.name) for one in read], self.transform.size)
            chosen = torch.tensor([one.number for one in read], dtype=torch.int64)
        return LabelledBatch(images, self.pictures.labels[chosen], chosen)


class PredictDataset(Dataset[ImageBatch]):
    """The middles of the user's own pictures as batches. See `EvalDataset`.

    Args:
        files: The pictures.
        transform: Cuts the middle out.
    """

    def __init__(self, files: ImageFiles, transform: EvalTransform) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ImageBatch:
        """A batch of one picture."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """A batch of pictures. The loader calls this once for a batch."""
        read = [(index, image) for index in indices if (image := self.files.try_read(index)) is not None]
        paths = [str(self.files.path(index)) for index, _ in read]
        cut = [self.transform(image, path) for (_, image), path in zip(read, paths, strict=True)]
        numbers = torch.tensor([index for index, _ in read], dtype=torch.int64)
        return ImageBatch(_stack(cut, self.transform.size), numbers, paths)


def concatenate(batches: Sequence[LabelledBatch]) -> LabelledBatch:
    """One batch of several."""
    images, labels, indices = zip(*batches, strict=True)
    return LabelledBatch(torch.cat(images), torch.cat(labels), torch.cat(indices))


def _stack(images: Sequence[Tensor], size: int) -> Tensor:
    return torch.stack(list(images)) if images else torch.zeros(0, 3, size, size, dtype=torch.uint8)


def _any_of(numbers: Tensor) -> str:
    # Images in memory are all of one size, so each of them is as good an example.
    return f"image {int(numbers[0])}"
