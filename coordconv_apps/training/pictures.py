"""Base callback that draws pictures during and after a run."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from PIL.Image import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from coordconv_apps.nn.coords import Coords
from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.lightning_internals import epoch_log_step
from coordconv_apps.training.task import Task
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.utils.argument_checks import check_at_least
from coordconv_apps.utils.files import atomic_write


@runtime_checkable
class ImageLogger(Protocol):
    """A logger that takes pictures, such as Lightning's for Weights & Biases."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Log pictures under a name."""


def arm_in_words(coords: Coords) -> str:
    """Return an arm of a comparison as titles name it.

    >>> arm_in_words("none"), arm_in_words("xy")
    ('plain convolutions', 'CoordConv (coords=xy)')
    """
    return "plain convolutions" if coords == "none" else f"CoordConv (coords={coords})"


class Pictures(Callback):
    """Draw pictures during ``fit`` and at its end, and at the end of ``validate`` and ``test``.

    Each picture is written to ``pictures/<name>.png`` in the run's folder, which it replaces, to TensorBoard, and to
    other loggers that take pictures. A subclass implements `draw`. Only rank 0 draws, with the network in evaluation
    mode, without gradients, and without a change of the global random state.

    Args:
        every_n_epochs: Number of epochs between pictures during ``fit``; 0 draws at its end only.
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        check_at_least(0, every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self._drawn_step = -1

    @abstractmethod
    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image]:
        """Return pictures by file name, without a suffix; the data module is set up for the current command."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw every `every_n_epochs` epochs."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw at the end of ``fit``, unless the last epoch did."""
        if self._drawn_step != trainer.global_step:
            self._draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw at the end of ``test``."""
        self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw at the end of ``validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._drawn_step = trainer.global_step
        with cast(Task, task).inference(), isolate_rng():
            pictures = self.draw(task, attached_datamodule(trainer, LightningDataModule))
        step = epoch_log_step(trainer)  # that of the metrics: a resumed run drops what has later steps
        for name, picture in pictures.items():
            with atomic_write(run_dir(trainer) / "pictures" / f"{name}.png", "wb") as file:
                picture.save(file, format="PNG")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    pixels = pil_to_tensor(picture.convert("RGB"))
                    logger.experiment.add_image(f"pictures/{name}", pixels, step)
                elif isinstance(logger, ImageLogger):
                    logger.log_image(f"pictures/{name}", [picture], step=step)
