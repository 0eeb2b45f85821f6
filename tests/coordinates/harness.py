"""What the tests of the coordinate tasks share."""

from typing import Any, Literal

from torch import nn

from coordconv_apps.coordinates.models import build_pixel_network, build_regressor
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
    return TASKS[name](**arguments)


def build_network(task: TaskName, *arguments: Any, **options: Any) -> nn.Module:  # noqa: ANN401  # handed on as they are
    if task == "regression":
        return build_regressor(*arguments, **options)
    return build_pixel_network(*arguments, renders=task == "rendering", **options)
