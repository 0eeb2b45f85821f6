"""The classes of an application, by which all applications share one command line."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Sequence
from typing import NamedTuple

from lightning.pytorch.callbacks import Callback

from coordconv_apps.cli.data_class import DataChoice
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.training.task import Task


class Application(NamedTuple):
    """An application, as its ``__main__`` describes it to `coordconv_apps.cli.app.run`."""

    name: str
    package: str  # ``python -m <package>`` runs the application; it has the shipped configs
    task_class: type[Task]  # the base class of the tasks
    default_task: type[Task]
    data_class: type[DataModule]  # the default if there is a choice
    choose_data: DataChoice | None
    callbacks: Sequence[type[Callback]]

    def tasks(self) -> dict[str, type[Task]]:
        """Return the task classes to choose from by name: those imported, except abstract and local ones.

        Abstract classes have `abc.ABC` among their bases.
        """
        found = {self.default_task.__name__: self.default_task}
        waiting = list(self.task_class.__subclasses__())
        while waiting:
            task_class = waiting.pop()
            waiting += task_class.__subclasses__()
            shared = ABC in task_class.__bases__ or inspect.isabstract(task_class)
            if not (shared or task_class.__name__.startswith("_") or "<locals>" in task_class.__qualname__):
                found.setdefault(task_class.__name__, task_class)
        return dict(sorted(found.items()))
