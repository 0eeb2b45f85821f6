"""The base of prediction writers: items of all processes, of the last prediction alone, and after an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from coordconv_apps.training.predictions import PredictionWriter
from coordconv_apps.training.task import Task

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Written(PredictionWriter[int]):
    """Keep what is written, by suffix."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, list[int]] = {}

    def write(self, trainer: Trainer, task: LightningModule, items: list[int], suffix: str) -> None:
        self.files[suffix] = items


def process(rank: int, *, predicting: bool = True) -> Any:  # noqa: ANN401  # what the writer uses of a trainer
    return SimpleNamespace(is_global_zero=rank == 0, global_rank=rank, predicting=predicting)


@pytest.mark.parametrize(("rank", "files"), [(0, {"": [3, 1, 2]}), (1, {})])
def test_the_first_process_writes_the_items_of_all(
    rank: int, files: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordconv_apps.training.predictions.gather_ranks", lambda own: [own, [], [1, 2]])
    writer = Written()
    writer.on_predict_start(process(rank), Task())
    writer.collected += [3]
    writer.on_predict_end(process(rank), Task())
    assert writer.files == files


def test_a_second_prediction_starts_anew() -> None:
    writer = Written()
    for items in ([0, 1, 2], [3, 4]):
        writer.on_predict_start(process(0), Task())
        writer.collected += items  # the first prediction is interrupted
    writer.on_predict_end(process(0), Task())
    assert writer.files == {"": [3, 4]}


def test_an_error_loses_no_items() -> None:
    for rank, files in ((0, {"": [5]}), (1, {"_1": [5]})):
        writer = Written()
        writer.on_exception(process(rank), Task(), KeyError())
        assert writer.files == {}, "nothing was collected"
        writer.collected += [5]
        writer.on_exception(process(rank, predicting=False), Task(), KeyError())
        assert writer.files == {}
        writer.on_exception(process(rank), Task(), KeyError())
        assert writer.files == files
