"""When optimizers may be fused."""

from __future__ import annotations

import pytest
from lightning.pytorch import Trainer

from coordconv_apps.training.optimizers import can_fuse
from coordconv_apps.training.task import Task


@pytest.mark.parametrize(("clip", "fused"), [(None, True), (0.0, True), (1.0, False)])
def test_no_fused_optimizer_with_clipped_gradients(clip: float | None, fused: bool) -> None:
    task = Task()
    task.trainer = Trainer(accelerator="cpu", logger=False, gradient_clip_val=clip)
    assert can_fuse(task) == fused
