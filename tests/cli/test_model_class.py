"""Which task a command is about: `--model`, config files, checkpoints, and what the help shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from coordconv_apps.nn.coords import Coords
from coordconv_apps.runs.summary import read_summary
from tests.helpers.refusals import refusal
from tests.toy.__main__ import main
from tests.toy.tasks import ToyHeatmap, ToyTask

HEATMAP = "tests.toy.tasks.ToyHeatmap"


def merged_config(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, object]]:
    """The class and the arguments of the model that a command line asks for."""
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *args, "--print_config"])
    assert not stopped.value.code
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    return model["class_path"].rpartition(".")[2], model["init_args"]


@pytest.fixture
def configs(tmp_path: Path) -> dict[str, str]:
    texts = {
        "short": "model: {class_path: ToyHeatmap, init_args: {temperature: 2.0}}",
        "full": f"model: {{class_path: {HEATMAP}, init_args: {{temperature: 2.0}}}}",
        "flat": "model: {width: 6}",
        "named": "model: ToyHeatmap",
        "data": "data: {size: 6}",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return {name: f"--config={tmp_path / name}.yaml" for name in texts}


def test_command_line_chooses_the_task_class_in_any_order(
    configs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ("ToyHeatmap", {"coords": "xy", "lr": 0.05, "temperature": 3.0, "trouble": None})
    flags = ["--model=ToyHeatmap", "--model.coords=xy", "--model.temperature=3", configs["data"]]
    for first in range(len(flags)):
        args = flags[first:] + flags[:first]
        assert merged_config(args, capsys) == expected
        assert merged_config(args[::-1], capsys) == expected
    assert merged_config(["--model", HEATMAP, "--model.coords", "xy", "--model.temperature", "3"], capsys) == expected
    spec = "{class_path: ToyHeatmap, init_args: {temperature: 3}}"
    for mapping in (spec, spec + " " * 300):  # longer than the name of a file may be
        assert merged_config(["--model.coords=xy", f"--model={mapping}"], capsys) == expected
        assert merged_config(["--model.coords=xy", f"--config={{model: {mapping}}}"], capsys) == expected
    assert merged_config(["--model.coords=xy"], capsys)[0] == "ToyTask"


def test_config_chooses_the_task_class(configs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    heatmap = {"coords": "none", "lr": 0.05, "temperature": 2.0, "trouble": None}  # no default of ToyTask
    for name in ("short", "full"):
        assert merged_config([configs[name]], capsys) == ("ToyHeatmap", heatmap)
        assert merged_config(["--model.lr=1", configs[name]], capsys) == ("ToyHeatmap", heatmap | {"lr": 1.0})
    assert merged_config([configs["named"]], capsys) == ("ToyHeatmap", heatmap | {"temperature": 1.0})
    name, arguments = merged_config([configs["flat"], "--model.coords=xy"], capsys)
    assert (name, arguments["width"], arguments["coords"]) == ("ToyTask", 6, "xy")
    name, arguments = merged_config([configs["full"], "--model=ToyTask"], capsys)
    assert (name, arguments) == ("ToyTask", merged_config([], capsys)[1])


def test_arguments_of_another_class_are_named(configs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for other in (configs["full"], "--model={class_path: ToyHeatmap, init_args: {temperature: 2, lr: 1}}"):
        with pytest.raises(SystemExit):
            main(["fit", other, "--model=ToyTask", "--print_config"])
        assert capsys.readouterr().err == "ignored: --model=ToyTask has no model.temperature\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model=ToyHeatmp"], "--model=ToyHeatmp: there is no such task class (close: ToyHeatmap"),
        (["--model=toytask"], "--model=toytask: there is no such task class (close: ToyTask"),
        (["--model=no.such.Thing"], "there is no such task class: No module named 'no' (choose from"),
        (["--model=tests.toy.Thing"], "no such task class: module 'tests.toy' has no attribute 'Thing' (choose from"),
        (["--model=DotTask"], "--model=DotTask: there is no such task class"),
        (["--model=ToyHeatmap", "--model.width=3"], "with --model=ToyHeatmap"),
        (
            ["--model=ToyHeatmap", "--model.temprature=3"],
            "there is no argument --model.temprature (close: --model.",
        ),
        (["--model=ToyHeatmap", "--model.temperature=hot"], "--model.temperature=hot: expected a number"),
        (["--model.temperature=3", "--model=ToyTask"], "with --model=ToyTask"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", *args])
    if "close" in message:
        path = tmp_path / "config.yaml"
        name, _, value = args[-1].removeprefix("--").partition("=")
        if name == "model":
            path.write_text(f"model: {{class_path: {value}}}")
            assert message in refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", f"--config={path}"])


def test_command_section_that_is_no_mapping_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("fit: 3")
    assert "a.yaml: fit=3: must be a mapping of arguments" in refusal(
        capsys, main, [f"--config={tmp_path}/a.yaml", "fit"]
    )


def test_help_shows_the_arguments_of_the_chosen_task(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for args in (["fit", "--help"], ["fit", "--help", "--model=ToyHeatmap"]):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert not stopped.value.code
        texts.append(" ".join(capsys.readouterr().out.split()))
    default, heatmap = texts
    order = [
        "--config CONFIG",
        "--model.coords",
        "--data.size",
        "--toy_pictures.every_n_epochs",
        "--trainer.max_epochs",
    ]
    assert sorted(order, key=default.index) == order, "Lightning's arguments come last"
    for markup in ("``", ":class:", "`_", "lightning.pytorch.", "Union[", "Optional["):
        assert markup not in default
    assert "--optimizer" not in default
    assert "--lr_scheduler" not in default
    assert "--model.coords {none,xy,xyr} Which coordinates the network sees." in default
    assert "--model.width WIDTH Channels. (type: int, default: 4)" in default
    assert "--model.temperature" not in default
    assert "Other tasks: " in default
    assert "ToyHeatmap" in default.partition("Other tasks: ")[2]
    assert "--model.temperature TEMPERATURE What the heat map's logits are divided by." in heatmap
    assert "--model.width" not in heatmap


def test_checkpoint_chooses_the_task_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = f"--runs_dir={tmp_path}"
    main(["fit", runs, "--model=ToyHeatmap", "--model.coords=xy", "--trainer.max_epochs=1"])
    folder = tmp_path / "toy" / "default"
    config = yaml.safe_load((folder / "version_0" / "config.yaml").read_text())
    assert config["model"]["class_path"] == HEATMAP
    main(["test", runs, "--ckpt_path=best"])
    assert read_summary(folder / "version_0" / "test_0")["coords"] == "xy"
    main(["fit", runs, "--ckpt_path=last", "--trainer.max_epochs=2", "--model.temperature=2"])
    assert "changed: model.temperature=2.0 on the command line, 1.0 in the checkpoint" in capsys.readouterr().out
    assert read_summary(folder / "version_0")["epochs"] == 2
    checkpoint = folder / "version_0" / "checkpoints" / "last.ckpt"
    test = ["test", runs, f"--ckpt_path={checkpoint}"]
    assert f"--model=ToyTask: the checkpoint {checkpoint} is of ToyHeatmap" in refusal(
        capsys, main, [*test, "--model=ToyTask"]
    )
    assert "only model.temperature may change when a checkpoint is loaded" in refusal(
        capsys, main, [*test, "--model.lr=3"]
    )
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "all")  # of which the user of a checkpoint sees none
    assert ToyHeatmap.load_from_checkpoint(checkpoint).temperature == 2
    # The config of a run, and Lightning's own checkpoints, name the class as well.
    main(["fit", f"--config={folder / 'version_0'}/config.yaml", f"--runs_dir={tmp_path / 'again'}"])
    content = torch.load(checkpoint, weights_only=True)
    for key in ("run", "coordconv_apps"):
        del content[key]
    torch.save(content, tmp_path / "plain.ckpt")
    main(["test", runs, f"--ckpt_path={tmp_path / 'plain.ckpt'}"])
    assert read_summary(folder / "test_0")["coords"] == "xy"
    content["hyper_parameters"]["_class_path"] = "elsewhere.Task"
    torch.save(content, tmp_path / "other.ckpt")
    error = refusal(capsys, main, ["test", runs, f"--ckpt_path={tmp_path / 'other.ckpt'}"])
    assert "this is a checkpoint of elsewhere.Task, which is no task class of this application" in error
    assert "add --model=elsewhere.Task" in error
    del content["hyper_parameters"]["_class_path"]
    torch.save(content, tmp_path / "bare.ckpt")
    main(["test", runs, f"--ckpt_path={tmp_path / 'bare.ckpt'}", "--model=ToyHeatmap"])


def test_top_level_config_chooses_the_task_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "top.yaml"
    path.write_text("fit: {model: {class_path: ToyHeatmap}}")
    with pytest.raises(SystemExit):
        main([f"--config={path}", "fit", "--model.temperature=2", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["temperature"] == 2


def test_flags_override_whole_sections_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data.size=6", "--trainer.max_epochs=3"]
    sections = ["--data={size: 5, samples: 7}", "--trainer={max_epochs: 2, max_steps: 9}"]
    for args in ([*flags, *sections], [*sections, *flags]):
        with pytest.raises(SystemExit):
            main(["fit", *args, "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        assert (config["data"]["size"], config["data"]["samples"]) == (6, 7)
        assert (config["trainer"]["max_epochs"], config["trainer"]["max_steps"]) == (3, 9)


class _NeedsDropout(ToyTask):
    """Lack an argument of `ToyTask` that is read from ``hparams``.

    Args:
        coords: As `ToyTask`'s.
    """

    def __init__(self, coords: Coords = "none") -> None:
        super().__init__(coords)
        self.dropout = self.hparams["dropout"]


def test_an_argument_that_a_subclass_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", f"--model={__name__}._NeedsDropout"])
    assert "--model=_NeedsDropout: its constructor needs the argument 'dropout', which a base class reads; add" in error
