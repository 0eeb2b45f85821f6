"""Mixing is torchvision's, drawn from a seed, and never of an image with its own copy."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from classification.mixing import MixedBatch, Mixing

IMAGES = torch.randn(6, 3, 9, 11, generator=torch.Generator().manual_seed(7))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
MIXUP, CUTMIX = v2.MixUp(alpha=0.4, num_classes=5), v2.CutMix(alpha=1.0, num_classes=5)


def mixed(mixup: float, cutmix: float, seed: int, repeats: int = 1) -> MixedBatch:
    return Mixing(mixup, cutmix, repeats)(IMAGES, LABELS, 5, seed)


@pytest.mark.parametrize(
    ("mixup", "cutmix", "kind"), [(0.4, 0, [MIXUP]), (0, 1.0, [CUTMIX]), (0.4, 1.0, [MIXUP, CUTMIX])]
)
def test_mixing_is_torchvisions_from_a_seed(mixup: float, cutmix: float, kind: list[v2.Transform]) -> None:
    before, images = torch.get_rng_state(), IMAGES.clone()
    results = []
    for seed in range(8):
        out, targets = mixed(mixup, cutmix, seed)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(IMAGES, images)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected_images, expected_targets = v2.RandomChoice(kind)(IMAGES, LABELS)
        assert torch.equal(out, expected_images)
        assert torch.equal(targets, expected_targets)
        assert targets.dtype == torch.float32
        results.append(out)
    assert any(not torch.equal(results[0], other) for other in results[1:])


def test_without_mixing_images_stay() -> None:
    out, targets = mixed(0, 0, 3)
    assert out is IMAGES
    assert targets.dtype == torch.float32
    assert torch.equal(targets, torch.eye(5)[LABELS])


@pytest.mark.parametrize("repeats", [2, 3])
def test_copies_of_an_image_are_mixed_with_another_one(repeats: int) -> None:
    numbers = torch.arange(6) // repeats  # copies stand side by side
    images = numbers.float().view(-1, 1, 1, 1).expand(6, 3, 4, 4)
    out, targets = Mixing(mixup=1.0, repeats=repeats)(images, numbers, 6, seed=0)
    assert (targets > 0).sum(1).tolist() == [2] * 6
    assert torch.bincount(targets.argmax(1)).tolist() == [repeats] * (6 // repeats)
    torch.testing.assert_close(out[:, 0, 0, 0], (targets * torch.arange(6)).sum(1))
