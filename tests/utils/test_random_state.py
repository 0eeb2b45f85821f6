"""The state of the random number generators is saved and restored."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from coordconv_apps.utils.random_state import random_state, restore_random_state

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.randn()), torch.rand(()).item()


def test_saved_random_state_is_restored() -> None:
    draw()  # leaves a gaussian in reserve
    file = io.BytesIO()
    torch.save(random_state(CPU), file)
    expected = [draw() for _ in range(3)]
    draw()
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True), CPU)
    assert [draw() for _ in range(3)] == expected
