"""Class folders: a folder of pictures for each class, given in parts or to be split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from coordconv_apps.data.image_files import (
    IMAGE_SUFFIXES,
    ImageFiles,
    OnBadImage,
    abbreviate_names,
    check_folder,
    find_images,
)
from coordconv_apps.utils.seeds import mix_seeds

Split = Literal["train", "val", "test"]
PARTS: tuple[Split, ...] = get_args(Split)


class LabelledImage(NamedTuple):
    """A picture and its class.

    Attributes:
        image: uint8 ``(3, H, W)`` of any size, red, green and blue.
        label: Number of its class, from 0.
        number: Of the picture in its part, from 0.
        name: Its file, or what else tells the user which picture it is.
    """

    image: Tensor
    label: int
    number: int
    name: str


class ClassFolder(Dataset[LabelledImage]):
    """Pictures in files and their classes, read when they are asked for.

    Args:
        files: The pictures.
        labels: int64 ``(N,)``: their classes.
    """

    def __init__(self, files: ImageFiles, labels: Tensor) -> None:
        self.files = files
        self.labels = labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> LabelledImage:
        """A picture; with on_bad_image="skip", if it cannot be read, the next that can, with its own class."""
        image, number = self.files.read_this_or_next(index)
        return self._labelled(image, number)

    def get(self, index: int) -> LabelledImage | None:
        """A picture; with on_bad_image="skip", None if it cannot be read."""
        image = self.files.try_read(index)
        return None if image is None else self._labelled(image, index)

    def _labelled(self, image: Tensor, number: int) -> LabelledImage:
        return LabelledImage(image, int(self.labels[number]), number, str(self.files.path(number)))


class FolderLayout(NamedTuple):
    """Where the pictures of each part are.

    Attributes:
        folders: The folder of class folders of each part; the same for all if it is to be split.
        class_names: The classes in alphabetical order, which number them.
    """

    folders: dict[Split, Path]
    class_names: list[str]

    @property
    def to_be_split(self) -> bool:
        """Whether one folder holds the pictures of all parts."""
        return self.folders["train"] == self.folders["val"]


def find_layout(root: Path) -> FolderLayout:
    """Finds out how a folder of class folders is laid out, without looking at pictures.

    Args:
        root: Either with ``train/<class>``, ``val/<class>`` and perhaps ``test/<class>``, or with ``<class>``. Without
            ``test``, what there is to validate on is tested on.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no class folders or a single one, or its parts have different ones.
    """
    names = _class_folders(root)
    if not {"train", "val"} <= set(names):
        if set(names) <= set(PARTS):
            raise ValueError(
                f"data.root={str(root)!r}: has a folder {', '.join(names)} alone, must have both train and val with"
                " class folders in them, or class folders itself"
            )
        return FolderLayout(dict.fromkeys(PARTS, root), _checked(root, names))
    folders: dict[Split, Path] = {part: root / part for part in PARTS if part in names}
    folders.setdefault("test", folders["val"])
    class_names = _checked(folders["train"], _class_folders(folders["train"]))
    for part in PARTS[1:]:
        others = _class_folders(folders[part])
        told = "; ".join(
            f"only in {where}: {abbreviate_names(sorted(some))}"
            for where, some in (("train", set(class_names) - set(others)), (part, set(others) - set(class_names)))
            if some
        )
        if told:
            raise ValueError(f"data.root={str(root)!r}: train and {part} must have the same classes; {told}")
    return FolderLayout(folders, class_names)


def _class_folders(folder: Path) -> list[str]:
    check_folder(folder, "data.root")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"data.root={str(folder)!r}: must have a folder of pictures for each class, has none")
    return names


def _checked(folder: Path, names: list[str]) -> list[str]:
    if len(names) < 2:
        raise ValueError(f"data.root={str(folder)!r}: has one class only ({names[0]}), must have at least two")
    return names


class ClassPictures(NamedTuple):
    """The pictures in class folders.

    Attributes:
        folder: Where the class folders are.
        names: Paths in it of the pictures that can be opened, class by class.
        labels: int64 ``(N,)``: the number of the class of each.
        left_out: How many more there are that cannot.
        message: A line that names these; empty if there are none.
    """

    folder: Path
    names: list[str]
    labels: Tensor
    left_out: int
    message: str


def find_class_pictures(folder: Path, class_names: Sequence[str], on_bad_image: OnBadImage) -> ClassPictures:
    """Finds the pictures of every class, in folders within its folder too.

    Args:
        folder: Has a folder for each class.
        class_names: The classes.
        on_bad_image: Whether to go on without pictures that cannot be opened, see `find_images`.

    Raises:
        ValueError: A class has no pictures, or some cannot be opened and on_bad_image is "error".
    """
    found = find_images(folder, "data.root", on_bad_image)
    numbers = {name: number for number, name in enumerate(class_names)}
    # Pictures beside the class folders are of no class.
    of_class = [(numbers[first], name) for name in found.names if (first := name.split(os.sep, 1)[0]) in numbers]
    of_class.sort(key=lambda pair: pair[0])  # a class's own order stays
    labels = torch.tensor([number for number, _ in of_class], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    empty = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if empty:
        what = f"no pictures that can be read ({', '.join(IMAGE_SUFFIXES)})"
        raise ValueError(f"data.root={str(folder)!r}: {what} in the class folder {abbreviate_names(empty)}")
    return ClassPictures(folder, [name for _, name in of_class], labels, found.left_out, found.message)


def split_by_class(labels: Tensor, fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Holds out some samples of each class.

    Args:
        labels: int64 ``(N,)``: the classes.
        fraction: Share of each class to hold out, above 0 and below 1. At least one sample is held out, and one left.
        seed: Fixes which they are.
        class_names: For messages.

    Returns:
        The numbers of the samples that are left and of those held out, each int64 and in order.

    Raises:
        ValueError: A class has a single sample.
    """
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for number, name in enumerate(class_names):
        members = (labels == number).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(
                f"class {name!r} has {len(members)} picture to train and to validate on, must have at least 2"
            )
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        generator = torch.Generator().manual_seed(mix_seeds(seed, number))
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


class FolderSource:
    """The pictures of a folder of class folders, looked for when a part is asked for.

    Args:
        root: See `find_layout`.
        val_fraction: Share of each class to hold out, if ``root`` has no parts.
        split_seed: Fixes which pictures are held out.
        on_bad_image: What to do with pictures that cannot be read.

    Attributes:
        layout: Where the pictures are.
        told: Lines about pictures that could not be opened, of the parts asked for so far.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is not laid out as it should be, or there is nothing to validate on.
    """

    def __init__(self, root: Path, val_fraction: float, split_seed: int, on_bad_image: OnBadImage) -> None:
        self.layout = find_layout(root)
        if self.layout.to_be_split and not val_fraction:
            raise ValueError(
                f"data.val_fraction={val_fraction}: must be above 0, as data.root={str(root)!r} has no folders train"
                " and val"
            )
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.on_bad_image: OnBadImage = on_bad_image
        self.told: list[str] = []
        self._found: dict[Path, ClassPictures] = {}
        self._parts: dict[Split, ClassFolder] = {}

    @property
    def left_out(self) -> int:
        """How many pictures could not be opened and were left out, of the parts asked for so far."""
        return sum(found.left_out for found in self._found.values())

    @property
    def unreadable(self) -> set[str]:
        """The files, opened by this process and its workers, that could not be read: not those of `left_out`."""
        return {str(part.files.path(number)) for part in self._parts.values() for number in part.files.bad}

    def part(self, part: Split) -> ClassFolder:
        """The pictures of a part.

        Args:
            part: To train, to validate or to test on.

        Raises:
            ValueError: See `find_class_pictures` and `split_by_class`.
        """
        if part == "test" and self.layout.folders["test"] == self.layout.folders["val"]:
            part = "val"
        if part not in self._parts:
            self._parts[part] = self._make(part)
        return self._parts[part]

    def _make(self, part: Split) -> ClassFolder:
        folder, names = self.layout.folders[part], self.layout.class_names
        if folder not in self._found:
            found = self._found[folder] = find_class_pictures(folder, names, self.on_bad_image)
            self.told += [found.message] if found.message else []
        found = self._found[folder]
        chosen = torch.arange(len(found.names))
        if self.layout.to_be_split:
            try:
                left, held_out = split_by_class(found.labels, self.val_fraction, self.split_seed, names)
            except ValueError as error:
                raise ValueError(f"data.root={str(folder)!r}: {error}") from error
            chosen = left if part == "train" else held_out
        files = ImageFiles(folder, [found.names[i] for i in chosen.tolist()], "data.root", self.on_bad_image)
        return ClassFolder(files, found.labels[chosen])
