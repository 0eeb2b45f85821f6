"""When pictures are drawn, and that a training does not change by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from PIL import Image

from coordconv_apps.cli.app import run
from coordconv_apps.utils.warning_filters import filter_warnings
from tests.helpers.trainers import own_trainer
from tests.toy.data import ToyData
from tests.toy.tasks import ToyPictures, ToyTask


class CountedPictures(ToyPictures):
    """Notes when it draws, and uses up random numbers.

    Args:
        every_n_epochs: How often.
    """

    drawn: list[int]
    broken = False

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in task.modules())
        assert isinstance(datamodule, ToyData)
        self.drawn.append(task.current_epoch)
        torch.rand(100)
        if self.broken:
            raise RuntimeError("no picture today")
        colour = (len(self.drawn), 0, 0)
        return {"one": Image.new("RGB", (4, 3), colour), "two": Image.new("L", (2, 2), 7)}


def fit(runs: Path, every: int, epochs: int = 4, *more: str) -> Path:
    CountedPictures.drawn = []
    args = ["fit", f"--runs_dir={runs}", f"--trainer.max_epochs={epochs}", f"--counted_pictures.every_n_epochs={every}"]
    args += more
    run("toy", ToyTask, ToyData, args, callbacks=[CountedPictures])
    return runs / "toy" / "default" / "version_0"


@pytest.mark.parametrize(("every", "drawn"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2, 4]), (0, [4])])
def test_pictures_are_drawn_every_n_epochs_and_at_the_end(tmp_path: Path, every: int, drawn: list[int]) -> None:
    folder = fit(tmp_path, every)
    assert CountedPictures.drawn == drawn
    pictures = {path.name: Image.open(path) for path in (folder / "pictures").iterdir()}
    assert set(pictures) == {"one.png", "two.png"}
    assert pictures["one.png"].getpixel((0, 0)) == (len(drawn), 0, 0)  # the last one
    assert pictures["two.png"].getpixel((0, 0)) == 7


def test_pictures_change_nothing_of_a_training(tmp_path: Path) -> None:
    with_pictures, without = fit(tmp_path / "with", 1), fit(tmp_path / "without", 0)
    assert (with_pictures / "metrics.csv").read_text() == (without / "metrics.csv").read_text()


def steps_in_tensorboard(folder: Path) -> list[int]:
    """Return the steps of the pictures that TensorBoard shows, which are those of the validations."""
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]  # it has none

    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["images"]) == {"pictures/one", "pictures/two"}
    steps = [event.step for event in events.Images("pictures/one")]
    assert steps == [event.step for event in events.Scalars("val/distance")]
    return steps


def test_tensorboard_shows_each_picture_of_a_resumed_run_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = fit(tmp_path, 1, 2)
    last = folder / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    fit(tmp_path, 1, 3, "--ckpt_path=last")
    assert steps_in_tensorboard(folder) == [4, 9, 14]
    assert "out of order" not in caplog.text, "nothing was logged after the checkpoint"

    last.write_bytes(content)  # as if the third epoch had been killed
    fit(tmp_path, 1, 4, "--ckpt_path=last")
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "out of order" not in printed, "the training says nothing about it"
    assert steps_in_tensorboard(folder) == [4, 9, 14, 19]
    assert "out of order" in caplog.text, "TensorBoard does: it leaves out what was logged after the checkpoint"


def test_a_picture_that_fails_leaves_the_network_in_training_mode(tmp_path: Path) -> None:
    modes: list[bool] = []

    class Watched(CountedPictures):
        broken = True

        def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ANN401  # unused
            modes.extend(module.training for module in pl_module.modules())

    Watched.drawn = []
    with pytest.raises(RuntimeError, match="no picture today"):
        run("toy", ToyTask, ToyData, ["fit", f"--runs_dir={tmp_path}"], callbacks=[Watched])
    assert all(modes)
    assert modes


def test_a_test_after_a_training_draws_again(tmp_path: Path) -> None:
    CountedPictures.drawn = []
    trainer, task, data = own_trainer(tmp_path, max_epochs=1, callbacks=[CountedPictures()]), ToyTask(), ToyData()
    with filter_warnings():
        trainer.fit(task, datamodule=data)
        trainer.test(task, datamodule=data, verbose=False)
        trainer.validate(task, datamodule=data, verbose=False)
    assert len(CountedPictures.drawn) == 3
