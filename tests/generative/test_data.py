"""The data module: batches, splits, seeds, processes, folders of pictures, mistakes."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from coordconv_apps.data.loaders import TrainLoader
from coordconv_apps.data.splits import SPLITS, Split
from generative.data import TWO_SHAPE_SIZES, GenerativeData
from generative.datasets import ImageBatch, read_square_image
from generative.pixel_range import to_float
from generative.two_shapes import render

STAGES: dict[Split, str] = {"train": "fit", "val": "validate", "test": "test"}


def small(**changes: Any) -> GenerativeData:  # noqa: ANN401  # any argument of the data module
    sizes = {"image_size": 12, "radius": 2, "num_train": 23, "num_val": 7, "num_test": 9}
    return GenerativeData(**({**sizes, "batch_size": 5, "eval_batch_size": 4} | changes))


def loader(data: GenerativeData, split: Split) -> DataLoader[ImageBatch]:
    data.setup(STAGES[split])
    return {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()


def everything(batches: DataLoader[ImageBatch]) -> ImageBatch:
    images, indices = zip(*batches, strict=True)
    return ImageBatch(torch.cat(images), torch.cat(indices))


def epoch(data: GenerativeData, number: int) -> ImageBatch:
    """What the training sees in an epoch."""
    made = loader(data, "train")
    assert isinstance(made, TrainLoader)
    made.batches.set_epoch(number)
    return everything(made)


def in_order(batch: ImageBatch) -> Tensor:
    return batch.images[batch.indices.argsort()]


# ------------------------------------------------------------------ shapes


def test_the_papers_set_is_the_default() -> None:
    data = GenerativeData()
    assert (data.source, data.image_size, data.radius, data.batch_size) == ("shapes", 64, 10, 16)
    assert [data.num_samples(split) for split in SPLITS] == [50_000, 1_000, 10_000]
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, ImageBatch)
    assert batch.images.shape == (16, 3, 64, 64)
    assert batch.images.dtype == torch.float32
    assert batch.images.unique().tolist() == [-1, 1]
    assert batch.indices.dtype == torch.int64


@pytest.mark.parametrize("split", SPLITS)
def test_images_are_those_of_the_scenes(split: Split) -> None:
    data = small()
    assert data.scenes is not None
    images, indices = everything(loader(data, split))
    assert sorted(indices.tolist()) == list(range(data.num_samples(split)))
    assert (indices.tolist() == sorted(indices.tolist())) == (split != "train")
    expected = to_float(render(data.scenes[split], 12, 2))
    assert torch.equal(images, expected[indices])


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_do_not_depend_on_the_batch_size_or_on_workers(split: Split) -> None:
    one = everything(loader(small(), split))
    for other in ({"batch_size": 8, "eval_batch_size": 3}, {"num_workers": 1}):
        images, indices = everything(loader(small(**other), split))
        assert torch.equal(indices, one.indices)
        assert torch.equal(images, one.images)


def test_batches_have_the_sizes_asked_for() -> None:
    data = small()
    expected: dict[Split, list[int]] = {"train": [5, 5, 5, 5, 3], "val": [4, 3], "test": [4, 4, 1]}
    for split, sizes in expected.items():
        assert [len(batch.images) for batch in loader(data, split)] == sizes


def test_splits_and_seeds_differ() -> None:
    sizes = {f"num_{split}": 50 for split in SPLITS}
    made = [data.scenes for data in (small(**sizes, seed=seed) for seed in (0, 1))]
    rows = [str(scenes[split].centers.tolist()) for scenes in made if scenes is not None for split in SPLITS]
    assert len(set(rows)) == 6
    again = small(**sizes).scenes
    assert again is not None
    assert [str(again[split].centers.tolist()) for split in SPLITS] == rows[:3]


def test_what_is_held_out_does_not_depend_on_the_number_to_train_on() -> None:
    one, other = small(), small(num_train=3)
    held_out: tuple[Split, ...] = ("val", "test")
    for split in held_out:
        assert torch.equal(everything(loader(one, split)).images, everything(loader(other, split)).images)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives, in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401  # torch's
        out = func(*args, **(kwargs or {}))
        sizes = (leaf.untyped_storage().nbytes() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        self.bytes = max(self.bytes, *sizes, 0)
        return out


def test_images_of_the_whole_set_are_never_held() -> None:
    with Largest() as largest:
        data = GenerativeData(num_train=50_000)
        for _ in itertools.islice(data.train_dataloader(), 3):
            pass
    batch = 16 * 3 * 64 * 64 * 4
    assert batch <= largest.bytes <= 50_000 * 64, "the places of the objects, and not 12 KB an image"


def test_examples_are_the_first_images() -> None:
    data = small()
    test, train = everything(loader(data, "test")).images, in_order(epoch(data, 0))
    assert torch.equal(data.example_images(5), test[:5])
    assert torch.equal(data.example_images(5, "train"), train[:5])
    assert torch.equal(data.example_images(1000), test)


def test_predict_asks_for_the_samples_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small(num_predict=10)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert all(isinstance(batch, Tensor) and batch.dtype == torch.int64 for batch in batches)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    monkeypatch.setattr(data, "_processes", lambda: (1, 2))
    assert torch.cat(list(data.predict_dataloader())).tolist() == [1, 3, 5, 7, 9]
    assert len(GenerativeData().predict_dataloader()) == 1  # 64 samples


# ------------------------------------------------------------------ folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 44 pictures, each of a colour of its own and with another one on its left side."""
    place = tmp_path_factory.mktemp("pictures")
    for number in range(44):
        picture = Image.new("RGB", (12, 8), (5 * number, 255 - 5 * number, 100))
        picture.paste((0, 0, number), (0, 0, 6, 8))
        (place / f"{number % 3}").mkdir(exist_ok=True)
        picture.save(place / f"{number % 3}/{number}.png")
    return place


def of_folder(folder: Path, **changes: Any) -> GenerativeData:  # noqa: ANN401  # any argument of the data module
    sizes = {"image_size": 8, "batch_size": 5, "eval_batch_size": 4}
    return GenerativeData(source="folder", folder=str(folder), **(sizes | changes))


def as_set(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_every_image_of_a_folder_is_in_one_split(folder: Path) -> None:
    data = of_folder(folder, num_val=6, num_test=8)
    assert data.scenes is None
    splits = [everything(loader(data, split)) for split in SPLITS]
    assert [len(split.images) for split in splits] == [data.num_samples(split) for split in SPLITS] == [30, 6, 8]
    for split in splits:
        assert split.images.shape[1:] == (3, 8, 8)
        assert split.images.dtype == torch.float32
        assert sorted(split.indices.tolist()) == list(range(len(split.indices)))
    files = sorted(folder.rglob("*.png"))
    expected = as_set(to_float(torch.stack([read_square_image(path, 8) for path in files])))
    assert len(expected) == 44
    assert set.union(*(as_set(split.images) for split in splits)) == expected


def test_a_folder_holds_out_four_images_or_as_many_as_asked_for(folder: Path) -> None:
    def sizes(**asked: int) -> list[int]:
        data = of_folder(folder, **asked)
        return [data.num_samples(split) for split in SPLITS]

    assert sizes() == [36, 4, 4]  # the fewest that can be compared: a twentieth would be 2
    assert sizes(num_test=30) == [10, 4, 30]
    assert sizes(num_train=20) == [20, 4, 4]
    assert sizes(num_train=1, num_val=1, num_test=42) == [1, 1, 42]


@pytest.mark.parametrize(("number", "held_out"), [(19_999, 999), (40_000, 1_000)])
def test_folders_hold_out_5_percent_and_at_most_1000_images(
    monkeypatch: pytest.MonkeyPatch, number: int, held_out: int
) -> None:
    names = [f"{number}.png" for number in range(number)]
    monkeypatch.setattr("generative.data.find_images", lambda *_: (names, set(), ""))
    data = of_folder(Path("not looked at"))
    assert [data.num_samples(split) for split in SPLITS] == [number - 2 * held_out, held_out, held_out]
    assert TWO_SHAPE_SIZES["val"] == 1_000


def test_the_seed_chooses_what_is_held_out_of_a_folder(folder: Path) -> None:
    one, same, other = (as_set(of_folder(folder, seed=seed, num_test=9).example_images(9)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    fewer = of_folder(folder, num_test=9, num_train=3, num_val=4)
    assert as_set(fewer.example_images(9)) == one, "whatever is trained and validated on"


def test_flips_are_for_training_and_depend_on_seed_epoch_and_image_only(folder: Path) -> None:
    plain = of_folder(folder).example_images(40, "train")
    flipped = []
    for seed, number in ((0, 0), (0, 1)):
        data = of_folder(folder, flip=True, seed=seed)
        images, indices = epoch(data, number)
        unflipped, mirrored = ((images == kind).flatten(1).all(1) for kind in (plain[indices], plain[indices].flip(-1)))
        assert (unflipped ^ mirrored).all()
        assert abs(mirrored.float().mean() - 0.5) < 4 * math.sqrt(0.25 / 40)
        assert torch.equal(data.example_images(40, "train"), plain)
        assert torch.equal(everything(loader(data, "val")).images, everything(loader(of_folder(folder), "val")).images)
        flipped.append(mirrored[indices.argsort()])
    assert not torch.equal(*flipped)
    again = epoch(of_folder(folder, flip=True, batch_size=7, num_workers=1), 1)
    assert torch.equal(in_order(again), in_order(epoch(of_folder(folder, flip=True), 1)))


def test_a_folder_is_listed_once_and_not_for_predict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = of_folder(folder / "nowhere")
    nowhere.setup("predict")
    assert len(list(nowhere.predict_dataloader())) == 16
    with pytest.raises(FileNotFoundError, match=r"nowhere': no such folder$"):
        nowhere.setup("fit")
    data = of_folder(folder)
    data.setup("fit")
    monkeypatch.setattr("generative.data.find_images", None)
    data.setup("test")
    assert len(everything(data.test_dataloader()).images) == 4


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A folder of 20 pictures and two more that cannot be read, one of them behind its head."""
    for path in sorted(folder.rglob("*.png"))[:20]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "empty.png").touch()
    picture = Image.effect_noise((20, 20), 100)
    picture.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    return tmp_path


def test_unreadable_images_are_left_out_and_counted(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = of_folder(damaged, on_bad_image="skip")
    data.setup("fit")
    data.setup("fit")
    told = f"data.folder={str(damaged)!r}: 1 of 22 images cannot be read: empty.png; left out\n"
    assert capsys.readouterr().out == told
    assert data.skipped_images() == {str(damaged / "empty.png")}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            for split in SPLITS:
                assert len(everything(loader(data, split)).images) == data.num_samples(split)
    assert len(caught) == 1
    assert "cut.png: not a readable image" in str(caught[0].message)
    assert data.skipped_images() == {str(damaged / "empty.png"), str(damaged / "cut.png")}


def test_an_image_that_turns_out_unreadable_is_named(damaged: Path) -> None:
    (damaged / "empty.png").unlink()
    loaders = [loader(of_folder(damaged), split) for split in SPLITS]
    with pytest.raises(ValueError, match=r"cut\.png: not a readable image \(.+\); data\.on_bad_image=skip continues"):
        [everything(made) for made in loaders]


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": 4}, "data.image_size=4: must be an integer of at least 5"),
        ({"num_train": 0}, "data.num_train=0: must be an integer of at least 1"),
        ({"num_test": 0}, "data.num_test=0: must be an integer of at least 1"),
        ({"num_predict": 0}, "data.num_predict=0: must be an integer of at least 1"),
        ({"source": "folder"}, "data.folder=null: must be a folder of images with data.source=folder"),
        ({"folder": "mine"}, "data.folder='mine': must be null with data.source=shapes"),
        ({"flip": True}, "data.flip=true: must be false with data.source=shapes"),
    ],
)
def test_impossible_values_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        GenerativeData(**given)
    assert str(caught.value) == message


def test_a_radius_does_not_matter_with_a_folder(folder: Path) -> None:
    assert of_folder(folder, radius=1000).num_samples("test") == 4


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ({"num_test": 43}, "48 are needed (data.num_train=1, data.num_val=4, data.num_test=43)"),
        ({"num_train": 41}, "49 are needed (data.num_train=41, data.num_val=4, data.num_test=4)"),
    ],
)
def test_folders_with_too_few_images_are_refused(folder: Path, asked: dict[str, int], needed: str) -> None:
    with pytest.raises(ValueError, match=r"readable images are too few") as caught:
        of_folder(folder, **asked).setup("fit")
    where = f"data.folder={str(folder)!r}"
    assert str(caught.value) == f"{where}: 44 readable images are too few, {needed}"
