"""The application from its command line: every shipped config, resuming, export, two processes, mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from coordconv_apps.coordinates.__main__ import main
from coordconv_apps.coordinates.not_so_clevr import all_centers
from coordconv_apps.coordinates.tasks import CoordinateClassification
from coordconv_apps.runs.summary import read_summary
from tests.coordinates.harness import METRICS, TASKS, make_task
from tests.helpers import forked
from tests.helpers.processes import TWO_PROCESSES
from tests.helpers.refusals import refusal
from tests.helpers.runs import assert_same, last_command, load, rows

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "coordconv_apps" / "coordinates" / "configs").glob("*.yaml"))
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
SMALL = [
    "--model.canvas_size=16",
    "--data.canvas_size=16",
    "--model.square_size=3",
    "--data.square_size=3",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    *CPU,
]
TINY = [
    "--model.canvas_size=8",
    "--data.canvas_size=8",
    "--model.square_size=3",
    "--data.square_size=3",
    "--model.coords=xy",
    "--model.stop_when_perfect=false",
    *CPU,
]


def run_folder(runs: Path, name: str, version: int) -> Path:
    return runs / "coordinates" / name / f"version_{version}"


def newest(runs: Path, name: str) -> Path:
    return last_command(runs / "coordinates" / name)


def metrics_of(folder: Path) -> dict[str, float]:
    """All metrics but those that tell of time."""
    metrics: dict[str, float] = read_summary(folder)["metrics"]
    return {name: value for name, value in metrics.items() if not name.endswith(("seconds", "time_to_perfect"))}


# ------------------------------------------------------------------ shipped configs


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("coords", ["none", "xy"])
def test_config_trains_and_tests(tmp_path: Path, config: Path, coords: str) -> None:
    main(["fit", f"--config={config}", f"--runs_dir={tmp_path}", f"--model.coords={coords}", *SMALL])
    fit = run_folder(tmp_path, config.stem, 0)
    torch.load(fit / "checkpoints" / "best.ckpt", weights_only=True)
    given: dict[str, Any] = yaml.safe_load(config.read_text())["model"]
    name = next(
        name for name, task in TASKS.items() if given["class_path"] == f"coordconv_apps.coordinates.{task.__name__}"
    )
    task = make_task(name, **{**given["init_args"], "coords": coords, "canvas_size": 16, "square_size": 3})
    summary = read_summary(fit)
    assert summary["parameters"] == task.parameter_count()
    assert summary["coords"] == coords
    assert summary["best"]["metric"] == task.monitor
    names = {f"{prefix}{metric}" for prefix in ("", "train_") for metric in METRICS[name]}
    assert {f"val/{name}" for name in names} | {"val/seconds", "train/loss"} <= set(summary["metrics"])
    main(["test", "--ckpt_path=best", f"--name={config.stem}", f"--runs_dir={tmp_path}", *CPU])
    tested = read_summary(newest(tmp_path, config.stem))["metrics"]
    assert set(tested) == {f"test/{name}" for name in names}
    # The sets that are evaluated in the training are those of the test.
    for metric in names:
        assert tested[f"test/{metric}"] == pytest.approx(summary["metrics"][f"val/{metric}"], rel=1e-5)


# ------------------------------------------------------------------ repeating and resuming


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.loss=sampled", "--model.near=1", "--model.others=8"],
        ["--model=CoordinateRegression", "--model.network=strided"],
        ["--model=CoordinateRendering", "--model.objects=2", "--data.two_objects=true", "--data.pairs=32"],
    ],
    ids=["classification", "regression", "rendering"],
)
def test_same_seed_gives_the_same_metrics(tmp_path: Path, arguments: list[str]) -> None:
    for seed in (1, 1, 2):
        main(
            ["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=2", f"--seed_everything={seed}", *TINY, *arguments]
        )
    one, same, other = (run_folder(tmp_path, "default", version) for version in range(3))
    assert metrics_of(one) == metrics_of(same)
    assert metrics_of(one)["train/loss"] != metrics_of(other)["train/loss"]
    assert_same(load(one)["state_dict"], load(same)["state_dict"])


@pytest.mark.parametrize("loss", ["sampled", "full"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, loss: str) -> None:
    def fit(runs: str, epochs: int, *arguments: str) -> Path:
        common = [f"--runs_dir={tmp_path / runs}", f"--trainer.max_epochs={epochs}", "--model.schedule=constant"]
        main(["fit", *common, f"--model.loss={loss}", "--model.near=1", "--model.others=8", *TINY, *arguments])
        return run_folder(tmp_path / runs, "default", 0)

    whole = fit("whole", 2)
    parts = fit("parts", 1)
    before = read_summary(parts)["metrics"]["val/seconds"]
    assert fit("parts", 2, "--ckpt_path=last") == parts
    assert read_summary(parts)["epochs"] == 2
    assert metrics_of(parts) == metrics_of(whole)
    assert_same(load(parts)["state_dict"], load(whole)["state_dict"])
    clock = [float(row["val/seconds"]) for row in rows(parts) if row["val/seconds"]]
    assert len(clock) == 2
    assert 0 < before == pytest.approx(clock[0])
    assert clock[1] > clock[0], "the clock goes on"


def test_a_resumed_training_keeps_the_time_that_it_took(tmp_path: Path) -> None:
    common = [f"--runs_dir={tmp_path}", *TINY, "--model.lr=0.01"]
    main(["fit", "--trainer.max_epochs=40", *common])
    first = read_summary(run_folder(tmp_path, "default", 0))["metrics"]
    assert 0 < first["epochs_to_perfect"] <= 40, "a test of nothing else"
    main(["fit", "--trainer.max_epochs=41", "--ckpt_path=last", *common])
    second = read_summary(run_folder(tmp_path, "default", 0))["metrics"]
    for name in ("time_to_perfect", "epochs_to_perfect"):
        assert second[name] == pytest.approx(first[name])
    assert second["val/seconds"] > first["val/seconds"]


# ------------------------------------------------------------------ export, two processes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a short classification run in it."""
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", "--name=a", f"--runs_dir={runs}", "--trainer.max_epochs=2", *TINY, "--data.split=uniform"])
    return runs


def test_exported_files_give_the_logits(trained: Path) -> None:
    import onnxruntime

    main(["export", "--name=a", f"--runs_dir={trained}", "--ckpt_path=best", *CPU])
    folder = newest(trained, "a")
    files = {path.name for path in (folder / "export").iterdir()}
    assert {"network.onnx", "network_plain.pt2", "network_plain_weights.pt"} <= files
    task = CoordinateClassification.load_from_checkpoint(
        run_folder(trained, "a", 0) / "checkpoints" / "best.ckpt"
    ).eval()
    centers = all_centers(8, 3)[:5]
    expected = task(centers.unsqueeze(1)).detach()
    session = onnxruntime.InferenceSession(folder / "export" / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"centers": centers.float().numpy()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    plain = torch.export.load(folder / "export" / "network_plain.pt2").module()
    torch.testing.assert_close(plain(centers.float()), expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_in_mixed_precision(tmp_path: Path) -> None:
    mixed = ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1", "--trainer.max_epochs=1"]
    main(["fit", f"--runs_dir={tmp_path}", *TINY, *mixed])


def test_two_processes_train_and_give_the_metrics_of_one(tmp_path: Path) -> None:
    # Odd numbers of samples, 31 and 5: no process may see one twice.
    small = [argument for argument in TINY if "trainer" not in argument]
    arguments = ["--name=two", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--model.loss=sampled"]
    fit = ["fit", *arguments, "--data.split=uniform", "--data.seed=1", *small, *TWO_PROCESSES]
    forked.run("coordconv_apps.coordinates", *fit, log=tmp_path / "log.txt", processes=2)
    run = run_folder(tmp_path, "two", 0)
    of_two = metrics_of(run)
    assert read_summary(run)["world_size"] == 2
    main(["validate", "--name=two", f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.strategy=auto", *CPU])
    of_one = metrics_of(newest(tmp_path, "two"))
    names = {f"val/{prefix}{figure}" for prefix in ("", "train_") for figure in METRICS["classification"]}
    assert set(of_one) == names
    assert of_one == pytest.approx({name: of_two[name] for name in names}, rel=1e-5)


# ------------------------------------------------------------------ mistakes on the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.canvas_size=9"], "model.canvas_size=8: the data have 9"),
        (["--data.two_objects=true"], "data.two_objects=true: must be false for CoordinateClassification"),
        (["--data.two_objects=true", "--model=CoordinateRendering"], "model.objects=1: the data have 2"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", *TINY, *arguments]
    assert message in refusal(capsys, main, command)


def test_predict_is_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, main, ["predict", f"--runs_dir={tmp_path}", "--allow_random_weights", *TINY])
    assert "no command is called 'predict': choose from fit, validate, test, export" in told


def test_arguments_of_another_task_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = next(path for path in CONFIGS if path.stem == "classification_uniform")
    flags = ["--model=CoordinateRegression", "--model.network=paper", "--model.baseline=null"]
    main(["fit", f"--config={config}", *flags, f"--runs_dir={tmp_path}", "--trainer.fast_dev_run=true", *SMALL])
    ignored = capsys.readouterr().err
    assert "ignored: --model=CoordinateRegression has no model.gain, model.kernel_size, model.loss" in ignored
    assert "model.lr" not in ignored
