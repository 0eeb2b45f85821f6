"""What ``predict`` writes: pictures, and arrays that open without this package."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data import GenerativeData
from generative.pixel_range import to_uint8
from generative.predictions import SampleWriter
from generative.tasks.base import Samples
from generative.two_shape_decoder import decode
from tests.generative.tiny import RADIUS, SIZE, MadeUpGAN, everywhere, trainer
from tests.helpers.trainers import OWN_TRAINER
from tests.toy.data import ToyData

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = OWN_TRAINER


def stand_in(folder: Path, data: Any) -> Any:  # noqa: ANN401  # of several classes
    """What the callback uses of a trainer."""
    return SimpleNamespace(default_root_dir=str(folder), datamodule=data, is_global_zero=True)


def make_data(number: int, **arguments: Any) -> GenerativeData:  # noqa: ANN401  # handed on as they are
    shapes: dict[str, Any] = {"image_size": SIZE, "radius": RADIUS, "num_train": 5, "num_val": 5, "num_test": 5}
    return GenerativeData(**(shapes | {"num_predict": number, "eval_batch_size": 4} | arguments))


def predict(folder: Path, task: MadeUpGAN, data: GenerativeData) -> dict[str, NDArray[Any]]:
    """Predicts with Lightning's trainer, and opens the arrays."""
    trainer(folder, callbacks=[SampleWriter()]).predict(task, data, return_predictions=False)
    return opened(folder)


def opened(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / "predictions" / "samples.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def sample_batch(numbers: list[int]) -> Samples:
    latents = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))[numbers]
    return Samples(torch.tensor(numbers), latents, everywhere(latents))


def test_predict_writes_images_and_arrays_of_the_same_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = MadeUpGAN()
    arrays = predict(tmp_path, task, make_data(10))
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "index": ((10,), "int64"),
        "latents": ((10, 6), "float32"),
        "present": ((10, 2), "bool"),
        "centers": ((10, 2, 2), "float32"),
        "shapes": ((10, 2), "int64"),
        "sizes": ((10, 2), "float32"),
        "valid": ((10,), "bool"),
    }
    assert arrays["index"].tolist() == list(range(10))
    images = task.rule(torch.from_numpy(arrays["latents"]))
    for name, values in decode(images, RADIUS)._asdict().items():
        np.testing.assert_allclose(arrays[name], values.numpy(), atol=1e-4)
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert names == [*(f"{number:05d}.png" for number in range(10)), "samples.npz"]
    for name, image in zip(names, to_uint8(images), strict=False):
        with Image.open(tmp_path / "predictions" / name) as picture:
            assert picture.mode == "RGB"
            difference = np.asarray(picture).astype(int) - image.permute(1, 2, 0).numpy()
            assert np.abs(difference).max() <= 1
    told = f"10 samples, {arrays['valid'].sum()} of them with one red and one blue object: "
    assert capsys.readouterr().out == f"{told}{tmp_path / 'predictions' / 'samples.npz'} and the images beside it\n"


def test_samples_of_a_folder_have_no_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = predict(tmp_path, MadeUpGAN(), make_data(3, source="folder", folder="there is none"))
    assert sorted(arrays) == ["index", "latents"]
    assert capsys.readouterr().out.startswith(f"3 samples: {tmp_path}")


def test_half_precision_latents_and_nan_images_are_written(tmp_path: Path) -> None:
    trainer, task, writer = stand_in(tmp_path, make_data(3)), MadeUpGAN(), SampleWriter()
    indices, latents, images = sample_batch([1, 0])
    images[0] = float("nan")
    prediction = Samples(indices, latents.bfloat16(), images)
    writer.on_predict_batch_end(trainer, task, prediction, prediction, 0)  # type: ignore[arg-type]
    writer.on_predict_end(trainer, task)
    arrays = opened(tmp_path)
    assert arrays["index"].tolist() == [0, 1]
    assert arrays["latents"].dtype == np.float32
    assert arrays["valid"].tolist() == [True, False]
    assert all(np.isfinite(array).all() for array in arrays.values())
    with Image.open(tmp_path / "predictions" / "00001.png") as picture:
        assert picture.getcolors() == [(SIZE * SIZE, (128, 128, 128))]


def test_other_data_are_refused(tmp_path: Path) -> None:
    trainer, prediction = stand_in(tmp_path, ToyData()), sample_batch([0])
    with pytest.raises(TypeError, match="must run with a data module of class GenerativeData"):
        SampleWriter().on_predict_batch_end(trainer, MadeUpGAN(), prediction, prediction, 0)  # type: ignore[arg-type]
