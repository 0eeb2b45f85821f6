"""Data of the generative application: the two-shape set or a folder of pictures, and numbers of samples to make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coordconv_apps.data.collate import identity_collate
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.image_files import ImageFiles, OnBadImage, find_images
from coordconv_apps.utils.seeds import mix_seeds
from generative.folder import read_picture
from generative.shapes import Scenes, as_float, check_size, draw_scenes, render

Source = Literal["shapes", "folder"]
Split = Literal["train", "val", "test"]

PARTS: tuple[Split, ...] = ("train", "val", "test")

SHAPES_SIZES: dict[Split, int] = {"train": 50_000, "val": 1_000, "test": 10_000}
"""Images of the two-shape set: to train on as many as in the paper."""


class ImageBatch(NamedTuple):
    """Real images.

    Attributes:
        images: float32 ``(B, 3, H, W)``, red, green and blue, -1 to 1.
        indices: int64 ``(B,)``: the number of each image in its set, from 0.
    """

    images: Tensor
    indices: Tensor


class NumberBatch(NamedTuple):
    """Samples to generate.

    Attributes:
        indices: int64 ``(B,)``: their numbers, from 0.
    """

    indices: Tensor


class ShapesDataset(Dataset[ImageBatch]):
    """Scenes of the two-shape set as batches of images, rendered when they are asked for.

    Args:
        scenes: What is in the images.
        image_size: Height and width of an image, in pixels.
        radius: Of a circle; half the side of a square; in pixels.
    """

    def __init__(self, scenes: Scenes, image_size: int, radius: int) -> None:
        self.scenes = scenes
        self.image_size = image_size
        self.radius = radius

    def __len__(self) -> int:
        return len(self.scenes.centers)

    def __getitem__(self, index: int) -> ImageBatch:
        """A batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """A batch of images. The loader calls this once for a batch."""
        chosen = torch.as_tensor(indices)
        images = render(self.scenes.at(chosen), self.image_size, self.radius, torch.float32)
        return ImageBatch(images, chosen)


class FolderDataset(Dataset[ImageBatch]):
    """Pictures of a folder as batches, read when they are asked for.

    Args:
        pictures: What to serve.
        flip: Whether to mirror each left to right with probability 1/2, by torch's global generator.
    """

    def __init__(self, pictures: ImageFiles, flip: bool = False) -> None:
        self.pictures = pictures
        self.flip = flip

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> ImageBatch:
        """A batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """A batch of images. The loader calls this once for a batch."""
        images = torch.stack([self._read(index) for index in indices])
        return ImageBatch(as_float(images), torch.as_tensor(indices))

    def _read(self, index: int) -> Tensor:
        image = self.pictures.read(index)
        return image.flip(-1) if self.flip and torch.rand(()) < 0.5 else image


class NumberDataset(Dataset[NumberBatch]):
    """The numbers of samples to generate, as batches.

    Args:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> NumberBatch:
        """A batch of one number."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> NumberBatch:
        """A batch of numbers. The loader calls this once for a batch."""
        return NumberBatch(torch.as_tensor(indices))


class GenerativeData(DataModule):
    """Images to learn to generate: the paper's red and blue shapes (Liu et al., 2018, section 5), or your own.

    Args:
        source: "shapes": a red and a blue object on white, each a circle or a square. "folder": pictures of yours.
        folder: With source=folder, where they are, in sub-folders too, whose names do not matter. What is hidden is
            left out; a relative path starts at the working directory.
        image_size: Height and width of an image, in pixels. Pictures of a folder are resized by their shorter side,
            and cut off on both sides of the longer one.
        radius: Of a circle, and half the side of a square, in pixels, with source=shapes.
        num_train: Images to train on. By default 50,000; of a folder, all that are not held out.
        num_val: Images held out to validate on. By default 1,000; of a folder, a twentieth of it if that is less.
        num_test: Images held out to test on. By default 10,000; of a folder, as many as num_val has by default.
        num_predict: Samples that predict generates.
        flip: Whether to mirror pictures of a folder at random, left to right, for training.
        on_bad_image: What to do with pictures of a folder that cannot be read: "error" ends the run, "skip" goes on
            without them.
        batch_size: Images in a batch to train on, on each process.
        eval_batch_size: Images in a batch to evaluate or to generate, on each process.
        num_workers: Processes that make batches, on each process; 0 makes them in the main process.
        seed: Fixes the shapes, which pictures of a folder are held out, and the order of training.

    Attributes:
        scenes: What is in the images of each part, with source=shapes, else None.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    def __init__(
        self,
        source: Source = "shapes",
        folder: str | None = None,
        image_size: int = 64,
        radius: int = 10,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        num_predict: int = 64,
        flip: bool = False,
        on_bad_image: OnBadImage = "error",
        batch_size: int = 16,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        for name, value, least in (
            ("image_size", image_size, 5),  # two objects of radius 1
            ("num_train", num_train, 1),
            ("num_val", num_val, 1),
            ("num_test", num_test, 1),
            ("num_predict", num_predict, 1),
            ("eval_batch_size", eval_batch_size, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"data.{name}={value}: must be an integer of at least {least}")
        _check_source(source, folder, flip, on_bad_image)
        self.source: Source = source
        self.folder = None if folder is None else Path(folder).expanduser()
        self.image_size = image_size
        self.radius = radius
        self.num_predict = num_predict
        self.flip = flip
        self.on_bad_image: OnBadImage = on_bad_image
        self.eval_batch_size = eval_batch_size
        self._asked: dict[Split, int | None] = {"train": num_train, "val": num_val, "test": num_test}
        self._pictures: dict[Split, ImageFiles] = {}
        self._left_out = 0
        self.scenes: dict[Split, Scenes] | None = None
        if source == "shapes":
            check_size(image_size, radius)
            self.scenes = {part: self._draw(part) for part in PARTS}

    @property
    def bad_images(self) -> int:
        """How many pictures of the folder were found unreadable so far, by this process and its workers."""
        return self._left_out + sum(len(pictures.bad) for pictures in self._pictures.values())

    def num_samples(self, part: Split) -> int:
        """The number of images to train, validate or test on.

        Args:
            part: Which of them.
        """
        return len(self.scenes[part].centers) if self.scenes is not None else len(self._part(part))

    def example_images(self, number: int, part: Split = "test") -> Tensor:
        """The first images of a part, to look at: always the same, and never mirrored.

        Args:
            number: How many, if there are so many.
            part: To train, to validate or to test on.

        Returns:
            float32 ``(number, 3, H, W)``, -1 to 1.
        """
        return self._dataset(part).__getitems__(range(min(number, self.num_samples(part)))).images

    def setup(self, stage: str) -> None:
        """Finds the pictures of a folder, once; to generate, none are needed.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: The folder has too few pictures, or some that cannot be read.
        """
        if self.source == "folder" and stage != "predict":
            self._find_pictures()

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Makes the loader of images to train on."""
        dataset = self._dataset("train", flip=self.flip)
        collate_fn = _concatenate if self.flip else identity_collate
        return self._loader(dataset, train=True, collate_fn=collate_fn, random_samples=self.flip)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """Makes the loader of images to validate on."""
        return self._eval_loader(self._dataset("val"))

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """Makes the loader of images to test on."""
        return self._eval_loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[NumberBatch]:
        """Makes the loader of the numbers of samples to generate."""
        return self._eval_loader(NumberDataset(self.num_predict))

    def _eval_loader(self, dataset: ShapesDataset | FolderDataset | NumberDataset) -> DataLoader[Any]:
        return self._loader(dataset, train=False, collate_fn=identity_collate, batch_size=self.eval_batch_size)

    def _dataset(self, part: Split, flip: bool = False) -> ShapesDataset | FolderDataset:
        if self.scenes is not None:
            return ShapesDataset(self.scenes[part], self.image_size, self.radius)
        return FolderDataset(self._part(part), flip)

    def _draw(self, part: Split) -> Scenes:
        number = self._asked[part]
        # Negative: the orders of training have the numbers from 0 on, one for each epoch.
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, -1 - PARTS.index(part)))
        return draw_scenes(SHAPES_SIZES[part] if number is None else number, self.image_size, self.radius, generator)

    def _part(self, part: Split) -> ImageFiles:
        self._find_pictures()
        return self._pictures[part]

    def _find_pictures(self) -> None:
        """Lists the folder, leaves out what cannot be opened, and deals out the rest; at the first call."""
        if self._pictures:
            return
        assert self.folder is not None
        names, self._left_out, told = find_images(self.folder, "data.folder", self.on_bad_image)
        if told and (self.trainer is None or self.trainer.is_global_zero):
            print(told)
        sizes = _folder_sizes(self.folder, len(names), self._asked)
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(mix_seeds(self.seed))).tolist()
        read = partial(read_picture, size=self.image_size)
        # What is held out comes first, so it does not depend on how many there are to train on.
        for part in ("test", "val", "train"):
            chosen, order = [names[i] for i in order[: sizes[part]]], order[sizes[part] :]
            self._pictures[part] = ImageFiles(self.folder, chosen, "data.folder", self.on_bad_image, read)


def _check_source(source: str, folder: str | None, flip: bool, on_bad_image: str) -> None:
    if source not in ("shapes", "folder"):
        raise ValueError(f"data.source={source}: must be shapes or folder")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"data.on_bad_image={on_bad_image}: must be error or skip")
    if source == "folder" and folder is None:
        raise ValueError("data.folder=null: must be a folder of pictures with data.source=folder")
    if source == "shapes" and folder is not None:
        raise ValueError(f"data.folder={folder!r}: must be null with data.source=shapes")
    if source == "shapes" and flip:
        raise ValueError("data.flip=true: must be false with data.source=shapes")


def _folder_sizes(folder: Path, number: int, asked: dict[Split, int | None]) -> dict[Split, int]:
    """How many of a folder's ``number`` pictures each part gets."""
    held_out = min(SHAPES_SIZES["val"], max(4, number // 20))  # fewer cannot be compared with anything
    val, test = (held_out if asked[part] is None else asked[part] for part in ("val", "test"))
    assert val is not None
    assert test is not None
    train = max(1, number - val - test) if asked["train"] is None else asked["train"]
    if number < train + val + test:
        raise ValueError(
            f"data.folder={str(folder)!r}: {number} pictures that can be read are too few, {train + val + test} are"
            f" needed (data.num_train={train}, data.num_val={val}, data.num_test={test})"
        )
    return {"train": train, "val": val, "test": test}


def _concatenate(batches: Sequence[ImageBatch]) -> ImageBatch:
    # Samples with random numbers of their own come one by one.
    images, indices = zip(*batches, strict=True)
    return ImageBatch(torch.cat(images), torch.cat(indices))
