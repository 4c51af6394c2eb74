"""Validation loss and metrics during training."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from lorafit.data.batches import evaluation_order
from lorafit.engine.base import Answers, Engine
from lorafit.tasks.base import Task
from lorafit.training.steps import lengths


def fetch(encoded: Dataset, indices: list[int]) -> list[dict[str, Any]]:
    """The examples at some indices, as a list of rows."""
    rows: list[dict[str, Any]] = encoded.__getitems__(indices)
    return rows


def evaluate(engine: Engine, task: Task, encoded: Dataset, batch_size: int) -> dict[str, float]:
    """Mean loss and the task's metrics over a split.

    Examples of like length are computed together, longest first: less padding, and a batch
    that does not fit into memory is met at once.

    Args:
        engine: Computes the logits, in evaluation mode.
        task: Defines the loss and the metrics.
        encoded: The encoded split.
        batch_size: Examples per batch.

    Returns:
        ``eval_loss`` in nats per unit (example or token), and ``eval_<name>`` for each metric.
    """
    order = evaluation_order(lengths(encoded), batch_size)
    batches = (engine.collate(fetch(encoded, indices)) for indices in order.batches)
    found = Answers.joined([engine.answers(batch) for batch in batches])
    metrics = {name: metric(found.kept, found.labels) for name, metric in task.metrics.items()}
    loss = float(found.losses.sum(dtype=np.float64) / max(found.units.sum(), 1))
    return {"eval_loss": loss, **{f"eval_{name}": value for name, value in metrics.items()}}
