"""The data module: batches, seeds, workers, processes, mixing, pictures to predict, mistakes."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
import torchvision.transforms.v2.functional as tv
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from classification import data as module
from classification.data import ClassificationData, Source
from classification.datasets import BatchedTrainDataset, ImageBatch, LabelledBatch, concatenate
from classification.transforms import EvalTransform, TrainTransform
from coordconv_apps.data.image_decoding import read_image
from coordconv_apps.data.loaders import SeededSamples, TrainLoader
from coordconv_apps.data.splits import SPLITS, Split
from tests.classification.images import CLASSES, colours, save_class, save_classes
from tests.helpers.images import damage

STAGES: dict[Split, str] = {"train": "fit", "val": "validate", "test": "test"}
PLAIN: dict[str, Any] = {"crop": "padded", "padding": 0, "flip": 0.0}
RANDOM: dict[str, dict[str, Any]] = {
    "padded": {"crop": "padded", "padding": 2},
    "resized": {"crop": "resized", "augment": "trivial", "erasing": 0.5},
    "repeated": {"crop": "padded", "augment": "rand", "repeats": 2, "batch_size": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of three classes, pictures of 12 x 10 pixels."""
    root = tmp_path_factory.mktemp("pictures")
    save_classes(root / "train", 6, 8, 7)
    save_classes(root / "val", 2, 3, 2)
    return root


def of_folder(root: Path, **changes: Any) -> ClassificationData:  # noqa: ANN401  # any argument of the data module
    small = {"image_size": 8, "batch_size": 6, "eval_batch_size": 3, **PLAIN}
    return ClassificationData("folder", str(root), **(small | changes))


def digits(**changes: Any) -> ClassificationData:  # noqa: ANN401  # any argument of the data module
    return ClassificationData("digits", **({"image_size": 8, "batch_size": 100, **PLAIN} | changes))


def loader(data: ClassificationData, part: Split) -> DataLoader[LabelledBatch]:
    data.setup(STAGES[part])
    return {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[part]()


def epoch(data: ClassificationData, number: int = 0) -> LabelledBatch:
    """What the training sees in an epoch, as loaders make it."""
    made = loader(data, "train")
    assert isinstance(made, TrainLoader)
    made.batches.set_epoch(number)
    return concatenate(list(made))


def in_order(batch: LabelledBatch) -> LabelledBatch:
    order = batch.indices.argsort(stable=True)
    return LabelledBatch(*(values[order] for values in batch))


def same(one: LabelledBatch, other: LabelledBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------ what there is


def test_a_folder_gives_classes_and_numbers_of_images(folder: Path) -> None:
    data = of_folder(folder)
    assert data.num_classes == 3
    assert data.class_names == list(CLASSES)
    assert [data.num_samples(part) for part in SPLITS] == [21, 7, 7]
    assert (data.image_size, data.eval_size) == (8, 8)
    assert of_folder(folder, eval_size=10).eval_size == 10


def test_the_number_of_classes_is_known_without_reading_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classification.class_folders.find_images", None)
    monkeypatch.setattr("classification.in_memory.load_digits", None)
    assert of_folder(folder).num_classes == 3
    numbers = [ClassificationData(source, image_size=8).num_classes for source in ("digits", "cifar10", "cifar100")]
    assert numbers == [10, 10, 100]


@pytest.mark.parametrize("part", SPLITS)
def test_batches_hold_images_and_their_classes(part: Split, folder: Path) -> None:
    data = of_folder(folder)
    batches = list(loader(data, part))
    assert [len(batch.labels) for batch in batches] == ([6, 6, 6, 3] if part == "train" else [3, 3, 1])
    whole = concatenate(batches)
    assert whole.images.dtype == torch.uint8
    assert whole.images.shape[1:] == (3, 8, 8)
    assert whole.labels.dtype == whole.indices.dtype == torch.int64
    assert sorted(whole.indices.tolist()) == list(range(data.num_samples(part)))
    assert whole.indices.tolist() != sorted(whole.indices.tolist())
    again = concatenate(list(loader(of_folder(folder, seed=1), part)))
    assert torch.equal(again.indices, whole.indices) == (part != "train"), "evaluation has one order in every run"
    numbers = {"train": (6, 8, 7), "val": (2, 3, 2), "test": (2, 3, 2)}[part]
    expected = [(label, number) for label, count in enumerate(numbers) for number in range(count)]
    ordered = in_order(whole)
    assert colours(ordered) == expected
    assert ordered.labels.tolist() == [label for label, _ in expected]


def test_evaluation_crops_the_centre(folder: Path) -> None:
    data = of_folder(folder, eval_size=6, eval_resize=7)
    files = sorted((folder / "val").rglob("*.png"))
    transform = EvalTransform(6, 7)
    expected = torch.stack([transform(read_image(path)) for path in files])
    assert torch.equal(in_order(concatenate(list(loader(data, "val")))).images, expected)


def test_the_first_evaluation_batch_has_all_classes(tmp_path: Path) -> None:
    """As trainer.limit_val_batches asks for it: folders are read class by class."""
    save_classes(tmp_path / "train", 2, 2, 2)
    save_classes(tmp_path / "val", 20, 20, 20)
    for part in ("val", "test"):
        first = next(iter(loader(of_folder(tmp_path, eval_batch_size=12), part)))
        assert torch.bincount(first.labels, minlength=3).min() >= 2


CONFIGS = sorted((Path(__file__).parents[2] / "classification" / "configs").glob("*.yaml"))
VIEWS: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text())["data"] for path in CONFIGS}
VIEWS |= {f"{name}, other size": VIEWS[name] | {"image_size": 12} for name in list(VIEWS)}
VIEWS |= {"defaults": {}}


@pytest.mark.parametrize("settings", VIEWS.values(), ids=VIEWS)
def test_evaluation_sees_what_training_sees(settings: dict[str, Any], tmp_path: Path) -> None:
    """Red grows from left to right, so that it tells which part of a picture's width is seen."""

    def seen(batch: LabelledBatch | ImageBatch) -> Tensor:
        red = batch.images[:, 0].float().amax(1)  # a border is black
        width = red.shape[1] / (red.shape[1] - 1)  # from edge to edge, not between the centres of the outer pixels
        return width * (red.amax(1) - red.masked_fill(red == 0, 255).amin(1)) / 200

    ramp = torch.linspace(50, 250, 90).round().byte().expand(3, 90, 90)
    for part, name in itertools.product(("train", "val"), CLASSES):
        (tmp_path / part / name).mkdir(parents=True)
        tv.to_pil_image(ramp).save(tmp_path / part / name / "1.png")
    changes = {"source": "folder", "root": str(tmp_path), "num_workers": 0, "predict_images": str(tmp_path / "val")}
    plain = {"augment": "none", "erasing": 0.0, "repeats": 1, "batch_size": 3}
    data = ClassificationData(**(settings | changes | plain))
    evaluated = [seen(next(iter(loader(data, part)))) for part in ("val", "test")]
    data.setup("predict")
    evaluated.append(seen(next(iter(data.predict_dataloader()))))
    if data.augmentation.crop == "padded":
        data.augmentation = data.augmentation._replace(padding=0, flip=0.0)
        images = next(iter(loader(data, "train"))).images
        assert torch.equal(images, next(iter(loader(data, "val"))).images)
    else:
        torch.manual_seed(0)
        transform = TrainTransform(data.augmentation)
        images = torch.stack([transform(ramp) for _ in range(100)])
    trained = seen(ImageBatch(images, torch.zeros(0), []))
    for view in evaluated:
        assert trained.min() - 0.05 <= view.min() <= view.max() <= trained.max() + 0.05
        assert view.min() > 0.8


def test_a_folder_without_split_folders_is_split(folder: Path) -> None:
    data = of_folder(folder / "train", val_fraction=0.3)
    assert [data.num_samples(part) for part in SPLITS] == [21 - 6, 6, 6]
    val = concatenate(list(loader(data, "val")))
    assert torch.bincount(val.labels).tolist() == [2, 2, 2]
    train = epoch(data)
    assert not set(colours(val)) & set(colours(train))
    again = of_folder(folder / "train", val_fraction=0.3, seed=5)
    assert same(concatenate(list(loader(again, "val"))), val), "whatever the seed"
    other = of_folder(folder / "train", val_fraction=0.3, split_seed=1)
    assert not same(concatenate(list(loader(other, "val"))), val)


def test_digits_come_without_any_files() -> None:
    data = digits()
    data.prepare_data()
    assert data.class_names == list("0123456789")
    assert [data.num_samples(part) for part in SPLITS] == [1295, 143, 359]
    batch = next(iter(loader(data, "val")))
    assert batch.images.shape == (64, 3, 8, 8)
    larger = next(iter(loader(digits(eval_size=16, eval_resize=16), "val")))
    assert torch.equal(larger.images, tv.resize(batch.images, [16, 16], antialias=True))


def test_folders_of_imagenet_get_class_names(folder: Path, tmp_path: Path) -> None:
    ids = [f"n{10_000_000 + number}" for number in range(1000)]
    torch.save((dict.fromkeys(ids, ()), []), tmp_path / "meta.bin")
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for name, wordnet_id in zip(CLASSES, ids, strict=False):
            (tmp_path / part / wordnet_id).symlink_to(folder / part / name)
    data = ClassificationData("imagenet", str(tmp_path), image_size=8)
    assert data.class_names == ["tench", "goldfish", "great white shark"]
    assert data.num_samples("train") == 21


def test_cifar_is_fetched_before_training_and_not_to_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Path]] = []
    monkeypatch.setattr(module, "download_cifar", lambda *arguments: asked.append(arguments))
    data = ClassificationData("cifar100", "~/sets", image_size=32)
    data.prepare_data()
    assert asked == [("cifar100", Path.home() / "sets")]
    data.trainer = SimpleNamespace(predicting=True)  # type: ignore[assignment]  # all it asks
    data.prepare_data()
    digits().prepare_data()
    assert len(asked) == 1


# ------------------------------------------------------------------ what is random


@pytest.mark.parametrize("kind", RANDOM)
def test_augmentation_depends_on_seed_epoch_and_image_only(kind: str, folder: Path) -> None:
    def made(number: int = 1, **changes: int) -> LabelledBatch:
        return in_order(epoch(of_folder(folder, **({"flip": 0.5} | RANDOM[kind] | changes)), number))

    torch.manual_seed(1)
    one = made()
    torch.manual_seed(2)
    for again in (made(), made(batch_size=8), made(num_workers=2)):
        assert same(again, one)
    for other in (made(number=2), made(seed=1)):
        assert torch.equal(other.indices, one.indices)
        assert not torch.equal(other.images, one.images)


@pytest.mark.parametrize("kind", ["digits", "folder", "folder of several sizes"])
def test_batched_augmentation_equals_that_of_single_images(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "folder of several sizes":
        for label, size in ((0, (8, 8)), (1, (12, 10)), (2, (9, 20))):
            for part in ("train", "val"):
                save_class(tmp_path / part, label, 3, size)
        folder = tmp_path

    def made(**changes: int) -> LabelledBatch:
        arguments = {"padding": 1, "flip": 0.5, "repeats": 4, "batch_size": 8, "val_fraction": 0.9, **changes}
        return epoch(digits(**arguments) if kind == "digits" else of_folder(folder, **arguments), 3)

    at_once = made()
    assert same(made(num_workers=1), at_once)
    monkeypatch.setattr("classification.transforms.Augmentation.is_batched", False)
    assert same(made(), at_once)


@pytest.mark.parametrize("several_sizes", [False, True])
def test_large_images_are_resized_one_by_one_to_the_same_batch(
    several_sizes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, size in ((0, (30, 24)), (1, (24, 40) if several_sizes else (30, 24)), (2, (30, 24))):
        for part in ("train", "val"):
            save_class(tmp_path / part, label, 3, size)

    def made() -> LabelledBatch:
        return epoch(of_folder(tmp_path, padding=1, flip=0.5, batch_size=9), 3)

    at_once, sizes = made(), []
    batch = TrainTransform.batch

    def seen(self: TrainTransform, images: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401  # handed on
        sizes.append(min(images.shape[-2:]))
        return batch(self, images, *arguments)

    monkeypatch.setattr(TrainTransform, "batch", seen)
    monkeypatch.setattr("classification.datasets._LARGE", 30 * 23)
    assert same(made(), at_once)
    assert set(sizes) == {8}


def test_batched_datasets_are_used_where_they_can_be(folder: Path) -> None:
    for data in (of_folder(folder), digits()):
        assert isinstance(loader(data, "train").dataset, BatchedTrainDataset)
    for data in (of_folder(folder, crop="resized"), digits(augment="trivial"), digits(erasing=0.1)):
        assert isinstance(loader(data, "train").dataset, SeededSamples)


@pytest.mark.parametrize("changes", [{"crop": "padded", "padding": 3}, {"crop": "resized"}])
def test_repeated_images_stand_side_by_side_and_differ(changes: dict[str, Any], folder: Path) -> None:
    data = of_folder(folder, repeats=3, batch_size=6, flip=0.5, **changes)
    made = list(loader(data, "train"))
    assert len(made) == 11
    whole = concatenate(made)
    assert torch.equal(whole.indices, whole.indices[::3].repeat_interleave(3))
    assert torch.equal(whole.labels, whole.labels[::3].repeat_interleave(3))
    assert sorted(whole.indices[::3].tolist()) == list(range(21)), "an epoch has each of them once"
    groups = whole.images.unflatten(0, (21, 3))
    assert (groups[:, 0] != groups[:, 1]).flatten(1).any(1).float().mean() > 0.8


def test_an_interrupted_epoch_resumes_with_the_same_images() -> None:
    data = digits(padding=1, val_fraction=0.8)
    whole = list(loader(data, "train"))
    first, second = loader(data, "train"), loader(data, "train")
    batches = iter(first)
    next(batches)
    assert isinstance(first, TrainLoader)
    assert isinstance(second, TrainLoader)
    second.load_state_dict(first.state_dict())
    assert all(same(one, other) for one, other in zip(second, whole[1:], strict=True))


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("held", [True, False])
def test_two_processes_share_the_images(part: Split, held: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def data(batch_size: int) -> ClassificationData:
        changes: dict[str, Any] = {"padding": 2, "flip": 0.5, "batch_size": batch_size}
        return digits(val_fraction=0.9, **changes) if held else of_folder(folder, **changes)

    def everything(made: ClassificationData) -> LabelledBatch:
        return concatenate(list(loader(made, part)))

    one, ranks = everything(data(6)), []
    for rank in range(2):
        made = data(3)
        monkeypatch.setattr(made, "_processes", lambda rank=rank: (rank, 2))
        ranks.append(everything(made))
    both = concatenate(ranks)
    number = data(6).num_samples(part)
    if part == "train" and number % 6 in (1, 2, 3):
        assert len(both.indices) == number - number % 6, "a process would have had a single image"
        assert set(both.indices.tolist()) <= set(one.indices.tolist())
    else:
        assert len(both.indices) == number
        assert same(in_order(both), in_order(one)), "each of them once"


@pytest.mark.parametrize(
    ("batch_size", "repeats", "sizes"),
    [(5, 1, [5] * 4), (19, 1, [19, 2]), (21, 1, [21]), (1, 1, [1] * 21), (8, 2, [8] * 5 + [2])],
)
def test_no_image_is_alone_in_a_batch(batch_size: int, repeats: int, sizes: list[int], folder: Path) -> None:
    data = of_folder(folder, batch_size=batch_size, repeats=repeats)
    made = list(loader(data, "train"))
    assert [len(batch.labels) for batch in made] == sizes
    assert len(loader(data, "train")) == len(sizes)


# ------------------------------------------------------------------ for the task


def test_images_at_returns_images_of_the_evaluation(folder: Path) -> None:
    data = of_folder(folder, padding=3, flip=0.5, augment="rand")
    batch = data.images_at([4, 2], "val")
    assert batch.labels.tolist() == [1, 1]
    assert same(batch, data.images_at([4, 2], "val")), "never augmented"
    assert colours(batch) == [(1, 2), (1, 0)]


def test_mixing_depends_on_seed_epoch_batch_and_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = of_folder(folder).images_at([0, 1, 2, 3, 4, 5, 6][:6])

    def mixed(epoch: int = 2, batch_idx: int = 3, rank: int = 0, **changes: int) -> Tensor:
        data = of_folder(folder, mixup=0.5, cutmix=1.0, **changes)
        monkeypatch.setattr(data, "_processes", lambda: (rank, 2))
        images, targets = data.mix_batch(batch.images / 255, batch.labels, epoch, batch_idx)
        assert targets.shape == (6, 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        return images

    torch.manual_seed(1)
    one = mixed()
    torch.manual_seed(2)
    assert torch.equal(mixed(), one)
    for other in (mixed(epoch=1), mixed(batch_idx=2), mixed(rank=1), mixed(seed=1)):
        assert not torch.equal(other, one)
    plain = of_folder(folder).mix_batch(batch.images, batch.labels, 0, 0)
    assert torch.equal(plain.images, batch.images)
    assert torch.equal(plain.targets.argmax(1), batch.labels)


# ------------------------------------------------------------------ pictures that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Parts with one picture in each that cannot be opened, and one to validate on that is cut off."""
    for part in ("train", "val"):
        save_classes(tmp_path / part, 3, 3)
        (tmp_path / part / "ant/01.png").write_text("no picture")
    damage(tmp_path / "val/bee/00.png")
    return tmp_path


def test_unreadable_images_end_the_run_before_it_starts(damaged: Path) -> None:
    with pytest.raises(ValueError, match=r": 1 of 6 images cannot be read: ant/01\.png; data\.on_bad_image=skip"):
        of_folder(damaged).setup("fit")


@pytest.mark.parametrize("settings", [PLAIN, {"crop": "resized"}])
def test_a_damaged_training_image_is_replaced_by_the_next_and_its_class(
    settings: dict[str, Any], damaged: Path
) -> None:
    damage(damaged / "train/ant/02.png")
    data = of_folder(damaged, on_bad_image="skip", **settings)
    with pytest.warns(UserWarning, match=r"02\.png: not a readable image \(.+\): replaced by the next one$"):
        train = in_order(epoch(data))
    assert train.indices.tolist() == [0, 2, 2, 3, 4]
    assert train.labels.tolist() == [0, 1, 1, 1, 1]
    assert [label for label, _ in colours(train)] == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_counted(
    workers: int, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = of_folder(damaged, on_bad_image="skip", num_workers=workers, eval_batch_size=2)
    data.setup("fit")
    data.setup("fit")
    assert [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "1 of 6 images cannot be read: ant/01.png; left out"
    ] * 2
    listed = {str(damaged / part / "ant/01.png") for part in ("train", "val")}
    assert data.skipped_images() == listed
    assert len(epoch(data).labels) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tells which picture is left out
        batches = list(data.val_dataloader())
    whole = in_order(concatenate(batches))
    assert whole.indices.tolist() == [0, 1, 3, 4]
    assert whole.labels.tolist() == [0, 0, 1, 1]
    assert data.skipped_images() == {*listed, str(damaged / "val/bee/00.png")}


def test_the_first_process_alone_prints_which_images_are_left_out(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = of_folder(damaged, on_bad_image="skip")
    data.trainer = SimpleNamespace(is_global_zero=False, world_size=2)  # type: ignore[assignment]  # all it asks
    data.setup("fit")
    assert data.skipped_images()
    assert capsys.readouterr().out == ""


def test_a_batch_of_unreadable_images_is_empty(damaged: Path) -> None:
    data = of_folder(damaged, on_bad_image="skip", eval_batch_size=1)
    with pytest.warns(UserWarning, match="left out"):
        batches = list(loader(data, "val"))
    assert sorted(len(batch.labels) for batch in batches) == [0, 1, 1, 1, 1]
    (empty,) = [batch for batch in batches if not len(batch.labels)]
    assert empty.images.shape == (0, 3, 8, 8)
    assert empty.images.dtype == torch.uint8


# ------------------------------------------------------------------ to predict


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Five pictures in folders of any depth."""
    for number, name in enumerate(("a.png", "b/c.png", "b/d/e.png", "b/d/f.png", "z.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def test_predict_reads_images_of_nested_folders(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = of_folder(own / "nowhere", predict_images=str(own))
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert all(isinstance(batch, ImageBatch) for batch in batches)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4]]
    assert [path for batch in batches for path in batch.paths] == [str(path) for path in sorted(own.rglob("*.png"))]
    assert torch.cat([batch.images for batch in batches])[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(data, "_processes", lambda: (1, 2))
    assert torch.cat([batch.indices for batch in data.predict_dataloader()]).tolist() == [1, 3]


def test_unreadable_images_to_predict_are_left_out(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "b/no.png").write_text("no picture")
    damage(own / "b/d/cut.png")
    with pytest.raises(ValueError, match=r"^data\.predict_images='.*': 1 of 7 images cannot be read: b/no\.png; "):
        of_folder(own, predict_images=str(own)).setup("predict")
    data = of_folder(own, predict_images=str(own), on_bad_image="skip")
    data.setup("predict")
    assert capsys.readouterr().out.endswith("images cannot be read: b/no.png; left out\n")
    with pytest.warns(UserWarning, match=r"cut\.png: not a readable image"):
        batches = list(data.predict_dataloader())
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [3, 4, 5]]
    assert [len(batch.paths) for batch in batches] == [2, 3]
    assert data.skipped_images() == {str(own / "b/no.png"), str(own / "b/d/cut.png")}


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"root": None}, "data.root=null: must be a folder of images with data.source=folder"),
        ({"source": "imagenet", "root": None}, "data.root=null: must be a folder of images with data.source=imagenet"),
        ({"image_size": 0}, "data.image_size=0: must be an integer of at least 1"),
        ({"eval_resize": 223}, "data.eval_resize=223: must be at least data.eval_size=224"),
        ({"eval_size": 0}, "data.eval_size=0: must be an integer of at least 1"),
        ({"repeats": 0}, "data.repeats=0: must be an integer of at least 1"),
        ({"scale": (0.0, 1.0)}, "data.scale=(0.0, 1.0): must be two numbers in (0, 1], the smaller one first"),
        ({"ratio": (2.0, 1.0)}, "data.ratio=(2.0, 1.0): must be two numbers above 0, the smaller one first"),
        ({"flip": 1.5}, "data.flip=1.5: must be in [0, 1]"),
        ({"cutmix": float("nan")}, "data.cutmix=nan: must be at least 0"),
        ({"repeats": 3}, "data.batch_size=32: must be a multiple of data.repeats=3"),
        ({"mean": (0.5, 0.5)}, "data.mean=(0.5, 0.5): must be three numbers in [0, 1]"),
        ({"mean": (0.5, 0.5, 127.0)}, "data.mean=(0.5, 0.5, 127.0): must be three numbers in [0, 1]"),
        ({"std": (0.5, 0.0, 0.5)}, "data.std=(0.5, 0.0, 0.5): must be three numbers above 0"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0: must be in [0, 1)"),
    ],
)
def test_impossible_values_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        ClassificationData(**({"root": "pictures"} | given))
    assert str(caught.value) == message


def test_every_source_is_described() -> None:
    described = ClassificationData.__doc__ or ""
    assert [source for source in get_args(Source) if f'"{source}"' not in described] == []
