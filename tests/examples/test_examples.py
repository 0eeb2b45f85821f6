"""Every example runs, at tiny settings, and shows what its docstring says."""

from __future__ import annotations

import ast
import re
import shlex
import urllib.error
from pathlib import Path

import pytest
import torch
from PIL import Image

from coordconv_apps import coordconv_layers
from coordconv_apps.runs.summary import read_summary
from examples import image_metrics, sb3_coordconv_policy, torchvision_detector, unet_segmentation
from examples.find_the_cross.__main__ import main as find_the_cross
from examples.find_the_cross.data import CrossData, draw_images
from examples.find_the_cross.tasks import FindTheCross
from generative.pixel_range import to_uint8
from generative.two_shapes import draw_scenes, render
from tests.helpers.hub_cache import put_in_cache
from tests.helpers.planted import Planted
from tests.packaging.source import ROOT, modules

EXAMPLES = ROOT / "examples"


def test_coordinates_separate_the_sides_of_a_unet(capsys: pytest.CaptureFixture[str]) -> None:
    ious = unet_segmentation.main(["--steps=40", "--batch_size=4"])
    assert ious["xy"] > ious["none"] + 0.1
    assert "coords xy " in capsys.readouterr().out


# ------------------------------------------------------------------------- detector


def test_a_detector_from_a_file_is_converted_and_fine_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    weights, out = tmp_path / "coco.pth", tmp_path / "new" / "tuned.pth"
    torch.save(torchvision_detector.load_detector("none").state_dict(), weights)
    detector = torchvision_detector.main(
        [f"--weights={weights}", "--steps=2", "--batch_size=1", f"--out={out}", "--lr=0.01"]
    )
    printed = capsys.readouterr().out
    assert "converted without a change of outputs: backbone.body.0.0" in printed
    assert "in step 2" in printed
    saved, before = torch.load(out, weights_only=True), torch.load(weights, weights_only=True)
    assert saved.keys() - before.keys() == {f"{name}.coord_weight" for name in coordconv_layers(detector)}
    assert saved["backbone.body.0.0.coord_weight"].abs().max() > 0  # trained
    assert saved["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    assert torch.equal(saved["backbone.body.0.1.running_mean"], before["backbone.body.0.1.running_mean"])


def test_missing_or_wrong_weights_of_a_detector_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing is downloaded already
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    expected = {
        "coco": r"no network.*; download https://\S+\.pth elsewhere and pass the file, or ",
        "nowhere.pth": "No such file",
        str(tmp_path / "other.pth"): "must be the state dict of fasterrcnn_mobilenet_v3_large_320_fpn for COCO$",
        str(tmp_path / "text.pth"): "must be a file of tensors",
    }
    for weights, told in expected.items():
        with pytest.raises(SystemExit, match="2"):
            torchvision_detector.main(["--weights", weights])
        (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("Downloading"))
        assert line.startswith(f"error: --weights {weights}: ")
        assert re.search(told, line), line
    for out, told in ((tmp_path, "is a folder"), (tmp_path / "text.pth" / "tuned.pth", "File exists")):
        with pytest.raises(SystemExit, match="2"):  # before the training, not after it
            torchvision_detector.main(["--weights=none", f"--out={out}"])
        assert told in capsys.readouterr().err.splitlines()[-1]
    put_in_cache(torchvision_detector.PRETRAINED, {"a": Planted(tmp_path / "ran")}, tmp_path, monkeypatch)
    with pytest.raises(SystemExit, match="2"):
        torchvision_detector.main([])
    assert capsys.readouterr().err.startswith("error: --weights coco: must be a file of tensors")
    assert not (tmp_path / "ran").exists(), "a file in torch's cache is not opened as a pickle"


# -------------------------------------------------------------------- policies and metrics


def test_sb3_policies_train_and_are_saved_for_both_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "--timesteps=8",
        "--num_envs=2",
        "--n_steps=4",
        "--batch_size=8",
        "--episodes=2",
        f"--out={tmp_path / 'new'}",
    ]
    scores = sb3_coordconv_policy.main(args)
    assert scores.keys() == {"none", "xy"}
    assert all(-5 <= score <= 5 for score in scores.values())
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["ppo_none.zip", "ppo_xy.zip"]
    assert "coords xy " in capsys.readouterr().out


def test_metrics_show_that_modes_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = draw_scenes(60, 32, 5, torch.Generator().manual_seed(0))
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in to_uint8(render(scenes, 32, 5))]
    folders = {"real": images[:40], "good": images[40:], "collapsed": images[40:42] * 10}
    for name, chosen in folders.items():
        (tmp_path / name).mkdir()
        for index, image in enumerate(chosen):
            image.resize((48, 32)).save(tmp_path / name / f"{index}.{'png' if index % 2 else 'bmp'}")
    (tmp_path / "real" / "broken.png").write_text("no image")

    def measured(name: str) -> dict[str, tuple[float, float]]:
        return image_metrics.main([str(tmp_path / "real"), str(tmp_path / name), "--size=32"])

    good, collapsed = measured("good"), measured("collapsed")
    for name in ("coverage", "recall", "support_size"):
        assert collapsed[name][0] < 0.7 * good[name][0]
        assert good[name][1] == collapsed[name][1] > collapsed[name][0]
    assert good["patch_distance"][0] < collapsed["patch_distance"][0]
    printed = capsys.readouterr().out
    assert "20 generated images beside as many real ones" in printed
    assert "broken.png" in printed

    with pytest.raises(SystemExit, match="2"):
        measured("nowhere")
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        image_metrics.main([str(tmp_path / "real"), str(tmp_path / "good"), "--most=10"])
    assert "must be at least 12 and 6" in capsys.readouterr().err


# ------------------------------------------------------------------------- application


@pytest.mark.parametrize("coords", ["none", "xy"])
def test_find_the_cross_trains_tests_and_exports(coords: str, tmp_path: Path) -> None:
    runs = f"--runs_dir={tmp_path}"
    small = ["--data.num_train=16", "--data.num_eval=6", "--data.batch_size=8", "--trainer.max_epochs=1"]
    find_the_cross(["fit", "--config=quickstart", f"--model.coords={coords}", runs, *small])
    run = tmp_path / "find_the_cross" / "quickstart" / "version_0"
    assert (run / "pictures" / "found.png").is_file()
    assert read_summary(run)["coords"] == coords
    find_the_cross(["test", "--name=quickstart", "--ckpt_path=best", runs])
    assert read_summary(run / "test_0")["metrics"]["test/distance"] > 0
    find_the_cross(["export", "--name=quickstart", "--ckpt_path=best", "--format=plain", runs])


def test_the_cross_is_where_the_data_say() -> None:
    images, positions = draw_images(50, 12, 2, torch.Generator().manual_seed(0)).tensors
    for image, (x, y) in zip(images[:, 0], positions.int().tolist(), strict=True):
        assert 2 <= x < 10
        assert 2 <= y < 10
        corners = image[y - 2 : y + 3 : 4, x - 2 : x + 3 : 4]
        assert corners.shape == (2, 2)
        assert corners.all()


def test_find_the_cross_reports_invalid_arguments_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, told in {
        "--data.size=3": "data.size=3: must be an integer of at least 8",
        "--model.width=0": "model.width=0: must be an integer of at least 1",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            find_the_cross(["fit", "--config=quickstart", flag])
        assert capsys.readouterr().err == f"error: {told}\n"


# ------------------------------------------------------------------------- all


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name not in ("README.md", "__init__.py", "__pycache__"):
            assert f"({path.name})" in text, path.name


def test_invalid_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for example, args in (
        (unet_segmentation, ["--steps=0"]),
        (torchvision_detector, ["--weights=none", "--batch_size=0"]),
        (image_metrics, [str(tmp_path), str(tmp_path), "--most=-1"]),
    ):
        with pytest.raises(SystemExit, match="2"):
            example.main(args)
        assert capsys.readouterr().err.endswith(f"error: {args[-1]}: must be at least 1\n")
    with pytest.raises(SystemExit, match="2"):
        image_metrics.main([str(tmp_path), str(tmp_path), "--size=6"])
    assert capsys.readouterr().err.endswith("error: --size=6: must be at least 7, the size of a patch\n")
    with pytest.raises(SystemExit, match="2"):
        torchvision_detector.main(["--weights=none", "--lr=nan"])
    assert capsys.readouterr().err.endswith("error: --lr=nan: must be above 0\n")
    with pytest.raises(ValueError, match=r"data\.num_eval=-1: must be an integer of at least 1"):
        CrossData(num_eval=-1)
    with pytest.raises(ValueError, match=r"model\.lr=0\.0: must be above 0"):
        FindTheCross(size=32, lr=0.0)
    with pytest.raises(ValueError, match=r"model\.size=0: must be an integer of at least 1"):
        FindTheCross(size=0)


@pytest.mark.parametrize("module", sorted(name for name in modules("examples") if name.count(".") == 1))
def test_docstrings_say_how_to_run_them(module: str) -> None:
    text = ast.get_docstring(ast.parse(modules("examples")[module].read_text(encoding="utf-8")))
    assert text is not None
    commands = [line.strip() for line in text.splitlines() if line.startswith("    python ")]
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert "examples/" + module.removeprefix("examples.") + ".py" in words or module in words
