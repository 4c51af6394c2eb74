"""What always the same answer comes to: a model has to be better than that."""

from __future__ import annotations

import numpy as np

from lorafit.evidence import Baseline
from lorafit.tasks.base import Task
from lorafit.tasks.parts.metrics import described


def baseline(task: Task, labels: np.ndarray) -> Baseline | None:
    """Scores the best constant answer.

    Args:
        task: Says which that is, and has the metrics.
        labels: ``(n, ...)``, of examples that all have one.

    Returns:
        ``None``: the task has no constant answer.
    """
    found = task.constant(labels)
    if found is None:
        return None
    answer, kept = found
    metrics = described(task.metrics)
    return Baseline(
        answer=answer,
        metrics={name: metric(kept, labels) for name, metric in metrics.items()},
    )
