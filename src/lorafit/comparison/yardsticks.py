"""What a method has to be better than to have learned something: answers that need no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from datasets import Dataset

from lorafit.comparison import records
from lorafit.evaluation.score import Scores
from lorafit.evaluation.seeds import Measure, difference, verdict
from lorafit.evidence import Interval
from lorafit.tasks.base import Task

UNTUNED = "the base model as it is"
FILE = "yardsticks"
"""Name of an arm's two files, without their endings."""


@dataclass(frozen=True)
class Yardstick:
    """Answers to the test examples that no training was needed for.

    Attributes:
        way: Where they come from, as in "no better than ...".
        kept: What `Task.keep` returns of them, ``(n, ...)``.
    """

    way: str
    kept: np.ndarray


@dataclass(frozen=True)
class Beside:
    """How far a method is ahead of the yardstick that it is least ahead of.

    Attributes:
        way: Which yardstick.
        difference: The headline metric of the method less that of the yardstick.
        learned: Whether the method is better than every yardstick.
    """

    way: str
    difference: Interval
    learned: bool


def find(task: Task, encoded: Dataset, untuned: Callable[[], Scores]) -> list[Yardstick]:
    """The yardsticks of a task on some examples.

    Args:
        task: Has the best constant answer.
        encoded: The examples.
        untuned: Scores the base model on them; called if it can do the task as it is.
    """
    constant = task.constant(encoded)
    found = [] if constant is None else [Yardstick(constant.by, constant.yardstick)]
    return [*found, Yardstick(UNTUNED, untuned().logits)] if task.pretrained else found


def beside(
    runs: Sequence[Scores], yardsticks: Sequence[Yardstick], measure: Measure
) -> Beside | None:
    """Sets a method beside the yardsticks.

    Args:
        runs: Its scores of each seed.
        yardsticks: On the same examples.
        measure: The headline metric.

    Returns:
        ``None``: there are no yardsticks, so that nobody knows whether it learned something.
    """
    up = measure.task.greater_is_better
    all_found = []
    for one in yardsticks:
        scores = Scores(one.kept, runs[0].labels, runs[0].losses, runs[0].units)
        found = difference(runs, [scores] * len(runs), measure)
        all_found.append(Beside(one.way, found, verdict(found, 0.0, up) == "better"))
    return min(
        all_found,
        key=lambda one: one.difference.low if up else -one.difference.high,
        default=None,
    )


def write(folder: Path, yardsticks: Sequence[Yardstick]) -> None:
    """Writes them into an arm's folder."""
    arrays = {str(at): one.kept for at, one in enumerate(yardsticks)}
    records.write(folder / f"{FILE}.json", {"ways": [one.way for one in yardsticks]}, arrays)


def read(folder: Path) -> list[Yardstick]:
    """Reads them from an arm's folder; an arm of an earlier version has none."""
    file = folder / f"{FILE}.json"
    if not file.is_file():
        return []
    arrays, ways = records.read_arrays(file), cast("list[str]", records.read(file)["ways"])
    return [Yardstick(way, arrays[str(at)]) for at, way in enumerate(ways)]
