"""Write checkpoints next to their final place; find the class of the task that wrote one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from coordconv_apps.utils.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint with `atomic_write`.

    Lightning's own class writes it to the folder for temporary files (``TMPDIR``) first. That folder may be small, and
    a killed process leaves the file there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint; its folder is created if needed. Lightning itself writes to remote file systems."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)  # refuses the options
            return
        buffer = io.BytesIO()  # torch itself does not say why a file cannot be written
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path), "wb") as file:
            file.write(buffer.getbuffer())


def saved_class_path(path: Any) -> str | None:  # noqa: ANN401  # what Lightning takes as a checkpoint
    """Return the task class that a checkpoint file names, such as ``"rl.tasks.ppo.PPO"``; None if it names none."""
    if not isinstance(path, str | Path):
        return None
    try:
        return str(torch.load(path, map_location="cpu", weights_only=True)["run"]["config"]["model"]["class_path"])
    except Exception:  # damaged files raise errors of many kinds
        return None
