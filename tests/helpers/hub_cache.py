"""The cache of published weights in tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import WeightsEnum


def put_in_cache(weights: WeightsEnum, content: object, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder`` torch's cache, and save content there as if torch had downloaded these weights."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    path = folder / "hub" / "checkpoints" / Path(weights.url).name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path
