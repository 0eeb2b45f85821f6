"""The tasks: losses, metrics, optimizers, reproducibility, predictions, export and rejected arguments."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

import detection
from coordconv_apps.nn.coords import Coords
from detection.batches import DetectionBatch
from detection.data import DetectionData
from detection.metrics import KeptBoxIoU, TrueBoxIoU
from detection.models.detectors import detect
from detection.models.paper_faster_rcnn import PaperFasterRCNN, ProposalNetwork
from detection.tasks import FasterRCNN, RegionProposals
from tests.helpers.trainers import OWN_TRAINER, own_trainer

Kind = type[FasterRCNN] | type[RegionProposals]
KINDS = (FasterRCNN, RegionProposals)


def make(kind: Kind, **arguments: Any) -> Any:  # noqa: ANN401  # a task of this kind with any arguments
    return kind(**({"num_classes": 10} if kind is FasterRCNN else {}) | arguments)


Dicts = list[dict[str, Tensor]]

pytestmark = OWN_TRAINER


def data(**arguments: Any) -> DetectionData:  # noqa: ANN401  # handed on as they are
    sizes = {"num_train": 8, "num_val": 6, "num_test": 6, "batch_size": 4}
    return DetectionData(source="uci", **{**sizes, **arguments})


def batch_of(*counts: int, size: int = 64) -> DetectionBatch:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(max(counts), 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + 15), dim=1)
    labels = torch.arange(max(counts)) % 10 + 1
    return {
        "images": torch.rand(len(counts), 1, size, size, generator=generator),
        "targets": [{"boxes": boxes[:n], "labels": labels[:n]} for n in counts],
    }


# ------------------------------------------------------------------ methods and losses


def test_methods_train_their_own_losses() -> None:
    batch = batch_of(3, 0)
    faster_rcnn = make(FasterRCNN)
    assert isinstance(faster_rcnn.network, PaperFasterRCNN)
    assert set(faster_rcnn.losses(batch)) == {
        "loss_objectness",
        "loss_rpn_box_reg",
        "loss_classifier",
        "loss_box_reg",
    }
    proposals = RegionProposals()
    assert isinstance(proposals.network, ProposalNetwork)
    assert set(proposals.losses(batch)) == {"box_loss", "score_loss"}


def test_package_has_the_classes_but_loads_lightning_only_for_them() -> None:
    assert (detection.FasterRCNN, detection.RegionProposals) == KINDS
    with pytest.raises(AttributeError, match="no attribute 'YOLO'"):
        detection.YOLO  # noqa: B018  # the access is the test
    script = "import sys, detection; assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
def test_every_parameter_is_trained(kind: Kind, coords: Coords) -> None:
    """Also what DistributedDataParallel asks for."""
    torch.manual_seed(0)
    task = make(kind, coords=coords)
    torch.stack(list(task.losses(batch_of(3, 2)).values())).sum().backward()
    without = [name for name, p in task.named_parameters() if p.grad is None]
    assert without == []


def test_best_checkpoint_is_chosen_by_the_metric_of_the_method() -> None:
    assert (FasterRCNN.monitor, FasterRCNN.monitor_mode) == ("val/map", "max")
    assert (RegionProposals.monitor, RegionProposals.monitor_mode) == ("val/iou_proposals", "max")


# ------------------------------------------------------------------ metrics


def test_logged_values_are_those_of_the_metrics(tmp_path: Path) -> None:
    seed_everything(0)
    task, datamodule = make(FasterRCNN, coords="xy", score_threshold=0.2), data()
    for name, parameter in task.named_parameters():
        if name.endswith("cls_score.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    (logged,) = own_trainer(tmp_path).test(task, datamodule, verbose=False)
    kept, proposed = KeptBoxIoU(), KeptBoxIoU()
    recall, precision = TrueBoxIoU(), MeanAveragePrecision(backend="faster_coco_eval")
    task.eval()
    for batch in datamodule.test_dataloader():
        truth = [target["boxes"] for target in batch["targets"]]
        found, proposals = detect(task.network, batch["images"])
        assert proposals is not None
        sure = [result["boxes"][result["scores"] >= 0.2] for result in found]
        assert any(map(len, sure)), "a test of nothing else"
        kept.update(sure, truth)
        recall.update(sure, truth)
        proposed.update(proposals, truth)
        precision.update(cast("Dicts", found), cast("Dicts", batch["targets"]))
    expected = {"iou": kept.compute(), "recall_iou": recall.compute(), "iou_proposals": proposed.compute()}
    expected |= {name: precision.compute()[name] for name in ("map", "map_50", "map_75")}
    assert logged == pytest.approx({f"test/{name}": float(value) for name, value in expected.items()}, abs=1e-6)


def test_region_proposals_log_their_metrics(tmp_path: Path) -> None:
    (logged,) = own_trainer(tmp_path).validate(RegionProposals(), data(), verbose=False)
    assert set(logged) == {"val/iou_proposals", "val/recall_iou"}
    assert all(0 < value < 1 for value in logged.values())


@pytest.mark.parametrize("kind", KINDS)
def test_canvases_without_a_digit_train_and_evaluate(tmp_path: Path, kind: Kind) -> None:
    run = own_trainer(tmp_path, max_epochs=1)
    run.fit(make(kind, coords="xy"), data(digits=0))
    values = {name: float(value) for name, value in run.callback_metrics.items()}
    assert values["val/recall_iou"] == 0
    assert math.isfinite(values["train/loss"])
    assert values.get("val/map", -1) == -1, "undefined"


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_weights(tmp_path: Path, kind: Kind) -> None:
    states = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        task = make(kind, coords="xy")
        own_trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(task, data())
        states.append(torch.cat([p.detach().flatten() for p in task.network.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    seed_everything(0)
    task, datamodule = make(FasterRCNN, coords="xy", lr=2e-3, schedule="constant"), data(num_train=4)
    datamodule.setup("fit")
    batch = next(iter(datamodule.train_dataloader()))

    def loss() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(torch.stack(list(task.losses(batch).values())).sum())

    before = loss()
    own_trainer(tmp_path, max_epochs=25, limit_val_batches=0).fit(task, datamodule)
    task.train()
    assert loss() < 0.6 * before


@pytest.mark.parametrize(
    ("arguments", "kind", "settings"),
    [
        ({"optimizer": "adam", "lr": 0.002}, torch.optim.Adam, {"lr": 0.002, "betas": (0.9, 0.99)}),
        ({"optimizer": "adamw", "weight_decay": 0.1, "beta2": 0.9}, torch.optim.AdamW, {"weight_decay": 0.1}),
        ({"optimizer": "sgd", "momentum": 0.5}, torch.optim.SGD, {"momentum": 0.5}),
    ],
)
def test_optimizers_get_their_settings(
    tmp_path: Path, arguments: dict[str, Any], kind: type[torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    run = own_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    run.fit(make(FasterRCNN, schedule="constant", **arguments), data(num_train=4))
    (optimizer,) = run.optimizers
    assert type(optimizer) is kind
    assert {key: optimizer.param_groups[0][key] for key in settings} == settings


def test_a_schedule_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"schedule='cosine': needs .* trainer\.max_epochs"):
        own_trainer(tmp_path, max_epochs=-1).fit(make(FasterRCNN), data())


# ------------------------------------------------------------------ torchvision's networks


@pytest.mark.parametrize(
    ("name", "args", "figures"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"min_size": 64}, {"val/iou_proposals"}),
        ("ssdlite320_mobilenet_v3_large", {}, set()),
    ],
)
def test_torchvision_networks_train_and_log_their_metrics(
    tmp_path: Path, name: str, args: dict[str, int], figures: set[str]
) -> None:
    seed_everything(0)
    task = make(FasterRCNN, coords="xy", network=name, network_args=dict(args))
    run = own_trainer(tmp_path, max_epochs=1)
    run.fit(task, data(num_train=2, num_val=1, batch_size=2))
    coco = {"map", "map_50", "map_75", "mar_1", "mar_10", "mar_100"}
    coco |= {f"{kind}_{size}" for kind in ("map", "mar") for size in ("small", "medium", "large")}
    always = {"val/iou", "val/recall_iou", "train/loss", "train/loss_step"} | {f"val/{name}" for name in coco}
    assert set(run.callback_metrics) == always | figures
    assert set(task.epoch_line) <= always | {"val/iou_proposals"}
    with pytest.raises(ValueError, match=f"network='{name}' is not supported"):
        task.export_module()


# ------------------------------------------------------------------ predictions, export


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_for_images_of_any_size(kind: Kind) -> None:
    task = (make(FasterRCNN, score_threshold=0.05) if kind is FasterRCNN else make(kind)).eval()
    images = [torch.rand(1, 40, 90), torch.rand(1, 130, 64)]
    results = task.predict_step({"indices": [0, 1], "paths": ["a", "b"], "images": images}, 0)
    for image, result in zip(images, results, strict=True):
        height, width = image.shape[-2:]
        assert (result["boxes"] >= 0).all()
        assert (result["boxes"] <= torch.tensor([width, height] * 2)).all()
        assert result["scores"].shape == result["labels"].shape == result["boxes"].shape[:1]
        assert (result["labels"] >= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_exported_network_finds_what_the_task_finds(tmp_path: Path, kind: Kind) -> None:
    seed_everything(0)
    task = make(kind, coords="xy")
    run = own_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    run.fit(task, data(crop=72))
    run.save_checkpoint(tmp_path / "a.ckpt")
    interface = kind.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).export_interface()
    assert [*interface.inputs, *interface.outputs] == ["images", "boxes", "scores", "labels"]
    digits = {label: str(label - 1) for label in range(1, 11)}
    assert interface.class_names == ({1: "object"} if kind is RegionProposals else digits)
    (images,) = task.example_inputs()
    assert images.shape == (2, 1, 72, 72), "the size that it was trained on"
    boxes, scores, labels = task.export_module()(images)
    found, _ = task.eval().find(images)
    for image, result in enumerate(found):
        count = len(result["boxes"])
        assert torch.allclose(boxes[image, :count], result["boxes"], atol=1e-3)
        assert torch.allclose(scores[image, :count], result["scores"], atol=1e-5)
        assert torch.equal(labels[image, :count], result["labels"])
        assert not scores[image, count:].any()


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "lr=0.0: must be above 0"),
        ({"score_threshold": 2.0}, r"score_threshold=2.0: must be in \[0, 1\]"),
        ({"num_classes": 0}, "model.num_classes=0: must be an integer of at least 1"),
        ({"max_detections": 0}, "model.max_detections=0: must be an integer of at least 1"),
        ({"lr_milestones": [3.0]}, r"lr_milestones=\[3.0\]"),
        ({"coords": "xy", "coord_layers": "no_such_layer"}, "coord_layers: .*'no_such_layer'"),
    ],
)
def test_impossible_values_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(FasterRCNN, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"class_names": [1, {}]}, "class_names=[1, {}]: must be a list of texts"),
        ({"class_names": "cat"}, "class_names=cat: must be a list of texts"),
        ({"class_names": ("cat",), "category_ids": ["1"]}, "category_ids=['1']: must be a list of integers"),
        ({"class_names": ("cat",), "category_ids": (1, 2)}, "category_ids=(1, 2): must be one for each of 1 classes"),
        ({"image_channels": -1}, "image_channels=-1: must be an integer of at least 0"),
    ],
)
def test_class_names_in_a_checkpoint_are_checked(saved: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"checkpoint.{message}")):
        RegionProposals().on_load_checkpoint(saved)


def test_number_of_classes_must_be_that_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_classes=7: the data have 10 classes"):
        own_trainer(tmp_path).test(FasterRCNN(num_classes=7), data(), verbose=False)


def test_classes_must_be_those_of_the_checkpoint(tmp_path: Path) -> None:
    digits, letters = [str(number) for number in range(10)], list("abcdefghij")
    task, run = make(FasterRCNN), own_trainer(tmp_path)
    run.datamodule = data()  # type: ignore[attr-defined]  # as Lightning sets it
    task.trainer = run
    task.on_load_checkpoint({"class_names": digits})
    message = r"^data: its classes must be those of the checkpoint: label 1 is '0' here and 'a' there$"
    with pytest.raises(ValueError, match=message):
        task.on_load_checkpoint({"class_names": letters})
    run.predicting = True
    task.on_load_checkpoint({"class_names": letters})


def test_evaluation_takes_no_gradients() -> None:
    task = make(FasterRCNN).eval()
    found, _ = task.find(torch.rand(1, 1, 64, 64))
    assert not any(value.requires_grad for value in found[0].values() if isinstance(value, Tensor))


def test_more_objects_than_detections_are_warned_of_and_found_if_asked_for(tmp_path: Path) -> None:
    crowded = {"digits": 150, "min_size": 8, "max_size": 9, "crop": None, "num_train": 4, "num_val": 2}
    with pytest.warns(UserWarning, match=r"^model\.max_detections=20: an image has 150 objects; raise it to 150"):
        own_trainer(tmp_path).validate(make(FasterRCNN), data(**crowded), verbose=False)
    task = make(FasterRCNN, max_detections=150, score_threshold=0.0)
    own_trainer(tmp_path).validate(task, data(**crowded), verbose=False)
    assert len(task.eval().find(torch.rand(1, 1, 120, 120)).detections[0]["boxes"]) > 100
    other = make(FasterRCNN, network="fasterrcnn_mobilenet_v3_large_320_fpn", max_detections=7)
    assert other.network.roi_heads.detections_per_img == 7
    del other.network.roi_heads.detections_per_img  # a network of your own may lack it
    run = own_trainer(tmp_path)
    run.datamodule = data(**crowded)  # type: ignore[attr-defined]  # as Lightning sets it
    other.trainer = run
    with pytest.warns(UserWarning, match=r"^model\.max_detections=100: an image has 150 objects"):
        other.setup("validate")
