"""Boxes, their text and the sheet of pictures."""

import numpy as np
import pytest
import torch

from detection.pictures import FOUND_COLOUR, TRUE_COLOUR, draw_boxes

BLACK = torch.zeros(1, 64, 64, dtype=torch.uint8)


def test_boxes_are_drawn_where_they_are() -> None:
    true, found = torch.tensor([2.0, 1.0, 12.0, 8.0]), torch.tensor([10.0, 2.0, 18.0, 9.0])
    drawn = np.asarray(
        draw_boxes(BLACK[:, :10, :20], found=found[None], found_text=[""], true=true[None], true_text=[""], zoom=10)
    )
    assert drawn.shape == (100, 200, 3)
    for box, colour in ((true, TRUE_COLOUR), (found, FOUND_COLOUR)):
        rows, columns = (drawn == tuple(bytes.fromhex(colour[1:]))).all(-1).nonzero()
        x1, y1, x2, y2 = (10 * box).tolist()
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)


def test_text_stays_within_the_picture() -> None:
    corner = torch.tensor([60.0, 60.0, 64.0, 64.0])
    drawn = draw_boxes(
        BLACK, found=corner[None], found_text=["class 0.99"], true=corner[None] * 0, true_text=["x"], zoom=2
    )
    assert drawn.size == (128, 128)
    for colour in (FOUND_COLOUR, TRUE_COLOUR):
        filled = (np.asarray(drawn) == tuple(bytes.fromhex(colour[1:]))).all(-1)
        assert filled.sum() > 60, "a patch of colour behind the text"


def test_without_boxes_the_picture_is_only_enlarged() -> None:
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    drawn = np.asarray(draw_boxes(image, found=torch.zeros(0, 4), found_text=[], zoom=3))
    assert np.array_equal(drawn, image.permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("names", [("кот", "код"), ("日本", "日元"), ("a\nb", "a\tb"), ("\udcff", "\udcfe")])
def test_text_of_any_script_is_drawn(names: tuple[str, str]) -> None:
    """Not as a row of equal boxes for characters that a font lacks."""
    box = torch.tensor([[0.0, 20.0, 4.0, 30.0]])
    one, other = (np.asarray(draw_boxes(BLACK, found=box, found_text=[name], zoom=3)) for name in names)
    assert not np.array_equal(one, other)
