"""The data module: batches, seeds, and the user's own glyphs and images."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coordconv_apps.data.splits import SPLITS, Split
from detection.batches import DetectionBatch, ImageBatch
from detection.data import DetectionData
from tests.helpers.images import damage


def small(**changes: Any) -> DetectionData:  # noqa: ANN401  # any argument of the data module
    return DetectionData(**({"num_train": 50, "num_val": 7, "num_test": 9, "batch_size": 8} | changes))


def batches(data: DetectionData, split: Split, stage: str = "fit") -> list[DetectionBatch]:
    data.setup(stage)
    loader = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]
    return list(loader())


def pixels(batch: DetectionBatch) -> Tensor:
    images = batch["images"]
    assert isinstance(images, Tensor)
    return images


def test_batches_have_valid_images_boxes_and_labels() -> None:
    data = small(num_train=400)
    train = batches(data, "train")
    assert [len(batch["images"]) for batch in train] == [8] * 50
    sizes = set()
    for batch in train:
        images = pixels(batch)
        assert images.shape == (8, 1, 64, 64)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1
        assert len(batch["targets"]) == 8
        for target in batch["targets"]:
            boxes, labels = target["boxes"], target["labels"]
            sizes.add(len(boxes))
            assert boxes.shape == (len(labels), 4)
            assert boxes.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert ((labels >= 1) & (labels <= 10)).all()
    assert sizes == {0, 1, 2, 3, 4, 5}  # canvases without a digit among them
    assert max(float(pixels(batch).max()) for batch in train) == 1.0


def test_training_sees_every_canvas_with_its_own_boxes() -> None:
    data = small()
    canvases = data.canvases("train")
    assert canvases.images.dtype == torch.uint8  # a quarter of the memory
    numbers = {canvases.images[i].numpy().tobytes(): i for i in range(50)}
    seen = []
    for batch in batches(data, "train"):
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            number = numbers[(image[0] * 255).round().byte().numpy().tobytes()]
            boxes, labels = canvases.objects(number)
            assert torch.equal(target["boxes"], boxes)
            assert torch.equal(target["labels"], labels)
            seen.append(number)
    assert sorted(seen) == list(range(50))
    assert seen != sorted(seen)


def test_evaluation_is_in_order() -> None:
    data = small()
    stages: dict[Split, str] = {"val": "validate", "test": "test"}
    for split, stage in stages.items():
        images = torch.cat([pixels(batch) for batch in batches(data, split, stage)])
        assert torch.equal((images[:, 0] * 255).round().byte(), data.canvases(split).images)


def test_same_seed_gives_the_same_canvases_and_splits_differ() -> None:
    one, same, other = small(seed=1), small(seed=1), small(seed=2)
    for split in SPLITS:
        assert torch.equal(one.canvases(split).images, same.canvases(split).images)
        assert torch.equal(one.canvases(split).boxes, same.canvases(split).boxes)
        assert not torch.equal(one.canvases(split).images, other.canvases(split).images)
    # Splits are drawn apart from one another: equal glyphs at equal places would be a leak.
    places = {tuple(box) for split in SPLITS for box in one.canvases(split).boxes.tolist()}
    assert len(places) == sum(len(one.canvases(split).boxes) for split in SPLITS)


def test_canvases_do_not_depend_on_the_order_of_calls() -> None:
    one, other = small(), small()
    one.setup("fit")
    one.setup("test")
    other.setup("test")
    other.setup("validate")
    for split in ("val", "test"):
        assert torch.equal(one.canvases(split).images, other.canvases(split).images)


def test_settings_reach_the_canvases() -> None:
    data = small(canvas_size=50, crop=None, digits=2, min_size=9, max_size=9, whole_pixels=True)
    canvases = data.canvases("val")
    assert canvases.images.shape == (7, 50, 50)
    assert torch.equal(canvases.boxes[:, 2:] - canvases.boxes[:, :2], torch.full((14, 2), 9.0))
    assert len(small(min_visible=15).canvases("train").boxes) < len(small().canvases("train").boxes)


def test_worker_processes_make_the_same_batches() -> None:
    for own, workers in zip(batches(small(), "train"), batches(small(num_workers=1), "train"), strict=True):
        assert torch.equal(pixels(own), pixels(workers))
        for one, other in zip(own["targets"], workers["targets"], strict=True):
            assert torch.equal(one["boxes"], other["boxes"])
            assert torch.equal(one["labels"], other["labels"])


def test_examples_are_the_first_test_images() -> None:
    data = small()
    data.setup("fit")
    batch = data.examples(4)
    test = batches(data, "test", "test")[0]
    assert torch.equal(pixels(batch), pixels(test)[:4])
    assert len(batch["targets"]) == 4
    assert len(data.examples(100)["images"]) == 9


def test_own_glyphs_give_class_names_and_tight_boxes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, number in itertools.product("xyz", range(8)):
        (tmp_path / name).mkdir(exist_ok=True)
        picture = np.full((40, 30, 3), 250, np.uint8)
        picture[10:30, 5:25] = rng.integers(0, 100, (20, 20, 3))
        Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    data = small(source="folder", glyphs=str(tmp_path), digits=1, crop=None)
    assert data.class_names == ("x", "y", "z")
    canvases = data.canvases("train")
    assert set(canvases.labels.tolist()) == {1, 2, 3}
    for image, box in zip(canvases.images, canvases.boxes, strict=True):
        y, x = image.nonzero(as_tuple=True)
        ink = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (ink - box).abs().max() <= 0.5001


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_train": 0}, "data.num_train=0: must be an integer of at least 1"),
        ({"canvas_size": 20, "crop": 20}, "data.max_size=25: must be in 1 to canvas_size=20"),
        ({"source": "folder"}, "glyphs=null: must be a folder"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_read(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        small(**given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


class TestPredict:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        for number, (h, w) in enumerate([(30, 40), (64, 64), (50, 20)]):
            picture = np.zeros((h, w), np.uint8)
            picture[5:-5, 5:-5] = rng.integers(0, 256, (h - 10, w - 10))
            name = "sub/2.png" if number == 2 else f"{number}.png"
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(255 - picture if number == 0 else picture).save(tmp_path / name)
        (tmp_path / "1-broken.png").write_bytes(b"no picture at all")
        (tmp_path / "readme.txt").write_text("not looked at")
        return tmp_path

    def load(self, place: Path, **changes: Any) -> list[ImageBatch]:  # noqa: ANN401  # any argument of the data module
        data = small(predict_images=str(place), **changes)
        data.setup("predict")
        return list(data.predict_dataloader())

    def test_unreadable_images_are_named_and_left_out(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = self.load(folder, batch_size=2)
        where = f"data.predict_images={str(folder)!r}"
        assert capsys.readouterr().out.splitlines() == [
            f"{where}: 1 of 5 files are not images that Pillow reads: readme.txt; left out",
            f"{where}: 1 of 4 images cannot be read: 1-broken.png; left out",
        ]
        assert first["indices"] + second["indices"] == [0, 1, 2]
        assert first["paths"] + second["paths"] == [str(folder / name) for name in ("0.png", "1.png", "sub/2.png")]
        images = first["images"] + second["images"]
        assert [image.shape for image in images] == [(1, 30, 40), (1, 64, 64), (1, 50, 20)]
        for image in images:
            assert image.dtype == torch.float32
            assert image.max() > 0.9
            assert not image[:, :5].any()  # a black ground, also where it was white

    def test_a_damaged_image_is_left_out_when_it_is_read(self, folder: Path) -> None:
        damage(folder / "0.png")
        data = small(predict_images=str(folder), batch_size=1)
        data.setup("predict")
        with pytest.warns(UserWarning, match=r"0\.png: not a readable image \(.+\): left out$"):
            batches = list(data.predict_dataloader())
        assert [batch["indices"] for batch in batches] == [[], [1], [2]]
        assert data.skipped_images() == {str(folder / "0.png"), str(folder / "1-broken.png")}

    def test_single_image_is_inverted_where_ink_is_dark(self, folder: Path) -> None:
        (bright,) = self.load(folder / "1.png")
        (dark,) = self.load(folder / "1.png", ink="dark")
        torch.testing.assert_close(bright["images"][0], 1 - dark["images"][0])

    def test_missing_empty_and_unreadable_folders_are_refused(self, folder: Path) -> None:
        data = small()
        with pytest.raises(ValueError, match=r"^data.predict_images=null: predict needs an image, or a folder"):
            data.setup("predict")
        with pytest.raises(FileNotFoundError, match=r"nowhere': no such file or folder$"):
            self.load(folder / "nowhere")
        (folder / "empty").mkdir()
        with pytest.raises(ValueError, match=r"no images there in a format that Pillow reads$"):
            self.load(folder / "empty")
        with pytest.raises(ValueError, match=r": none of 1 images can be read, the first: 1-broken\.png \(cannot"):
            self.load(folder / "1-broken.png")
