"""Conversion of images between bytes and floating point."""

import torch

from generative.pixel_range import to_float, to_uint8


def test_bytes_are_the_inverse_of_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(every)), every)


def test_other_values_are_clipped_and_nan_is_gray() -> None:
    values = torch.tensor([-7.0, -1, 0, 1, 7, float("nan"), float("inf"), -float("inf")])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 128, 255, 0]
