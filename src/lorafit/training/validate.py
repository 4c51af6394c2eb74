"""Validation loss and metrics during training."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from lorafit.engine.answers import answer
from lorafit.engine.base import Engine
from lorafit.tasks.base import Task


def evaluate(engine: Engine, task: Task, encoded: Dataset, batch_size: int) -> dict[str, float]:
    """Mean loss and the task's metrics over a split.

    Args:
        engine: Computes the logits, in evaluation mode.
        task: Defines the loss and the metrics.
        encoded: The encoded split.
        batch_size: Examples per batch.

    Returns:
        ``eval_loss`` in nats per unit (example or token), and ``eval_<name>`` for each metric.
        A model that diverged has a loss that is not finite.
    """
    found = answer(engine, encoded, batch_size)
    metrics = {name: metric(found.kept, found.labels) for name, metric in task.metrics.items()}
    loss = float(found.losses.sum(dtype=np.float64) / max(found.units.sum(), 1))
    return {"eval_loss": loss, **{f"eval_{name}": value for name, value in metrics.items()}}
