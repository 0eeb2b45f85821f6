"""Pictures of the coordinate tasks: what they are drawn from, against plain numpy, and what is to be seen on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coordconv_apps.coordinates.__main__ import main
from coordconv_apps.coordinates.data import NotSoClevrData
from coordconv_apps.coordinates.not_so_clevr import pixel_index, render
from coordconv_apps.coordinates.pictures import (
    RIGHT_COLOUR,
    WRONG_COLOUR,
    CoordinatePictures,
    choose_points,
    on_canvas,
    per_sample,
    spread_out,
    true_pixels,
    window,
)
from coordconv_apps.coordinates.tasks import CoordinateTask
from tests.coordinates import harness
from tests.coordinates.harness import TaskName
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

SIZE, SQUARE = 16, 3


class ByRule(nn.Module):
    """A network that a function stands for; notes the sizes of its batches."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule
        self.batches: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        return self.rule(inputs)


def make_task(
    rule: Callable[[Tensor], Tensor] | None = None,
    name: TaskName = "classification",
    **arguments: Any,  # noqa: ANN401  # handed on
) -> CoordinateTask:
    task = harness.make_task(name, canvas_size=SIZE, square_size=SQUARE, **arguments)
    if rule is not None:
        task.network = ByRule(rule)
    return task.eval()


def make_data(**arguments: Any) -> NotSoClevrData:  # noqa: ANN401  # handed on as they are
    return NotSoClevrData(canvas_size=SIZE, square_size=SQUARE, **arguments)


def draw(task: CoordinateTask, data: NotSoClevrData) -> dict[str, Image.Image]:
    with torch.no_grad():
        return CoordinatePictures().draw(task, data)


def points_at(pixels: Tensor) -> Tensor:
    """Logits that have their maximum at pixels (B, 2)."""
    logits = torch.zeros(len(pixels), SIZE**2)
    return logits.scatter(1, pixel_index(pixels.long(), SIZE).unsqueeze(1), 9.0).view(-1, SIZE, SIZE)


def squares_at(inputs: Tensor) -> Tensor:
    """Logits of the squares around centres (B, 2 * objects)."""
    return 20 * render(inputs.long().view(len(inputs), -1, 2), SIZE, SQUARE) - 10


def colour_at(picture: Image.Image, colour: str) -> NDArray[np.bool_]:
    """Where a picture has a colour, above its legend."""
    pixels = np.asarray(picture)[: int(0.88 * picture.height)]
    alike: NDArray[np.bool_] = (pixels == list(bytes.fromhex(colour[1:]))).all(2)
    return alike


# ------------------------------------------------------------------ what is drawn


def test_true_pixels_are_probability_and_hit() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 3, 3, generator=generator)
    centers = torch.randint(3, (200, 1, 2), generator=generator)
    found = true_pixels(logits, centers).numpy()
    hits = 0
    for image, ((x, y),), (probability, hit) in zip(logits.double().numpy(), centers.tolist(), found, strict=True):
        shares = np.exp(image) / np.exp(image).sum()
        assert probability == pytest.approx(shares[y, x], rel=1e-5)
        assert hit == (image[y, x] == image.max())
        hits += int(hit)
    assert 0 < hits < 200


def test_values_per_sample_come_in_order_from_small_batches() -> None:
    data = make_data()
    task = make_task(lambda images: images.flatten(1).argmax(1, keepdim=True).expand(-1, 2) / SIZE, name="regression")
    found = per_sample(task, data.centers.train, lambda outputs, centers: outputs - centers[:, 0])
    true = data.centers.train[:, 0].numpy()
    number = true[:, 1:] * SIZE + true[:, :1]
    np.testing.assert_array_equal(found, number - true)
    assert isinstance(task.network, ByRule)
    assert sum(task.network.batches) == len(true) > 64
    assert max(task.network.batches) <= 64


def test_values_lie_where_their_centres_are() -> None:
    centers = torch.tensor([[[1, 0]], [[2, 3]]])
    canvas = on_canvas(centers, np.array([0.25, 0.0], dtype=np.float32), 4)
    assert canvas.shape == (4, 4)
    assert canvas[0, 1] == 0.25
    assert canvas[3, 2] == 0
    assert np.isnan(canvas).sum() == 14


@pytest.mark.parametrize(
    ("center", "expected"),
    [
        ((30, 20), (23, 13, 15)),
        ((0, 20), (0, 13, 15)),
        ((30, 63), (23, 49, 15)),
        ((63, 0), (49, 0, 15)),
        ((7, 56), (0, 49, 15)),
    ],
)
def test_window_is_around_the_centre_and_on_the_canvas(center: tuple[int, int], expected: tuple[int, int, int]) -> None:
    assert window(center, 64, 15) == expected


@pytest.mark.parametrize("center", [(0, 0), (4, 9), (9, 9)])
def test_window_is_the_canvas_where_that_is_smaller(center: tuple[int, int]) -> None:
    assert window(center, 10, 15) == (0, 0, 10)


def figures(*pairs: tuple[float, int]) -> NDArray[np.float32]:
    return np.array(pairs, dtype=np.float32)


def test_points_are_the_surest_hit_the_least_sure_hit_and_the_worst_miss() -> None:
    # A miss may have a higher probability than a hit, of which there are two equal ones.
    train = figures((0.2, 1), (0.9, 0), (0.8, 1), (0.8, 1))
    test = figures((0.4, 0), (0.3, 1), (0.1, 0), (0.7, 1), (0.3, 1), (0.1, 0))
    assert choose_points(train, test) == [
        ("train", 2, "right, the surest"),
        ("test", 1, "right, the least sure"),
        ("test", 2, "wrong, the worst"),
    ]


def test_points_if_all_are_hits() -> None:
    points = choose_points(figures((0.2, 1), (0.9, 1)), figures((0.4, 1), (0.3, 1)))
    assert points == [("train", 1, "right, the surest"), ("test", 1, "right, the least sure")]


def test_points_if_there_is_no_hit() -> None:
    points = choose_points(figures((0.2, 0), (0.3, 0)), figures((0.1, 0), (0.2, 0), (0.3, 0)))
    assert points == [
        ("train", 1, "all wrong, the best"),
        ("test", 2, "all wrong, the best"),
        ("test", 0, "wrong, the worst"),
    ]


def test_no_point_is_there_twice() -> None:
    points = choose_points(figures((0.2, 1)), figures((0.1, 0)))
    assert points == [("train", 0, "right, the surest"), ("test", 0, "all wrong, the best")]


@pytest.mark.parametrize(
    ("count", "expected"), [(729, [0, 104, 208, 312, 416, 520, 624, 728]), (3, [0, 1, 2]), (1, [0])]
)
def test_samples_are_spread_from_first_to_last(count: int, expected: list[int]) -> None:
    assert spread_out(count) == expected


# ------------------------------------------------------------------ what is to be seen


@pytest.mark.parametrize("split", ["uniform", "quadrant"])
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"name": "classification", "coords": "xy"}, ["centers", "probabilities"]),
        ({"name": "classification", "network": "deconv"}, ["centers", "probabilities"]),
        ({"name": "regression"}, ["positions"]),
        ({"name": "rendering", "coords": "xyr"}, ["squares", "iou"]),
    ],
)
def test_every_task_draws_its_pictures_and_keeps_weights_and_random_state(
    arguments: dict[str, Any], names: list[str], split: str
) -> None:
    torch.manual_seed(0)
    task = make_task(**arguments)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    random = torch.get_rng_state()
    pictures = draw(task, make_data(split=split))
    assert list(pictures) == names
    for picture in pictures.values():
        assert picture.mode == "RGB"
        assert len(picture.getcolors(1 << 24) or ()) > 20
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_same_network_same_picture() -> None:
    task, data = make_task(), make_data()
    one, other = draw(task, data), draw(task, data)
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_map_is_right_where_the_network_is() -> None:
    # Found in the upper half of the canvas; below it, one pixel too far to the left.
    task = make_task(lambda centers: points_at(centers - (centers[:, 1:] >= 8) * torch.tensor([1, 0])))
    picture = draw(task, make_data())["centers"]
    right, wrong = colour_at(picture, RIGHT_COLOUR), colour_at(picture, WRONG_COLOUR)
    assert right.any(1).nonzero()[0].max() < wrong.any(1).nonzero()[0].min()
    # 14 x 14 centres, 7 rows in each half; each is a cell of the same size in one of two panels.
    assert right.sum() == pytest.approx(wrong.sum(), rel=0.05)


@pytest.mark.parametrize(
    ("shift", "colour", "other"), [(0, RIGHT_COLOUR, WRONG_COLOUR), (1, WRONG_COLOUR, RIGHT_COLOUR)]
)
def test_map_of_all_right_and_all_wrong(shift: int, colour: str, other: str) -> None:
    task = make_task(lambda centers: points_at(centers - shift))
    picture = draw(task, make_data(split="quadrant"))["centers"]
    assert colour_at(picture, colour).mean() > 0.2
    assert not colour_at(picture, other).any()


@pytest.mark.parametrize(("missed", "panels"), [(0, 2), (10, 3), (SIZE, 3)])
def test_there_is_a_panel_for_each_point(missed: int, panels: int) -> None:
    # The test set is where x and y are above 8.
    task = make_task(lambda centers: points_at(centers - (centers[:, :1] < missed) * 1))
    picture = draw(task, make_data(split="quadrant"))["probabilities"]
    assert picture.width == panels * 440


def test_a_part_without_any_probability_is_pale() -> None:
    # All of it is at (0, 0), which is not near any test point.
    task = make_task(lambda centers: 100 * points_at(torch.zeros_like(centers)))
    pixels = np.asarray(draw(task, make_data(split="quadrant"))["probabilities"])
    bluish = (pixels[..., 2] > pixels[..., 0] + 40.0).mean()
    assert 0.0 < bluish < 0.05


def test_positions_that_are_off_have_lines() -> None:
    def orange(shift: float) -> int:
        def rule(images: Tensor) -> Tensor:
            number = images.flatten(1).argmax(1)
            return (torch.stack([number % SIZE, number // SIZE], 1) + shift) / SIZE

        picture = draw(make_task(rule, name="regression"), make_data())["positions"]
        pixels = np.asarray(picture)[: int(0.88 * picture.height)].astype(int)
        return int((pixels[..., 0] > pixels[..., 2] + 20).sum())

    assert orange(0.0) == 0
    assert 1000 < orange(0.4) < orange(2.0)


def test_overlap_has_the_colour_of_its_value() -> None:
    best, worst = "#fde724", "#440154"  # the ends of viridis
    perfect = draw(make_task(squares_at, name="rendering"), make_data())["iou"]
    empty = draw(make_task(lambda x: squares_at(x) - 20, name="rendering"), make_data())["iou"]
    assert colour_at(perfect, best).mean() > 0.2
    assert colour_at(empty, worst).mean() > 0.2
    assert not colour_at(perfect, worst).any()
    assert not colour_at(empty, best).any()


def test_two_objects_have_squares_but_no_map() -> None:
    data = make_data(two_objects=True, pairs=40)
    pictures = draw(make_task(squares_at, name="rendering", objects=2), data)
    assert list(pictures) == ["squares"]
    few = draw(make_task(squares_at, name="rendering", objects=2), make_data(two_objects=True, pairs=4))["squares"]
    assert few.width == pictures["squares"].width // 2


@pytest.mark.parametrize("task", get_args(TaskName))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_network_that_has_diverged_is_drawn_too(task: TaskName, value: float) -> None:
    shape = (2,) if task == "regression" else (SIZE, SIZE)
    for picture in draw(make_task(lambda x: torch.full((len(x), *shape), value), name=task), make_data()).values():
        assert len(picture.getcolors(1 << 24) or ()) > 20


@pytest.mark.parametrize(("task", "data"), [(ToyTask(), make_data()), (make_task(), ToyData())])
def test_other_tasks_and_data_are_refused(task: Any, data: Any) -> None:  # noqa: ANN401  # of several classes
    with pytest.raises(TypeError, match=f"{type(task).__name__} and {type(data).__name__} are not those of coord"):
        CoordinatePictures().draw(task, data)


def test_training_and_test_write_pictures(tmp_path: Path) -> None:
    sizes = [f"--{of}.{name}" for of in ("model", "data") for name in (f"canvas_size={SIZE}", f"square_size={SQUARE}")]
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", *sizes])
    main(["test", "--ckpt_path=best", f"--runs_dir={tmp_path}"])
    for command in ("version_0", "version_0/test_0"):
        folder = tmp_path / "coordinates" / "default" / command / "pictures"
        assert sorted(path.name for path in folder.iterdir()) == ["centers.png", "probabilities.png"]
