"""Annotation files in COCO's format: sound ones, and each fault that they may have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.coco_files import check_same_categories, read_coco
from tests.detection.coco_sets import content, write


def test_valid_file_gives_categories_boxes_and_labels(tmp_path: Path) -> None:
    read = read_coco(write(tmp_path / "a.json", content()), "data.train_annotations")
    assert read.categories == {3: "dog", 70: "cat"}
    assert read.image_ids.tolist() == [4, 9], "in the order of the ids"
    assert [read.file_name(i) for i in range(2)] == ["a.png", "b.png"]
    assert read.sizes.tolist() == [[50, 20], [30, 40]]
    first, second = read.objects(0), read.objects(1)
    assert first["boxes"].tolist() == [[0, 0, 20, 50]]
    assert first["labels"].tolist() == [1]
    assert first["iscrowd"].tolist() == [1]
    assert first["area"].tolist() == [1000], "that of the box if it is not known"
    assert second["boxes"].tolist() == [[1, 2, 11, 22], [5.5, 6, 12.5, 14]]
    assert second["labels"].tolist() == [2, 1], "ids with gaps become labels without"
    assert second["area"].tolist() == [120, 56]
    assert read.most_objects == 2
    assert len(read.notes) == 1
    assert read.notes[0].endswith("1 boxes of crowds, which are not trained on")
    chosen = read.select([1])
    assert chosen.image_ids.tolist() == [9]
    assert torch.equal(chosen.objects(0)["boxes"], second["boxes"])


def changed(list_name: str, number: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any value
    """The sound file with other values of some fields of a record; None removes a field."""
    records = content()[list_name]
    records[number] = {k: v for k, v in (records[number] | fields).items() if v is not None}
    return content(**{list_name: records})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be COCO's format, a mapping with lists images, categories and annotations"),
        ({"images": [], "annotations": []}, "must be COCO's format"),
        (content(images=[], annotations=[]), "must have images and categories; has 0 and 2"),
        (changed("images", 1, id=9), "1 ids of images occur more than once; ids: 9"),
        (changed("images", 1, file_name="b.png"), "1 file names occur more than once; file names: b.png"),
        (changed("images", 0, width=None), "images[0].width: must be an integer of at most 64 bits, is missing"),
        (changed("images", 1, id=2**63), "images[1].id: must be an integer of at most 64 bits, is 9223372036854775808"),
        (changed("images", 0, height=0), "images[0]: has 40 x 0 pixels, width and height must be at least 1"),
        (changed("categories", 1, id=70), "1 ids of categories occur more than once; ids: 70"),
        (changed("annotations", 1, id=1), "1 ids of annotations occur more than once; ids: 1"),
        (changed("annotations", 1, image_id=8), "1 image ids of annotations are not among those of images; ids: 8"),
        (
            content(annotations=[annotation | {"image_id": 8} for annotation in content()["annotations"]]),
            "1 image ids of annotations are not among those of images; ids: 8",
        ),
        (
            changed("annotations", 1, category_id=4),
            "1 category ids of annotations are not among those of categories; ids: 4",
        ),
        (changed("annotations", 2, bbox=None), "annotations[2].bbox: must be a list of four numbers, is missing"),
        (changed("annotations", 2, bbox=[1, 2, 3]), "annotations[2].bbox=[1, 2, 3]: must be four finite numbers"),
        (changed("annotations", 2, bbox=[1, 2, 3, float("nan")]), "must be four finite numbers"),
        (changed("annotations", 2, image_id="9"), "image_id: must be an integer of at most 64 bits, is '9'"),
        (changed("annotations", 2, bbox=[1, 2, 3, 10**400]), "must be four finite numbers"),
    ],
)
def test_faults_are_refused_in_one_line(tmp_path: Path, value: object, message: str) -> None:
    path = write(tmp_path / "a.json", value)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_coco(path, "data.val_annotations")
    assert str(error.value).startswith(f"data.val_annotations={str(path)!r}: ")
    assert "\n" not in str(error.value)


def test_invalid_json_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"must be a JSON file \(Expecting"):
        read_coco(tmp_path / "a.json", "data.val_annotations")
    with pytest.raises(FileNotFoundError, match=r"^data\.val_annotations='.*none\.json': no such file$"):
        read_coco(tmp_path / "none.json", "data.val_annotations")


def test_useless_boxes_are_left_out_and_counted(tmp_path: Path) -> None:
    boxes: dict[int, list[float]] = {
        11: [1, 1, 0, 5],
        12: [1, 1, 5, -2],
        13: [60, 1, 5, 5],
        14: [-9, 1, 9, 5],
        15: [-4, 1, 9, 5],
    }
    boxes |= {16: [35.5, 1, 5, 5], 17: [1, 1, 2, 2]}
    annotations = [{"id": i, "image_id": 9, "category_id": 3, "bbox": box} for i, box in boxes.items()]
    path = write(tmp_path / "a.json", content(annotations=annotations))
    read = read_coco(path, "data.train_annotations")
    assert read.objects(1)["boxes"].tolist() == [[-4, 1, 5, 6], [35.5, 1, 40.5, 6], [1, 1, 3, 3]]
    assert [note.partition(".json': ")[2] for note in read.notes] == [
        "2 of 7 boxes without area; left out; annotations 11, 12",
        "2 of 7 boxes outside of their images; left out; annotations 13, 14",
        "1 of 7 boxes reach beyond their images; cut for training, whole in the metrics; annotations 15",
        "1 of 2 images have no boxes; used as images without objects",
    ]


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", content())
    assert read_coco(path, "x") is read_coco(path, "x")
    path.write_text(json.dumps(content(annotations=[])) + "  ")
    assert len(read_coco(path, "x").boxes) == 0


def test_splits_have_the_same_categories(tmp_path: Path) -> None:
    one = read_coco(write(tmp_path / "a.json", content()), "x")
    value = content()
    value["categories"][0]["name"] = "fox"
    other = read_coco(write(tmp_path / "b.json", value), "x")
    with pytest.raises(ValueError, match=r"^data\.val_annotations: .* they differ in 70 cat, 70 fox$"):
        check_same_categories(one, other, "data.val_annotations")
