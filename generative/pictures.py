"""Pictures of a generator beside its data: contact sheets of samples, walks and reconstructions, and plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from coordconv_apps.training.pictures import Pictures, arm_in_words
from coordconv_apps.utils.argument_checks import check_at_least
from coordconv_apps.utils.contact_sheet import Grid, contact_sheet
from coordconv_apps.utils.plotting import as_picture
from generative.data import GenerativeData
from generative.latent_walks import in_batches, walk_latents
from generative.pixel_range import to_uint8
from generative.plots import image_statistics, plot_average, plot_centers, plot_walks
from generative.tasks import VAE, GenerativeTask

SEED = 0  # seed of the latents of all pictures, so that pictures of different epochs are comparable
_COLUMNS, _REAL_ROWS, _RECONSTRUCTIONS = 8, 2, 32
_WALK_ROWS, _WALK_STEPS = 8, 9
_MIN_SIDE = 96  # pixels; smaller images are enlarged by a whole number


def image_grid(caption: str, images: Tensor, columns: int, labels: Sequence[str] = ()) -> Grid:
    """Make a grid of images ``(N, 3, H, W)`` in [-1, 1]; small ones are enlarged by a whole number."""
    zoom = max(1, math.ceil(_MIN_SIDE / images.shape[-1]))
    enlarged = to_uint8(images).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    return Grid([to_pil_image(image) for image in enlarged], columns, caption, labels)


class GenerativePictures(Pictures):
    """Draw samples, walks through the latent space and, for two shapes, plots of where the objects are.

    Args:
        every_n_epochs: How often to draw during ``fit``; 0: only at its end.
        samples: Number of samples in their picture.
        centers: Number of samples, and of real images, in the plot of centres.
    """

    def __init__(self, every_n_epochs: int = 5, samples: int = 64, centers: int = 1000) -> None:
        super().__init__(every_n_epochs)
        check_at_least(1, samples=samples, centers=centers)
        self.samples = samples
        self.centers = centers

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw "samples" and "walks".

        For a `VAE`, there are also "reconstructions"; for two shapes, also "average", "centers" and "geometry".
        """
        if not (isinstance(task, GenerativeTask) and isinstance(datamodule, GenerativeData)):
            raise TypeError(f"{type(self).__name__} cannot draw {type(task).__name__} with {type(datamodule).__name__}")
        pictures = {"samples": self._samples(task, datamodule), "walks": _walks(task)}
        if isinstance(task, VAE):
            pictures["reconstructions"] = _reconstructions(task, datamodule)
        if datamodule.source == "shapes":
            pictures |= self._plots(task, datamodule)
        return pictures

    def _samples(self, task: GenerativeTask, datamodule: GenerativeData) -> Image.Image:
        images = _apply(task.sample, task.draw_latents(self.samples, SEED))
        real = datamodule.example_images(_REAL_ROWS * _COLUMNS)
        grids = [image_grid("generated", images, _COLUMNS), image_grid("real, from the test set", real, _COLUMNS)]
        return contact_sheet(grids, title=_title(task, "samples"))

    def _plots(self, task: GenerativeTask, datamodule: GenerativeData) -> dict[str, Image.Image]:
        radius = datamodule.radius
        latents = task.draw_latents(self.centers, SEED)
        generated = image_statistics(in_batches(task.sample, latents), radius)
        # Real images are decoded in the same way, so that the plots are comparable.
        real = image_statistics(datamodule.example_images(self.centers).split(_COLUMNS**2), radius)
        walks = task.measure_walks(radius) if task.walks is None else task.walks
        walk_title = _title(task, "objects along walks through single latents")
        plots = {
            "average": plot_average(real, generated, _title(task, "average image")),
            "centers": plot_centers(real, generated, radius, _title(task, "centres")),
            "geometry": plot_walks(walks, datamodule.image_size, radius, walk_title),
        }
        return {name: as_picture(figure) for name, figure in plots.items()}


def _title(task: GenerativeTask, text: str) -> str:
    steps = f", {task.global_step:,} optimizer steps" if task.global_step else ""
    return f"{arm_in_words(task.coords)}, {type(task).__name__}{steps}: {text}"


def _apply(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    return torch.cat([images.float().cpu() for images in in_batches(function, inputs)])


def _reconstructions(task: VAE, datamodule: GenerativeData) -> Image.Image:
    real = datamodule.example_images(_RECONSTRUCTIONS)
    reconstructed = _apply(task.reconstruct, real.to(task.device))
    pairs = zip(real.split(_COLUMNS), reconstructed.split(_COLUMNS), strict=True)
    rows = [row for pair in pairs for row in pair]
    if len(real) % _COLUMNS and len(real) > _COLUMNS:
        rows = rows[:-2]  # whole rows only, so that each reconstruction is below its image
    labels = ["real", "decoded"] * (len(rows) // 2)
    grid = image_grid("images of the test set, each above its reconstruction", torch.cat(rows), len(rows[0]), labels)
    return contact_sheet([grid], title=_title(task, "reconstructions"))


def strongest_latents(sample: Callable[[Tensor], Tensor], latents: Tensor, reach: float, number: int) -> list[int]:
    """Find the latents that change images most, by the mean difference of pixels between the two ends of a walk.

    Args:
        sample: Function from latents ``(B, z)`` to images ``(B, 3, H, W)`` in [-1, 1].
        latents: ``(n, z)``: points on the walks.
        reach: The walks go from ``-reach`` to ``reach``.
        number: Largest number of indices to return, the largest change first.
    """
    points, size = latents.shape
    ends = walk_latents(latents.repeat_interleave(size, 0), torch.arange(size).repeat(points), 2, reach).flatten(0, 1)
    images = _apply(sample, ends).nan_to_num(0.0)
    change = images.view(points, size, 2, -1).diff(dim=2).abs().mean((0, 2, 3))
    strongest: list[int] = change.argsort(descending=True, stable=True)[:number].tolist()
    return strongest


def _walks(task: GenerativeTask) -> Image.Image:
    reach = task.walk_reach
    axes = strongest_latents(task.sample, task.draw_latents(2, SEED), reach, _WALK_ROWS)
    latents = task.draw_latents(len(axes), SEED)
    images = _apply(task.sample, walk_latents(latents, torch.tensor(axes), _WALK_STEPS, reach).flatten(0, 1))
    caption = f"one latent changes along each row, from {-reach:g} to {reach:g}; the latents that change images most"
    grid = image_grid(caption, images, _WALK_STEPS, [f"latent {axis}" for axis in axes])
    return contact_sheet([grid], title=_title(task, "walks"))
