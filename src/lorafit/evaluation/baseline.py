"""What always the same answer comes to: a model has to be better than that."""

from __future__ import annotations

import math

from datasets import Dataset

from lorafit.evaluation.compare import metric_difference
from lorafit.evaluation.score import Scores
from lorafit.evidence import Baseline
from lorafit.tasks.base import Task
from lorafit.tasks.parts.metrics import described


def baseline(
    task: Task, scores: Scores, encoded: Dataset, confidence: float = 0.95, seed: int = 0
) -> Baseline | None:
    """Scores the best constant answer, and how far a model is ahead of it.

    Args:
        task: Says which answer that is, and has the metrics.
        scores: Of the model, on examples that all have a label.
        encoded: These examples.
        confidence: Level of the interval.
        seed: Of the bootstrap.

    Returns:
        ``None``: the task has no constant answer.
    """
    found = task.constant(encoded)
    if found is None:
        return None
    metrics = described(task.metrics)
    values = {name: metric(found.kept, scores.labels) for name, metric in metrics.items()}
    pair = found.yardstick, scores.logits
    return Baseline(
        answer=found.answer,
        metrics={name: value for name, value in values.items() if math.isfinite(value)},
        way=found.way,
        sentence=found.sentence,
        ahead=metric_difference(metrics[task.metric], pair, scores.labels, confidence, [seed]),
    )
