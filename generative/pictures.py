"""What a generator makes, beside what it learns from: sheets of samples, the figures of Liu et al. (2018), walks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from coordconv_apps.training.pictures import Pictures
from coordconv_apps.utils.plotting import as_picture
from generative.data import GenerativeData
from generative.decode import decode
from generative.geometry import REACH, draw_geometry, in_batches, walk
from generative.shapes import COLOURS
from generative.task import GenerativeTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lightning.pytorch import LightningDataModule, LightningModule
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

SEED = 0
"""Of the latents that are drawn: the same ones all through a training."""

AVERAGED = 500
"""Images that the average is of, at most."""

_COLUMNS, _REAL_ROWS, _PAIRS = 8, 2, 32
_ROWS, _STEPS = 8, 9  # of the sheet of walks
_SIDE = 96
"""Images are enlarged by the smallest whole number that makes them as wide, in pixels."""

_GAP, _BAR, _LABEL = 6, 32, 84
_GROUND, _INK = "#20242a", "#eceff1"
_DPI = 110
_CLOUDS = {"red": "#d62728", "blue": "#1f5fd6", "red minus blue": "#7a3e9d"}


class Grid(NamedTuple):
    """A part of a sheet.

    Attributes:
        text: What is seen on it, above its first row.
        images: ``(N, 3, H, W)`` in [-1, 1], row by row.
        columns: Images in a row.
        labels: Of the rows, to their left; or none.
    """

    text: str
    images: Tensor
    columns: int
    labels: Sequence[str] = ()


def as_bytes(images: Tensor) -> Tensor:
    """Images as files hold them.

    Args:
        images: float, -1 to 1; what is beyond is cut off, and what is not a number becomes gray.

    Returns:
        uint8 of the same shape, 0 to 255, on the CPU.
    """
    return (images.float().nan_to_num(0.0).clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu()


def make_sheet(title: str, grids: Sequence[Grid]) -> Image.Image:
    """Sets images out in rows, one grid below the other.

    Args:
        title: What the sheet shows.
        grids: At least one, each with at least one image, all images of one size.

    Returns:
        An RGB picture. Images are enlarged by a whole number.
    """
    height, width = grids[0].images.shape[-2:]
    zoom = max(1, math.ceil(_SIDE / width))
    height, width = height * zoom, width * zoom
    margin = _GAP + (_LABEL if any(grid.labels for grid in grids) else 0)
    rows = [math.ceil(len(grid.images) / grid.columns) for grid in grids]
    down = [_BAR + _GAP + number * (height + _GAP) for number in rows]
    font, large = ImageFont.load_default(15), ImageFont.load_default(18)
    columns = max(min(grid.columns, len(grid.images)) for grid in grids)
    across = max(margin + columns * (width + _GAP), 2 * _GAP + math.ceil(large.getlength(title)))
    sheet = Image.new("RGB", (across, _BAR + sum(down)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), title, fill=_INK, font=large)
    top = _BAR
    for grid, tall in zip(grids, down, strict=True):
        draw.text((margin, top + 10), grid.text, fill=_INK, font=font)
        for number, image in enumerate(as_bytes(grid.images)):
            row, column = divmod(number, grid.columns)
            picture = to_pil_image(image).resize((width, height), Image.Resampling.NEAREST)
            place = (margin + column * (width + _GAP), top + _BAR + _GAP + row * (height + _GAP))
            sheet.paste(picture, place)
            if grid.labels and column == 0:
                draw.text((_GAP, place[1] + height // 2), grid.labels[row], fill=_INK, font=font, anchor="lm")
        top += tall
    return sheet


class Seen(NamedTuple):
    """What is in images of two shapes.

    Attributes:
        centers: float32 ``(N, 2, 2)``: x and y of the red and the blue centre, in pixels; to be used where valid.
        valid: bool ``(N,)``: whether the image shows one red and one blue object.
        average: float32 ``(3, H, W)`` in [-1, 1]: the mean of the first `AVERAGED` images.
        averaged: How many these are.
    """

    centers: Tensor
    valid: Tensor
    average: Tensor
    averaged: int


def look_at(batches: Iterable[Tensor], radius: int) -> Seen:
    """Decodes images, and averages them.

    Args:
        batches: Images ``(B, 3, H, W)`` in [-1, 1], at least one.
        radius: Of the objects, in pixels.

    Returns:
        What is in all of them, on the CPU.
    """
    centers, valid, total, averaged = [], [], torch.zeros(()), 0
    for images in batches:
        decoded = decode(images, radius)
        centers.append(decoded.centers.float().cpu())
        valid.append(decoded.valid.cpu())
        first = images[: AVERAGED - averaged].float().nan_to_num(0.0).clamp(-1, 1)
        total = total + first.sum(0).cpu()
        averaged += len(first)
    return Seen(torch.cat(centers), torch.cat(valid), total / averaged, averaged)


class GenerativePictures(Pictures):
    """Samples of always the same latents, walks through them and, of the two shapes, where the objects are.

    Args:
        every_n_epochs: How often to draw during ``fit``; 0 draws at its end only.
        samples: How many samples the sheet shows.
        centers: How many samples the figure of centres shows, beside as many real images.
    """

    def __init__(self, every_n_epochs: int = 5, samples: int = 64, centers: int = 1000) -> None:
        super().__init__(every_n_epochs)
        for name, value in (("samples", samples), ("centers", centers)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be an integer of at least 1")
        self.samples = samples
        self.centers = centers

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw all pictures that there are for the method and the data.

        Args:
            task: A `GenerativeTask`.
            datamodule: A `GenerativeData`.

        Returns:
            "samples" and "walks"; of a VAE also "reconstructions"; of the two shapes also "average", "centers" and
            "geometry".
        """
        if not (isinstance(task, GenerativeTask) and isinstance(datamodule, GenerativeData)):
            raise TypeError(f"{type(task).__name__} and {type(datamodule).__name__} are not those of generative")
        pictures = {"samples": self._samples(task, datamodule), "walks": _walks(task)}
        if task.method == "vae":
            pictures["reconstructions"] = _reconstructions(task, datamodule)
        if datamodule.source == "shapes":
            radius = datamodule.radius
            latents = task.draw_latents(self.centers, SEED)
            generated = look_at(in_batches(task.sample, latents), radius)
            # Found like the generated ones, so that what the eye compares is alike.
            real = look_at(in_batches(lambda images: images, datamodule.example_images(self.centers)), radius)
            walks = task.follow_walks(radius) if task.walks is None else task.walks
            title = _title(task, "where walks along single latents lead")
            figures = {
                "average": _draw_average(task, real, generated),
                "centers": _draw_centers(task, real, generated, radius),
                "geometry": draw_geometry(walks, datamodule.image_size, radius, title),
            }
            pictures |= {name: as_picture(figure, _DPI) for name, figure in figures.items()}
        return pictures

    def _samples(self, task: GenerativeTask, datamodule: GenerativeData) -> Image.Image:
        images = _sample(task, task.draw_latents(self.samples, SEED))
        real = datamodule.example_images(_REAL_ROWS * _COLUMNS)
        grids = [Grid("generated", images, _COLUMNS), Grid("real, of the test set", real, _COLUMNS)]
        return make_sheet(_title(task, "samples"), grids)


def _title(task: GenerativeTask, text: str) -> str:
    kind = "plain convolutions" if task.coords == "none" else "CoordConv"
    steps = f", {task.global_step:,} optimizer steps" if task.global_step else ""
    return f"{kind} (coords={task.coords}), {task.method.upper()}{steps}: {text}"


def _sample(task: GenerativeTask, latents: Tensor) -> Tensor:
    return torch.cat([images.float().cpu() for images in in_batches(task.sample, latents)])


def _reconstructions(task: GenerativeTask, datamodule: GenerativeData) -> Image.Image:
    real = datamodule.example_images(_PAIRS)
    made = torch.cat([images.float().cpu() for images in in_batches(task.reconstruct, real.to(task.device))])
    rows = [row for pair in zip(real.split(_COLUMNS), made.split(_COLUMNS), strict=True) for row in pair]
    if len(real) % _COLUMNS and len(real) > _COLUMNS:
        rows = rows[:-2]  # whole rows only, so that each pair is one above the other
    text = "images of the test set, and below each what comes out of encoder and decoder"
    grid = Grid(text, torch.cat(rows), len(rows[0]), ["real", "made of it"] * (len(rows) // 2))
    return make_sheet(_title(task, "reconstructions"), [grid])


def strongest_axes(sample: Callable[[Tensor], Tensor], latents: Tensor, reach: float, number: int) -> list[int]:
    """Finds the latents that change the images most: the mean difference of pixels between a walk's two ends.

    Args:
        sample: Makes images ``(B, 3, H, W)`` in [-1, 1] of latents ``(B, z)``.
        latents: ``(n, z)``: points that the walks go through.
        reach: They end at ``-reach`` and ``reach``.
        number: How many to find, at most.

    Returns:
        Numbers of latents, that with the largest change first.
    """
    points, size = latents.shape
    directions = torch.eye(size, dtype=latents.dtype, device=latents.device).repeat(points, 1)
    ends = walk(latents.repeat_interleave(size, 0), directions, 2, reach).flatten(0, 1)
    images = torch.cat([batch.float().nan_to_num(0.0).cpu() for batch in in_batches(sample, ends)])
    change = images.view(points, size, 2, -1).diff(dim=2).abs().mean((0, 2, 3))
    return [int(axis) for axis in change.argsort(descending=True, stable=True)[:number]]


def _walks(task: GenerativeTask) -> Image.Image:
    reach = REACH[task.method]
    axes = strongest_axes(task.sample, task.draw_latents(2, SEED), reach, _ROWS)
    latents = task.draw_latents(len(axes), SEED)
    directions = torch.eye(latents.shape[1], dtype=latents.dtype, device=latents.device)[axes]
    images = _sample(task, walk(latents, directions, _STEPS, reach).flatten(0, 1))
    text = f"one latent changes along each row, from {-reach:g} to {reach:g}; those that change the images most"
    grid = Grid(text, images, _STEPS, [f"latent {axis}" for axis in axes])
    return make_sheet(_title(task, "walks"), [grid])


def _new_figure(task: GenerativeTask, text: str, width: float, height: float) -> Figure:
    # Imported here: it costs a second that an error in the arguments should not wait for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(_title(task, text), fontsize=14)
    return figure


def _draw_average(task: GenerativeTask, real: Seen, generated: Seen) -> Figure:
    figure = _new_figure(task, "average image", 9, 5)
    for axes, name, seen in zip(figure.subplots(1, 2), ("real", "generated"), (real, generated), strict=True):
        axes.imshow(as_bytes(seen.average).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(f"{seen.averaged:,} {name} images")
        axes.set(xlabel="x in pixels")
    figure.axes[0].set_ylabel("y in pixels")
    return figure


def _draw_centers(task: GenerativeTask, real: Seen, generated: Seen, radius: int) -> Figure:
    sets = {"real": real, "generated": generated}
    invalid = ", ".join(f"{(~seen.valid).sum():,} of {len(seen.valid):,} {name}" for name, seen in sets.items())
    figure = _new_figure(task, f"centres\n(not valid and left out: {invalid})", 11.5, 8)
    rows, size = figure.subplots(2, 3), real.average.shape[-1]
    for (name, seen), row in zip(sets.items(), rows, strict=True):
        red, blue = seen.centers[seen.valid].unbind(1)
        for axes, cloud, (of, colour) in zip(row, (red, blue, red - blue), _CLOUDS.items(), strict=True):
            axes.scatter(*cloud.T.numpy(), s=9, color=colour, alpha=0.6, linewidths=0)
            axes.set_title(f"{name}: {of}")
            _set_range(axes, size, radius, difference=of not in COLOURS)
        row[0].set_ylabel("y in pixels")
    for axes in rows[1]:
        axes.set_xlabel("x in pixels")
    return figure


def _set_range(axes: Axes, size: int, radius: int, *, difference: bool) -> None:
    """Shows the whole range, y downwards, and in it as a thin line where the data's centres, or differences, lie."""
    from matplotlib.patches import Circle, Rectangle

    places = size - 2 * radius - 1
    line: dict[str, Any] = {"fill": False, "edgecolor": "#9aa3ad", "linewidth": 0.8, "linestyle": "--", "zorder": 0}
    if difference:
        axes.set(xlim=(-size + 0.5, size - 0.5), ylim=(size - 0.5, -size + 0.5), aspect="equal")
        axes.add_patch(Rectangle((-places, -places), 2 * places, 2 * places, **line))
        axes.add_patch(Circle((0, 0), 2 * radius, **line))
    else:
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.add_patch(Rectangle((radius, radius), places, places, **line))
