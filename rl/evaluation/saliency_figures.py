"""Draw saliency maps, and the maps that coordinates add to the filters of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from coordconv_apps.utils.plotting import new_figure
from rl.evaluation.films import image_keys, newest_frame
from rl.evaluation.play import policy_of
from rl.evaluation.saliency import saliency

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from rl.evaluation.play import Player

_TITLE_SIZE = 13


def draw_saliency(
    players: dict[str, Player],
    observations: Any,  # noqa: ANN401  # an array, or a dict of them
    key: str | None = None,
) -> Figure:
    """Draw saliency maps: a column for each observation and two rows for each policy.

    The newest frames are at the top; below are, for each policy, the maps of its value and of its action over the
    frames, each row on a scale of its own.

    Args:
        players: Policies or algorithms by name, such as one and its copy `without_coordinates`; at least one.
        observations: A few observations, as for `saliency`.
        key: Key of the image in a dict. None: its first image.
    """
    space: Any = policy_of(next(iter(players.values()))).observation_space
    key = image_keys(space)[0] if key is None else key
    rows = []
    for name, player in players.items():
        found = saliency(player, observations, key)
        rows += [(f"{name}\nvalue", found.value), (f"{name}\naction", found.policy)]
    count = len(found.value)
    images, box = (observations, space) if key is None else (observations[key], space[key])
    frames = [newest_frame(images[place], box) for place in range(count)]
    figure = new_figure("Saliency: change when blurred", 1.8 * max(count, 3), 1.9 * (len(rows) + 1) + 0.4, _TITLE_SIZE)
    grid = figure.subplots(len(rows) + 1, count, squeeze=False)
    for axes, frame in zip(grid[0], frames, strict=True):
        axes.imshow(frame, interpolation="nearest")
    for line, (_, maps) in zip(grid[1:], rows, strict=True):
        largest = float(maps.max()) or 1.0  # 0 for a policy that ignores the image
        for axes, frame, values in zip(line, frames, maps, strict=True):
            axes.imshow(frame.mean(2), cmap="gray", vmin=0, vmax=400, interpolation="nearest")
            axes.imshow(values, cmap="autumn", vmin=0, vmax=largest, alpha=(values / largest) ** 0.5)
    for axes, label in zip(grid[:, 0], ["observation", *(text for text, _ in rows)], strict=True):
        axes.set_ylabel(label)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def draw_coordinate_maps(maps: NDArray[np.float32]) -> Figure:
    """Draw the `coordinate_maps` of a layer, one for each filter, all on one scale."""
    columns = min(8, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure("What coordinates add to each filter", 1.3 * columns + 1, 1.4 * rows + 0.6, _TITLE_SIZE)
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = float(np.abs(maps).max()) or 1.0
    for number, axes in enumerate(grid.flat):
        axes.set(xticks=[], yticks=[])
        if number < len(maps):
            image = axes.imshow(maps[number], cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
            axes.set_title(str(number), fontsize=8)
        else:
            axes.set_visible(False)
    figure.colorbar(image, ax=grid, shrink=0.6)
    return figure
