"""The command line: run folders, messages, refusals and errors."""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml

from coordconv_apps.cli import run_cli
from coordconv_apps.cli.app import run
from coordconv_apps.nn.coords import Coords
from coordconv_apps.runs.summary import read_summary
from tests.helpers.refusals import refusal
from tests.helpers.runs import last_command
from tests.toy.__main__ import main
from tests.toy.data import ToyData
from tests.toy.tasks import DotTask, ToyTask

SUMMARY_KEYS = {
    "app",
    "package",
    "name",
    "command",
    "status",
    "error",
    "metrics",
    "checkpoint",
    "best",
    "run_facts",
    "parameters",
    "coords",
    "headline",
    "monitor_mode",
    "seed",
    "epochs",
    "steps",
    "seconds",
    "device",
    "precision",
    "world_size",
    "process",
    "versions",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one training in it: two epochs, with coordinates."""
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", f"--runs_dir={runs}", "--trainer.max_epochs=2", "--model.coords=xy", "--data.val_samples=11"])
    return runs


def load_weights(checkpoint: bytearray) -> list[bytes]:
    """The weights in a checkpoint, each as the bytes that are in its file."""
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)["state_dict"]
    return [value.numpy().tobytes() for value in state.values()]


# --------------------------------------------------------------------- run folders


def test_fit_writes_these_files(trained: Path) -> None:
    run = trained / "toy" / "default" / "version_0"
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    logs = {name for name in names if "tfevents" in name}
    assert len(logs) == 1
    assert names - logs == {
        "config.yaml",
        "hparams.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "pictures/dot.png",
        "summary.json",
    }
    summary = read_summary(run)
    assert set(summary) == SUMMARY_KEYS
    message = {"app": "toy", "name": "default", "command": "fit", "status": "finished", "error": None}
    assert message.items() <= summary.items()
    assert {"coords": "xy", "seed": 0, "epochs": 2, "steps": 10, "world_size": 1}.items() <= summary.items()
    assert set(summary["metrics"]) == {"train/loss", "val/distance"}
    assert summary["best"]["metric"] == "val/distance"
    assert summary["best"]["checkpoint"] == summary["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert summary["parameters"] == sum(value.numel() for value in saved.values())
    assert summary["device"].startswith("cpu: ")
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert summary["seconds"] > 0


def test_the_configuration_of_a_run_runs_again(trained: Path, tmp_path: Path) -> None:
    first = trained / "toy" / "default" / "version_0"
    main(["fit", f"--config={first}/config.yaml", f"--runs_dir={tmp_path}"])
    second = tmp_path / "toy" / "default" / "version_0"
    assert (first / "metrics.csv").read_text() == (second / "metrics.csv").read_text()
    assert read_summary(first)["metrics"] == read_summary(second)["metrics"]
    one, other = (yaml.safe_load((run / "config.yaml").read_text()) for run in (first, second))
    assert {**one, "runs_dir": None} == {**other, "runs_dir": None}


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_command_needs_the_checkpoint_only(trained: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, f"--runs_dir={trained}", "--ckpt_path=best"])
    run = last_command(trained / "toy" / "default")
    summary = read_summary(run)
    assert summary["command"] == command
    assert summary["status"] == "finished"
    assert summary["coords"] == "xy"
    assert summary["epochs"] == 1
    assert summary["checkpoint"] == str(trained / "toy" / "default" / "version_0" / "checkpoints" / "best.ckpt")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["coords"] == "xy"
    assert config["data"]["val_samples"] == 11
    best = read_summary(trained / "toy" / "default" / "version_0")["best"]["value"]
    if command != "predict":
        prefix = "val" if command == "validate" else command
        assert summary["metrics"] == {f"{prefix}/distance": pytest.approx(best, rel=1e-6)}
        assert f"{prefix}/distance" in capsys.readouterr().out
    assert (run / "pictures" / "dot.png").is_file() == (command != "predict")


@pytest.mark.parametrize(
    ("args", "folder"),
    [
        ([], "toy/mine/version_0/test_0"),
        (["--name=mine"], "toy/mine/version_0/test_0"),
        (["--config=other.yaml"], "toy/mine/version_0/test_0"),  # it names no run
        (["--name=other"], "toy/other/test_0"),
        (["--runs_dir=elsewhere"], "../elsewhere/toy/default/test_0"),
    ],
)
def test_an_evaluation_is_below_the_training_of_its_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("data: {val_samples: 11}")
    checkpoints = Path("version_0", "checkpoints")
    shutil.copytree(trained / "toy" / "default" / checkpoints, Path("runs", "toy", "mine") / checkpoints)
    main(["test", "--ckpt_path=runs/toy/mine/version_0/checkpoints/best.ckpt", *args])
    (written,) = Path().rglob("test_*")
    assert written.resolve() == (tmp_path / "runs" / folder).resolve()
    assert read_summary(written)["name"] == ("default" if "elsewhere" in folder else folder.split("/")[1])


def test_fit_prints_epochs_and_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--name=mine", "--trainer.max_epochs=3"])
    out, err = capsys.readouterr()
    assert err == ""
    assert "\r" not in out
    for words in ("epoch 1/3 ", "epoch 2/3 ", "epoch 3/3 ", "fit finished", "  best "):
        assert sum(words in line for line in out.splitlines()) == 1, words
    (last,) = [line for line in out.splitlines() if "epoch 3/3" in line]
    assert f"train/loss {read_summary(tmp_path / 'toy/mine/version_0')['metrics']['train/loss']:.4g}" in last
    (following,) = [line.split("next")[1].strip() for line in out.splitlines() if " next " in line]
    assert following == f"python -m tests.toy test --ckpt_path best --name mine --runs_dir {tmp_path}"
    main(following.split()[3:])
    assert "test/distance" in capsys.readouterr().out


def test_run_folders_are_named_by_config_and_numbered(tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("model: {width: 2}\ntrainer: {max_epochs: 1}\n")
    for _ in range(2):
        main(["fit", f"--config={config}", f"--runs_dir={tmp_path}/runs"])
    main(["fit", f"--config={config}", f"--runs_dir={tmp_path}/runs", "--name=other"])
    folders = sorted(str(p.relative_to(tmp_path / "runs")) for p in (tmp_path / "runs").glob("*/*/*"))
    assert folders == ["toy/other/version_0", "toy/small/version_0", "toy/small/version_1"]
    main(["test", f"--config={config}", f"--runs_dir={tmp_path}/runs", "--ckpt_path=last"])
    small = tmp_path / "runs" / "toy" / "small"
    assert read_summary(small / "version_1" / "test_0")["checkpoint"] == str(
        small / "version_1" / "checkpoints" / "last.ckpt"
    )


def test_same_seed_same_metrics(tmp_path: Path) -> None:
    runs = []
    for i, seed in enumerate((1, 1, 2)):
        main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", f"--seed_everything={seed}"])
        runs.append((tmp_path / "toy" / "default" / f"version_{i}" / "metrics.csv").read_text())
    assert runs[0] == runs[1] != runs[2]


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("command", ["validate", "test", "predict", "export"])
def test_random_weights_are_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, main, [command, f"--runs_dir={tmp_path}", "--name=mine"])
    for words in (f"{command} needs --ckpt_path", "best or last", "'mine'", "--allow_random_weights"):
        assert words in error
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_allowed_when_asked_for(tmp_path: Path) -> None:
    main(["test", f"--runs_dir={tmp_path}", "--allow_random_weights"])
    summary = read_summary(tmp_path / "toy" / "default" / "test_0")
    assert summary["checkpoint"] is None
    assert summary["metrics"]["test/distance"] > 0


def test_arguments_that_differ_from_the_checkpoint_are_refused_or_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "default.yaml"
    config.write_text("model: {coords: none, lr: 0.5}\n")
    test = ["test", f"--runs_dir={trained}", "--ckpt_path=best"]
    error = refusal(capsys, main, [*test, f"--config={config}"])
    assert "--model.coords=none on the command line, xy in the checkpoint" in error
    assert "model.lr" in error
    main([*test, f"--config={config}", "--model.coords=xy", "--data.val_samples=7"])
    message = capsys.readouterr().out
    assert "changed: model.lr=0.5 on the command line, 0.01 in the checkpoint" in message
    assert "changed: data.val_samples=7 on the command line, 11 in the checkpoint" in message


def test_checkpoint_of_a_plain_lightning_trainer_is_tested(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(trained / "toy/default/version_0/checkpoints/last.ckpt", weights_only=True)
    for key in ("run", "coordconv_apps"):
        del checkpoint[key]
    torch.save(checkpoint, tmp_path / "plain.ckpt")
    main(["test", f"--runs_dir={tmp_path}", f"--ckpt_path={tmp_path}/plain.ckpt"])
    assert read_summary(tmp_path / "toy" / "default" / "test_0")["coords"] == "xy"
    assert "coords=none" in refusal(
        capsys, main, ["test", f"--runs_dir={tmp_path}", f"--ckpt_path={tmp_path}/plain.ckpt", "--model.coords=none"]
    )


# --------------------------------------------------------- where a training starts


class StartedTask(ToyTask):
    """The toy task, from weights in a file; it notes what it does.

    Args:
        coords: As the toy task's.
        start: The file.
    """

    changeable_args: ClassVar[frozenset[str]] = frozenset({"start"})
    initial_weight_args: ClassVar[frozenset[str]] = frozenset({"start"})

    def __init__(self, coords: Coords = "none", start: str | None = None) -> None:
        super().__init__(coords)
        self.start = start
        if start is not None:
            self.net.load_state_dict(torch.load(start, weights_only=True))

    def configure_optimizers(self) -> Any:  # noqa: ANN401  # Lightning's
        self.run_facts["start"] = "of itself" if self.start is None else "of a file"
        self.run_facts[f"after epoch {self.current_epoch}"] = 0.25
        return super().configure_optimizers()


def started_main(args: Sequence[str]) -> None:
    run("toy", StartedTask, ToyData, args)


def start_file(tmp_path: Path) -> Path:
    torch.save(ToyTask().net.state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def test_initial_weights_are_not_needed_with_a_checkpoint(tmp_path: Path) -> None:
    start = start_file(tmp_path)
    started_main(["fit", f"--runs_dir={tmp_path}", f"--model.start={start}", "--trainer.max_epochs=1"])
    start.unlink()
    runs = tmp_path / "toy" / "default"
    checkpoint = [f"--runs_dir={tmp_path}", "--ckpt_path=last"]
    started_main(["fit", *checkpoint, "--trainer.max_epochs=2"])
    assert read_summary(runs / "version_0")["epochs"] == 2
    for command in (["test"], ["validate"], ["predict"], ["export", "--format=plain"]):
        started_main([*command, *checkpoint])
    folders = [
        runs / "version_0",
        *(runs / "version_0" / f"{kind}_0" for kind in ("test", "validate", "predict", "export")),
    ]
    assert sorted(path.parent for path in runs.rglob("summary.json")) == sorted(folders)
    for folder in folders:  # the record says where the training began
        assert read_summary(folder)["status"] == "finished"
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["start"] == str(start)


def test_missing_initial_weights_are_refused_without_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["fit"], ["test", "--allow_random_weights"]):
        args = [*command, f"--runs_dir={tmp_path}", f"--model.start={tmp_path}/none.pth"]
        assert "none.pth" in refusal(capsys, started_main, args)


def test_run_facts_are_in_the_summary_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = start_file(tmp_path)
    started_main(["fit", f"--runs_dir={tmp_path}", f"--model.start={start}", "--trainer.max_epochs=1"])
    first = tmp_path / "toy" / "default" / "version_0"
    assert read_summary(first)["run_facts"] == {"start": "of a file", "after epoch 0": 0.25}
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    message = {words[1]: words[-1].strip() for words in lines if len(words) > 2}
    assert message["start"] == "of a file"
    assert message["after epoch 0"] == "0.25"
    # A resumed run keeps what was noted before it.
    started_main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert read_summary(first)["run_facts"] == {"start": "of itself", "after epoch 0": 0.25}
    started_main(["test", f"--runs_dir={tmp_path}", "--ckpt_path=last"])
    assert read_summary(first / "test_0")["run_facts"] == {}


def test_run_facts_are_empty_by_default(trained: Path) -> None:
    assert read_summary(trained / "toy" / "default" / "version_0")["run_facts"] == {}


# -------------------------------------------------------------------------- errors

WRONG: list[tuple[list[str], str]] = [
    (["fit", "stray"], "not understood: stray"),
    (["fit", "--model.widht=3"], "there is no argument --model.widht (close: --model.width"),
    (["fit", "--width", "3"], "there is no argument --width (close: --model.width"),
    (["fit", "--data.size.=3"], "there is no argument --data.size. (close: --data.size"),
    (["fit", "--model.lr.=3"], "there is no argument --model.lr. (close: --model.lr"),
    (["fit", "--=model.lr"], "not understood: --=model.lr"),
    (["fit", "--optimizer=Adam"], "there is no argument --optimizer"),
    (["fit", "--model.width=x"], "--model.width=x: expected an integer"),
    (["fit", "--model.width=1.5"], "--model.width=1.5: expected an integer"),
    (["fit", "--model.width="], "--model.width=: expected an integer"),
    (["fit", "--model.width", "--model.lr=1"], "--model.width: has no value"),
    (["fit", "--model.learning_rate=1"], "there is no argument --model.learning_rate (close: --model.lr"),
    (["fit", "--batchsize=1"], "there is no argument --batchsize (close: --data.batch_size"),
    (["fit", "--data=3"], "--data=3: must be a YAML file of arguments, or a mapping"),
    (["fit", "--toy_pictures.every_n_epochs=-1"], "toy_pictures.every_n_epochs=-1: must be an integer of at least 0"),
    (["fit", "--runs_dir="], "--runs_dir=: must be a path, it is empty"),
    (["test", "--ckpt_path="], "--ckpt_path=: must be a path, it is empty"),
    (
        ["fit", "--trainer.devices=[a]"],
        "--trainer.devices=[a]: must be a number of devices, a list such as [0, 1], auto",
    ),
    (["fit", "--model.lr=fast"], "--model.lr=fast: expected a number"),
    (["fit", "--model.coords=yx"], "--model.coords=yx: expected 'none', 'xy', 'xyr'"),
    (["fit", "--trainer.max_epochs=x"], "--trainer.max_epochs=x: expected an integer, null"),
    (["fit", "--trainer.precision=17"], "--trainer.precision=17: expected"),
    (["fit", "--trainer.callbacks+=EarlyStopping"], "EarlyStopping: the following arguments are required: monitor"),
    (["fit", "--trainer.accelerator=foo"], "--trainer.accelerator=foo"),
    (["fit", "--trainer.max_epochs=-7"], "--trainer.max_epochs=-7"),
    (["fit", "--trainer.default_root_dir=x"], "--runs_dir"),
    (["fit", "--seed_everything=-1"], "--seed_everything=-1: must be an integer from 0"),
    (["fit", "--seed_everything=true"], "--seed_everything=true: expected an integer"),
    (["fit", "--name=a/b"], "--name=a/b: must be the name of a folder"),
    (["fit", "--name=.."], "--name=..: must be the name of a folder"),
    (["fit", "--config=/no/such.yaml"], "/no/such.yaml"),
    (["fit", "--model.width=0"], "model.width=0: must be an integer of at least 1"),
    (["fit", "--data.size=1"], "data.size=1: must be an integer of at least 2"),
    (["fit", "--data.batch_size=0"], "data.batch_size=0: must be an integer of at least 1"),
    (["fit", "--data.samples=0"], "0 training samples are too few"),
    (["fit", "--data.val_samples=13"], "data.val_samples=13: brings bad luck"),
    (["fit", "--trainer.val_check_interval=100"], "`val_check_interval` (100)"),
    (["fit", "--ckpt_path=last"], "--ckpt_path=last: no run named 'default' has a last.ckpt; there are no runs in"),
    (["test", "--ckpt_path=/no/such.ckpt"], "--ckpt_path=/no/such.ckpt: no such file"),
]


@pytest.mark.parametrize(("args", "message"), WRONG)
def test_invalid_arguments_are_reported_in_one_line(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, main, args)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "batches"), [("1", 1), ("1.0", 5), ("0.4", 2), ("null", 5)])
def test_a_limit_of_one_is_a_batch_and_not_all(tmp_path: Path, limit: str, batches: int) -> None:
    sizes = ["--data.samples=20", "--data.batch_size=4", "--trainer.max_epochs=1"]
    main(["fit", f"--runs_dir={tmp_path}", *sizes, f"--trainer.limit_train_batches={limit}"])
    assert read_summary(tmp_path / "toy" / "default" / "version_0")["steps"] == batches


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model: {widht: 3}", "there is no argument --model.widht (close: --model.width"),
        ("trainr: {max_epochs: 3}", "there is no argument --trainr.max_epochs (close: --trainer.max_epochs"),
        ("model: {width: three}", "--model.width=three: expected an integer"),
        ("model: {width: [3", "all wrong.yaml: is not a YAML file of arguments"),
        ("- a\n- b", "all wrong.yaml: is not a YAML file of arguments"),
    ],
)
def test_errors_in_a_config_are_reported_in_one_line(
    config: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all wrong.yaml"
    path.write_text(config)
    assert message in refusal(capsys, main, ["fit", f"--config={path}", f"--runs_dir={tmp_path}"])


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 half a zip file"])
def test_file_that_is_no_checkpoint_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "junk.ckpt"
    path.write_bytes(content)
    error = refusal(capsys, main, ["test", f"--ckpt_path={path}", f"--runs_dir={tmp_path}"])
    assert error == f"--ckpt_path={path}: not a readable checkpoint"


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_damaged_checkpoint_is_refused(
    command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.ckpt"
    content = bytearray((trained / "toy" / "default" / "version_0" / "checkpoints" / "last.ckpt").read_bytes())
    start = content.index(next(iter(load_weights(content))))
    content[start + 5] ^= 1
    path.write_bytes(content)
    error = refusal(capsys, main, [command, f"--ckpt_path={path}", f"--runs_dir={tmp_path}"])
    assert error.startswith(f"--ckpt_path={path}: damaged, the checksum of ")


def test_error_of_an_unknown_run_lists_the_known_ones(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, main, ["test", "--name=mine", "--ckpt_path=best", f"--runs_dir={trained}"])
    assert "no run named 'mine' has a best.ckpt" in error
    assert "are: default" in error


def test_debugging_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COORDCONV_DEBUG", "1")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # which debugging shows, too
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--data.size=1", f"--runs_dir={tmp_path}"])
    assert stopped.value.code == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ValueError, ModuleNotFoundError])
def test_an_error_of_a_tasks_constructor_is_reported_as_it_is(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without what jsonargparse adds to it."""

    def fail(*_: object, **__: object) -> None:
        raise kind("a package is missing")

    monkeypatch.setattr("tests.toy.tasks.to_coordconv", fail)
    assert refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", "--model.coords=xy"]) == "a package is missing"


def test_invalid_arguments_found_in_setup_leave_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "brings bad luck" in refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}/runs", "--data.val_samples=13"])
    assert list(tmp_path.iterdir()) == []
    main(["fit", f"--runs_dir={tmp_path}/runs", "--trainer.max_epochs=1"])
    run = tmp_path / "runs" / "toy" / "default" / "version_0"
    before = sorted(run.rglob("*"))
    test = ["test", f"--runs_dir={tmp_path}/runs", "--ckpt_path=last"]
    assert "brings bad luck" in refusal(capsys, main, [*test, "--data.val_samples=13"])
    assert sorted(run.rglob("*")) == before


def test_unexpected_exception_propagates_and_the_run_is_marked_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a defect"):
        main(["fit", f"--runs_dir={tmp_path}", "--model.trouble=error@val1"])
    assert read_summary(tmp_path / "toy" / "default" / "version_0")["status"] == "failed"


# ------------------------------------------------------------------------- signals


def test_signal_during_a_test_ends_it_with_status_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def test_step(task: ToyTask, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  # not looked at
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ToyTask, "test_step", test_step)
    with pytest.raises(SystemExit) as stopped:
        main(["test", f"--runs_dir={tmp_path}", "--allow_random_weights"])
    assert stopped.value.code == 130
    assert read_summary(tmp_path / "toy" / "default" / "test_0")["status"] == "interrupted"


# --------------------------------------------------------------------------- help


def test_help_of_export_describes_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--help"])
    assert not stopped.value.code
    out = " ".join(capsys.readouterr().out.split())
    for words in ("Share of the channels left out in training", "Height and width of the images", "--format"):
        assert words in out


def test_a_command_that_is_interrupted_before_it_begins_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_cli, "write_config", lambda *unused: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", f"--runs_dir={tmp_path / 'runs'}", "--trainer.max_epochs=1"])
    assert stopped.value.code == 143
    assert list(tmp_path.iterdir()) == []


def test_next_command_names_the_package_that_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "dots" / "configs"
    configs.mkdir(parents=True)
    (tmp_path / "dots" / "__init__.py").touch()
    (configs / "tiny.yaml").write_text("model: {width: 2}\ntrainer: {max_epochs: 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments: dict[str, Any] = {"default_task": ToyTask, "package": "dots"}
    run("dots", DotTask, ToyData, ["fit", "--config=tiny", f"--runs_dir={tmp_path}"], **arguments)
    (following,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  next ")]
    assert following[1:5] == ["python", "-m", "dots", "test"]
    run("dots", DotTask, ToyData, following[4:], **arguments)
    assert "test/distance" in capsys.readouterr().out
