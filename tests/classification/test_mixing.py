"""MixUp and CutMix: the papers' formulas, drawn from a seed alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from classification.mixing import mix_batch


def mixed(mixup: float, cutmix: float, seed: int, shift: int = 1, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(size, 3, 9, 11, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(size) % 5
    out, targets = mix_batch(images, labels, 5, mixup, cutmix, seed, shift)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(size))
    return images, out, targets


def test_mixup_is_the_papers_formula() -> None:
    fractions = []
    for seed in range(200):
        images, out, targets = mixed(0.4, 0, seed)
        fraction = float(targets[3, 3])
        others = torch.tensor([5, 0, 1, 2, 3, 4])
        torch.testing.assert_close(out, fraction * images + (1 - fraction) * images[others])
        torch.testing.assert_close(targets[3, 2], torch.tensor(1 - fraction))
        fractions.append(fraction)
    # A beta distribution with both parameters a has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert abs(np.mean(fractions) - 0.5) < 4 * math.sqrt(1 / (4 * 1.8) / 200)
    assert abs(np.var(fractions) - 1 / (4 * 1.8)) < 0.04


def test_cutmix_pastes_a_box_of_another_image() -> None:
    areas = []
    for seed in range(100):
        images, out, targets = mixed(0, 1.0, seed)
        others = images.roll(1, 0)
        inside = (out != images).any(1)[0]
        rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
        area = len(rows) * len(columns)
        assert int(inside.sum()) == area, "a box"
        assert torch.equal(out, torch.where(inside, others, images))
        torch.testing.assert_close(targets[2, 1], torch.tensor(area / 99))
        areas.append(area / 99)
    assert 0.15 < np.mean(areas) < 0.5  # half, less what is cut off at the border
    assert max(areas) > 0.6


def test_with_both_each_batch_gets_one_of_them() -> None:
    kinds = []
    for seed in range(100):
        images, out, _ = mixed(0.8, 1.0, seed)
        kinds.append(bool(((out == images) | (out == images.roll(1, 0))).all()))
    assert abs(np.mean(kinds) - 0.5) < 4 * 0.5 / math.sqrt(100)


def test_without_mixing_images_stay() -> None:
    images, out, targets = mixed(0, 0, 3)
    assert torch.equal(out, images)
    assert targets.argmax(1).tolist() == [0, 1, 2, 3, 4, 0]
    assert targets.unique().tolist() == [0, 1]


def test_mixing_depends_on_its_seed_alone_and_leaves_its_images_alone() -> None:
    before = torch.get_rng_state()
    images = mixed(0.4, 1.0, 3)[0]
    for mixup, cutmix in ((0.4, 0.0), (0.0, 1.0), (0.4, 1.0)):
        one, same, other = (mixed(mixup, cutmix, seed) for seed in (3, 3, 4))
        assert torch.equal(one[1], same[1])
        assert not torch.equal(one[1], other[1])
        assert torch.equal(one[0], images)
    assert torch.equal(torch.get_rng_state(), before)


def test_shift_chooses_the_other_image() -> None:
    images, out, targets = mixed(1.0, 0, 0, shift=2)
    fraction = float(targets[3, 3])
    assert 0 < fraction < 1
    torch.testing.assert_close(out[3], fraction * images[3] + (1 - fraction) * images[1])
    assert targets[3].nonzero().flatten().tolist() == [1, 3]
