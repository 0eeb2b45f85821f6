"""Plots of where the objects are: the statistics they show, and walks of generators that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from generative.pixel_range import to_float
from generative.plots import MAX_AVERAGED, image_statistics, plot_centers, plot_walks
from generative.two_shapes import draw_scenes, render
from tests.generative.tiny import RADIUS, SIZE, apart, walks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def test_centres_are_those_of_the_scenes() -> None:
    scenes = draw_scenes(90, SIZE, RADIUS, torch.Generator().manual_seed(0))
    images = to_float(render(scenes, SIZE, RADIUS))
    images[7] = 1
    seen = image_statistics(images.split(40), RADIUS)
    assert (~seen.valid).nonzero().flatten().tolist() == [7]
    torch.testing.assert_close(seen.centers[seen.valid], scenes.centers[seen.valid].float())


def test_figure_of_centres_has_the_valid_ones_of_both_kinds() -> None:
    kinds = []
    for seed, invalid in ((0, 1), (1, 2)):
        images = to_float(render(draw_scenes(30, SIZE, RADIUS, torch.Generator().manual_seed(seed)), SIZE, RADIUS))
        images[:invalid] = 1
        kinds.append(image_statistics([images], RADIUS))
    figure = plot_centers(kinds[0], kinds[1], RADIUS, "a title")
    assert figure.get_suptitle() == "a title\n(invalid and left out: 1 of 30 real, 2 of 30 generated)"
    for seen, row in zip(kinds, (figure.axes[:3], figure.axes[3:]), strict=True):
        red, blue = seen.centers[seen.valid].unbind(1)
        for axes, expected in zip(row, (red, blue, red - blue), strict=True):
            np.testing.assert_allclose(np.asarray(axes.collections[0].get_offsets()), expected.numpy())


def test_average_is_that_of_the_first_images() -> None:
    images = torch.rand(MAX_AVERAGED + 50, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = image_statistics(images.split(64), RADIUS)
    assert seen.averaged == MAX_AVERAGED
    np.testing.assert_allclose(seen.average.numpy(), images[:MAX_AVERAGED].double().numpy().mean(0), atol=1e-6)
    few = image_statistics([images[:3]], RADIUS)
    assert few.averaged == 3
    np.testing.assert_allclose(few.average.numpy(), images[:3].numpy().mean(0), atol=1e-6)


def draw(sample: Callable[[Tensor], Tensor], latents: int = 5) -> tuple[list[float], list[str], int]:
    """Heights of the bars behind, names of the latents below them, and the number of paths in the panels."""
    figure = plot_walks(walks_of(sample, latents=latents), SIZE, RADIUS, "a title")
    figure.canvas.draw()
    left, right = figure.subfigs
    bars, shares = left.axes
    names = [label.get_text() for label in shares.get_xticklabels()]
    heights = [bar.get_height() for bar in bars.containers[0]]
    paths = sum(len(panel.collections) for panel in right.axes)
    assert len(right.axes) == 6
    return heights, names, paths


def test_figure_has_the_farthest_latent_first() -> None:
    heights, names, paths = draw(apart)
    assert heights == pytest.approx([8, 8, 1, 1, 0], abs=0.2)
    assert {*names[:2]} == {"0", "2"}
    assert {*names[2:4]} == {"1", "3"}
    assert names[4] == "4"
    assert paths == 2 * 5


def test_figure_of_a_generator_that_has_failed_has_bars_of_zero() -> None:
    heights, names, _ = draw(lambda latents: torch.ones(len(latents), 3, SIZE, SIZE))
    assert heights == [0] * 5
    assert names == ["0", "1", "2", "3", "4"]


def test_figure_of_many_latents_names_some() -> None:
    heights, names, paths = draw(apart, latents=60)
    assert len(heights) == 60
    assert len(names) == 20
    assert paths == 2 * 6
