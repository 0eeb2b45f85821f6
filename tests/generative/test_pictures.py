"""Pictures of generators: what they are drawn from, and what is to be seen on them, of generators made up for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coordconv_apps.training.task import Task
from coordconv_apps.utils.contact_sheet import Grid, contact_sheet
from coordconv_apps.utils.plotting import as_picture
from generative.data import GenerativeData
from generative.pictures import GenerativePictures, image_grid, strongest_latents
from generative.pixel_range import to_uint8
from generative.two_shapes import draw_scenes, render
from tests.generative.tiny import RADIUS, SIZE, MadeUpGAN, MadeUpVAE
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

GROUND = (36, 36, 36)


def make_data(**arguments: Any) -> GenerativeData:  # noqa: ANN401  # handed on as they are
    shapes: dict[str, Any] = {"image_size": SIZE, "radius": RADIUS, "num_train": 20, "num_val": 5, "num_test": 120}
    data = GenerativeData(**(shapes | arguments))
    data.setup("fit")
    return data


def draw(task: Task, data: Any, **arguments: Any) -> dict[str, Image.Image]:  # noqa: ANN401  # of several classes
    with torch.no_grad():
        return GenerativePictures(**({"samples": 24, "centers": 100} | arguments)).draw(task.eval(), data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 pictures, of which no figures are drawn."""
    path = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(1)
    for number, image in enumerate(render(draw_scenes(40, SIZE, RADIUS, generator), SIZE, RADIUS)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path / f"{number:02d}.png")
    return path


def folder_data(folder: Path, **arguments: Any) -> GenerativeData:  # noqa: ANN401  # handed on as they are
    return make_data(**({"source": "folder", "folder": str(folder), "num_train": 1, "num_test": 32} | arguments))


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture)


def enlarged(image: Tensor, zoom: int) -> NDArray[np.uint8]:
    """An image (3, H, W) in [-1, 1] as the pixels of a picture."""
    found: NDArray[np.uint8] = np.kron(to_uint8(image).permute(1, 2, 0).numpy(), np.ones((zoom, zoom, 1), np.uint8))
    return found


def pasted(sheet: Image.Image, side: int) -> list[tuple[int, int]]:
    """Where images of a side are on a sheet, x and y: between gaps of its ground."""
    ground = (pixels(sheet) == GROUND).all(2)

    def starts(covered: NDArray[np.bool_]) -> list[int]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], covered.astype(np.int8), [0]])))
        return [int(start) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start == side]

    return [(x, y) for y in starts((~ground).mean(1) > 0.2) for x in starts((~ground).mean(0) > 0.2)]


# ------------------------------------------------------------------ contact sheets


@pytest.mark.parametrize(("side", "zoom"), [(50, 2), (96, 1)])
def test_sheet_shows_images_enlarged_in_rows(side: int, zoom: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, side, side, generator=generator) * 2 - 1
    other = torch.rand(2, 3, side, side, generator=generator) * 2 - 1
    sheet = contact_sheet([image_grid("above", images, 3), image_grid("below", other, 3)], title="a title")
    places = pasted(sheet, side * zoom)
    assert len(places) == 9
    for image, (x, y) in zip((*images, None, *other, None), places, strict=True):
        part = pixels(sheet)[y : y + side * zoom, x : x + side * zoom]
        expected = GROUND if image is None else enlarged(image, zoom)
        assert (part == expected).all()


def test_labels_stand_beside_their_rows() -> None:
    images = torch.ones(2, 3, 32, 32)
    labelled = contact_sheet([image_grid("", images, 1, ["first", "second"])], title="t")
    (x, first), (_, second) = pasted(labelled, 96)
    ink = (pixels(labelled)[:, : x - 1] != GROUND).any(2)
    assert ink[first : first + 96].any()
    assert ink[second : second + 96].any()
    assert not ink[first + 96 : second].any()


# ------------------------------------------------------------------ what is drawn


def test_strongest_latents_come_first() -> None:
    weights = torch.tensor([0.1, 0.5, 0.0, 0.3])

    def sample(latents: Tensor) -> Tensor:
        return (latents * weights).sum(1)[:, None, None, None].expand(-1, 3, 4, 4)

    latents = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    assert strongest_latents(sample, latents, 1.0, 8) == [1, 3, 0, 2]
    assert strongest_latents(sample, latents, 1.0, 2) == [1, 3]


# ------------------------------------------------------------------ what is to be seen


SHAPES = ["samples", "walks", "average", "centers", "geometry"]


def test_gan_draws_all_pictures_in_colour() -> None:
    drawn = draw(MadeUpGAN(), make_data())
    assert sorted(drawn) == sorted(SHAPES)
    for picture in drawn.values():
        assert picture.mode == "RGB"
        assert len(picture.getcolors(1 << 24) or ()) > 20


def test_vae_also_draws_reconstructions_and_keeps_the_random_state() -> None:
    task = MadeUpVAE()
    random = torch.get_rng_state()
    assert sorted(draw(task, make_data())) == sorted([*SHAPES, "reconstructions"])
    assert torch.equal(random, torch.get_rng_state())
    assert max(task.batches) <= 64


def test_sheet_of_samples_has_generated_and_real_images(folder: Path) -> None:
    task, data = MadeUpGAN(), folder_data(folder)
    sheet = draw(task, data)["samples"]
    expected = [*task.sample(task.draw_latents(24, 0)), *data.example_images(16)]
    places = pasted(sheet, 96)
    for image, (x, y) in zip(expected, places, strict=True):
        assert (pixels(sheet)[y : y + 96, x : x + 96] == enlarged(image, 3)).all()


def test_walks_go_from_end_to_end_along_the_strongest_latents(folder: Path) -> None:
    def rule(latents: Tensor) -> Tensor:
        gray = (latents * torch.tensor([0.1, 0, 0.3, 0, 0.5, 0])).sum(1) / 2
        return gray[:, None, None, None].expand(-1, 3, 8, 8)

    for task, reach in ((MadeUpGAN(rule), 1.0), (MadeUpVAE(rule), 2.0)):
        sheet = draw(task, folder_data(folder, image_size=8))["walks"]
        levels = np.array([pixels(sheet)[y, x, 0] for x, y in pasted(sheet, 96)]).reshape(6, 9).astype(float)
        steps = np.diff(levels, axis=1) * 2 / 255
        for row, weight in zip(steps, (0.5, 0.3, 0.1, 0, 0, 0), strict=True):
            np.testing.assert_allclose(row, weight / 2 * 2 * reach / 8, atol=1.01 / 127.5)
        own = task.draw_latents(6, 0)[:, [0, 2, 4]]
        middle = (own @ torch.tensor([0.1, 0.3, 0.0]))[0].item() / 2  # the first row walks along latent 4
        assert levels[0, 4] == pytest.approx(127.5 + 127.5 * middle, abs=1)


def test_reconstructions_are_below_their_images(folder: Path) -> None:
    task, data = MadeUpVAE(), folder_data(folder)
    sheet = draw(task, data)["reconstructions"]
    places = pasted(sheet, 96)
    assert len(places) == 64
    images = data.example_images(32)
    for start in range(0, 32, 8):
        rows = [*images[start : start + 8], *task.reconstruct(images[start : start + 8])]
        for image, (x, y) in zip(rows, places[2 * start : 2 * start + 16], strict=True):
            assert (pixels(sheet)[y : y + 96, x : x + 96] == enlarged(image, 3)).all()


@pytest.mark.parametrize(("number", "shown"), [(3, 6), (11, 16)])
def test_few_images_give_few_reconstructions(folder: Path, number: int, shown: int) -> None:
    sheet = draw(MadeUpVAE(), folder_data(folder, num_test=number))["reconstructions"]
    assert len(pasted(sheet, 96)) == shown


def test_a_generator_that_has_failed_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def note(figure: Figure) -> Image.Image:
        titles.append(figure.get_suptitle())
        return as_picture(figure)

    monkeypatch.setattr("generative.pictures.as_picture", note)
    task = MadeUpVAE(lambda latents: torch.full((len(latents), 3, SIZE, SIZE), float("nan")))
    assert sorted(draw(task, make_data())) == sorted([*SHAPES, "reconstructions"])
    assert titles[1].endswith("(invalid and left out: 0 of 100 real, 100 of 100 generated)")


def test_pictures_of_a_folder_have_no_plots_of_objects(folder: Path) -> None:
    assert sorted(draw(MadeUpVAE(), folder_data(folder))) == ["reconstructions", "samples", "walks"]


def test_titles_name_the_arm_and_the_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def note(grids: Sequence[Grid], *, title: str) -> Image.Image:
        titles.append(title)
        return contact_sheet(grids, title=title)

    monkeypatch.setattr("generative.pictures.contact_sheet", note)
    draw(MadeUpGAN(coords="xyr"), folder_data(folder))
    monkeypatch.setattr(MadeUpVAE, "global_step", 12345)
    draw(MadeUpVAE(coords="none"), folder_data(folder))
    assert titles == [
        "CoordConv (coords=xyr), MadeUpGAN: samples",
        "CoordConv (coords=xyr), MadeUpGAN: walks",
        "plain convolutions, MadeUpVAE, 12,345 optimizer steps: samples",
        "plain convolutions, MadeUpVAE, 12,345 optimizer steps: walks",
        "plain convolutions, MadeUpVAE, 12,345 optimizer steps: reconstructions",
    ]


@pytest.mark.parametrize(("task", "data"), [(ToyTask(), make_data()), (MadeUpGAN(), ToyData())])
def test_other_tasks_and_data_are_refused(task: Task, data: Any) -> None:  # noqa: ANN401  # of several classes
    with pytest.raises(TypeError, match=f"cannot draw {type(task).__name__} with {type(data).__name__}$"):
        draw(task, data)


@pytest.mark.parametrize("name", ["samples", "centers"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}=0: must be an integer of at least 1$"):
        GenerativePictures(**{name: 0})
