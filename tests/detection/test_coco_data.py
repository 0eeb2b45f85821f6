"""The data module of one's own images: batches, augmentation, missing files, order by aspect ratio."""

import itertools
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coordconv_apps.data.image_files import ImageFileError
from coordconv_apps.data.loaders import TrainBatches
from detection.augmentation import Augmentation
from detection.batches import DetectionBatch
from detection.coco_data import CocoData
from detection.datasets import aspect_ratio_groups
from detection.pictures import DetectionPictures
from detection.shapes import COUNTS, FOLDER, SIZES, main
from detection.tasks import RegionProposals
from tests.detection.coco_sets import content, shapes, write


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return shapes(tmp_path_factory.mktemp("shapes"), train=24)


def make(files: dict[str, str], **changes: Any) -> CocoData:  # noqa: ANN401  # any argument of the data module
    return CocoData(**{**files, **changes})


def batches(data: CocoData) -> list[DetectionBatch]:
    data.setup("fit")
    return list(data.train_dataloader())


def test_evaluation_sees_images_and_boxes_as_they_are(files: dict[str, str]) -> None:
    data = make(files, batch_size=3)
    data.setup("validate")
    found = list(data.val_dataloader())
    images = [image for batch in found for image in batch["images"]]
    targets = [target for batch in found for target in batch["targets"]]
    assert len(images) == 4
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        with Image.open(Path(files["val_images"]) / f"{number + 1:04d}.png") as opened:
            expected = torch.from_numpy(np.array(opened)).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, expected)
        for (x1, y1, x2, y2), label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
            inside = image[:, y1:y2, x1:x2]
            ground = image.flatten(1).mode().values[:, None, None]
            inked = (inside != ground).any(0).float().mean()
            assert {1: 0.7, 2: 0.99, 3: 0.4}[label] < inked <= {1: 0.9, 2: 1, 3: 0.65}[label], "shape and box agree"
    assert data.class_names == ("circle", "square", "triangle")


@pytest.mark.parametrize("augmentation", ["none", "hflip", "multiscale", "ssd", "ssdlite"])
def test_augmentation_moves_boxes_with_their_images(files: dict[str, str], augmentation: Augmentation) -> None:
    changed = 0
    for batch in batches(make(files, augmentation=augmentation)):
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            assert type(image) is torch.Tensor
            assert type(target["boxes"]) is torch.Tensor
            assert image.dtype == torch.float32
            assert 0 <= image.min() <= image.max() <= 1
            height, width = image.shape[-2:]
            changed += (width, height) not in SIZES
            boxes = target["boxes"]
            assert len(boxes) == len(target["labels"])
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes >= 0).all()
            assert (boxes <= boxes.new_tensor([width, height] * 2)).all()
            if augmentation in ("none", "hflip"):
                inked = (image != image.flatten(1).mode().values[:, None, None]).any(0)
                for x1, y1, x2, y2 in boxes.int().tolist():
                    assert inked[y1:y2, x1:x2].float().mean() > 0.4
    assert (changed > 0) == (augmentation not in ("none", "hflip"))


def test_training_draws_the_same_samples_for_a_seed(files: dict[str, str]) -> None:
    def flat(**changes: Any) -> torch.Tensor:  # noqa: ANN401  # any argument of the data module
        data = make(files, **{"augmentation": "ssdlite", **changes})
        data.setup("fit")
        return torch.stack([image.mean() for image in next(iter(data.train_dataloader()))["images"]])

    assert torch.equal(flat(), flat())
    assert not torch.equal(flat(), flat(seed=1))


def test_batches_have_similar_aspect_ratios(files: dict[str, str]) -> None:
    grouped, mixed = (
        [len({tuple(image.shape) for image in batch["images"]}) for batch in batches(make(files, **arguments))]
        for arguments in ({"batch_size": 4}, {"batch_size": 4, "aspect_ratio_group_factor": 0})
    )
    assert len(grouped) == len(mixed) == 6
    assert grouped[:4] == [1] * 4, "all but the images that are left over"
    assert max(mixed[:4]) > 1


@pytest.mark.parametrize("world_size", [1, 2])
def test_grouped_batches_have_every_sample_once(world_size: int) -> None:
    groups = torch.arange(50) % 3
    ranks = [list(TrainBatches(50, 4, 7, rank, world_size, groups=groups)) for rank in range(world_size)]
    assert sorted(itertools.chain(*itertools.chain(*ranks))) == list(range(50))
    whole = [[*itertools.chain(*step)] for step in zip(*ranks, strict=True)]
    pure = [len({int(groups[i]) for i in step}) == 1 for step in whole]
    assert pure[: 50 // (4 * world_size) - 2] == [True] * (50 // (4 * world_size) - 2)
    assert whole != sorted(whole)


def test_groups_of_aspect_ratios_are_those_of_torchvision() -> None:
    ratios = torch.tensor([0.3, 0.55, 0.75, 0.99, 1.0, 1.2, 1.5, 1.9, 2.5])
    sizes = torch.stack([torch.full((9,), 1000), (1000 * ratios).round().long()], dim=1)
    # 2 ** (-1, -2/3, -1/3, 0, 1/3, 2/3, 1) = 0.5, 0.63, 0.79, 1, 1.26, 1.59, 2
    assert aspect_ratio_groups(sizes, 3).tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 7]


# ------------------------------------------------------------------ images that do not fit


def own(folder: Path, value: dict[str, Any], **changes: Any) -> CocoData:  # noqa: ANN401  # any argument
    path = str(write(folder / "a.json", value))
    return CocoData(**{"train_annotations": path, "val_annotations": path, "augmentation": "none", **changes})


def save(folder: Path, name: str, size: tuple[int, int], turned: int = 1) -> None:
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif[0x0112] = turned
    image.save(folder / name, exif=exif)


def save_damaged(path: Path, size: tuple[int, int]) -> None:
    """Save the first half of an image file, with its header."""
    Image.effect_noise(size, 50).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_unusable_images_are_named_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "a.png", (20, 50))
    data = own(tmp_path, content())
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be used: b\.png \(no such file\); data\.on_bad"):
        data.setup("fit")
    for width, height in ((41, 30), (30, 40)):
        save(tmp_path, "b.png", (width, height))
        with pytest.raises(ValueError, match=rf"b\.png \({width} x {height} pixels, not 40 x 30\)"):
            data.setup("validate")
    (tmp_path / "b.png").write_bytes(b"no image")
    data = own(tmp_path, content(), on_bad_image="skip")
    data.setup("fit")
    assert "1 of 2 images cannot be used: b.png (cannot identify" in capsys.readouterr().out
    assert data.images("train").annotations.image_ids.tolist() == [4]
    assert [len(batch["images"]) for batch in data.train_dataloader()] == [1]
    assert data.skipped_images() == {str(tmp_path / "b.png")}, "once, though both splits have it"
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="2 of 2 images cannot be used"):
        own(tmp_path, content(), on_bad_image="skip").setup("test")


def test_images_damaged_behind_their_header_are_skipped(tmp_path: Path) -> None:
    save(tmp_path, "a.png", (20, 50))
    save_damaged(tmp_path / "b.png", (40, 30))
    data = own(tmp_path, content(), on_bad_image="skip")
    data.setup("fit")
    with pytest.warns(UserWarning, match=r"b\.png: not a readable image .*: left out"):
        evaluated = list(data.val_dataloader())
    assert [len(batch["images"]) for batch in evaluated] == [1]
    with pytest.warns(UserWarning, match=r"b\.png: not a readable image .*: replaced by the next one"):
        trained = [image.shape for batch in data.train_dataloader() for image in batch["images"]]
    assert trained == [(3, 50, 20)] * 2, "the next image takes its place"
    assert data.skipped_images() == {str(tmp_path / "b.png")}


def test_without_a_readable_test_image_there_is_no_picture(tmp_path: Path) -> None:
    save_damaged(tmp_path / "b.png", (40, 30))
    data = own(tmp_path, content(images=content()["images"][:1], annotations=[]), on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"b\.png: not a readable image .*: left out"):
        assert DetectionPictures().draw(RegionProposals(), data) == {}


def test_sizes_are_checked_while_reading_where_there_are_too_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detection.coco_data.MAX_CHECKED", 1)
    save(tmp_path, "a.png", (20, 50))
    save(tmp_path, "b.png", (41, 30))
    data = own(tmp_path, content(), on_bad_image="skip")
    data.setup("validate")
    with pytest.warns(UserWarning, match=r"b\.png: has 41 x 30 pixels, but 40 x 30 in its annotation file: left out"):
        assert [len(batch["images"]) for batch in data.val_dataloader()] == [1]
    data = own(tmp_path, content())
    data.setup("validate")
    with pytest.raises(ImageFileError, match=r"b\.png: has 41 x 30 pixels.*; data\.on_bad_image=skip continues"):
        list(data.val_dataloader())


def test_the_test_images_may_share_the_annotations_of_the_validation_images(tmp_path: Path) -> None:
    value = content(images=content()["images"][1:], annotations=[])
    for name in ("val", "test"):
        (tmp_path / name).mkdir()
        Image.new("L", (20, 50), 255 if name == "test" else 0).save(tmp_path / name / "a.png")
    path, folders = str(write(tmp_path / "a.json", value)), {"val_images": "val", "test_images": "test"}
    folders = {name: str(tmp_path / folder) for name, folder in folders.items()}
    data = make({"val_annotations": path, "test_annotations": path, **folders})
    assert data.examples(1)["images"][0].unique().tolist() == [1.0]


@pytest.mark.parametrize(("name", "turned"), [("b.png", 1), ("b.jpg", 6)])
def test_annotations_fit_images_as_stored_or_as_shown(tmp_path: Path, name: str, turned: int) -> None:
    save(tmp_path, "a.png", (20, 50))
    save(tmp_path, name, (40, 30) if turned == 1 else (30, 40), turned)
    value = content()
    value["images"][0]["file_name"] = name
    data = own(tmp_path, value)
    data.setup("validate")
    shapes_of = [tuple(image.shape) for batch in data.val_dataloader() for image in batch["images"]]
    assert shapes_of == [(3, 50, 20), (3, 30, 40)]


@pytest.mark.parametrize("name", ["{folder}.png", "../b.png", "sub/../../b.png", "/", "..", "../{name}-2/b.png"])
def test_file_names_that_leave_the_folder_of_the_images_are_refused(tmp_path: Path, name: str) -> None:
    value = content()
    value["images"][0]["file_name"] = name.format(folder=tmp_path, name=tmp_path.name)
    with pytest.raises(ValueError, match=r"folder .*, which must contain all images; ") as error:
        own(tmp_path, value).setup("validate")
    assert str(error.value).startswith(f"data.val_annotations='{tmp_path}/a.json': 1 file names leave the folder data")
    assert str(error.value).endswith(f"file names: {value['images'][0]['file_name']}")


@pytest.mark.parametrize("name", ["sub/b.png", "sub/../sub/b.png", "../images/sub/b.png", "{folder}/sub/b.png"])
def test_file_names_may_be_any_paths_within_the_folder_of_the_images(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    save(folder, "a.png", (20, 50))
    save(folder, "sub/b.png", (40, 30))
    value = content()
    value["images"][0]["file_name"] = name.format(folder=folder)
    monkeypatch.chdir(tmp_path)
    for given in (str(folder), "images", "images/"):
        data = own(tmp_path, value, val_images=given)
        data.setup("validate")
        assert [len(batch["images"]) for batch in data.val_dataloader()] == [2]


def test_missing_and_contradictory_arguments_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.train_annotations=null: must be an annotation file in COCO's format"):
        CocoData().setup("fit")
    with pytest.raises(ValueError, match=r"^data\.test_images=x: must be null without data\.test_annotations$"):
        CocoData(test_images="x")
    with pytest.raises(ValueError, match=r"^data\.augmentation=lsj: must be none, "):
        CocoData(augmentation="lsj")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(FileNotFoundError, match=r"^data\.val_images='.*none': no such folder$"):
        make(files, val_images=str(tmp_path / "none")).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"^data\.test_annotations='none': no such file$"):
        make(files, test_annotations="none").setup("fit")
    data = make({k: v for k, v in files.items() if not k.startswith("test")})
    data.setup("test")
    assert len(data.images("test")) == 4, "the validation images if there are no others"


def test_the_drawn_shapes_are_followed_by_a_command_that_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--train=1", "--val=1", "--test=1"]
    main([FOLDER, *few])
    assert capsys.readouterr().out.endswith("\nnext: python -m detection fit --config coco\n")
    main(["my own", *few])
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    given = dict(word.removeprefix("--data.").split("=") for word in words[7:])
    assert sorted(given) == sorted(f"{split}_{what}" for split in COUNTS for what in ("annotations", "images"))
    assert all(Path(path).exists() for path in given.values())
