"""Data of the detection application: canvases to train and evaluate on, the user's own images to predict on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from coordconv_apps.data.collate import identity_collate
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.downloads import data_root
from coordconv_apps.data.image_files import ImageFiles, open_images
from coordconv_apps.utils.argument_checks import optional_path
from detection.canvas import Canvases, CanvasSettings, TrueBoxes, draw_canvases
from detection.glyph_sources import Source, check_source, fetch_mnist, load_class_names, load_glyphs
from detection.glyphs import SPLITS, Split
from detection.gray_images import Ink, read_gray


class DetectionTarget(TypedDict):
    """The objects in an image; n may be 0.

    Attributes:
        boxes: float32 ``(n, 4)``, ``(x1, y1, x2, y2)`` in pixels, not empty; within the image if ``true_boxes="cut"``.
        labels: int64 ``(n,)``, from 1 to the number of classes.
    """

    boxes: Tensor
    labels: Tensor


class DetectionBatch(TypedDict):
    """Canvases and their objects.

    Attributes:
        images: float32 ``(B, 1, H, W)``, 0 (ground) to 1 (ink).
        targets: The objects in each image.
    """

    images: Tensor
    targets: list[DetectionTarget]


MIN_IMAGE_SIDE = 16
"""Smallest image side that the paper's backbone without padding takes, in pixels."""


class ImageBatch(TypedDict):
    """The user's own images.

    Attributes:
        indices: Index of each image among all that can be opened; images that cannot be decoded are left out.
        paths: The file of each image.
        images: float32 ``(1, H, W)`` each, 0 (ground) to 1 (ink); the sizes differ. Images with a side below
            `MIN_IMAGE_SIDE` are padded with ground on the right and below.
    """

    indices: list[int]
    paths: list[str]
    images: list[Tensor]


class CanvasDataset(Dataset[DetectionBatch]):
    """Canvases as batches of floating point images."""

    def __init__(self, canvases: Canvases) -> None:
        self.canvases = canvases

    def __len__(self) -> int:
        return len(self.canvases)

    def __getitems__(self, indices: Sequence[int]) -> DetectionBatch:
        """Return a batch of canvases. The loader calls this once per batch."""
        objects = (self.canvases.objects(index) for index in indices)
        return {
            "images": self.canvases.images[list(indices)].unsqueeze(1).float().div_(255),
            "targets": [{"boxes": boxes, "labels": labels} for boxes, labels in objects],
        }


class ImageFileDataset(Dataset[ImageBatch]):
    """Image files, read on demand as uint8 ``(H, W)``. Unreadable ones are left out."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """Return a batch of images. The loader calls this once per batch."""
        read = {index: image for index in indices if (image := self.files.try_read(index)) is not None}
        return {
            "indices": [*read],
            "paths": [str(self.files.path(index)) for index in read],
            "images": [_pad_to_min_side(image).unsqueeze(0).float().div_(255) for image in read.values()],
        }


def _pad_to_min_side(image: Tensor) -> Tensor:
    height, width = image.shape
    return functional.pad(image, (0, max(MIN_IMAGE_SIDE - width, 0), 0, max(MIN_IMAGE_SIDE - height, 0)))


def _read_gray_tensor(path: Path, ink: Ink) -> Tensor:
    return torch.from_numpy(read_gray(path, ink))


class DetectionData(DataModule):
    """Canvases of glyphs, as in the paper's object detection on MNIST: 9,000 to train on, 1,000 to test on.

    Training, validation and test canvases share no glyph, whatever the seed.

    Args:
        source: Source of the glyphs: "uci" (digits that come with scikit-learn), "mnist" (downloaded if missing),
            "folder" or "idx" (your own, see glyphs).
        root: Folder of data sets, which contains MNIST/raw. Default: the variable COORDCONV_DATA, else ./data.
        glyphs: Your own glyphs. With source=folder, a folder with a subfolder of images for each class; with
            source=idx, an IDX file of images.
        glyph_labels: With source=idx, the IDX file of labels.
        ink: Whether the ink in your own images (of glyphs, or to predict on) is bright or dark; "auto" decides by the
            border of each image.
        num_train: Number of training canvases.
        num_val: Number of validation canvases.
        num_test: Number of test canvases.
        canvas_size: Side of the canvas that glyphs are placed on, in pixels.
        crop: Side of the central square that is kept, in pixels; null keeps the whole canvas.
        digits: Number of glyphs placed on each canvas.
        min_size: Smallest height and width of a placed glyph, in pixels.
        max_size: Largest height and width of a placed glyph, in pixels.
        min_visible: A glyph that the border cuts counts as an object if at least this many pixels of both sides of its
            box are visible.
        whole_pixels: Whether sizes and positions of glyphs are whole numbers.
        true_boxes: "cut": boxes end at the border. "whole": boxes of the same glyphs may reach beyond it. "all": whole
            boxes of all glyphs, also of invisible ones beyond the border, as in the authors' data.
        predict_images: Input of predict: an image of any size and format, or a folder of images with its subfolders.
        batch_size: Canvases or images per batch, on each process.
        num_workers: Worker processes that load batches, on each process; 0 loads in the main process.
        seed: Seed of the canvases and of the training order. The split of the glyphs does not depend on it.
    """

    def __init__(
        self,
        source: Source = "uci",
        root: str | None = None,
        glyphs: str | None = None,
        glyph_labels: str | None = None,
        ink: Ink = "auto",
        num_train: int = 9000,
        num_val: int = 1000,
        num_test: int = 1000,
        canvas_size: int = 120,
        crop: int | None = 64,
        digits: int = 5,
        min_size: int = 15,
        max_size: int = 25,
        min_visible: float = 1.0,
        whole_pixels: bool = False,
        true_boxes: TrueBoxes = "cut",
        predict_images: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        for name, number in (("num_train", num_train), ("num_val", num_val), ("num_test", num_test)):
            if number < 1:
                raise ValueError(f"data.{name}={number}: must be an integer of at least 1")
        self.source: Source = source
        self.root = data_root(root)
        self.glyphs = optional_path(glyphs, "data.glyphs")
        self.glyph_labels = optional_path(glyph_labels, "data.glyph_labels")
        check_source(source, self.glyphs, self.glyph_labels)
        self.ink: Ink = ink
        self.counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self.settings = CanvasSettings(
            canvas_size, crop, digits, min_size, max_size, min_visible, whole_pixels, true_boxes
        )
        self.predict_images = optional_path(predict_images, "data.predict_images")
        self._canvases: dict[Split, Canvases] = {}
        self._predict_files: ImageFiles | None = None
        self.left_out = 0  # images to predict on that could not be opened

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; label ``i`` of a box has name ``i - 1``."""
        return load_class_names(self.source, self.glyphs, self.glyph_labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def unreadable(self) -> set[int]:
        """Indices of images to predict on that this process and its workers could open, but not decode so far."""
        return set() if self._predict_files is None else self._predict_files.bad

    def canvases(self, split: Split) -> Canvases:
        """Return the canvases of a split, which are drawn at the first call."""
        self._draw([split])
        return self._canvases[split]

    def example_canvases(self, count: int) -> DetectionBatch:
        """Return the first ``count`` test canvases, or all if there are fewer, for pictures."""
        canvases = self.canvases("test")
        return CanvasDataset(canvases).__getitems__(range(min(count, len(canvases))))

    def prepare_data(self) -> None:
        """Download MNIST, if it is the source and missing."""
        predicting = self.trainer is not None and self.trainer.state.fn == TrainerFn.PREDICTING
        if self.source == "mnist" and not predicting:
            fetch_mnist(self.root)

    def setup(self, stage: str) -> None:
        """Draw the canvases, or find the images, that a stage needs."""
        if stage == "predict":
            self._predict_files = self._find_images()
            return
        needed: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        self._draw(needed[stage])

    def _draw(self, splits: Sequence[Split]) -> None:
        missing = [split for split in splits if split not in self._canvases]
        if not missing:
            return
        loaded = load_glyphs(
            self.source,
            missing,
            root=self.root,
            glyphs=self.glyphs,
            glyph_labels=self.glyph_labels,
            ink=self.ink,
            max_side=self.settings.max_size,
        )
        for split in missing:
            rng = np.random.default_rng([self.seed, SPLITS.index(split)])
            self._canvases[split] = draw_canvases(loaded[split], self.counts[split], self.settings, rng)

    def _find_images(self) -> ImageFiles:
        place, argument = self.predict_images, "data.predict_images"
        if place is None:
            raise ValueError(f"{argument}=null: predict needs an image, or a folder of images")
        files, found = open_images(place, argument, "skip", partial(_read_gray_tensor, ink=self.ink))
        self.left_out = found.left_out
        self._print(found.message)
        return files

    def _print(self, line: str) -> None:
        if line and (self.trainer is None or self.trainer.is_global_zero):
            print(line)

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the training canvases."""
        return self._loader(CanvasDataset(self.canvases("train")), train=True, collate_fn=identity_collate)

    def val_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the validation canvases."""
        return self._loader(CanvasDataset(self.canvases("val")), train=False, collate_fn=identity_collate)

    def test_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the test canvases."""
        return self._loader(CanvasDataset(self.canvases("test")), train=False, collate_fn=identity_collate)

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Return the loader of the user's own images."""
        assert self._predict_files is not None
        return self._loader(ImageFileDataset(self._predict_files), train=False, collate_fn=identity_collate)
