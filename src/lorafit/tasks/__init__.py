"""Tasks: what a model is trained to do. One file each."""

from __future__ import annotations

from collections.abc import Mapping

from lorafit.registry import Registry
from lorafit.tasks.base import Task

tasks: Registry[type[Task]] = Registry("task", "lorafit.tasks")


def stored(values: Mapping[str, object]) -> Task:
    """The task that `Task.to_dict` described.

    Args:
        values: As JSON has them.

    Raises:
        ConfigError: There is no task of that name.
        DataError: A value is missing.
    """
    return tasks[str(values["name"])].from_dict(values)
