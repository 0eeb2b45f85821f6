"""What the tests of the coordinate tasks share."""

from typing import Any, Literal

from torch import nn

from coordconv_apps.coordinates.models import build_classifier, build_regressor, build_renderer
from coordconv_apps.coordinates.tasks import (
    CoordinateClassification,
    CoordinateRegression,
    CoordinateRendering,
    CoordinateTask,
)

TaskName = Literal["classification", "regression", "rendering"]

TASKS: dict[TaskName, type[CoordinateTask]] = {
    "classification": CoordinateClassification,
    "regression": CoordinateRegression,
    "rendering": CoordinateRendering,
}

METRICS = {
    "classification": {"accuracy", "euclidean_distance", "manhattan_distance"},
    "regression": {"euclidean_distance"},
    "rendering": {"iou"},
}


def make_task(name: TaskName = "classification", **arguments: Any) -> CoordinateTask:  # noqa: ANN401  # handed on as they are
    make: Any = TASKS[name]
    task: CoordinateTask = make(**arguments)
    return task


def build_network(task: TaskName, *arguments: Any, **options: Any) -> nn.Module:  # noqa: ANN401  # handed on as they are
    build: Any = {"classification": build_classifier, "regression": build_regressor, "rendering": build_renderer}[task]
    network: nn.Module = build(*arguments, **options)
    return network
