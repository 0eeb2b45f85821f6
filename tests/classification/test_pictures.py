"""Pictures of an evaluation: what is chosen for them, and what is to be seen on them, of results made up for it."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import ImageFont

from classification.data import ClassificationData
from classification.metrics import ClassificationMetrics, ClassificationReport, WorstExample
from classification.pictures import (
    BEST_COLOUR,
    PREDICTED_COLOUR,
    TRUE_COLOUR,
    WORST_COLOUR,
    ClassificationPictures,
    _shorten_to_width,
    best_and_worst,
    draw_classes,
    draw_confusion,
    draw_worst,
    percent,
)
from coordconv_apps.utils.contact_sheet import BAR, GAP, GROUND
from tests.classification.images import CLASSES, save_class, save_classes
from tests.classification.tiny import task
from tests.helpers.images import damage
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from PIL.Image import Image

    from classification.tasks import Classifier
    from coordconv_apps.nn.coords import Coords

SIZE = 8


def evaluated(
    report: ClassificationReport | None, part: Literal["val", "test"] = "val", coords: Coords = "none"
) -> Classifier:
    """A task with the results of an evaluation."""
    one = task(coords=coords)
    one.last_evaluation, one.evaluated_split = report, part
    return one


def make_data(folder: Path, *counts: int) -> ClassificationData:
    for part in ("train", "val", "test"):
        save_classes(folder / part, *counts)
    return ClassificationData(root=str(folder), image_size=SIZE, on_bad_image="skip")


def made_up(confusion: list[list[int]] | torch.Tensor, worst: list[WorstExample] | None = None) -> ClassificationReport:
    return ClassificationReport(
        torch.as_tensor(confusion), [WorstExample(0, 0, 1, 0.75, 2.0)] if worst is None else worst
    )


def has_colour(picture: Image, colour: str) -> bool:
    return bool((np.asarray(picture) == list(bytes.fromhex(colour[1:]))).all(2).any())


def texts_of(figure: Figure) -> list[str]:
    (axes, *_) = figure.axes
    return [text.get_text() for text in axes.texts]


def tick_names(figure: Figure) -> tuple[list[str], list[str]]:
    (axes, *_) = figure.axes
    return [t.get_text() for t in axes.get_xticklabels()], [t.get_text() for t in axes.get_yticklabels()]


# ------------------------------------------------------------------ all of them


def test_pictures_show_the_evaluation_of_real_data(tmp_path: Path) -> None:
    data = make_data(tmp_path, 2, 3, 2)
    metric = ClassificationMetrics(3)
    metric.update(torch.eye(3)[[0, 1, 1, 1, 0, 2, 2]], torch.tensor([0, 0, 1, 1, 1, 2, 2]), torch.arange(7))
    metric.compute()
    pictures = ClassificationPictures().draw(evaluated(metric.report, coords="xyr"), data)
    assert set(pictures) == {"confusion", "classes", "worst"}
    assert all(picture.mode == "RGB" for picture in pictures.values())
    assert has_colour(pictures["worst"], TRUE_COLOUR)
    assert has_colour(pictures["worst"], PREDICTED_COLOUR)


@pytest.mark.parametrize("part", ["val", "test"])
def test_the_sheet_shows_the_images_of_the_evaluated_split_the_worst_first(
    tmp_path: Path, part: Literal["val", "test"]
) -> None:
    data = make_data(tmp_path, 2, 2)
    for number in range(2):  # of "val" alone, so that the numbers of "test" begin with other images
        (tmp_path / "val" / CLASSES[0] / f"{number:02}.png").unlink()
    save_classes(tmp_path / "val", 1)
    order = [2, 0] if part == "val" else [3, 1]
    worst = [WorstExample(number, 1, 0, 0.9, 3.0 - place) for place, number in enumerate(order)]
    one = evaluated(made_up([[0, 1], [1, 1]], worst), part)
    sheet = np.asarray(ClassificationPictures().draw(one, data)["worst"])
    expected = data.images_at(order, part)
    pixels = expected.images.permute(0, 2, 3, 1).numpy()
    zoom = 160 // SIZE
    for place in range(2):
        left, top = GAP + place * (160 + GAP), 2 * BAR + GAP
        np.testing.assert_array_equal(sheet[top : top + 160 : zoom, left : left + 160 : zoom], pixels[place])
    assert not np.array_equal(pixels[0], pixels[1])


@pytest.mark.filterwarnings("ignore:.*left out")
def test_unreadable_images_are_left_out(tmp_path: Path) -> None:
    data = make_data(tmp_path, 2, 2)
    data.setup("validate")
    for name in ("00", "01"):
        damage(tmp_path / "val" / CLASSES[0] / f"{name}.png")
    worst = [WorstExample(number, 0, 1, 0.9, 3.0) for number in (1, 2, 0)]
    both = ClassificationPictures().draw(evaluated(made_up([[0, 2], [1, 1]], worst)), data)
    assert set(both) == {"confusion", "classes", "worst"}
    one = draw_worst(list(data.images_at([2], "val").images), worst[1:2], CLASSES, "")
    assert both["worst"].height == one.height
    none = ClassificationPictures().draw(evaluated(made_up([[0, 2], [1, 1]], worst[::2])), data)
    assert set(none) == {"confusion", "classes"}


def test_without_an_evaluation_there_is_nothing_to_draw(tmp_path: Path) -> None:
    data = make_data(tmp_path, 1, 1)
    assert ClassificationPictures().draw(evaluated(None), data) == {}
    assert ClassificationPictures().draw(evaluated(made_up([[0, 0], [0, 0]], [])), data) == {}


def test_other_tasks_and_data_are_refused(tmp_path: Path) -> None:
    data = make_data(tmp_path, 1, 1)
    with pytest.raises(TypeError, match="Pictures cannot draw ToyTask with ClassificationData"):
        ClassificationPictures().draw(ToyTask(), data)
    with pytest.raises(TypeError, match="Pictures cannot draw Classifier with ToyData"):
        ClassificationPictures().draw(evaluated(None), ToyData())


# ------------------------------------------------------------------ the matrix


def test_the_matrix_has_true_classes_as_rows_and_shares_as_colours() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 8]])
    figure = draw_confusion(confusion, ["a", "b$c$d", "e_f"], "what it is")
    assert tick_names(figure) == (["a", "b$c$d", "e_f"], ["a", "b$c$d", "e_f"])
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    shares = axes.images[0].get_array()
    assert isinstance(shares, np.ma.MaskedArray)
    np.testing.assert_allclose(shares.filled(np.nan), [[0.75, 0.25, 0], [np.nan] * 3, [0.2, 0, 0.8]], rtol=1e-6)
    assert axes.yaxis_inverted()  # the first class is at the top
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "3", (1, 0): "1", (0, 2): "2", (2, 2): "8"}


def test_counts_are_written_into_small_matrices_only() -> None:
    assert len(texts_of(draw_confusion(torch.eye(20).long(), [str(n) for n in range(20)], ""))) == 20
    assert texts_of(draw_confusion(torch.eye(21).long(), [str(n) for n in range(21)], "")) == []


@pytest.mark.parametrize("classes", [2, 100])
def test_names_do_not_overlap(classes: int) -> None:
    figure = draw_confusion(torch.eye(classes).long(), [f"class {n}" for n in range(classes)], "")
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == classes
    boxes = [label.get_window_extent() for label in labels]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert min(float(label.get_fontsize()) for label in labels) > 6


def test_of_very_many_classes_some_are_named() -> None:
    figure = draw_confusion(torch.eye(250).long(), [str(n) for n in range(250)], "")
    across, down = tick_names(figure)
    assert across == down == [str(n) for n in range(0, 250, 3)]
    assert max(figure.get_size_inches()) < 20


# ------------------------------------------------------------------ the bars


def test_bars_are_sorted_and_classes_without_images_left_out() -> None:
    assert best_and_worst([0.5, math.nan, 1.0, 0.0, 0.5]) == ([2, 0, 4, 3], 0)


def test_of_many_classes_the_best_and_the_worst_are_shown() -> None:
    accuracies = [(7 * n % 50) / 50 for n in range(50)]
    shown, hidden = best_and_worst(accuracies, 40)
    values = [accuracies[label] for label in shown]
    assert values == sorted(accuracies, reverse=True)[:20] + sorted(accuracies, reverse=True)[-20:]
    assert hidden == 10
    assert best_and_worst(accuracies[:40], 40)[1] == 0


@pytest.mark.parametrize(("classes", "hidden"), [(3, 0), (43, 3)])
def test_bars_are_as_long_as_the_accuracies(classes: int, hidden: int) -> None:
    confusion = torch.eye(classes).long() * torch.arange(classes)
    confusion[:, 0] += classes - torch.arange(classes)  # class n is told n times of as many as there are classes
    figure = draw_classes(made_up(confusion), [f"c{n}" for n in range(classes)], "")
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    best_first = [0, *range(classes - 1, 0, -1)]  # class 0 is never taken for another one
    shown = best_first[:20] + best_first[-20:] if hidden else best_first
    assert [bar.get_width() for bar in bars] == pytest.approx([n / classes if n else 1 for n in shown])
    assert tick_names(figure)[1] == [f"c{n}" for n in shown]
    colours = [bar.get_facecolor()[:3] for bar in bars]
    assert colours[0] == to_rgb(BEST_COLOUR)
    assert colours[-1] == to_rgb(WORST_COLOUR if hidden else BEST_COLOUR)
    texts = texts_of(figure)
    assert texts[0] == f"100.0 % of {classes}"
    assert any("classes in between" in text for text in texts) == bool(hidden)
    places = [bar.get_y() for bar in bars]
    assert len(set(places)) == len(places)
    assert places[-1] - places[0] == pytest.approx(len(bars) - 1 + (hidden > 0))


# ------------------------------------------------------------------ the sheet and its texts


@pytest.mark.parametrize(("size", "drawn"), [(8, 160), (224, 224), (288, 256)])
def test_small_images_are_enlarged_and_large_ones_shrunk(size: int, drawn: int) -> None:
    sheet = draw_worst([torch.ones(3, size, size)], [WorstExample(0, 0, 1, 0.5, 1.0)], ["a", "b"], "")
    white = (np.asarray(sheet) == 255).all(2)
    assert white.any(0).sum() == drawn
    assert white.any(1).sum() == drawn
    assert sheet.getpixel((0, 0)) == (GROUND,) * 3


def test_texts_of_the_sheet_stay_below_their_images() -> None:
    names = ["x" * 99, "W" * 99]
    images = [torch.zeros(3, 32, 32)] * 2
    sheet = draw_worst(images, [WorstExample(0, 0, 1, 0.5, math.inf)] * 2, names, "")
    between = np.asarray(sheet)[2 * BAR :, GAP + 160 : GAP + 160 + GAP]
    assert (between == GROUND).all()


def test_names_are_cut_to_fit_and_what_follows_is_not() -> None:
    font = ImageFont.load_default(13)
    assert _shorten_to_width("cat", ": 1.0 %", 160) == "cat: 1.0 %"
    cut = _shorten_to_width("cat" * 30, ": 1.0 %", 160)
    assert cut.startswith("catcat")
    assert cut.endswith("...: 1.0 %")
    assert 140 < font.getlength(cut) <= 160


def test_names_of_any_script_are_drawn(tmp_path: Path) -> None:
    """Without warnings, which are errors here, and without boxes in place of characters that no font has."""
    for part, name in itertools.product(("train", "val"), ("кот", "日本", "a\nb")):
        save_class(tmp_path / part, 0, 1)
        (tmp_path / part / CLASSES[0]).rename(tmp_path / part / name)
    data = ClassificationData(root=str(tmp_path), image_size=SIZE)
    report = made_up(torch.eye(3, dtype=torch.int64), [WorstExample(0, 0, 1, 0.5, 2.0)])
    drawn = ClassificationPictures().draw(evaluated(report), data)
    assert set(drawn) == {"confusion", "classes", "worst"}
    boxes = draw_worst([torch.zeros(3, 32, 32, dtype=torch.uint8)] * 2, [report.worst[0]] * 2, ["кот", "собака"], "т")
    others = draw_worst([torch.zeros(3, 32, 32, dtype=torch.uint8)] * 2, [report.worst[0]] * 2, ["код", "собака"], "т")
    assert not np.array_equal(np.asarray(boxes), np.asarray(others))


def test_percentages_of_any_size_are_texts() -> None:
    texts = [percent(share) for share in (0, 1e-9, 0.001, 0.5, 1, math.nan)]
    assert texts == ["0.0 %", "< 0.1 %", "0.1 %", "50.0 %", "100.0 %", "nan %"]
