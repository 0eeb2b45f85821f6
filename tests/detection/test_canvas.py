"""Canvases: against a loop with PIL, against the distributions they are drawn from, in every way of drawing them."""

import dataclasses
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.canvas import draw_with_pil, pictures_of
from detection.canvas import Canvases, CanvasSettings, TrueBoxes, draw_canvases
from detection.glyphs import Glyphs


@pytest.fixture(scope="module")
def glyphs() -> Glyphs:
    """Forty glyphs of noise, of 3 to 20 pixels a side, their corners inked so that their boxes are known."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(3, 21, (40, 2))
    images = np.zeros((40, 20, 20), np.uint8)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:h, :w] = rng.integers(0, 256, (h, w))
        image[[0, 0, h - 1, h - 1], [0, w - 1, 0, w - 1]] = 255
    return Glyphs(
        torch.from_numpy(images),
        torch.from_numpy(sizes),
        torch.arange(40) % 4,
        ("a", "b", "c", "d"),
        torch.arange(40),
    )


def draw(glyphs: Glyphs, count: int = 300, seed: int = 5, chunk: int = 64, **settings: float | None) -> Canvases:
    return draw_canvases(glyphs, count, CanvasSettings(**settings), np.random.default_rng(seed), chunk)  # type: ignore[arg-type]  # each a field of its own type


def equal(one: Canvases, other: Canvases) -> bool:
    return all(torch.equal(a, b) for a, b in zip(parts(one), parts(other), strict=True))


def parts(canvases: Canvases) -> Iterator[Tensor]:
    return (getattr(canvases, field.name) for field in dataclasses.fields(canvases))


@pytest.mark.parametrize(
    "settings",
    [
        CanvasSettings(),
        CanvasSettings(canvas_size=41, crop=28, digits=12, min_size=3, max_size=40, min_visible=0.1),  # much overlap
        CanvasSettings(canvas_size=90, crop=None, min_size=1, max_size=60, min_visible=1),
        CanvasSettings(canvas_size=80, crop=33, digits=1, min_size=20, max_size=20, min_visible=7),
    ],
)
def test_same_canvases_as_a_loop_with_pil(glyphs: Glyphs, settings: CanvasSettings) -> None:
    images, boxes = draw_with_pil(pictures_of(glyphs, 28), 60, settings, seed=3)
    canvases = draw_canvases(glyphs, 60, settings, np.random.default_rng(3))
    difference = np.abs(canvases.images.numpy().astype(int) - np.stack(images))
    # Weights have 8 bits, and PIL cuts fractions off: a little for each glyph that overlaps.
    assert difference.max() <= 3 + settings.digits
    assert difference.mean() < 1
    for index, expected in enumerate(boxes):
        np.testing.assert_allclose(canvases.objects(index)[0], np.reshape(expected, (-1, 4)), atol=1e-4)


def test_default_settings_are_the_papers() -> None:
    assert dataclasses.asdict(CanvasSettings()) == {
        "canvas_size": 120,
        "crop": 64,
        "digits": 5,
        "min_size": 15,
        "max_size": 25,
        "min_visible": 1.0,
        "whole_pixels": False,
        "true_boxes": "cut",
        "label_by": "glyph",
    }


def test_true_boxes_are_cut_whole_or_all(glyphs: Glyphs) -> None:
    """The same canvases; only what counts as an object differs."""
    settings = {kind: CanvasSettings(true_boxes=kind) for kind in get_args(TrueBoxes)}
    cut, whole, every = (draw_canvases(glyphs, 60, s, np.random.default_rng(3)) for s in settings.values())
    assert torch.equal(cut.images, whole.images)
    assert torch.equal(cut.images, every.images)
    assert torch.equal(cut.boxes, whole.boxes.clamp(0, 64))
    assert torch.equal(cut.labels, whole.labels)
    assert torch.equal(every.starts, torch.arange(61) * 5)
    sides = every.boxes[:, 2:] - every.boxes[:, :2]
    assert ((sides > 15 - 1e-3) & (sides < 25 + 1e-3)).all()
    left = every.boxes.clamp(0, 64)
    visible = (left[:, 2:] - left[:, :2] >= 1).all(1)
    assert torch.equal(every.boxes[visible], whole.boxes)
    assert torch.equal(every.labels[visible], whole.labels)
    assert not visible.all()


def test_canvases_have_valid_shapes_types_and_ranges(glyphs: Glyphs) -> None:
    canvases = draw(glyphs)
    assert canvases.images.shape == (300, 64, 64)
    assert canvases.images.dtype == torch.uint8
    assert canvases.boxes.dtype == torch.float32
    assert canvases.labels.dtype == torch.int64
    assert canvases.boxes.shape == (len(canvases.labels), 4)
    assert canvases.boxes.min() >= 0
    assert canvases.boxes.max() <= 64
    assert (canvases.boxes[:, 2:] - canvases.boxes[:, :2]).min() >= 1
    assert set(canvases.labels.tolist()) == {1, 2, 3, 4}
    counts = canvases.starts.diff()
    assert canvases.starts[0] == 0
    assert canvases.starts[-1] == len(canvases.boxes)
    # Cut by the border: fewer than five on most canvases, none on some (0.0024 = 0.3^5 of them would be expected).
    assert counts.max() == 5
    assert 2.5 < counts.float().mean() < 4.5
    assert (draw(glyphs, count=3000).starts.diff() == 0).any()


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_sizes_and_positions_are_uniform(glyphs: Glyphs, whole_pixels: bool) -> None:
    canvases = draw(glyphs, count=4000, crop=None, whole_pixels=whole_pixels)
    boxes = canvases.boxes.double()
    assert len(boxes) == 4000 * 5  # none is lost without a crop
    sides = boxes[:, 2:] - boxes[:, :2]
    room = 120 - sides
    if whole_pixels:
        assert torch.equal(boxes, boxes.round())
        shares = torch.stack([(sides == size).double().mean(0) for size in range(15, 26)])
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / 11), atol=0.01, rtol=0)
        place = (boxes[:, :2] + 0.5) / (room + 1)
    else:
        assert 15 <= sides.min() < 15.01
        assert 24.99 < sides.max() <= 25.0001
        place = boxes[:, :2] / room
    for values, low, high in ((sides, 15, 25), (place, 0, 1)):
        for column in ((values - low) / (high - low)).T:
            share, _ = np.histogram(column, bins=5, range=(0, 1))
            if not (whole_pixels and high == 25):  # eleven sizes do not fall evenly into five bins
                np.testing.assert_allclose(share / len(boxes), 0.2, atol=0.012)
    together = torch.corrcoef(torch.cat([sides, place], dim=1).T) - torch.eye(4)
    assert together.abs().max() < 0.03
    frequency = torch.bincount(canvases.labels, minlength=5)[1:] / len(boxes)
    torch.testing.assert_close(frequency, torch.full((4,), 0.25), atol=0.015, rtol=0)


def test_crop_is_the_centre_of_the_whole_canvas(glyphs: Glyphs) -> None:
    whole, cropped = draw(glyphs, crop=None), draw(glyphs, crop=64)
    assert torch.equal(cropped.images, whole.images[:, 28:92, 28:92])
    for index in range(len(whole)):
        boxes, labels = whole.objects(index)
        clipped = (boxes - 28).clamp(0, 64)
        seen = ((clipped[:, 2:] - clipped[:, :2]) >= 1).all(1)
        torch.testing.assert_close(cropped.objects(index)[0], clipped[seen], atol=1e-4, rtol=0)
        assert torch.equal(cropped.objects(index)[1], labels[seen])


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_boxes_enclose_the_ink(glyphs: Glyphs, whole_pixels: bool) -> None:
    canvases = draw(glyphs, crop=None, digits=1, whole_pixels=whole_pixels)
    for image, box in zip(canvases.images, canvases.boxes, strict=True):
        y, x = image.nonzero(as_tuple=True)
        # The centres of the outermost pixels are in the box, those of the next ones are not.
        ink = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        assert (ink - box).abs().max() <= (0 if whole_pixels else 0.5001)


def test_glyphs_are_added_and_clipped() -> None:
    plain = Glyphs(
        torch.full((1, 4, 4), 100, dtype=torch.uint8),
        torch.tensor([[4, 4]]),
        torch.zeros(1, dtype=torch.int64),
        ("a",),
        torch.arange(1),
    )
    settings = CanvasSettings(canvas_size=12, crop=None, digits=4, min_size=8, max_size=8, whole_pixels=True)
    canvases = draw_canvases(plain, 200, settings, np.random.default_rng(0))
    expected = torch.zeros(200, 12, 12)
    for index in range(200):
        for x0, y0, x1, y1 in canvases.objects(index)[0].long().tolist():
            expected[index, y0:y1, x0:x1] += 100
    assert expected.max() == 400
    assert torch.equal(canvases.images.float(), expected.clamp(max=255))


def test_same_seed_same_canvases_however_they_are_drawn(glyphs: Glyphs) -> None:
    reference = draw(glyphs, chunk=300)
    assert not equal(reference, draw(glyphs, seed=6))
    for chunk in (1, 7, 299, 10_000):
        assert equal(reference, draw(glyphs, chunk=chunk))


def test_first_canvases_do_not_depend_on_how_many_follow(glyphs: Glyphs) -> None:
    many, few = draw(glyphs), draw(glyphs, count=20)
    assert torch.equal(few.images, many.images[:20])
    assert torch.equal(few.boxes, many.boxes[: len(few.boxes)])


def test_min_visible_drops_slivers_from_the_boxes_alone(glyphs: Glyphs) -> None:
    everything, wide = draw(glyphs, min_visible=0.001), draw(glyphs, min_visible=6)
    assert torch.equal(everything.images, wide.images)
    sides = everything.boxes[:, 2:] - everything.boxes[:, :2]
    kept = (sides >= 6).all(1)
    assert 0 < kept.sum() < len(kept)
    assert torch.equal(everything.boxes[kept], wide.boxes)


def test_canvases_without_digits_are_empty(glyphs: Glyphs) -> None:
    canvases = draw(glyphs, count=3, digits=0)
    assert not canvases.images.any()
    boxes, labels = canvases.objects(2)
    assert boxes.shape == (0, 4)
    assert boxes.dtype == torch.float32
    assert labels.shape == (0,)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas_size": 0}, "canvas_size=0: must be in 1 to 65536"),
        ({"canvas_size": 10**12}, "canvas_size=1000000000000: must be in 1 to 65536"),
        ({"crop": 121}, "crop=121: must be in 1 to canvas_size=120, or null for no crop"),
        ({"crop": 0}, "crop=0: must be in 1 to canvas_size=120"),
        ({"min_size": 26}, "min_size=26: must be in 1 to max_size=25"),
        ({"min_size": 0}, "min_size=0: must be in 1 to max_size=25"),
        ({"max_size": 121}, "max_size=121: must be in 1 to canvas_size=120"),
        ({"max_size": 0}, "max_size=0: must be in 1 to canvas_size=120"),
        ({"min_visible": 0}, "min_visible=0: must be above 0, at most min_size=15"),
        ({"min_visible": 16}, "min_visible=16: must be above 0, at most min_size=15"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^data.{message}") as caught:
        CanvasSettings(**settings)  # type: ignore[arg-type]  # each a field of its own type
    assert "\n" not in str(caught.value)


def test_counts_of_zero_are_refused(glyphs: Glyphs) -> None:
    with pytest.raises(ValueError, match="count=0: must be an integer of at least 1"):
        draw(glyphs, count=0)
    with pytest.raises(ValueError, match="chunk=0: must be an integer of at least 1"):
        draw(glyphs, chunk=0)
    with pytest.raises(ValueError, match="glyphs=0: must be an integer of at least 1"):
        draw(glyphs.select(torch.arange(0)))


def test_labels_by_half_change_nothing_but_the_labels(glyphs: Glyphs) -> None:
    by_glyph, by_half = draw(glyphs), draw(glyphs, label_by="half")  # type: ignore[arg-type]  # a field's own type
    assert torch.equal(by_glyph.images, by_half.images)
    assert torch.equal(by_glyph.boxes, by_half.boxes)
    centre = (by_half.boxes[:, 1] + by_half.boxes[:, 3]) / 2
    assert by_half.labels[centre < 32].unique().tolist() == [1]
    assert by_half.labels[centre >= 32].unique().tolist() == [2]
    each = {(glyph, half) for glyph, half in zip(by_glyph.labels.tolist(), by_half.labels.tolist(), strict=True)}
    assert len(each) == 8, "every glyph is in both classes"
