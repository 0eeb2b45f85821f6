"""The application from its command line: every shipped config, predictions on own images, two processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, PngImagePlugin
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

import detection
from coordconv_apps.runs.summary import read_summary
from detection.__main__ import main
from detection.batches import ImageBatch, Images
from detection.boxes import Detections, Found
from detection.canvas import CanvasSettings, draw_canvases
from detection.data import DetectionData
from detection.glyph_sources import load_glyphs
from detection.pictures import TRUE_COLOUR
from detection.predictions import DetectionWriter, coco_annotations
from detection.tasks import FasterRCNN
from tests.detection.coco_sets import flags, shapes
from tests.helpers import forked
from tests.helpers.processes import TWO_PROCESSES
from tests.helpers.refusals import refusal
from tests.helpers.runs import last_command
from tests.helpers.trainers import own_trainer

CONFIGS = sorted((Path(__file__).parents[2] / "detection" / "configs").glob("*.yaml"))
OF_CANVASES = [path for path in CONFIGS if path.stem != "coco"]
SMALL = [
    "--data.source=uci",  # nothing to download
    "--data.num_train=8",
    "--data.num_val=4",
    "--data.num_test=4",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
]


def run_folder(runs: Path, name: str, version: int) -> Path:
    return runs / "detection" / name / f"version_{version}"


@pytest.mark.parametrize("config", OF_CANVASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("coords", ["none", "xy"])
def test_config_trains_and_tests(tmp_path: Path, config: Path, coords: str) -> None:
    main(["fit", f"--config={config}", f"--runs_dir={tmp_path}", f"--model.coords={coords}", *SMALL])
    fit = run_folder(tmp_path, config.stem, 0)
    torch.load(fit / "checkpoints" / "best.ckpt", weights_only=True)
    summary: dict[str, Any] = dict(read_summary(fit))
    given = yaml.safe_load(config.read_text())["model"]
    task_class = getattr(detection, given["class_path"].removeprefix("detection."))
    classes = {"num_classes": 2 if config.stem == "position" else 10} if task_class is detection.FasterRCNN else {}
    task = task_class(**{**given["init_args"], **classes, "coords": coords})
    assert summary["parameters"] == task.parameter_count()
    assert summary["coords"] == coords
    assert summary["best"]["metric"] == task.monitor
    main(["test", "--ckpt_path=best", f"--name={config.stem}", f"--runs_dir={tmp_path}"])
    test = fit / "test_0"
    metrics = read_summary(test)["metrics"]
    figures = {"iou_proposals", "recall_iou"}
    if task_class is detection.FasterRCNN:
        figures |= {"iou", "map", "map_50", "map_75"}
    assert set(metrics) == {f"test/{name}" for name in figures}
    for folder in (fit, test):
        with Image.open(folder / "pictures" / "detections.png") as picture:
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
        assert tuple(bytes.fromhex(TRUE_COLOUR[1:])) in colours


# ------------------------------------------------------------------ images in COCO's format

TINY_COCO = [
    "--model.network_args.min_size=64",
    "--model.network_args.max_size=96",
    "--model.network_args.box_batch_size_per_image=8",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
]


def blobs(network: nn.Module, images: Images) -> Found:
    """A detector without learning: the boxes of equal colours, classes by the part of the box that is filled."""
    found = []
    for image in images:
        colours, counts = image.flatten(1).unique(dim=1, return_counts=True)
        boxes, labels, scores = [], [], []
        for colour, count in zip(colours.T, counts.tolist(), strict=True):
            y, x = (image == colour[:, None, None]).all(0).nonzero(as_tuple=True)
            box = [float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1.5]  # not quite right
            filled = count / ((box[2] - box[0]) * (box[3] - box[1]))
            boxes.append(box)
            labels.append(1 + int(filled > 0.88) + 2 * int(filled < 0.6))
            scores.append(count / image[0].numel())
        order = torch.tensor(scores).argsort(descending=True)
        found.append(
            Detections(
                boxes=torch.tensor(boxes)[order], labels=torch.tensor(labels)[order], scores=torch.tensor(scores)[order]
            )
        )
    return Found(found, [detections["boxes"] for detections in found])


def with_gaps(arguments: dict[str, str]) -> dict[int, int]:
    """Give the images and categories of a data set other ids, with gaps; return the new ids of the categories."""
    new = {1: 7, 2: 18, 3: 90}
    for name in ("train", "val", "test"):
        path = Path(arguments[f"{name}_annotations"])
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["id"] = new[category["id"]]
        for image in content["images"]:
            image["id"] *= 100
        for annotation in content["annotations"]:
            annotation["category_id"] = new[annotation["category_id"]]
            annotation["image_id"] *= 100
        path.write_text(json.dumps(content))
    return new


def test_coco_config_trains_tests_and_predicts_what_pycocotools_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shapes(tmp_path / "shapes", train=3, val=2, test=6)
    categories = with_gaps(arguments)
    config = next(path for path in CONFIGS if path.stem == "coco")
    runs = [f"--runs_dir={tmp_path}", "--name=a"]
    main(["fit", f"--config={config}", "--model.coords=xy", *runs, *flags(arguments), *TINY_COCO])
    fit = run_folder(tmp_path, "a", 0)
    assert (fit / "pictures" / "detections.png").is_file()
    monkeypatch.setattr("detection.tasks.faster_rcnn.detect", blobs)
    main(["test", "--ckpt_path=last", *runs])
    metrics = read_summary(fit / "test_0")["metrics"]
    main(["predict", "--ckpt_path=last", "--model.score_threshold=0", *runs])
    results = fit / "predict_0" / "predictions" / "results.json"
    truth = COCO(arguments["test_annotations"])
    evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert [metrics[f"test/{name}"] for name in ("map", "map_50", "map_75")] == pytest.approx(
        evaluation.stats[:3].tolist(), abs=1e-5
    )
    assert 0.1 < metrics["test/map"] < 0.95
    written = json.loads(results.read_text())
    assert {result["category_id"] for result in written} <= {*categories.values()}
    assert {result["image_id"] for result in written} == {100 * number for number in range(1, 7)}
    whole = json.loads((results.parent / "detections.json").read_text())
    assert {c["id"]: c["name"] for c in whole["categories"]} == {7: "circle", 18: "square", 90: "triangle"}

    # Images of one's own need no annotations, which may be gone.
    for name in ("train", "val", "test"):
        Path(arguments[f"{name}_annotations"]).unlink()
    main(["predict", "--ckpt_path=last", f"--data.predict_images={arguments['val_images']}", *runs])
    other = json.loads((fit / "predict_1" / "predictions" / "detections.json").read_text())
    assert [category["id"] for category in other["categories"]] == [7, 18, 90]
    assert len(other["images"]) == 2
    assert_python_predicts(fit / "checkpoints" / "last.ckpt", other)

    told = refusal(capsys, main, ["test", "--ckpt_path=last", "--data.source=uci", *runs])
    assert told.startswith("--data.source=uci: selects DetectionData, but the checkpoint ")
    assert told.endswith("was trained with CocoData, which cannot be replaced")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.canvas_size=64"], "there is no argument --data.canvas_size"),
        (["--data.train_annotations=none.json"], "data.train_annotations='none.json': no such file"),
        (["--model.network=paper", "--model.network_args=null"], "model.network=paper: takes gray canvases"),
        (["--model=RegionProposals"], "RegionProposals takes gray canvases"),
        (["--data.augmentation=lsj"], "data.augmentation"),
        (["--data.source=cocoa"], "--data.source=cocoa: expected 'uci', 'mnist', 'folder', 'idx', 'coco'"),
        (["--data.source=uci"], "choose a config with data.source=uci"),
    ],
)
def test_invalid_arguments_of_coco_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = flags(shapes(tmp_path / "shapes", train=1, val=1, test=1))
    config = next(path for path in CONFIGS if path.stem == "coco")
    given = [f"--config={config}", f"--runs_dir={tmp_path}", "--model.coord_layers=first", *own, *TINY_COCO[3:]]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *given, *arguments])
    assert stopped.value.code == 2
    output = capsys.readouterr().err.strip()
    assert message in output
    assert "\n" not in output.removeprefix("ignored: ").partition("error: ")[2]


# ------------------------------------------------------------------ predict


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a run of Faster R-CNN that has seen a few canvases and keeps all detections."""
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", "--name=a", f"--runs_dir={runs}", "--model.coords=xy", "--model.score_threshold=0", *SMALL])
    return runs


def own_images(folder: Path) -> None:
    """Canvases as users have them: other sizes, colours, ground, formats, orientation; one is broken."""
    canvases = draw_canvases(load_glyphs("uci")["test"], 3, CanvasSettings(), np.random.default_rng(0)).images
    Image.fromarray(canvases[0].numpy()).save(folder / "gray.png")
    Image.fromarray(canvases[1].numpy()).convert("RGB").resize((100, 70)).save(folder / "colour.jpg")
    paper = Image.fromarray(255 - canvases[2].numpy()).convert("RGBA").resize((48, 80))
    paper.save(folder / "paper.png", pnginfo=PngImagePlugin.PngInfo())
    turned = Image.fromarray(canvases[0].numpy()).resize((90, 50))
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by a quarter
    turned.save(folder / "turned.jpg", exif=exif)
    (folder / "broken.png").write_bytes(b"this is no picture")


def test_predict_writes_detections_in_own_images(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_images(tmp_path)
    main(["predict", "--ckpt_path=best", "--name=a", f"--runs_dir={trained}", f"--data.predict_images={tmp_path}"])
    output = capsys.readouterr().out
    assert "1 of 5 images cannot be read: broken.png; left out" in output
    folder = last_command(trained / "detection" / "a")
    folder /= "predictions"
    found = json.loads((folder / "detections.json").read_text())
    assert len(COCO(str(folder / "detections.json")).getImgIds()) == 4
    assert f"{len(found['annotations'])} detections in 4 images" in output
    sizes = {Path(image["file_name"]).name: (image["width"], image["height"]) for image in found["images"]}
    assert sizes == {
        "colour.jpg": (100, 70),
        "gray.png": (64, 64),
        "paper.png": (48, 80),
        "turned.jpg": (50, 90),
    }
    assert [category["name"] for category in found["categories"]] == [str(digit) for digit in range(10)]
    assert [category["id"] for category in found["categories"]] == list(range(1, 11))
    assert found["annotations"], "a test of nothing else"
    images = {image["id"]: image for image in found["images"]}
    for annotation in found["annotations"]:
        x, y, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert x + width <= image["width"] + 0.02
        assert y + height <= image["height"] + 0.02
        assert 1 <= annotation["category_id"] <= 10
        assert 0 < annotation["score"] <= 1
    assert_python_predicts(trained / "detection" / "a" / "version_0" / "checkpoints" / "best.ckpt", found)
    numbers = [annotation["id"] for annotation in found["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == ["0000_colour.png", "0001_gray.png", "0002_paper.png", "0003_turned.png"]
    with Image.open(folder / "0003_turned.png") as picture:
        assert picture.size == (50 * 6, 90 * 6), "enlarged by a whole number, the right way up"


def assert_python_predicts(checkpoint: Path, written: dict[str, Any]) -> None:
    """In Python, a checkpoint finds what the command has written, in files and in opened images."""
    detector = FasterRCNN.load_from_checkpoint(checkpoint, weights_only=True)
    paths = [image["file_name"] for image in written["images"]]
    for images in (paths, [Image.open(path) for path in paths]):
        found = detector.predict(images)
        for image, detections in zip(written["images"], found, strict=True):
            own = coco_annotations(detections, image["id"], detector.category_ids)
            theirs = [a for a in written["annotations"] if a["image_id"] == image["id"]]
            assert [a["category_id"] for a in own] == [a["category_id"] for a in theirs]
            for key in ("score", "bbox"):
                one, other = ([a[key] for a in annotations] for annotations in (own, theirs))
                np.testing.assert_allclose(one, other, atol=0.011)


def test_predict_reads_small_and_16_bit_images(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (3, 40), np.uint8)).save(tmp_path / "a.png")
    deep = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "b.png")
    args = [f"--runs_dir={trained}", f"--data.predict_images={tmp_path}", "--ckpt_path=best", "--name=a"]
    main(["predict", *args])
    folder = last_command(trained / "detection" / "a")
    found = json.loads((folder / "predictions" / "detections.json").read_text())
    assert [(image["width"], image["height"]) for image in found["images"]] == [(40, 3), (40, 30)]
    of_the_small_one = [a["bbox"] for a in found["annotations"] if a["image_id"] == 0]
    assert all(x + width <= 40.02 and y + height <= 3.02 for x, y, width, height in of_the_small_one)
    with Image.open(folder / "predictions" / "0001_b.png") as drawn:
        shades = np.asarray(drawn.convert("L"))
    assert 0.2 < (shades > 127).mean() < 0.8, "half of it is bright"


def test_predict_writes_images_of_any_name(trained: Path, tmp_path: Path) -> None:
    stems = ["a\nb", "n" * 250, "名" * 83]
    for stem in stems:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / f"{stem}.png")
    args = [f"--runs_dir={trained}", f"--data.predict_images={tmp_path}", "--ckpt_path=best", "--name=a"]
    main(["predict", *args])
    folder = last_command(trained / "detection" / "a")
    drawn = sorted(path.stem for path in folder.glob("predictions/*.png"))
    assert drawn == ["0000_a\nb", f"0001_{'n' * 200}", f"0002_{'名' * 66}"]
    images = json.loads((folder / "predictions" / "detections.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [str(tmp_path / f"{stem}.png") for stem in stems]


class Disappearing(Callback):
    """Moves an image away before it is drawn, and stops in the third batch."""

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 1:
            Path(batch["paths"][0]).rename(Path(batch["paths"][0]).with_suffix(".moved"))
        if batch_idx == 2:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated")
@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_an_interruption_loses_no_detections(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / name)
    data = DetectionData(predict_images=str(tmp_path), batch_size=1)
    trainer = own_trainer(tmp_path, callbacks=[Disappearing(), DetectionWriter()])
    with (
        pytest.warns(UserWarning, match=r"b\.png: not a readable image .* any more: left out"),
        pytest.raises(SystemExit),
    ):
        trainer.predict(detection.FasterRCNN(num_classes=10), data)
    found = json.loads((tmp_path / "predictions" / "detections.json").read_text())
    assert [Path(image["file_name"]).name for image in found["images"]] == ["a.png"]


# ------------------------------------------------------------------ mistakes on the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.network=fasterrcnn_resnet5"], "closest: fasterrcnn_resnet50_fpn"),
        (["--trainer.precision=bf16-true"], "--trainer.precision=bf16-true: must be one of 32-true, 16-mixed, bf16-"),
        (["--model.num_classes=3"], "num_classes=3: the data have 10 classes"),
        (["--model.coords=xy", "--model.coord_layers=nowhere"], "coord_layers"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", *SMALL, *arguments])


def test_gradients_are_clipped_in_mixed_precision(tmp_path: Path) -> None:
    main(["fit", f"--runs_dir={tmp_path}", *SMALL, "--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1"])


# ------------------------------------------------------------------ two processes


def test_two_processes_train_and_give_the_metrics_of_one(trained: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    fit = ["fit", "--name=two", f"--runs_dir={tmp_path}", "--model.coords=xy", *SMALL, *TWO_PROCESSES]
    forked.run("detection", *fit, log=log, processes=2)
    assert dict(read_summary(run_folder(tmp_path, "two", 0)))["world_size"] == 2
    checkpoint = run_folder(trained, "a", 0) / "checkpoints" / "best.ckpt"
    # An odd number of canvases: no process may see one twice.
    test = ["test", f"--ckpt_path={checkpoint}", f"--runs_dir={tmp_path}", "--name=a", "--data.num_test=7"]
    test.append("--data.batch_size=2")
    main(test)
    of_one = dict(read_summary(last_command(tmp_path / "detection" / "a")))["metrics"]
    forked.run("detection", *test, *TWO_PROCESSES, log=log, processes=2)
    of_two = dict(read_summary(last_command(tmp_path / "detection" / "a")))["metrics"]
    assert of_one
    assert of_two == pytest.approx(of_one, abs=1e-6)
