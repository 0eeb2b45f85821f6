"""Files that ``predict`` writes: samples as images, and one archive with their latents and decoded objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torchvision.transforms.v2.functional import to_pil_image

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.files import atomic_write
from generative.data import GenerativeData, IndexBatch
from generative.pixel_range import to_uint8
from generative.tasks.base import Samples
from generative.two_shape_decoder import decode

FOLDER, ARCHIVE_NAME = "predictions", "samples.npz"


class SampleWriter(Callback):
    """Write ``predictions/<index>.png`` and ``predictions/samples.npz`` to the run's folder.

    ``numpy.load`` opens the archive. Its arrays are sorted by index:

    - "index": int64 ``(N,)``, the index of each sample.
    - "latents": float32 ``(N, latent_size)``.
    - For two shapes, the fields of `generative.two_shape_decoder.DecodedScenes`, red before blue: "present" bool
      ``(N, 2)``; "centers" float32 ``(N, 2, 2)``, x and y in pixels; "shapes" int64 ``(N, 2)``, 0 for a circle and 1
      for a square; "sizes" float32 ``(N, 2)`` in pixels; "valid" bool ``(N,)``, whether the other fields are
      meaningful.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, NDArray[Any]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the samples of an earlier prediction."""
        self._batches = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Samples, batch: IndexBatch, *unused: int
    ) -> None:
        """Write the images of a batch, and keep its latents and decoded objects."""
        datamodule = attached_datamodule(trainer, GenerativeData)
        arrays = {"index": outputs.indices, "latents": outputs.latents.float()}
        if datamodule.source == "shapes":
            arrays |= decode(outputs.images, datamodule.radius)._asdict()
        self._batches.append({name: values.cpu().numpy() for name, values in arrays.items()})
        for index, image in zip(outputs.indices.tolist(), to_uint8(outputs.images), strict=True):
            with atomic_write(run_dir(trainer) / FOLDER / f"{index:05d}.png", "wb") as file:
                to_pil_image(image).save(file, format="PNG")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the archive with the samples of all processes, and print its path."""
        batches = [batch for of_rank in gather_ranks(self._batches) for batch in of_rank]
        self._batches = []
        if not trainer.is_global_zero:
            return
        arrays: dict[str, Any] = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        order = arrays["index"].argsort()
        path = run_dir(trainer) / FOLDER / ARCHIVE_NAME
        with atomic_write(path, "wb") as file:
            np.savez(file, **{name: values[order] for name, values in arrays.items()})
        valid = f", {arrays['valid'].sum()} of them with one red and one blue object" if "valid" in arrays else ""
        print(f"{len(order)} samples{valid}: {path} and the images beside it")
