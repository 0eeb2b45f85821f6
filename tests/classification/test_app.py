"""The application from its command line: shipped configs, resuming, two processes, export, checkpoints, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.models import get_model

from classification.__main__ import main
from classification.pictures import ClassificationPictures
from classification.tasks import CLASS_NAMES_KEY, Classifier
from classification.transforms import EvalTransform
from coordconv_apps.data.image_decoding import read_image
from coordconv_apps.runs.summary import read_summary
from tests.classification.images import CLASSES
from tests.classification.tiny import ARGUMENTS, NETWORK, SIZE, data, save_noise, save_parts, trainer, weights_file
from tests.helpers import forked
from tests.helpers.images import damage
from tests.helpers.processes import TWO_PROCESSES, free_port
from tests.helpers.refusals import refusal
from tests.helpers.runs import assert_same, assert_same_runs, interrupted_at, last_command, load, metrics_of

ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((ROOT / "classification" / "configs").glob("*.yaml"))}
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
SIZES = [f"--data.image_size={SIZE}", "--data.crop=padded", "--data.batch_size=8", "--data.eval_batch_size=5"]
TINY = [*ARGUMENTS, *SIZES, "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"]
FIGURES = {"accuracy", "class_accuracy", "calibration_error", "loss"}
NARROW = {"network": "resnet50", "network_args": {"width_per_group": 4}}
"""A ResNet-50 whose 3x3 convolutions have few channels: its structure in a fraction of the time."""

SHRUNK: dict[str, list[str]] = {
    # As it is, but for a shorter training: the second arm is to learn something.
    "quickstart": ["--trainer.max_epochs=2"],
    "resnet18_small": ["--data.image_size=8", "--data.padding=1"],
    # In bfloat16, torch's CPU gradient of a 3x3 convolution of maps of 1 x 1 pixel reads memory that nobody wrote.
    "resnet50_imagefolder": ["--data.image_size=64", "--data.eval_size=80"],
    "finetune_resnet50": ["--data.image_size=24"],
}


def run_folder(runs: Path, name: str, version: int) -> Path:
    return runs / "classification" / name / f"version_{version}"


def newest(runs: Path, name: str = "default") -> Path:
    return last_command(runs / "classification" / name)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than all the rest."""
    monkeypatch.setattr(ClassificationPictures, "draw", lambda *unused: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_parts(tmp_path_factory.mktemp("pictures"))


# ------------------------------------------------------------------ shipped configs


@pytest.mark.parametrize("coords", ["none", "xyr"])
@pytest.mark.parametrize("name", CONFIGS)
def test_config_trains_and_tests(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, coords: str
) -> None:
    changes: dict[str, Any] = {"coords": coords, "num_classes": 3}
    arguments = [f"--config={CONFIGS[name]}", f"--runs_dir={tmp_path}", f"--model.coords={coords}"]
    digits = yaml.safe_load(CONFIGS[name].read_text())["data"]["source"] == "digits"
    if digits:
        changes["num_classes"] = 10
        arguments += [f"--trainer.limit_train_batches={1 if coords == 'none' else 16}", "--data.val_fraction=0.05"]
    else:
        changes |= NARROW
        arguments += ["--model.network=resnet50", "--model.network_args={width_per_group: 4}"]
        arguments += [
            "--data.source=folder",
            f"--data.root={folder}",
            "--data.batch_size=8",
            "--data.num_workers=0",
            "--trainer.max_epochs=1",
        ]
    if name == "finetune_resnet50":
        trained = get_model("resnet50", width_per_group=4, num_classes=7)
        torch.save(trained.state_dict(), tmp_path / "trained.pth")
        arguments += [f"--model.weights={tmp_path}/trained.pth"]
        changes["weights"] = None
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationPictures, "draw", lambda *unused: {})
        main(["fit", *arguments, *SHRUNK.get(name, ["--data.image_size=24"]), *CPU])
    fit = run_folder(tmp_path, name, 0)
    names = torch.load(fit / "checkpoints" / "best.ckpt", weights_only=True)[CLASS_NAMES_KEY]
    assert names == ([str(digit) for digit in range(10)] if digits else list(CLASSES))
    summary = read_summary(fit)
    given: dict[str, Any] = yaml.safe_load(CONFIGS[name].read_text())["model"]["init_args"]
    assert summary["parameters"] == Classifier(**(given | changes)).parameter_count()
    assert summary["coords"] == coords
    assert summary["best"]["metric"] == "val/accuracy"
    figures = FIGURES | ({"accuracy_top5"} if digits else set())
    assert set(summary["metrics"]) == {"train/loss", *(f"val/{figure}" for figure in figures)}
    # After a few steps, the statistics that an untrained network is evaluated with may be far off.
    assert np.isfinite(summary["metrics"]["train/loss"])
    assert 0 <= summary["metrics"]["val/accuracy"] <= 1
    batch_size = 64 if digits else 8
    assert summary["run_facts"]["global_batch_size"] == batch_size
    assert summary["run_facts"]["peak_lr"] == pytest.approx(given["lr"] * batch_size / 256)
    if coords == "none":
        return  # a test differs in nothing but the network
    if name == "finetune_resnet50":
        (tmp_path / "trained.pth").unlink()  # a checkpoint does without
    main(["test", "--ckpt_path=best", f"--name={name}", f"--runs_dir={tmp_path}", *CPU])
    tested = newest(tmp_path, name)
    assert set(metrics_of(tested)) == {f"test/{figure}" for figure in figures}
    pictures = {path.name for path in (tested / "pictures").iterdir()}
    assert pictures == {"confusion.png", "classes.png", "worst.png"}
    for picture in pictures:
        with Image.open(tested / "pictures" / picture) as image:
            image.load()
    if name == "quickstart":
        assert metrics_of(tested)["test/accuracy"] > 0.3, "ten classes"


# ------------------------------------------------------------------ weights to start from


@pytest.mark.usefixtures("no_pictures")
def test_a_checkpoint_is_used_without_the_file_of_its_initial_weights(tmp_path: Path, folder: Path) -> None:
    weights = weights_file(tmp_path / "weights.pth", num_classes=5)
    arguments = [f"--runs_dir={tmp_path}", f"--data.root={folder}", f"--model.weights={weights}", *TINY, *CPU]
    main(["fit", *arguments, "--model.coords=xyr", "--model.lr=0.001"])
    weights.unlink()
    first = run_folder(tmp_path, "default", 0)
    steps = load(first)["global_step"]
    main(["fit", "--ckpt_path=last", f"--runs_dir={tmp_path}", "--trainer.max_epochs=2"])
    assert load(first)["global_step"] == 2 * steps
    recorded = yaml.safe_load((first / "config.yaml").read_text())["model"]["init_args"]
    assert recorded["weights"] == str(weights)
    main(["export", "--ckpt_path=last", f"--runs_dir={tmp_path}", "--format=plain", *CPU])
    assert (newest(tmp_path) / "export" / "network_plain.pt2").is_file()


# ------------------------------------------------------------------ repeating and resuming


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, folder: Path) -> None:
    """Weights, average, optimizer, rates, augmentation, mixing, dropout, and all that is told of it."""
    arguments = [f"--data.root={folder}", *TINY, *CPU, "--trainer.max_epochs=2", "--model.coords=xyr"]
    arguments += ["--model.average=0.7", "--model.warmup=0.3", "--data.mixup=0.4", "--data.cutmix=1"]
    arguments += ["--data.augment=trivial", "--data.erasing=0.5", "--trainer.gradient_clip_val=1"]

    def fit(runs: str, *more: str) -> Path:
        main(["fit", f"--runs_dir={tmp_path / runs}", *arguments, *more])
        return run_folder(tmp_path / runs, "default", 0)

    whole = fit("whole")
    with interrupted_at(Classifier, 5):  # the second of three batches of the second epoch
        fit("parts")
    parts = fit("parts", "--ckpt_path=last")
    assert_same_runs(parts, whole)
    for name in ("last", "best"):
        assert_same(load(parts, name)["current_model_state"], load(whole, name)["current_model_state"], name)
    assert read_summary(parts)["run_facts"] == read_summary(whole)["run_facts"]
    # What is evaluated, and what a checkpoint is opened with, is the average.
    for name in ("last", "best"):
        saved, own = load(whole, name), "network.classifier.1.weight"
        assert not torch.equal(saved["state_dict"][own], saved["current_model_state"][own])
    main(["validate", f"--runs_dir={tmp_path}/whole", "--ckpt_path=last", *CPU])
    of_fit = metrics_of(whole)
    assert metrics_of(newest(tmp_path / "whole")) == pytest.approx(
        {name: value for name, value in of_fit.items() if name.startswith("val/")}, abs=1e-6
    )


# ------------------------------------------------------------------ two processes

SCRIPT = """
import os
import sys
import warnings

import torch
from lightning.pytorch import Callback

import classification.__main__ as application
import classification.pictures

FOLDER, SECOND_PORT, *ARGUMENTS = sys.argv[1:]


class ClassificationPictures(Callback):
    '''Draws nothing, and keeps what each process has.'''

    def on_fit_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), f"{FOLDER}/{trainer.global_rank}.pt")


classification.pictures.ClassificationPictures = ClassificationPictures
warnings.filterwarnings("ignore", category=UserWarning, module="coordconv_apps.data.image_files")

if __name__ == "__main__":
    where = ARGUMENTS.index("--")
    application.main(ARGUMENTS[:where])
    os.environ["MASTER_PORT"] = SECOND_PORT  # at the first port, the other process may not have closed its store yet
    application.main(ARGUMENTS[where + 1 :])  # in the same processes: to start takes longer than to train
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a training and a prediction in it, by two processes that somebody else has started."""
    folder = tmp_path_factory.mktemp("pair")
    script = folder / "two.py"
    script.write_text(SCRIPT)
    root = save_parts(folder / "pictures")
    # Of eleven pictures to validate on, one process has two batches and the other has one.
    for path in (root / "train" / "bee" / "01.png", root / "val" / "cat" / "00.png"):
        damage(path)
    (root / "val" / "bee" / "broken.png").write_bytes(b"this is no picture")
    save_noise(folder / "own", {"a": 3, "b": 2})
    damage(folder / "own" / "damaged.png")
    two = [*TWO_PROCESSES, f"--runs_dir={folder}"]
    fit = [*TINY, f"--data.root={root}", "--data.on_bad_image=skip", "--trainer.max_epochs=2"]
    fit += [f"--model.weights={weights_file(folder / 'weights.pth')}"]
    fit += ["--model.coords=xyr", "--model.average=0.5", "--data.mixup=0.2", "--trainer.accumulate_grad_batches=2"]
    predict = ["--ckpt_path=last", f"--data.predict_images={folder}/own", "--data.eval_batch_size=2"]
    command = [str(folder), str(free_port()), "fit", *fit, *two, "--", "predict", *predict, *two]
    errors = folder / "errors.txt"
    forked.run(str(script), *command, log=folder / "log.txt", errors=errors, processes=2)
    warned = [line for line in errors.read_text().splitlines() if "not a readable image" not in line]
    assert [line for line in warned if not line.startswith("  ")] == []
    return folder


def test_two_processes_end_with_the_same_weights(pair: Path) -> None:
    run = run_folder(pair, "default", 0)
    summary = read_summary(run)
    assert summary["world_size"] == 2
    # 24 pictures, 8 of them in a batch on each process: two batches in an epoch, which make one step.
    assert summary["run_facts"]["global_batch_size"] == 24
    assert summary["run_facts"]["peak_lr"] == pytest.approx(0.1 * 24 / 256)
    assert summary["run_facts"]["optimizer_steps"] == summary["steps"] == 2
    assert summary["run_facts"]["bad_images"] == 3, "each once"
    one, other = (torch.load(pair / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    saved = load(run)["state_dict"]
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name
        assert torch.equal(weight, saved[name]), name
    assert any(name.endswith("running_mean") for name in one), "batch norm's statistics, too"


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore:.*not a readable image")
def test_two_processes_give_the_metrics_of_one(pair: Path) -> None:
    main(["validate", f"--runs_dir={pair}", "--ckpt_path=last", *CPU, "--trainer.strategy=auto"])
    of_one, of_two = metrics_of(newest(pair)), metrics_of(run_folder(pair, "default", 0))
    assert set(of_one) == {f"val/{figure}" for figure in FIGURES}
    assert of_one == pytest.approx({name: of_two[name] for name in of_one}, rel=1e-5, abs=1e-6)
    assert of_one["val/accuracy"] * 10 == pytest.approx(round(of_one["val/accuracy"] * 10)), "of ten pictures"
    assert read_summary(newest(pair))["run_facts"] == {"bad_images": 2}


@pytest.mark.filterwarnings("ignore:.*not a readable image")
def test_two_processes_predict_as_one(pair: Path) -> None:
    place = f"--data.predict_images={pair}/own"
    same = ["--data.eval_batch_size=2", *CPU, "--trainer.strategy=auto"]  # convolutions round by the batch size
    main(["predict", f"--runs_dir={pair}", "--ckpt_path=last", place, *same])
    of_two, of_one = run_folder(pair, "default", 0) / "predict_0", newest(pair)
    assert of_two != of_one
    assert read_summary(of_two)["world_size"] == 2
    tables = [
        [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()] for run in (of_two, of_one)
    ]
    assert len(tables[0]) == len(tables[1]) == 6
    assert len({row[2] for row in tables[0]}) == 6, "the pictures differ"
    for two, one in zip(*tables, strict=True):
        assert two[0] == one[0]
        assert two[1::2] == one[1::2]
        if one[0] != "picture":
            assert [float(score) for score in two[2::2]] == pytest.approx([float(s) for s in one[2::2]], abs=2e-6)
    assert read_summary(of_two)["run_facts"] == read_summary(of_one)["run_facts"] == {"bad_images": 1}


# ------------------------------------------------------------------ checkpoints, predict and export


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Runs folder with short runs in it; they are evaluated at another size than they are trained at."""
    runs = tmp_path_factory.mktemp("runs")
    own = {"a": ("xyr", "stem"), "first": ("xy", "first"), "all": ("xyr", "all")}
    weights = f"--model.weights={weights_file(runs / 'weights.pth')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationPictures, "draw", lambda *unused: {})
        for name, (coords, where) in own.items():
            arm = [f"--name={name}", f"--model.coords={coords}", f"--model.where={where}", "--model.lr=0.001"]
            colours = ["--data.eval_size=20", "--data.mean=[0.5, 0.4, 0.3]", "--data.std=[0.3, 0.2, 0.1]"]
            main(["fit", f"--runs_dir={runs}", f"--data.root={folder}", weights, *arm, *TINY, *colours, *CPU])
    return runs


def loaded(runs: Path, name: str) -> Classifier:
    checkpoint = run_folder(runs, name, 0) / "checkpoints" / "best.ckpt"
    return Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()


@pytest.mark.parametrize(("name", "format_"), [("a", "onnx"), ("first", "plain"), ("all", "torch_export")])
def test_exported_files_take_pixels_and_give_probabilities(trained: Path, name: str, format_: str) -> None:
    main(["export", f"--name={name}", f"--runs_dir={trained}", "--ckpt_path=best", f"--format={format_}", *CPU])
    files = newest(trained, name) / "export"
    plain = {"network_plain.pt2", "network_plain_weights.pt"}
    expected_files = {"onnx": {"network.onnx"}, "plain": plain, "torch_export": {"network.pt2"}}[format_]
    assert {path.name for path in files.iterdir()} == expected_files | {"network.json"}
    described = json.loads((files / "network.json").read_text(encoding="utf-8"))
    class_names = enumerate(loaded(trained, name).class_names or ())
    assert described["class_names"] == {str(label): class_name for label, class_name in class_names}
    images = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.3, 0.2, 0.1)))
    with torch.no_grad():
        expected = loaded(trained, name).network((images - mean) / std).softmax(1)
    assert expected.std(0).max() > 0.01, "a test of nothing else"
    for file in expected_files & {"network_plain.pt2", "network.pt2"}:
        found = torch.export.load(files / file).module()(images)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    if format_ == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(files / "network.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(["probabilities"], {"images": images.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
        assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == described["class_names"]


@pytest.mark.usefixtures("no_pictures")
def test_a_network_is_evaluated_at_another_size(trained: Path, folder: Path) -> None:
    main(["validate", "--name=a", f"--runs_dir={trained}", "--ckpt_path=best", "--data.eval_size=12", *CPU])
    task = loaded(trained, "a")
    pixels = torch.stack([read_image(path) for path in sorted((folder / "val").glob("*/*.png"))])
    resized = EvalTransform(12, 12)(pixels) / 255
    images = (resized - task.mean[:, None, None]) / task.std[:, None, None]
    labels = torch.tensor([0] * 4 + [1] * 4 + [2] * 3)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(task.network(images), labels)
    assert metrics_of(newest(trained, "a"))["val/loss"] == pytest.approx(float(loss), rel=1e-4)
    assert abs(loss - np.log(3)) > 0.01, "a test of nothing else"


@pytest.mark.usefixtures("no_pictures")
def test_the_same_classes_elsewhere_are_tested(trained: Path, tmp_path: Path) -> None:
    save_noise(tmp_path / "train", dict.fromkeys(CLASSES, 2), seed=3)
    save_noise(tmp_path / "val", dict.fromkeys(CLASSES, 1), seed=4)
    main(["test", "--name=a", f"--runs_dir={trained}", "--ckpt_path=best", f"--data.root={tmp_path}", *CPU])
    accuracy = metrics_of(newest(trained, "a"))["test/accuracy"]
    assert accuracy * 3 == pytest.approx(round(accuracy * 3))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ant", "bug", "cat"), "its classes must be those of the checkpoint: class 1 is 'bug' here and 'bee' there"),
        (("ant", "bee", "cat", "dog"), "model.num_classes=3: must be 4, the number of classes of the data"),
    ],
)
@pytest.mark.parametrize("command", ["test", "fit"])
def test_other_classes_than_the_checkpoints_are_refused(
    trained: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    message: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for part in ("train", "val"):
        save_noise(tmp_path / part, dict.fromkeys(names, 2))
    checkpoint = run_folder(trained, "a", 0) / "checkpoints" / "last.ckpt"
    arguments = [f"--ckpt_path={checkpoint}", f"--runs_dir={tmp_path}/runs", f"--data.root={tmp_path}", *CPU]
    more = ["--trainer.max_epochs=2"] if command == "fit" else []
    assert message in refusal(capsys, main, [command, *arguments, *more])


def test_error_about_other_classes_names_the_source(tmp_path: Path) -> None:
    task, run = Classifier(**(NETWORK | {"num_classes": 10})), trainer(tmp_path)
    run.datamodule = data(tmp_path, source="digits")  # type: ignore[attr-defined]  # as Lightning sets it
    task.trainer = run
    message = r"^data\.source=digits: its classes must be those of the checkpoint: class 0 is '0' here and 'no' there$"
    with pytest.raises(ValueError, match=message):
        task.on_load_checkpoint({CLASS_NAMES_KEY: ["no"] * 10, "run": {}})


# ------------------------------------------------------------------ mistakes on the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.network=resnet5"], "network='resnet5' is unknown; closest: resnet50"),
        (["--model.coords=xyr", "--model.where=no.such.layer"], "'no.such.layer'"),
        (["--model.small_images=true"], "model.small_images=True: must be false for model.network='mobilenet_v2'"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line_and_leave_no_files(
    tmp_path: Path, folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    given = ["fit", f"--runs_dir={runs}", f"--data.root={folder}", *TINY, *CPU, *arguments]
    assert message in refusal(capsys, main, given)
    assert not runs.exists()
