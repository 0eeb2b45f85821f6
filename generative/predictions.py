"""Files that ``predict`` writes: samples as images, and one archive with their latents and decoded objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.predictions import PredictionWriter
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.utils.files import atomic_write
from generative.data import GenerativeData
from generative.pixel_range import to_uint8
from generative.tasks.base import Samples
from generative.two_shape_decoder import decode

FOLDER = "predictions"
Arrays = dict[str, NDArray[Any]]  # of a batch, by name


class SampleWriter(PredictionWriter[Arrays]):
    """Write ``predictions/<index>.png`` and ``predictions/samples.npz`` to the run's folder.

    ``numpy.load`` opens the archive. Its arrays are sorted by index:

    - "index": int64 ``(N,)``, the index of each sample.
    - "latents": float32 ``(N, latent_size)``.
    - For two shapes, the fields of `generative.two_shape_decoder.DecodedScenes`, red before blue: "present" bool
      ``(N, 2)``; "centers" float32 ``(N, 2, 2)``, x and y in pixels; "shapes" int64 ``(N, 2)``, 0 for a circle and 1
      for a square; "sizes" float32 ``(N, 2)`` in pixels; "valid" bool ``(N,)``, whether the other fields are
      meaningful.
    """

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Samples, batch: Tensor, *unused: int
    ) -> None:
        """Write the images of a batch, and keep its latents and decoded objects."""
        datamodule = attached_datamodule(trainer, GenerativeData)
        arrays = {"index": outputs.indices, "latents": outputs.latents.float()}
        if datamodule.source == "shapes":
            arrays |= decode(outputs.images, datamodule.radius)._asdict()
        self.collected.append({name: values.cpu().numpy() for name, values in arrays.items()})
        for index, image in zip(outputs.indices.tolist(), to_uint8(outputs.images), strict=True):
            with atomic_write(run_dir(trainer) / FOLDER / f"{index:05d}.png", "wb") as file:
                to_pil_image(image).save(file, format="PNG")

    def write(self, trainer: Trainer, task: LightningModule, items: list[Arrays], suffix: str) -> None:
        """Write the archive, and print its path."""
        arrays: dict[str, Any] = {name: np.concatenate([batch[name] for batch in items]) for name in items[0]}
        order = arrays["index"].argsort()
        path = run_dir(trainer) / FOLDER / f"samples{suffix}.npz"
        with atomic_write(path, "wb") as file:
            np.savez(file, **{name: values[order] for name, values in arrays.items()})
        valid = f", {arrays['valid'].sum()} of them with one red and one blue object" if "valid" in arrays else ""
        print(f"{len(order)} samples{valid}: {path} and the images beside it")
