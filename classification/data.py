"""Data of the classification application: class folders, digits, CIFAR or ImageNet, and images to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.utils.data import DataLoader

from classification.cifar import download_cifar
from classification.class_folders import FolderSource
from classification.datasets import (
    BatchedTrainDataset,
    EvalDataset,
    ImageBatch,
    Images,
    LabelledBatch,
    PredictDataset,
    TrainDataset,
    concatenate,
)
from classification.in_memory import InMemorySource
from classification.mixing import MixedBatch, mix_batch
from classification.transforms import (
    AUGMENTATION_ALLOWED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    Augmentation,
    Crop,
    EvalTransform,
    TrainTransform,
    Triple,
    default_eval_resize,
)
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.downloads import data_root
from coordconv_apps.data.image_files import OnBadImage
from coordconv_apps.data.loaders import identity_collate
from coordconv_apps.data.splits import SPLITS_OF_STAGE, Split
from coordconv_apps.utils.argument_checks import (
    BELOW_ONE,
    COUNT,
    POSITIVE_INT,
    Allowed,
    check_ranges,
    one_of,
    optional_path,
)
from coordconv_apps.utils.seeds import mix_seeds

Source = Literal["folder", "digits", "cifar10", "cifar100", "imagenet"]


_ALLOWED: dict[str, Allowed] = {
    **AUGMENTATION_ALLOWED,
    "source": one_of(Source),
    "on_bad_image": one_of(OnBadImage),
    **dict.fromkeys(("image_size", "eval_size", "eval_resize", "repeats", "eval_batch_size"), POSITIVE_INT),
    "split_seed": COUNT,
    **dict.fromkeys(("mixup", "cutmix"), (lambda value: 0 <= value < float("inf"), "at least 0")),
    "mean": (lambda value: len(value) == 3 and 0 <= min(value) <= max(value) <= 1, "three numbers in [0, 1]"),
    "std": (lambda value: len(value) == 3 and min(value) > 0, "three numbers above 0"),
    "val_fraction": BELOW_ONE,
}


class ClassificationData(DataModule):
    """Labelled images: your own in class folders, or a well-known data set.

    Args:
        source: Source of the images. "folder": root has train/<class>, val/<class> and optionally test/<class>,
            or only <class>, which is then split. "digits": scikit-learn's digits, 8 x 8 pixels. "cifar10", "cifar100":
            downloaded if missing. "imagenet": root has train/<id> and val/<id>; classes get their English names.
        root: Folder of the images, or the folder of data sets that has CIFAR in it; by default the environment variable
            COORDCONV_DATA, else ./data.
        image_size: Height and width of training images, in pixels.
        eval_size: Height and width of images for evaluation and prediction, in pixels; by default image_size.
        eval_resize: The shorter side of images before the centre crop to eval_size, in pixels; by default eval_size
            with crop=padded, and 232/224 of it with crop=resized, so that evaluation sees what training sees.
        crop: How training images are cropped: "resized" resizes a random part of random size and shape; "padded"
            resizes the shorter side to image_size, adds a black border and takes a random square, for small images.
        padding: Width of the border with crop=padded, in pixels; by default an eighth of image_size.
        scale: Smallest and largest fraction of the image's area with crop=resized.
        ratio: Smallest and largest aspect ratio (width to height) with crop=resized.
        flip: Probability of a horizontal flip of a training image.
        augment: Augmentation of training images: "none", "trivial" (TrivialAugmentWide) or "rand" (RandAugment).
        erasing: Probability that a random rectangle of a training image is erased.
        mixup: Parameter of MixUp's beta distribution; 0 turns MixUp off.
        cutmix: Parameter of CutMix's beta distribution; 0 turns CutMix off. With both, each batch gets one at random.
        repeats: Copies of each image in a batch, each augmented separately. The epoch is longer by this factor.
        mean: Mean of red, green and blue, in [0, 1], by which a network that is trained on these data normalises
            images; a trained network keeps its own.
        std: Standard deviation of red, green and blue, in [0, 1], for the same normalisation.
        val_fraction: Fraction of each class of the training images that is held out for validation, unless root has
            train and val. With 0, digits and CIFAR are validated on their test images.
        split_seed: Seed of the held-out images; separate from seed, so that all runs are tested on the same images.
        on_bad_image: What to do with unreadable images: "error" stops the run, "skip" continues without them.
        predict_images: Input of predict: an image, or a folder of images with its subfolders.
        batch_size: Training images in a batch, on each process.
        eval_batch_size: Images in a batch for evaluation and prediction, on each process.
        num_workers: Worker processes that load batches, on each process; 0 loads in the main process.
        seed: Seed of the order of training images and of their augmentation.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    def __init__(
        self,
        source: Source = "folder",
        root: str | None = None,
        image_size: int = 224,
        eval_size: int | None = None,
        eval_resize: int | None = None,
        crop: Crop = "resized",
        padding: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333333333333333),
        flip: float = 0.5,
        augment: Augment = "none",
        erasing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        repeats: int = 1,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        on_bad_image: OnBadImage = "error",
        predict_images: str | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.source: Source = source
        self.root = data_root(root)
        self.image_size = image_size
        self.eval_size = image_size if eval_size is None else eval_size
        self.eval_resize = default_eval_resize(crop, self.eval_size) if eval_resize is None else eval_resize
        padding = image_size // 8 if padding is None else padding
        self.augmentation = Augmentation(image_size, crop, padding, scale, ratio, flip, augment, erasing, mean)
        self.mixup, self.cutmix, self.repeats = mixup, cutmix, repeats
        self.mean, self.std = mean, std
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.on_bad_image: OnBadImage = on_bad_image
        self.predict_images = optional_path(predict_images, "data.predict_images")
        self.eval_batch_size = eval_batch_size
        self._source: FolderSource | InMemorySource | None = None
        check_ranges(self.augmentation._asdict() | vars(self), _ALLOWED, "data")
        if root is None and source in ("folder", "imagenet"):
            raise ValueError(f"data.root=null: must be a folder of images with data.source={source}")
        if batch_size % repeats:
            raise ValueError(f"data.batch_size={batch_size}: must be a multiple of data.repeats={repeats}")
        if self.eval_resize < self.eval_size:
            raise ValueError(f"data.eval_resize={eval_resize}: must be at least data.eval_size={self.eval_size}")
        self._eval_transform = EvalTransform(self.eval_size, self.eval_resize)

    # ------------------------------------------------------------------ images and classes

    @property
    def class_names(self) -> list[str]:
        """The classes by label; folders are in alphabetical order."""
        return self._get_source().class_names

    @property
    def num_classes(self) -> int:
        """The number of classes, known without reading images."""
        return self._get_source().num_classes

    def skipped_images(self) -> set[str] | None:
        """Return the paths of the images that could not be read so far; None if those are an error."""
        if self.on_bad_image == "error":
            return None
        of_source = set() if self._source is None else self._source.skipped_images()
        return of_source | (super().skipped_images() or set())

    def num_samples(self, split: Split) -> int:
        """Return the number of images in a split."""
        return len(self._images(split).labels)

    def images_at(self, indices: Sequence[int], split: Split = "test") -> LabelledBatch:
        """Return the images at ``indices`` of a split as a task gets them to evaluate."""
        return EvalDataset(self._images(split), self._eval_transform).__getitems__(indices)

    # ------------------------------------------------------------------ stages and loaders

    def prepare_data(self) -> None:
        """Download CIFAR, if it is the source and missing."""
        if self.source in ("cifar10", "cifar100") and not (self.trainer is not None and self.trainer.predicting):
            download_cifar(self.source, self.root)

    def setup(self, stage: str) -> None:
        """Find or load the images of a stage; raise an error if files are missing or their content is wrong."""
        if stage == "predict":
            self.find_predict_images(self.predict_images, self.on_bad_image)
        for split in SPLITS_OF_STAGE.get(stage, ()):
            self._images(split)

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        """Make the loader of training images."""
        images, world_size = self._images("train"), self._processes()[1]
        groups = self.batch_size // self.repeats
        # Batch normalisation fails for a single image: a last batch of one image, another one in every epoch, is
        # dropped.
        number = len(images.labels)
        remainder = number % (groups * world_size)
        drop_last = self.repeats == 1 and groups > 1 and 0 < remainder < 2 * world_size and remainder < number
        batched = self.augmentation.is_batched
        kind, collate_fn = (BatchedTrainDataset, identity_collate) if batched else (TrainDataset, concatenate)
        dataset = kind(images, TrainTransform(self.augmentation), self.repeats)
        loader = self._train_loader(
            dataset, collate_fn, random_samples=not batched, drop_last=drop_last, batch_size=groups
        )
        if batched:
            loader.batches.seeded = True  # this dataset draws from the samples' seeds itself
        return loader

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        """Make the loader of validation images."""
        return self._labelled_loader("val")

    def test_dataloader(self) -> DataLoader[LabelledBatch]:
        """Make the loader of test images."""
        return self._labelled_loader("test")

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Make the loader of the images to predict."""
        assert self.predict_files is not None
        dataset = PredictDataset(self.predict_files, self._eval_transform)
        return self._eval_loader(dataset, identity_collate, batch_size=self.eval_batch_size)

    def mix_batch(self, images: Tensor, labels: Tensor, epoch: int, batch_idx: int) -> MixedBatch:
        """Mix the images of a training batch, floats ``(B, 3, S, S)``, by MixUp or CutMix, if the arguments ask for it.

        The result depends only on the seed, the epoch, the batch and the process, so a resumed run mixes the same.
        """
        # -1, because the orders of training images use the numbers from 0 on.
        seed = mix_seeds(self.seed, -1, epoch, batch_idx, self._processes()[0])
        # The copies of an image are neighbours; each is mixed with another image.
        return mix_batch(images, labels, self.num_classes, self.mixup, self.cutmix, seed, shift=self.repeats)

    # ------------------------------------------------------------------ parts

    def _get_source(self) -> FolderSource | InMemorySource:
        if self._source is None:
            common = (self.root, self.val_fraction, self.split_seed)
            if self.source == "folder" or self.source == "imagenet":
                is_imagenet = self.source == "imagenet"
                self._source = FolderSource(*common, self.on_bad_image, is_imagenet, self.print_once)
            else:
                self._source = InMemorySource(self.source, *common)
        return self._source

    def _labelled_loader(self, split: Split) -> DataLoader[LabelledBatch]:
        dataset = EvalDataset(self._images(split), self._eval_transform)
        return self._eval_loader(dataset, identity_collate, shuffled=True, batch_size=self.eval_batch_size)

    def _images(self, split: Split) -> Images:
        return self._get_source().images(split)
