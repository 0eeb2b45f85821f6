"""Lightning's own trainer, for tests that need no command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

OWN_TRAINER = [
    # Of a tiny run with Lightning's own trainer, none of which says anything about the task.
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]


def own_trainer(folder: Path, **arguments: Any) -> Trainer:  # noqa: ANN401  # handed on as they are
    """Make a trainer on the CPU that writes and prints nothing by itself."""
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **arguments,
    )
