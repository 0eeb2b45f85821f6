"""Base of the data modules of detection: images to predict on, and what tasks and pictures ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch.utils.data import DataLoader

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.loaders import identity_collate
from coordconv_apps.data.splits import Split
from coordconv_apps.utils.argument_checks import optional_path
from detection.batches import DetectionBatch
from detection.datasets import BatchDataset


class DetectionDataModule(DataModule, ABC):
    """Base of the data modules of detection.

    Args:
        predict_images: Input of predict: an image, or a folder of images with its subfolders.
        batch_size: Images per batch, on each process.
        num_workers: Worker processes that load batches, on each process; 0 loads in the main process.
        seed: Seed of the training order.
    """

    channels: ClassVar[int]
    """Channels of the images: 1 (gray canvases) or 3 (RGB)."""

    def __init__(self, predict_images: str | None, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.predict_images = optional_path(predict_images, "data.predict_images")

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; label ``i`` of a box has name ``i - 1``."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Number of each class in files of predictions, in the order of the labels."""
        return tuple(range(1, self.num_classes + 1))

    @property
    def image_size(self) -> int | None:
        """Height and width of the training images in pixels; None if they have different sizes."""
        return None

    @abstractmethod
    def most_objects(self, split: Split) -> int:
        """Return the largest number of objects in an image of a split."""

    @abstractmethod
    def dataset(self, split: Split) -> BatchDataset:
        """Return the images of a split with their objects, without augmentation."""

    def examples(self, count: int) -> DetectionBatch:
        """Return the first ``count`` test images, or all if there are fewer, for pictures."""
        dataset = self.dataset("test")
        return dataset.__getitems__(range(min(count, len(dataset))))

    def val_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the validation images."""
        return self._eval_loader(self.dataset("val"), identity_collate)

    def test_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the test images."""
        return self._eval_loader(self.dataset("test"), identity_collate)
