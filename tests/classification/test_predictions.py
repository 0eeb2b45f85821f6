"""What ``predict`` writes: a table of the most probable classes of each picture."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from classification.__main__ import main
from classification.pictures import ClassificationPictures
from classification.predictions import ClassificationPredictionWriter
from classification.tasks import Classifier, Prediction
from classification.transforms import EvalTransform
from coordconv_apps.data.image_decoding import read_image
from coordconv_apps.runs.summary import read_summary
from tests.classification.tiny import (
    ARGUMENTS,
    SIZE,
    data,
    save_noise,
    save_parts,
    task,
    trainer,
    weights_file,
)
from tests.helpers.images import damage
from tests.helpers.runs import last_command
from tests.helpers.trainers import OWN_TRAINER

pytestmark = OWN_TRAINER

NAMES = ("ant, small", "bee", 'a "cat"', "dog", "élan", "fox", "gnu")


def table(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def made_up(numbers: list[int], classes: int) -> Prediction:
    logits = torch.randn(20, classes, generator=torch.Generator().manual_seed(0))
    return Prediction(logits.softmax(1)[numbers], torch.tensor(numbers), [f"p/{number:02}.png" for number in numbers])


def written(folder: Path, one: Classifier, *batches: Prediction) -> list[list[str]]:
    """The table of some predictions."""
    run: Any = SimpleNamespace(default_root_dir=str(folder), is_global_zero=True)
    writer = ClassificationPredictionWriter()
    writer.on_predict_start(run, one)
    for number, batch in enumerate(batches):
        writer.on_predict_batch_end(run, one, batch, batch, number)  # type: ignore[arg-type]  # not looked at
    writer.on_predict_end(run, one)
    return table(folder)


@pytest.mark.parametrize(("classes", "columns"), [(2, 2), (5, 5), (7, 5)])
def test_the_most_probable_classes_come_first(tmp_path: Path, classes: int, columns: int) -> None:
    one = task(num_classes=classes)
    one.class_names = list(NAMES[:classes])
    batches = made_up([0, 1, 2], classes), made_up([3, 4], classes)
    header, *rows = written(tmp_path, one, *reversed(batches))
    assert header == ["picture", *(f"{word}_{i + 1}" for i in range(columns) for word in ("class", "score"))]
    assert [row[0] for row in rows] == [f"p/{number:02}.png" for number in range(5)]
    probabilities = torch.cat([batch.probabilities for batch in batches])
    for row, expected in zip(rows, probabilities.numpy(), strict=True):
        best = np.argsort(-expected)[:columns]
        assert row[1::2] == [NAMES[label] for label in best]
        assert row[2::2] == [f"{expected[label]:.6f}" for label in best]


def test_names_with_commas_and_quotes_are_quoted(tmp_path: Path) -> None:
    one = task(num_classes=3)
    one.class_names = list(NAMES[:3])
    sure = Prediction(torch.tensor([[0.7, 0.1, 0.2]]), torch.tensor([0]), ["a, b.png"])
    written(tmp_path, one, sure)
    line = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert line == '"a, b.png","ant, small",0.700000,"a ""cat""",0.200000,bee,0.100000'


def test_names_of_files_that_are_no_text_are_written(tmp_path: Path) -> None:
    odd = Prediction(torch.tensor([[0.7, 0.1, 0.2]]), torch.tensor([0]), ["p/\udcff.png"])
    assert written(tmp_path, task(), odd)[1][0] == "p/\\xff.png"


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    assert written(tmp_path, task(), made_up([0], 3))[1][1] in ("0", "1", "2")


def test_without_images_there_is_a_header(tmp_path: Path) -> None:
    assert written(tmp_path, task(), Prediction(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), [])) == [
        ["picture"]
    ]


@pytest.mark.filterwarnings("ignore:.*not a readable image")
def test_a_batch_of_unreadable_images_is_skipped(tmp_path: Path) -> None:
    pictures = save_noise(tmp_path / "own", {"a": 3})
    for number in (0, 1):
        damage(pictures / "a" / f"{number:02}.png")
    there = data(tmp_path, predict_images=str(pictures), eval_batch_size=2, on_bad_image="skip")
    one = task()
    trainer(tmp_path, callbacks=[ClassificationPredictionWriter()]).predict(one, there, return_predictions=False)
    assert [row[0] for row in table(tmp_path)[1:]] == [str(pictures / "a" / "02.png")]
    assert one.run_facts["bad_images"] == 2


# ------------------------------------------------------------------ from the command line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with a short run in it, whose pictures are gone."""
    folder = tmp_path_factory.mktemp("trained")
    root = save_parts(folder / "pictures")
    (root / "train" / "bee").rename(root / "train" / "bee, wild")
    (root / "val" / "bee").rename(root / "val" / "bee, wild")
    weights = f"--model.weights={weights_file(folder / 'weights.pth')}"
    sizes = [f"--data.image_size={SIZE}", "--data.crop=padded", "--data.batch_size=8", "--trainer.accelerator=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationPictures, "draw", lambda *unused: {})
        main(
            [
                "fit",
                f"--runs_dir={folder}",
                f"--data.root={root}",
                weights,
                *ARGUMENTS,
                *sizes,
                "--trainer.max_epochs=1",
            ]
        )
    root.rename(folder / "elsewhere")
    return folder


@pytest.mark.filterwarnings("ignore:.*not a readable image")
def test_predict_needs_no_images_but_those_to_classify(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = save_noise(tmp_path / "own", {"b": 2, "a": 3})
    (own / "broken.jpg").write_bytes(b"this is no picture")
    damage(own / "a" / "01.png")
    arguments = ["predict", f"--runs_dir={trained}", "--ckpt_path=best", "--trainer.accelerator=cpu"]
    main([*arguments, f"--data.predict_images={own}", "--data.on_bad_image=skip", "--data.eval_batch_size=2"])
    run = last_command(trained / "classification" / "default")
    assert f"4 images classified: {run}/predictions.csv" in capsys.readouterr().out
    assert read_summary(run)["run_facts"] == {"bad_images": 2}
    header, *rows = table(run)
    assert header == ["picture", "class_1", "score_1", "class_2", "score_2", "class_3", "score_3"]
    paths = [str(own / name) for name in ("a/00.png", "a/02.png", "b/00.png", "b/01.png")]
    assert [row[0] for row in rows] == paths
    checkpoint = trained / "classification" / "default" / "version_0" / "checkpoints" / "best.ckpt"
    one = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    names = ["ant", "bee, wild", "cat"]
    assert len({row[2] for row in rows}) == 4, "the pictures differ"
    for path, row in zip(paths, rows, strict=True):
        pixels = EvalTransform(SIZE, SIZE)(read_image(Path(path))) / 255
        with torch.no_grad():
            expected = one.export_module()(pixels[None])[0].numpy()
        scores = [float(score) for score in row[2::2]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=3e-6)
        assert {name: score for name, score in zip(row[1::2], scores, strict=True)} == pytest.approx(
            dict(zip(names, expected.tolist(), strict=True)), abs=1e-4
        )
