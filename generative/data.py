"""Data module of the generative application: two-shape images, images of a folder, indices of samples to generate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.image_files import ImageFiles, OnBadImage, find_images
from coordconv_apps.data.loaders import identity_collate
from coordconv_apps.data.splits import SPLITS, Split
from coordconv_apps.utils.argument_checks import POSITIVE_INT, Allowed, at_least, check_ranges, one_of, optional_path
from coordconv_apps.utils.seeds import mix_seeds
from generative.datasets import ImageBatch, ImageFolderDataset, TwoShapeDataset, concatenate_batches, read_square_image
from generative.two_shapes import Scenes, check_size, draw_scenes

Source = Literal["shapes", "folder"]

TWO_SHAPE_SIZES: dict[Split, int] = {"train": 50_000, "val": 1_000, "test": 10_000}
"""Default number of two-shape images of each split; the training set is as large as in the paper."""

_ALLOWED: dict[str, Allowed] = {
    "source": one_of(Source),
    "on_bad_image": one_of(OnBadImage),
    "image_size": at_least(5),  # two objects of radius 1
    **dict.fromkeys(("num_train", "num_val", "num_test", "num_predict", "eval_batch_size"), POSITIVE_INT),
}


class GenerativeData(DataModule):
    """Training images: the two-shape set of the paper (Liu et al., 2018, section 5), or a folder of your own.

    Args:
        source: "shapes": a red and a blue object on white, each a circle or a square. "folder": the images of a folder.
        folder: The folder of images, with source=folder. Subfolders are included; hidden files are not. A relative
            path starts at the working directory.
        image_size: Height and width of an image, in pixels. Images of a folder are resized by their shorter side and
            cropped to a square.
        radius: Radius of a circle and half the side of a square, in pixels, with source=shapes.
        num_train: Number of training images. Default: 50,000; for a folder, all images that are not held out.
        num_val: Number of validation images. Default: 1,000; for a folder, 5 % of its images, 4 to 1,000.
        num_test: Number of test images. Default: 10,000; for a folder, the default of num_val.
        num_predict: Number of samples that predict generates.
        flip: Whether to flip training images of a folder horizontally at random.
        on_bad_image: What to do with unreadable images of a folder: "error" stops the run, "skip" leaves them out.
        batch_size: Batch size for training, per process.
        eval_batch_size: Batch size for evaluation and generation, per process.
        num_workers: Worker processes that load batches, per process; 0 loads in the main process.
        seed: Seed of the scenes, of the split of a folder, and of the training order.

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
        self.source: Source = source
        self.folder = optional_path(folder, "data.folder")
        self.image_size = image_size
        self.radius = radius
        self.num_predict = num_predict
        self.flip = flip
        self.on_bad_image: OnBadImage = on_bad_image
        self.eval_batch_size = eval_batch_size
        check_ranges(vars(self) | {"num_train": num_train, "num_val": num_val, "num_test": num_test}, _ALLOWED, "data")
        _check_source(source, folder, flip)
        self._requested_sizes: dict[Split, int | None] = {"train": num_train, "val": num_val, "test": num_test}
        self._files: dict[Split, ImageFiles] = {}
        self.scenes: dict[Split, Scenes] | None = None  # of each split, with source=shapes
        if source == "shapes":
            check_size(image_size, radius)
            self.scenes = {split: self._draw_scenes(split) for split in SPLITS}

    def skipped_images(self) -> set[str] | None:
        """Return the paths of the images of the folder that could not be read so far; None if those are an error."""
        if self.on_bad_image == "error":
            return None
        return self._left_out.union(*(files.bad for files in self._files.values()))

    def num_samples(self, split: Split) -> int:
        """Return the number of images of a split."""
        return len(self.scenes[split].centers) if self.scenes is not None else len(self._image_files(split))

    def example_images(self, number: int, split: Split = "test") -> Tensor:
        """Return the first images of a split, at most ``number``, never flipped: float32 ``(B, 3, H, W)``, -1 to 1."""
        return self._dataset(split).__getitems__(range(min(number, self.num_samples(split)))).images

    def setup(self, stage: str) -> None:
        """List and split the images of a folder, once. ``predict`` needs none."""
        if self.source == "folder" and stage != "predict":
            self._split_folder()

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Return the loader of training images."""
        dataset = self._dataset("train", flip=self.flip)
        collate_fn = concatenate_batches if self.flip else identity_collate
        return self._train_loader(dataset, collate_fn, random_samples=self.flip)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """Return the loader of validation images."""
        return self._eval_loader(self._dataset("val"), identity_collate, batch_size=self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """Return the loader of test images."""
        return self._eval_loader(self._dataset("test"), identity_collate, batch_size=self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Return the loader of the indices of samples to generate: int64 ``(B,)``, from 0."""
        return self._eval_loader(range(self.num_predict), batch_size=self.eval_batch_size)

    def _dataset(self, split: Split, flip: bool = False) -> TwoShapeDataset | ImageFolderDataset:
        if self.scenes is not None:
            return TwoShapeDataset(self.scenes[split], self.image_size, self.radius)
        return ImageFolderDataset(self._image_files(split), flip)

    def _draw_scenes(self, split: Split) -> Scenes:
        requested = self._requested_sizes[split]
        number = TWO_SHAPE_SIZES[split] if requested is None else requested
        # Negative, because the training order uses the numbers from 0 on for its epochs.
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, -1 - SPLITS.index(split)))
        return draw_scenes(number, self.image_size, self.radius, generator)

    def _image_files(self, split: Split) -> ImageFiles:
        self._split_folder()
        return self._files[split]

    def _split_folder(self) -> None:
        """List the folder, leave out unreadable images and split the others; on the first call only."""
        if self._files:
            return
        assert self.folder is not None
        names, self._left_out, message = find_images(self.folder, "data.folder", self.on_bad_image)
        self.print_once(message)
        sizes = _split_sizes(self.folder, len(names), self._requested_sizes)
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(mix_seeds(self.seed))).tolist()
        read_file = partial(read_square_image, size=self.image_size)
        # The held-out splits come first, so that they do not depend on the number of training images.
        for split in ("test", "val", "train"):
            chosen, order = [names[i] for i in order[: sizes[split]]], order[sizes[split] :]
            self._files[split] = ImageFiles(self.folder, chosen, "data.folder", self.on_bad_image, read_file)


def _check_source(source: Source, folder: str | None, flip: bool) -> None:
    if source == "folder" and folder is None:
        raise ValueError("data.folder=null: must be a folder of images with data.source=folder")
    if source == "shapes" and folder is not None:
        raise ValueError(f"data.folder={folder!r}: must be null with data.source=shapes")
    if source == "shapes" and flip:
        raise ValueError("data.flip=true: must be false with data.source=shapes")


def _split_sizes(folder: Path, number: int, requested: dict[Split, int | None]) -> dict[Split, int]:
    """Return the number of images of each split for a folder with ``number`` readable images."""
    held_out = min(TWO_SHAPE_SIZES["val"], max(4, number // 20))  # a comparison needs at least 4
    val, test = (held_out if (given := requested[split]) is None else given for split in ("val", "test"))
    train = max(1, number - val - test) if requested["train"] is None else requested["train"]
    if number < train + val + test:
        raise ValueError(
            f"data.folder={str(folder)!r}: {number} readable images are too few, {train + val + test} are needed"
            f" (data.num_train={train}, data.num_val={val}, data.num_test={test})"
        )
    return {"train": train, "val": val, "test": test}
