"""The application from its command line: every shipped config, resuming, two processes, export, predict, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from coordconv_apps.runs.summary import read_summary
from generative.__main__ import main
from generative.pictures import GenerativePictures
from generative.pixel_range import to_uint8
from generative.tasks import GAN, VAE, GenerativeTask
from generative.tasks.base import PREDICTION_SEED
from generative.two_shapes import draw_scenes, render
from tests.generative.tiny import everywhere
from tests.helpers import forked
from tests.helpers.processes import TWO_PROCESSES
from tests.helpers.refusals import refusal
from tests.helpers.runs import assert_same_runs, interrupted_at, last_command, load, metrics_of

ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((ROOT / "generative" / "configs").glob("*.yaml"))}
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
SIZES = ["--model.image_size=16", "--data.image_size=16", "--model.width=2"]
SMALL = [*SIZES, "--model.latent_size=4", "--trainer.max_epochs=1", *CPU]
SHAPES = ["--data.radius=2", "--data.num_train=16", "--data.num_val=20", "--data.num_test=20"]
TINY = [*SMALL, *SHAPES, "--data.batch_size=4", "--model.coords=xy", "--trainer.log_every_n_steps=1"]
FOLDER = ["--data.num_workers=0", "--data.batch_size=8", "--data.num_val=6", "--data.num_test=6"]
METHODS = {
    "gan": ["--model.discriminator_width=2", "--model.average=0.9"],
    "vae": ["--model=VAE", "--model.encoder_width=2", "--model.average=0.9"],
}
TASKS: dict[str, type[GAN | VAE]] = {"gan": GAN, "vae": VAE}
VALIDATED = GenerativeTask.validation_metrics
FOLDER_FIGURES = {name for name in VALIDATED if name.endswith("patch_distance")}
SHAPES_FIGURES = set(VALIDATED) - FOLDER_FIGURES
WALKS = {f"walk_{name}" for name in ("distance", "translation", "straightness", "jump", "same_shapes", "valid")}


def run_folder(runs: Path, name: str, version: int) -> Path:
    return runs / "generative" / name / f"version_{version}"


def newest(runs: Path, name: str) -> Path:
    return last_command(runs / "generative" / name)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than all the rest."""
    monkeypatch.setattr(GenerativePictures, "draw", lambda *unused: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 small pictures, of another size than the networks' images."""
    path = tmp_path_factory.mktemp("pictures")
    scenes = draw_scenes(24, 24, 4, torch.Generator().manual_seed(0))
    for number, image in enumerate(render(scenes, 24, 4)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((20, 30)).save(path / f"{number:02d}.png")
    return path


# ------------------------------------------------------------------ shipped configs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("coords", ["none", "xy"])
def test_config_trains_and_tests(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, coords: str
) -> None:
    given: dict[str, Any] = yaml.safe_load(CONFIGS[name].read_text())
    of_folder = given["data"]["source"] == "folder"
    data = [f"--data.folder={folder}", *FOLDER] if of_folder else SHAPES
    is_vae = given["model"]["class_path"] == "generative.VAE"
    method, width = ("vae", "encoder_width") if is_vae else ("gan", "discriminator_width")
    arguments = [f"--config={CONFIGS[name]}", f"--runs_dir={tmp_path}", f"--model.coords={coords}", *SMALL, *data]
    arguments.append(f"--model.{width}=2")
    with monkeypatch.context() as patch:
        patch.setattr(GenerativePictures, "draw", lambda *unused: {})
        main(["fit", *arguments])
    fit = run_folder(tmp_path, name, 0)
    torch.load(fit / "checkpoints" / "best.ckpt", weights_only=True)
    sizes = {"image_size": 16, "width": 2, width: 2, "latent_size": 4}
    assert given["model"]["class_path"] == f"generative.{TASKS[method].__name__}"
    task = TASKS[method](**(given["model"]["init_args"] | sizes | {"coords": coords}))
    summary = read_summary(fit)
    assert summary["parameters"] == task.parameter_count()
    assert summary["coords"] == coords
    losses = {"gan": ("discriminator_loss", "generator_loss"), "vae": ("loss", "reconstruction", "divergence")}
    figures = FOLDER_FIGURES if of_folder else SHAPES_FIGURES
    expected = {f"train/{loss}" for loss in losses[method]} | {f"val/{figure}" for figure in figures}
    assert expected == {name for name in summary["metrics"] if name in expected or name.startswith("val/floor/")}
    assert all(np.isfinite(value) for value in summary["metrics"].values())
    if coords == "none":
        return  # a test differs in nothing but the network
    of_folders = {"gan": "val/patch_distance", "vae": "val/loss"}
    assert summary["best"]["metric"] == (of_folders[method] if of_folder else task.monitor)
    main(["test", "--ckpt_path=best", f"--name={name}", f"--runs_dir={tmp_path}", *CPU])
    tested = newest(tmp_path, name)
    names = set(metrics_of(tested))
    if of_folder:
        parts = losses["vae"] if method == "vae" else ()
        assert names == {f"test/{figure}" for figure in (*FOLDER_FIGURES, *parts)}
    else:
        assert {f"test/{figure}" for figure in (*SHAPES_FIGURES, *WALKS, "pairs_distance", "support_size")} <= names
        assert {"test/floor/coverage", "test/red/entropy", "test/floor/difference/js_divergence"} <= names
    pictures = {path.name for path in (tested / "pictures").iterdir()}
    assert pictures, "drawn by test"
    for picture in pictures:
        with Image.open(tested / "pictures" / picture) as image:
            image.load()


# ------------------------------------------------------------------ repeating and resuming


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("method", "stop"), [("gan", 2), ("vae", 6)])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, method: str, stop: int) -> None:
    """Weights, average, optimizers, rates, the random numbers of latents, and all that is told of it."""
    schedule = ["--model.schedule=cosine", "--model.warmup=0.3"]
    arguments = [*TINY, "--trainer.max_epochs=2", *METHODS[method], *schedule]

    def fit(runs: str, *more: str) -> Path:
        main(["fit", f"--runs_dir={tmp_path / runs}", *arguments, *more])
        return run_folder(tmp_path / runs, "default", 0)

    whole = fit("whole")
    with interrupted_at(TASKS[method], stop):
        fit("parts")
    assert read_summary(run_folder(tmp_path / "parts", "default", 0))["status"] == "interrupted"
    parts = fit("parts", "--ckpt_path=last")
    assert_same_runs(parts, whole)
    state = load(whole)["state_dict"]
    assert any(name.startswith("averaged.") for name in state)


# ------------------------------------------------------------------ two processes

SCRIPT = """
import sys

import torch
from lightning.pytorch import Callback

import generative.__main__ as application
import generative.pictures
from generative.tasks import GAN
from tests.generative.tiny import everywhere

FOLDER, *ARGUMENTS = sys.argv[1:]


class GenerativePictures(Callback):
    '''Draws nothing, and keeps what each process has.'''

    def on_train_batch_start(self, trainer, pl_module, *unused):
        self.random = torch.get_rng_state()

    def on_train_end(self, trainer, pl_module):
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        torch.save({"state": state, "random": self.random}, f"{FOLDER}/{trainer.global_rank}.pt")


generative.pictures.GenerativePictures = GenerativePictures
GAN.sample = lambda self, latents: everywhere(latents)  # images that show something; training stays the same

if __name__ == "__main__":
    application.main(ARGUMENTS)
"""


@pytest.mark.usefixtures("no_pictures")
def test_two_processes_end_with_the_same_weights_and_give_the_metrics_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script := tmp_path / "two.py").write_text(SCRIPT)
    # Batch norm, coordinates in all layers, a gradient penalty; 21 images to validate on one process, 20 on the other.
    fit = [argument for argument in TINY if argument not in CPU]
    fit += ["--model.network=conv", "--model.latent_size=6", "--model.image_size=32", "--data.image_size=32"]
    fit += ["--data.radius=5", "--data.num_val=41", "--data.eval_batch_size=7", "--data.num_train=22"]
    fit += ["--model.gradient_penalty=0.1", "--model.penalty_every=2", "--model.feature_matching=0.1"]
    command = [str(tmp_path), "fit", f"--runs_dir={tmp_path}", *fit, *METHODS["gan"], *TWO_PROCESSES]
    forked.run(str(script), *command, log=tmp_path / "log.txt", errors=(errors := tmp_path / "errors.txt"), processes=2)
    assert errors.read_text() == ""
    run = run_folder(tmp_path, "default", 0)
    assert read_summary(run)["world_size"] == 2
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    saved = load(run)["state_dict"]
    for name, weight in ranks[0]["state"].items():
        assert torch.equal(weight, ranks[1]["state"][name]), name
        assert torch.equal(weight, saved[name]), name
    assert any(name.startswith("averaged.") for name in saved)
    assert any(name.endswith("running_mean") for name in saved), "batch norm's statistics, too"
    assert not torch.equal(ranks[0]["random"], ranks[1]["random"]), "each process draws its own latents"
    monkeypatch.setattr(GAN, "sample", lambda self, latents: everywhere(latents))
    main(["validate", f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.strategy=auto", *CPU])
    of_one, of_two = metrics_of(newest(tmp_path, "default")), metrics_of(run)
    assert {f"val/{name}" for name in SHAPES_FIGURES} <= set(of_one)
    assert of_one == pytest.approx({name: of_two[name] for name in of_one}, rel=1e-4, abs=1e-6)
    assert 0 < of_one["val/coverage"] < 1, "a test of nothing else"


# ------------------------------------------------------------------ export and predict


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a short run of each generator in it."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenerativePictures, "draw", lambda *unused: {})
        for network in ("coordconv", "conv"):
            main(
                ["fit", f"--name={network}", f"--runs_dir={runs}", f"--model.network={network}", *TINY, *METHODS["gan"]]
            )
    return runs


def loaded(runs: Path, name: str) -> GAN:
    checkpoint = run_folder(runs, name, 0) / "checkpoints" / "best.ckpt"
    return GAN.load_from_checkpoint(checkpoint, map_location="cpu").eval()


@pytest.mark.parametrize(("network", "format_"), [("coordconv", "default"), ("conv", "plain")])
def test_exported_files_give_the_images(trained: Path, network: str, format_: str) -> None:
    main(["export", f"--name={network}", f"--runs_dir={trained}", "--ckpt_path=best", f"--format={format_}", *CPU])
    files = newest(trained, network) / "export"
    assert {"network_plain.pt2", "network_plain_weights.pt"} <= {path.name for path in files.iterdir()}
    task = loaded(trained, network)
    latents = task.draw_latents(5, 7)
    expected = task.sample(latents)
    plain = torch.export.load(files / "network_plain.pt2").module()
    torch.testing.assert_close(plain(latents), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (5, 3, 16, 16)
    if format_ == "plain":
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(files / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["images"], {"latents": latents.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("no_pictures")
def test_a_checkpoint_of_a_folder_is_exported_without_it(tmp_path: Path, folder: Path) -> None:
    arguments = [f"--runs_dir={tmp_path}", *SMALL, *FOLDER, "--data.source=folder", f"--data.folder={folder}"]
    main(["fit", *arguments, "--model.network=conv"])
    assert not [name for name in load(run_folder(tmp_path, "default", 0))["state_dict"] if name.startswith("metrics")]
    main(["export", f"--runs_dir={tmp_path}", "--ckpt_path=best", "--format=plain", *CPU])
    plain = torch.export.load(newest(tmp_path, "default") / "export" / "network_plain.pt2").module()
    task = loaded(tmp_path, "default")
    latents = task.draw_latents(3, 7)
    torch.testing.assert_close(plain(latents), task.sample(latents), rtol=1e-4, atol=1e-5)


def test_predict_writes_as_many_samples_as_asked_for(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--runs_dir={trained}", "--ckpt_path=best", "--data.num_predict=7", "--data.eval_batch_size=3"]
    main(["predict", "--name=conv", *arguments, *CPU])
    assert "7 samples" in capsys.readouterr().out
    folder = newest(trained, "conv") / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{i:05d}.png" for i in range(7)), "samples.npz"]
    task = loaded(trained, "conv")
    latents = task.draw_latents(7, PREDICTION_SEED)
    with np.load(folder / "samples.npz") as arrays:
        np.testing.assert_array_equal(arrays["latents"], latents.numpy())
        assert arrays["centers"].shape == (7, 2, 2)
    for number, image in enumerate(to_uint8(task.sample(latents))):
        with Image.open(folder / f"{number:05d}.png") as picture:
            difference = np.asarray(picture).astype(int) - image.permute(1, 2, 0).numpy()
        assert np.abs(difference).max() <= 1


# ------------------------------------------------------------------ mistakes on the command line


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("check", ["fast_dev_run=true", "num_sanity_val_steps=1"])
def test_a_check_of_the_code_runs_with_too_few_images_to_compare(tmp_path: Path, check: str) -> None:
    main(["fit", f"--runs_dir={tmp_path}", *TINY, "--data.eval_batch_size=4", f"--trainer.{check}"])
    summary = read_summary(run_folder(tmp_path, "default", 0))
    assert summary["status"] == "finished"
    assert ("val/coverage" in summary["metrics"]) == ("sanity" in check)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.radius=9"], "data.radius=9: two objects do not fit into 16 pixels, must be at most 4"),
        (["--data.image_size=32"], "model.image_size=16: the data have 32 (data.image_size)"),
        (["--data.num_val=10"], "data.num_val=10"),
        (["--trainer.gradient_clip_val=1"], "gradient_clip_val"),
        (["--trainer.accumulate_grad_batches=2"], "accumulate_grad_batches"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", *TINY, *arguments])


@pytest.mark.usefixtures("no_pictures")
def test_unreadable_images_are_counted_and_named(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in folder.iterdir():
        (pictures / path.name).write_bytes(path.read_bytes())
    for name in ("broken.png", "notes.jpg"):
        (pictures / name).write_bytes(b"this is no picture")
    arguments = ["fit", f"--runs_dir={tmp_path}", *SMALL, *FOLDER, "--data.source=folder"]
    arguments += [f"--data.folder={pictures}"]
    refused = refusal(capsys, main, arguments)
    assert "2 of 26 images cannot be read: broken.png, notes.jpg; data.on_bad_image=skip" in refused
    main([*arguments, "--data.on_bad_image=skip"])
    told = capsys.readouterr()
    assert "2 of 26 images" in told.out + told.err
    assert read_summary(run_folder(tmp_path, "default", 0))["run_facts"]["bad_images"] == 2
