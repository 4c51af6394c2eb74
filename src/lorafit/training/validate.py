"""Validation loss and metrics during training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from lorafit.data.batches import evaluation_order
from lorafit.engine.base import Engine
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
    total, units = 0.0, 0
    kept: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for indices in evaluation_order(lengths(encoded), batch_size).batches:
        batch = engine.collate(fetch(encoded, indices))
        batch_logits = engine.logits(batch).float()
        batch_labels = torch.as_tensor(batch["labels"], device=batch_logits.device)
        total += float(task.losses(batch_logits, batch_labels).double().sum())
        units += int(task.units(batch_labels).sum())
        of_batch = task.keep(batch_logits, batch_labels)
        kept.append(of_batch[0])
        labels.append(of_batch[1])
    all_kept, all_labels = np.concatenate(kept), np.concatenate(labels)
    return {
        "eval_loss": total / max(units, 1),
        **{f"eval_{name}": metric(all_kept, all_labels) for name, metric in task.metrics.items()},
    }
