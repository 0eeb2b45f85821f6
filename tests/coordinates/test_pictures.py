"""Pictures of the coordinate tasks: what they are drawn from, against plain numpy, and what is to be seen on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
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


def draw(task: CoordinateTask, data: NotSoClevrData) -> dict[str, Any]:
    with torch.no_grad():
        return CoordinatePictures().draw(task, data)


def points_at(pixels: Tensor) -> Tensor:
    """Logits that have their maximum at pixels (B, 2)."""
    logits = torch.zeros(len(pixels), SIZE**2)
    return logits.scatter(1, pixel_index(pixels.long(), SIZE).unsqueeze(1), 9.0).view(-1, SIZE, SIZE)


def squares_at(inputs: Tensor) -> Tensor:
    """Logits of the squares around centres (B, 2 * objects)."""
    return 20 * render(inputs.long().view(len(inputs), -1, 2), SIZE, SQUARE) - 10


@pytest.fixture
def as_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `draw` return figures in place of pictures."""
    monkeypatch.setattr("coordconv_apps.coordinates.pictures.as_picture", lambda figure: figure)


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
    ("center", "canvas_size", "expected"),
    [
        ((30, 20), 64, (23, 13, 15)),
        ((0, 63), 64, (0, 49, 15)),
        ((63, 0), 64, (49, 0, 15)),
        ((7, 56), 64, (0, 49, 15)),
        ((4, 9), 10, (0, 0, 10)),  # the canvas is smaller
    ],
)
def test_window_is_around_the_centre_and_on_the_canvas(
    center: tuple[int, int], canvas_size: int, expected: tuple[int, int, int]
) -> None:
    assert window(center, canvas_size, 15) == expected


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


@pytest.mark.parametrize(
    ("arguments", "names", "split"),
    [
        ({"name": "classification", "coords": "xy"}, ["centers", "probabilities"], "uniform"),
        ({"name": "classification", "network": "deconv"}, ["centers", "probabilities"], "quadrant"),
        ({"name": "regression"}, ["positions"], "uniform"),
        ({"name": "rendering", "coords": "xyr"}, ["squares", "iou"], "quadrant"),
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


@pytest.mark.usefixtures("as_figures")
def test_map_is_right_where_the_network_is() -> None:
    # Found in the upper half of the canvas; below it, one pixel too far to the left.
    task = make_task(lambda centers: points_at(centers - (centers[:, 1:] >= 8) * torch.tensor([1, 0])))
    data = make_data()
    for axes, centers in zip(draw(task, data)["centers"].axes, data.centers, strict=True):
        (image,) = axes.images
        hits = (centers[:, 0, 1] < 8).float().numpy()
        np.testing.assert_array_equal(image.get_array().filled(np.nan), on_canvas(centers, hits, SIZE))
        assert [to_hex(image.to_rgba(hit)) for hit in (0.0, 1.0)] == [WRONG_COLOUR, RIGHT_COLOUR]
        assert axes.yaxis_inverted()  # the first row is at the top


@pytest.mark.parametrize(("missed", "panels"), [(0, 2), (10, 3)])
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


@pytest.mark.usefixtures("as_figures")
def test_positions_that_are_off_have_lines() -> None:
    def rule(images: Tensor) -> Tensor:
        number = images.flatten(1).argmax(1)
        return (torch.stack([number % SIZE, number // SIZE], 1) + 0.5) / SIZE

    data = make_data()
    figure = draw(make_task(rule, name="regression"), data)["positions"]
    for axes, centers in zip(figure.axes, data.centers, strict=True):
        true = centers[:, 0].numpy()
        dots, lines, found = axes.collections
        np.testing.assert_array_equal(dots.get_offsets(), true)
        np.testing.assert_array_equal(found.get_offsets(), true + 0.5)
        np.testing.assert_array_equal(lines.get_segments(), np.stack([true, true + 0.5], 1))


@pytest.mark.usefixtures("as_figures")
@pytest.mark.parametrize(("lower", "overlap"), [(0, 1.0), (20, 0.0)])
def test_overlap_is_drawn_at_its_centre(lower: int, overlap: float) -> None:
    data = make_data()
    figure = draw(make_task(lambda x: squares_at(x) - lower, name="rendering"), data)["iou"]
    for axes, centers in zip(figure.axes[:2], data.centers, strict=True):
        expected = on_canvas(centers, np.full(len(centers), overlap, dtype=np.float32), SIZE)
        np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), expected)
        assert axes.images[0].get_clim() == (0, 1)


def test_two_objects_have_squares_but_no_map() -> None:
    data = make_data(two_objects=True, pairs=40)
    pictures = draw(make_task(squares_at, name="rendering", objects=2), data)
    assert list(pictures) == ["squares"]
    few = draw(make_task(squares_at, name="rendering", objects=2), make_data(two_objects=True, pairs=4))["squares"]
    assert few.width == pictures["squares"].width // 2


@pytest.mark.parametrize(
    ("task", "value"),
    [*((task, math.nan) for task in get_args(TaskName)), ("classification", math.inf), ("regression", 1e30)],
)
def test_a_network_that_has_diverged_is_drawn_too(task: TaskName, value: float) -> None:
    shape = (2,) if task == "regression" else (SIZE, SIZE)
    for picture in draw(make_task(lambda x: torch.full((len(x), *shape), value), name=task), make_data()).values():
        assert len(picture.getcolors(1 << 24) or ()) > 20


@pytest.mark.parametrize(("task", "data"), [(ToyTask(), make_data()), (make_task(), ToyData())])
def test_other_tasks_and_data_are_refused(task: Any, data: Any) -> None:  # noqa: ANN401  # of several classes
    with pytest.raises(
        TypeError, match=f"^CoordinatePictures cannot draw {type(task).__name__} with {type(data).__name__}$"
    ):
        CoordinatePictures().draw(task, data)


def test_training_and_test_write_pictures(tmp_path: Path) -> None:
    sizes = [f"--{of}.{name}" for of in ("model", "data") for name in (f"canvas_size={SIZE}", f"square_size={SQUARE}")]
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", *sizes])
    main(["test", "--ckpt_path=best", f"--runs_dir={tmp_path}"])
    for command in ("version_0", "version_0/test_0"):
        folder = tmp_path / "coordinates" / "default" / command / "pictures"
        assert sorted(path.name for path in folder.iterdir()) == ["centers.png", "probabilities.png"]
