"""``predict``: samples as pictures, and in one file their latents and what is seen in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torchvision.transforms.v2.functional import to_pil_image

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.utils.files import atomic_write
from generative.data import GenerativeData
from generative.decode import decode
from generative.pictures import as_bytes

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from numpy.typing import NDArray

    from generative.data import NumberBatch
    from generative.sampling import Prediction

FOLDER, ARRAYS_NAME = "predictions", "samples.npz"


class SampleWriter(Callback):
    """Writes ``predictions/<number>.png`` and ``predictions/samples.npz`` to the run's folder.

    A picture has the size of the generator's images. The file holds arrays, sorted by the samples' numbers, which
    ``numpy.load`` opens: "index" int64 ``(N,)``, the number of each sample; "latents" float32 ``(N, z)``; and, of the
    two shapes, what `generative.decode.decode` finds in the images, always red before blue: "present" bool ``(N, 2)``,
    "centers" float32 ``(N, 2, 2)``, x and y in pixels, "shapes" int64 ``(N, 2)``, 0 for a circle and 1 for a square,
    "sizes" float32 ``(N, 2)`` in pixels, and "valid" bool ``(N,)``, whether all of this can be relied on.
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, NDArray[Any]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the samples of an earlier prediction."""
        self._parts = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: NumberBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the pictures of a batch, and note what is in them."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        if not isinstance(datamodule, GenerativeData):
            raise TypeError(f"{type(datamodule).__name__} is not the data of generative")
        found = {"index": outputs.indices, "latents": outputs.latents.float()}
        if datamodule.source == "shapes":
            found |= decode(outputs.images, datamodule.radius)._asdict()
        self._parts.append({name: values.cpu().numpy() for name, values in found.items()})
        for number, image in zip(outputs.indices.tolist(), as_bytes(outputs.images), strict=True):
            with atomic_write(self._folder(trainer) / f"{number:05d}.png", "wb") as file:
                to_pil_image(image).save(file, format="PNG")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the arrays, of the samples of all processes, and say where they are."""
        gathered: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(gathered, self._parts)
        else:
            gathered = [self._parts]
        self._parts = []
        if not trainer.is_global_zero:
            return
        parts = [part for of_process in gathered for part in of_process]
        arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = arrays["index"].argsort()
        path = self._folder(trainer) / ARRAYS_NAME
        with atomic_write(path, "wb") as file:
            np.savez(file, **{name: values[order] for name, values in arrays.items()})
        valid = f", {arrays['valid'].sum()} of them with one red and one blue object" if "valid" in arrays else ""
        print(f"{len(order)} samples{valid}: {path} and the pictures beside it")

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        return run_dir(trainer) / FOLDER
