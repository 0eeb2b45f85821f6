"""Where glyphs come from, and how they are split so that no picture of a glyph is in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.datasets import MNIST

from coordconv_apps.data.downloads import download_files
from detection.canvas import Glyphs
from detection.read import PICTURE_SUFFIXES, Bytes, Ink, list_pictures, read_idx, read_picture

Source = Literal["uci", "mnist", "folder", "idx"]
"""scikit-learn's bundled digits, MNIST, a folder with a sub-folder of pictures for each class, or an IDX pair."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST_NUM_VAL = 5_000  # the last ones of the 60,000 training digits

# Shares of each class, for sources without a split of their own.
_TEST_SHARE, _VAL_SHARE = 0.2, 0.1
# Apart from any seed of a run: no run is ever tested on a glyph that another run of it was trained on.
_SPLIT_SEED = 0
# Fainter pixels of a picture are noise of its scan or its compression. The other sources have a clean ground.
_PICTURE_INK_ABOVE = 32

_Ints = npt.NDArray[np.int64]


def check_source(source: str, glyphs: Path | None, glyph_labels: Path | None) -> None:
    """Check that the arguments of `load_glyphs` go together.

    Args:
        source: One of `Source`.
        glyphs: See `load_glyphs`.
        glyph_labels: See `load_glyphs`.

    Raises:
        ValueError: If ``source`` is unknown, or an argument is missing or not for this source.
    """
    if source not in get_args(Source):
        raise ValueError(f"source={source!r}: must be one of {', '.join(get_args(Source))}")
    meant = {"folder": "a folder with a sub-folder of pictures for each class", "idx": "an IDX file of images"}
    if (glyphs is None) == (source in meant):
        wanted = meant.get(source, "nothing (only the sources 'folder' and 'idx' read files of your own)")
        raise ValueError(f"glyphs={_shown(glyphs)}: must be {wanted} with source={source!r}")
    if (glyph_labels is None) == (source == "idx"):
        wanted = "an IDX file of labels" if source == "idx" else "nothing"
        raise ValueError(f"glyph_labels={_shown(glyph_labels)}: must be {wanted} with source={source!r}")


def _shown(path: Path | None) -> str:
    return "null" if path is None else repr(str(path))


def load_glyphs(
    source: Source,
    splits: Sequence[Split] = SPLITS,
    *,
    root: Path = Path("data"),
    glyphs: Path | None = None,
    glyph_labels: Path | None = None,
    ink: Ink = "auto",
    max_side: int = 25,
) -> dict[Split, Glyphs]:
    """Read the glyphs of a source. Its splits have no picture in common, and never change.

    Args:
        source: ``uci``: the 1,797 digits of 8 x 8 pixels that come with scikit-learn. ``mnist``: read from
            ``root/MNIST/raw``, downloaded if missing; its 10,000 test digits are the test split, the last 5,000
            of its training digits the validation split. ``folder``, ``idx``: glyphs of the user's own. All but
            MNIST are split by class, 70 : 10 : 20.
        splits: The splits that are wanted.
        root: The data root, for ``mnist``.
        glyphs: For ``folder``, a folder whose sub-folders are the classes and hold a picture for each glyph. For
            ``idx``, an IDX file of images, unsigned bytes ``(G, H, W)``, bright on black, gzipped or not.
        glyph_labels: For ``idx``, the IDX file of labels, unsigned bytes ``(G,)``.
        ink: For ``folder``, whether the ink is bright or dark.
        max_side: The user's own glyphs with more pixels of ink along a side are shrunk to it, smoothly.

    Returns:
        The glyphs of each split that is wanted.

    Raises:
        ValueError: If an argument is not allowed, or a file does not hold what it should.
        FileNotFoundError: If a file or folder is missing.
    """
    check_source(source, glyphs, glyph_labels)
    if source == "mnist":
        return _load_mnist(root, splits)
    if source == "uci":
        from sklearn.datasets import load_digits  # here: it takes a second, which no other source needs

        digits = load_digits()
        everything = _cut_out(np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target, "digits")
    elif glyph_labels is None:
        assert glyphs is not None
        everything = _load_folder(glyphs, ink, max_side)
    else:
        assert glyphs is not None
        everything = _load_idx_pair(glyphs, glyph_labels, max_side)
    parts = _split(everything)
    return {split: everything.select(parts[split]) for split in splits}


def load_class_names(source: Source, glyphs: Path | None, glyph_labels: Path | None) -> tuple[str, ...]:
    """Read the names of a source's classes, but not its glyphs.

    Args:
        source: See `load_glyphs`.
        glyphs: See `load_glyphs`.
        glyph_labels: See `load_glyphs`.

    Returns:
        The names, in the order of the class numbers.

    Raises:
        ValueError: As `load_glyphs`.
        FileNotFoundError: As `load_glyphs`.
    """
    check_source(source, glyphs, glyph_labels)
    if source == "folder":
        assert glyphs is not None
        return tuple(folder.name for folder in _class_folders(glyphs))
    labels = range(10) if glyph_labels is None else np.unique(read_idx(glyph_labels)).tolist()
    return tuple(str(label) for label in labels)


def fetch_mnist(root: Path) -> list[Path]:
    """Find MNIST's files, or have torchvision download them.

    They are renamed into place when they are complete: several processes may call this at once.

    Args:
        root: The data root: the files are in ``root/MNIST/raw``.

    Returns:
        The paths of `MNIST_FILES`, each plain or gzipped.

    Raises:
        FileNotFoundError: If they are missing and cannot be downloaded.
    """
    raw = root / "MNIST" / "raw"
    there = [next((p for p in (raw / name, raw / f"{name}.gz") if p.is_file()), None) for name in MNIST_FILES]
    found = [path for path in there if path is not None]
    if len(found) == len(MNIST_FILES):
        return found

    def download(temporary: Path) -> Path:
        MNIST(str(temporary), download=True)
        return temporary / "MNIST" / "raw"

    missing = (
        f"source='mnist': {', '.join(MNIST_FILES)} (plain or .gz) must be in {raw.resolve()}; put them there,"
        " or name the folder that holds MNIST/raw with --data.root or the variable COORDCONV_DATA"
    )
    download_files(raw, MNIST_FILES, download, missing)
    return [raw / name for name in MNIST_FILES]


def _load_mnist(root: Path, splits: Sequence[Split]) -> dict[Split, Glyphs]:
    train_images, train_labels, test_images, test_labels = fetch_mnist(root)
    loaded: dict[Split, Glyphs] = {}
    if "test" in splits:
        loaded["test"] = _load_idx_pair(test_images, test_labels)
    if "train" in splits or "val" in splits:
        training = _load_idx_pair(train_images, train_labels)
        numbers = torch.arange(len(training))
        loaded["train"] = training.select(numbers[:-MNIST_NUM_VAL])
        loaded["val"] = training.select(numbers[-MNIST_NUM_VAL:])
    return {split: loaded[split] for split in splits}


def _load_idx_pair(images_path: Path, labels_path: Path, max_side: int | None = None) -> Glyphs:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or not images.size:
        raise ValueError(f"{images_path}: must hold images (G, H, W), but has shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_path}: must hold {len(images)} labels, but has shape {labels.shape}")
    glyphs = _cut_out(images, labels, str(images_path))
    if max_side is None or int(glyphs.sizes.max()) <= max_side:
        return glyphs
    inked = zip(glyphs.images.numpy(), glyphs.sizes.tolist(), strict=True)
    shrunk = [_shrink(image[:h, :w], max_side) for image, (h, w) in inked]
    return _pack(shrunk, glyphs.labels.numpy(), glyphs.class_names)


def _cut_out(images: Bytes, labels: npt.NDArray[np.integer], name: str) -> Glyphs:
    """Make glyphs of images `(G, H, W)` on a clean black ground; `name` tells the user which ones."""
    classes, numbers = np.unique(labels, return_inverse=True)
    cropped, sizes = _crop_to_ink(images, above=0)
    blank = np.flatnonzero(sizes.min(1) < 1)
    if len(blank):
        raise ValueError(f"{name}: {len(blank)} images without ink, the first is number {blank[0]} (from 0)")
    return _make_glyphs(cropped, sizes, numbers, tuple(str(label) for label in classes))


def _make_glyphs(images: Bytes, sizes: _Ints, labels: npt.NDArray[np.integer], names: tuple[str, ...]) -> Glyphs:
    return Glyphs(
        images=torch.from_numpy(images),
        sizes=torch.from_numpy(sizes),
        labels=torch.from_numpy(labels.astype(np.int64)),
        class_names=names,
        source_index=torch.arange(len(images)),
    )


def _crop_to_ink(images: Bytes, above: int) -> tuple[Bytes, _Ints]:
    """Move the ink of `(G, H, W)` to the top left; returns the images, cut to the largest ink, and sizes `(G, 2)`."""
    rows, columns = (np.greater(images.max(axis=axis), above) for axis in (2, 1))
    top, left = rows.argmax(1)[:, None], columns.argmax(1)[:, None]
    bottom = rows.shape[1] - rows[:, ::-1].argmax(1)[:, None]
    right = columns.shape[1] - columns[:, ::-1].argmax(1)[:, None]
    sizes = np.where(rows.any(1)[:, None], np.concatenate([bottom - top, right - left], axis=1), 0)
    height, width = sizes.max(0)
    # Beyond an image's border there is only ground: any of its pixels will do, as it is blackened below.
    y = (top + np.arange(height)).clip(max=images.shape[1] - 1)
    x = (left + np.arange(width)).clip(max=images.shape[2] - 1)
    moved = images[np.arange(len(images))[:, None, None], y[:, :, None], x[:, None, :]]
    moved[np.broadcast_to(np.arange(height)[:, None] >= sizes[:, 0, None, None], moved.shape)] = 0
    moved[np.broadcast_to(np.arange(width) >= sizes[:, 1, None, None], moved.shape)] = 0
    return moved, sizes


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"glyphs={str(folder)!r}: no such folder")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"glyphs={str(folder)!r}: must have a sub-folder of pictures for each class, has none")
    return folders


def _load_folder(folder: Path, ink: Ink, max_side: int) -> Glyphs:
    pictures: list[Bytes] = []
    labels: list[int] = []
    classes = _class_folders(folder)
    for number, directory in enumerate(classes):
        paths = list_pictures(directory)
        if not paths:
            raise ValueError(f"{directory}: no picture in this class, must have some ({', '.join(PICTURE_SUFFIXES)})")
        for path in paths:
            cropped, sizes = _crop_to_ink(read_picture(path, ink)[None], _PICTURE_INK_ABOVE)
            if sizes.min() < 1:
                raise ValueError(f"{path}: no ink in this picture (ink={ink!r})")
            pictures.append(_shrink(cropped[0], max_side))
            labels.append(number)
    return _pack(pictures, np.array(labels), tuple(directory.name for directory in classes))


def _shrink(picture: Bytes, max_side: int) -> Bytes:
    image = Image.fromarray(picture)
    image.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)  # keeps proportions, enlarges nothing
    return np.array(image)


def _pack(pictures: Sequence[Bytes], labels: npt.NDArray[np.integer], names: tuple[str, ...]) -> Glyphs:
    sizes = np.array([picture.shape for picture in pictures], np.int64)
    images = np.zeros((len(pictures), *sizes.max(0)), np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image[: picture.shape[0], : picture.shape[1]] = picture
    return _make_glyphs(images, sizes, labels, names)


def _split(glyphs: Glyphs) -> dict[Split, torch.Tensor]:
    """Split by class, the same way every time; copies of a picture stay together. Returns positions in `glyphs`."""
    numbers: dict[bytes, int] = {}
    pictures = zip(glyphs.images.numpy(), glyphs.sizes.numpy(), strict=True)
    original = np.array([numbers.setdefault(i.tobytes() + s.tobytes(), len(numbers)) for i, s in pictures])
    classes = glyphs.labels.numpy()[np.unique(original, return_index=True)[1]]
    split_of = np.zeros(len(numbers), np.int64)
    rng = np.random.default_rng(_SPLIT_SEED)
    for number, name in enumerate(glyphs.class_names):
        members = rng.permutation(np.flatnonzero(classes == number))
        if len(members) < len(SPLITS):
            raise ValueError(
                f"class {name!r} has {len(members)} different glyphs, must have at least {len(SPLITS)}:"
                " one each to train, to validate and to test"
            )
        num_test, num_val = (max(1, round(share * len(members))) for share in (_TEST_SHARE, _VAL_SHARE))
        split_of[members[:num_test]] = SPLITS.index("test")
        split_of[members[num_test : num_test + num_val]] = SPLITS.index("val")
    assigned = torch.from_numpy(split_of[original])
    return {split: (assigned == number).nonzero().squeeze(1) for number, split in enumerate(SPLITS)}
