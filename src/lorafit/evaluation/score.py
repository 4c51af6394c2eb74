"""What a model says on a split, and how sure the metrics made of it are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from datasets import Dataset

from lorafit.data.batches import evaluation_order, fetch, lengths
from lorafit.engine.answers import answer
from lorafit.engine.base import Engine
from lorafit.errors import DataError, DivergenceError
from lorafit.evaluation.bootstrap import Sample, percentiles, resampled, resampled_mean
from lorafit.tasks.base import Task
from lorafit.tasks.labels import UNKNOWN

Interval = dict[str, float]
"""``value``, ``low`` and ``high``."""


@dataclass(frozen=True)
class Scores:
    """A model's answers, in the order of the data.

    Attributes:
        logits: ``(n, ...)``: the logits, or what `Task.keep` makes of them.
        labels: ``(n, ...)``: the labels, likewise.
        losses: ``(n,)``, summed over each example's units, float32.
        units: ``(n,)``, how many losses each sum has, int64; ``None``: one each.
    """

    logits: np.ndarray
    labels: np.ndarray
    losses: np.ndarray
    units: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.losses)


def score(engine: Engine, task: Task, encoded: Dataset, batch_size: int) -> Scores:
    """Computes logits and losses of every example, in evaluation mode, in the data's order.

    Args:
        engine: Computes the logits.
        task: Defines the losses.
        encoded: The encoded split.
        batch_size: Examples per batch.

    Raises:
        DataError: There are no examples.
        DivergenceError: Logits are not finite.
    """
    if len(encoded) == 0:
        raise DataError("there are 0 examples to score.")
    found = answer(engine, encoded, batch_size)
    result, finite = Scores(found.kept, found.labels, found.losses, found.units), found.finite
    if not finite.all():
        raise DivergenceError(
            f"the model gives logits that are not finite for {(~finite).sum():,} of "
            f"{len(result):,} examples (the first is example {int(np.argmin(finite)) + 1}). "
            "With float16 weights, use bfloat16 or float32; otherwise the training diverged."
        )
    return result


def all_logits(engine: Engine, task: Task, encoded: Dataset, batch_size: int) -> list[np.ndarray]:
    """Returns the logits of every example, in the order of the data.

    Logits of every token come without those of padding.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(encoded)
    tokens = lengths(encoded)
    per_token = task.supervision in ("token", "next_token")
    for indices in evaluation_order(tokens, batch_size).batches:
        logits = engine.logits(engine.collate(fetch(encoded, indices))).float().cpu().numpy()
        for index, row in zip(indices, logits, strict=True):
            found[index] = row[: tokens[index]] if per_token else row
    return found


def intervals(
    scores: Scores, task: Task, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Returns every metric of the task, and the mean loss, each with its interval.

    Accuracy has Wilson's interval; the mean loss (``nll``, nats per example, or what
    ``task.loss_name`` says) Student's t; all other metrics the percentile bootstrap over
    examples.

    Args:
        scores: Of labelled examples.
        task: Names the metrics.
        confidence: Level of the intervals.
        seed: Of the bootstrap.

    Raises:
        DataError: Examples have no label.
    """
    check_labelled(scores)
    result: dict[str, Interval] = {}
    for number, (name, metric) in enumerate(task.metrics.items()):
        value = metric(scores.logits, scores.labels)
        if name == "accuracy" and scores.labels.ndim == 1:
            low, high = wilson(round(value * len(scores)), len(scores), confidence)
        else:
            random = np.random.default_rng([seed, number])
            sample = Sample(scores.labels, (scores.logits,))
            low, high = percentiles(resampled(name, metric, sample, random)[0], confidence)
        result[name] = {"value": value, "low": low, "high": high}
    value, low, high = loss_interval(scores, confidence, seed)
    result[task.loss_name] = {"value": value, "low": low, "high": high}
    return result


def loss_interval(scores: Scores, confidence: float, seed: int) -> tuple[float, float, float]:
    """Returns the mean loss of a unit, and its interval: Student's t, or over tokens bootstrap."""
    units = scores.units
    if units is None or (units == 1).all():
        return mean_interval(scores.losses, confidence)
    random = np.random.default_rng([seed, -1 % 2**32])
    low, high = percentiles(resampled_mean(scores.losses, random, units), confidence)
    return float(scores.losses.sum(dtype=np.float64) / units.sum()), low, high


def wilson(successes: int, count: int, confidence: float) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion."""
    found: Any = scipy.stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Returns mean, low and high of Student's t interval; one value has no spread."""
    values = values.astype(np.float64)
    mean = float(values.mean())
    spread = float(scipy.stats.sem(values)) if len(values) > 1 else 0.0
    if spread == 0.0:
        return mean, mean, mean
    low, high = scipy.stats.t.interval(confidence, len(values) - 1, loc=mean, scale=spread)
    return mean, float(low), float(high)


def check_labelled(scores: Scores) -> None:
    """Refuses scores of examples without labels.

    Raises:
        DataError: An example has no label, so that it cannot be right or wrong.
    """
    labels = scores.labels.reshape(len(scores), -1)
    missing = np.isnan(labels) if labels.dtype.kind == "f" else labels == UNKNOWN
    unknown = missing.all(axis=1)
    if unknown.any():
        raise DataError(
            f"{unknown.sum():,} of {len(scores):,} examples have no label, so they cannot be "
            "scored. Give data with the label column, or use predict."
        )
