"""The trainer of the command line: Lightning's, with ``export`` as one more command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer

from coordconv_apps.export import FORMATS, Format, export

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from coordconv_apps.training.task import Task


class SuiteTrainer(Trainer):
    """Lightning's trainer, with the command ``export`` and short help texts.

    Args:
        limit_train_batches: Number of batches in a training epoch, or their share (1.0 is all). Null: all.
        limit_val_batches: The same for a validation.
        limit_test_batches: The same for a test.
        limit_predict_batches: The same for a prediction.
        args: Lightning's other arguments.
        kwargs: Lightning's other arguments.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  # Lightning's
        # The command line takes the first type that fits; in Lightning's order, 1 may become the share 1.0.
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        **kwargs: Any,  # noqa: ANN401  # Lightning's
    ) -> None:
        super().__init__(
            *args,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            **kwargs,
        )

    def fit(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # Lightning's
        """Train a network, or resume its training."""
        super().fit(*args, **kwargs)

    def validate(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # Lightning's
        """Evaluate a checkpoint on the validation data."""
        return super().validate(*args, **kwargs)

    def test(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # Lightning's
        """Evaluate a checkpoint on the test data."""
        return super().test(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # Lightning's
        """Use a checkpoint on data of your own."""
        return super().predict(*args, **kwargs)

    def export(self, model: Task, datamodule: LightningDataModule, format: Format = "default") -> dict[Path, float]:
        """Write a checkpoint's network in forms that run without this package.

        Args:
            model: The task to export.
            datamodule: Its data.
            format: ``onnx``: a graph for any ONNX runtime. ``plain``: plain convolutions and constant maps for one
                input size, as a torch.export program and as weights. ``torch_export``: the network itself as a
                torch.export program. ``default``: onnx and plain. ``all``: all of them. The batch size is dynamic.

        Returns:
            The files, in the run's folder, and for each the largest difference from the network's outputs.

        Raises:
            UserError: A package is missing, or the outputs of a file differ from the network's.
            ValueError: The task has no network to export.
        """
        module, inputs = model.export_module().cpu().eval(), tuple(x.cpu() for x in model.example_inputs())
        module = module.to(memory_format=torch.contiguous_format)  # torch.export.save warns otherwise
        folder = Path(self.default_root_dir) / "export"
        return export(module, inputs, FORMATS[format], folder) | model.export_more(folder)
