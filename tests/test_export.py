"""Exported files give the network's outputs, and run without this package."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor, nn

from coordconv_apps import CoordConv2d
from coordconv_apps.export import FILES, export
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.utils.errors import UserError
from tests.helpers.processes import TWO_PROCESSES
from tests.helpers.refusals import refusal
from tests.helpers.runs import last_command
from tests.toy.__main__ import main
from tests.toy.tasks import ToyTask

NAMES = ["network.onnx", "network_plain.pt2", "network_plain_weights.pt", "network.pt2"]
INTERFACE = ExportInterface({"images": "in [0, 1]"}, {"features": "of any size"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", f"--runs_dir={runs}", "--trainer.max_epochs=1", "--model.coords=xyr"])
    return runs


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    main(["export", f"--runs_dir={trained}", "--ckpt_path=best", "--format=all"])
    return trained / "toy" / "default" / "version_0" / "export_0" / "export"


def network(trained: Path) -> nn.Module:
    return ToyTask.load_from_checkpoint(trained / "toy/default/version_0/checkpoints/best.ckpt").net.eval()


@pytest.mark.usefixtures("exported")
def test_a_signal_ends_an_export_with_several_devices(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "export_module", lambda task: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        main(["export", f"--runs_dir={trained}", "--ckpt_path=best", *TWO_PROCESSES])
    assert stopped.value.code == 143


def test_the_first_of_several_processes_exports(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(trained.rglob("*"))
    monkeypatch.setenv("RANK", "1")
    main(["export", f"--runs_dir={trained}", "--ckpt_path=best"])
    assert sorted(trained.rglob("*")) == before


def test_the_command_writes_all_forms(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == sorted([*NAMES, "network.json"])
    summary = read_summary(exported.parent)
    assert summary["command"] == "export"
    assert summary["status"] == "finished"
    differences = {name: summary["metrics"][f"difference/{name}"] for name in NAMES}
    assert all(difference < 1e-5 for difference in differences.values())


@pytest.mark.parametrize("batch", [1, 4])
def test_onnx_gives_the_outputs_of_the_network(trained: Path, exported: Path, batch: int) -> None:
    session = onnxruntime.InferenceSession(exported / "network.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(batch, 1, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(found, network(trained)(images).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_programs_run_without_this_package(trained: Path, exported: Path, tmp_path: Path) -> None:
    images = torch.rand(3, 1, 8, 8)
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['coordconv_apps'] = None\n"
        "for file in sys.argv[1:]:\n"
        "    network = torch.export.load(file).module()\n"
        "    torch.save(network(torch.load('images.pt')), file.rpartition('/')[2])"
    )
    programs = ["network_plain.pt2", "network.pt2"]
    files = [str(exported / name) for name in programs]
    subprocess.run([sys.executable, "-c", code, *files], cwd=tmp_path, check=True, timeout=300)
    for name in programs:
        torch.testing.assert_close(torch.load(tmp_path / name), network(trained)(images))


def test_plain_weights_are_those_of_convolutions_and_maps(trained: Path, exported: Path) -> None:
    weights = torch.load(exported / "network_plain_weights.pt", weights_only=True)
    own = network(trained).state_dict()
    assert torch.equal(weights["0.conv.weight"], own["0.weight"])
    assert not any("coord" in name for name in weights)


def test_export_writes_only_the_given_format(trained: Path) -> None:
    main(["export", f"--runs_dir={trained}", "--ckpt_path=best", "--format=plain", "--name=default"])
    folder = last_command(trained / "toy" / "default") / "export"
    names = ["network.json", "network_plain.pt2", "network_plain_weights.pt"]
    assert sorted(p.name for p in folder.iterdir()) == names


def test_arguments_of_the_data_are_those_of_the_training(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", f"--runs_dir={trained}", "--ckpt_path=best", "--format=plain", "--data.val_samples=7"])
    printed = capsys.readouterr().out
    assert "ignored: data.val_samples=7 on the command line, 19 in the checkpoint; export takes" in printed
    assert "changed:" not in printed
    config = yaml.safe_load((last_command(trained / "toy" / "default") / "config.yaml").read_text())
    assert config["data"]["val_samples"] == 19


def test_inputs_outputs_and_classes_are_described(exported: Path) -> None:
    described = json.loads((exported / "network.json").read_text(encoding="utf-8"))
    assert described == {
        "inputs": {"images": {"dtype": "float32", "shape": ["batch", 1, 8, 8], "description": "in [0, 1]"}},
        "outputs": {"positions": {"dtype": "float32", "shape": ["batch", 2], "description": "of the dot"}},
        "class_names": {"0": "Punkt", "7": "점"},
    }
    session = onnxruntime.InferenceSession(exported / "network.onnx", providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == ["images"]
    assert [y.name for y in session.get_outputs()] == ["positions"]
    metadata = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(metadata[key]) for key in described} == described
    graph = onnx.load(exported / "network.onnx").graph
    assert [value.doc_string for value in (*graph.input, *graph.output)] == ["in [0, 1]", "of the dot"]


class TwoInputs(nn.Module):
    """Several inputs and several outputs, one of them of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = CoordConv2d(2, 3, 3, padding=1)

    def forward(self, images: Tensor, shift: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.conv(images) + shift[:, None, None, None]
        return y.mean((2, 3)), {"brightest": y.flatten(1).argmax(1)}


def test_several_inputs_and_outputs_are_exported(tmp_path: Path) -> None:
    module = TwoInputs().eval()
    inputs = (torch.rand(1, 2, 5, 6), torch.rand(1))
    interface = ExportInterface({"images": "in [0, 1]", "shift": ""}, {"means": "", "brightest": "index of a pixel"})
    files = export(module, inputs, ["onnx", "plain", "torch_export"], tmp_path, interface)
    assert max(files.values()) < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    assert [(x.name, x.shape[0]) for x in session.get_inputs()] == [("images", "batch"), ("shift", "batch")]
    assert [(y.name, y.shape) for y in session.get_outputs()] == [("means", ["batch", 3]), ("brightest", ["batch"])]
    outputs = json.loads((tmp_path / "network.json").read_text())["outputs"]
    assert {name: (one["dtype"], one["shape"]) for name, one in outputs.items()} == {
        "means": ("float32", ["batch", 3]),
        "brightest": ("int64", ["batch"]),
    }
    program = torch.export.load(tmp_path / "network_plain.pt2").module()
    batch = (torch.rand(7, 2, 5, 6), torch.rand(7))
    torch.testing.assert_close(program(*batch), module(*batch))


def test_the_baseline_is_plain_already(tmp_path: Path) -> None:
    files = export(nn.Conv2d(1, 2, 3).eval(), (torch.rand(2, 1, 6, 6),), ["plain"], tmp_path, INTERFACE)
    assert len(files) == 2


def test_weights_in_a_file_of_their_own_come_with_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX has it above 2 GiB."""
    monkeypatch.setattr("coordconv_apps.export.ONNX_BYTES_INSIDE", 100)
    module = nn.Conv2d(1, 64, 3).eval()
    files = export(module, (torch.rand(2, 1, 6, 6),), ["onnx"], tmp_path, INTERFACE)
    assert sorted(path.name for path in files) == ["network.onnx", "network.onnx.data"]
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "network.json"])
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    session = onnxruntime.InferenceSession(moved / "network.onnx", providers=["CPUExecutionProvider"])
    x = torch.rand(3, 1, 6, 6)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "torch_export"])
def test_a_file_that_differs_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def broken(source: Any, path: Path) -> None:  # noqa: ANN401  # the network and what belongs to it
        with torch.no_grad():
            next(source.module.parameters()).add_(0.01)
        write(source, path)
        with torch.no_grad():
            next(source.module.parameters()).sub_(0.01)

    file, *rest = FILES[form]
    write = file.write
    monkeypatch.setitem(FILES, form, [file._replace(write=broken), *rest])
    good = tmp_path / file.name
    good.write_text("the file of an earlier export")
    with pytest.raises(UserError, match=f"{file.name} was not written: output 0 at batch size 1 differs"):
        export(CoordConv2d(1, 2, 3).eval(), (torch.rand(2, 1, 6, 6),), [form], tmp_path, INTERFACE)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert good.read_text() == "the file of an earlier export"


def test_a_missing_package_is_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else find(name))
    told = refusal(capsys, main, ["export", f"--runs_dir={trained}", "--ckpt_path=best"])
    assert "export to onnx needs onnxscript: pip install 'coordconv-apps[export]'" in told


def test_task_without_an_exportable_network_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(ToyTask, "export_module")
    told = refusal(capsys, main, ["export", f"--runs_dir={trained}", "--ckpt_path=best"])
    assert told == "export: ToyTask does not define export_module()"
