"""Resampling: how much a metric would vary with another sample of examples.

Metrics that depend only on which label was predicted for which are not computed example by
example. Drawing ``n`` examples with replacement draws the counts of the distinct (label,
prediction) pairs from one multinomial distribution, so 2,000 resamples are one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lorafit.tasks.base import Metric

RESAMPLES = 2_000
_AT_ONCE = 4_000_000
"""Numbers held in memory at a time (32 MB)."""


@dataclass(frozen=True)
class Sample:
    """Examples with the logits of one model, or of several on the same examples.

    Attributes:
        labels: ``(n,)`` or more dimensions.
        logits: For each model ``(n, ...)``.
    """

    labels: np.ndarray
    logits: tuple[np.ndarray, ...]


def resampled(
    name: str, metric: Metric, sample: Sample, random: np.random.Generator
) -> list[np.ndarray]:
    """Returns the metric of each model on each of `RESAMPLES` resamples of the examples.

    All models see the same resamples, so their differences are paired.

    Args:
        name: Of the metric; those that depend on counts only are computed from counts.
        metric: For all others: called once per resample and model.
        sample: The examples.
        random: Where the resamples come from.

    Returns:
        For each model ``(RESAMPLES,)``, float64.
    """
    counted = _COUNTED.get(name)
    if counted is None or sample.labels.ndim > 1:
        return _called(metric, sample, random)
    predictions = [logits.argmax(axis=-1) for logits in sample.logits]
    cells, counts = np.unique(
        np.stack([sample.labels, *predictions], axis=1), axis=0, return_counts=True
    )
    drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
    return [counted(drawn, cells[:, 0], cells[:, 1 + model]) for model in range(len(predictions))]


def resampled_mean(
    values: np.ndarray, random: np.random.Generator, units: np.ndarray | None = None
) -> np.ndarray:
    """Returns the means of `RESAMPLES` resamples of the examples, ``(..., RESAMPLES)``.

    Args:
        values: Sum of each example, ``(n,)``; of several models ``(models, n)``, which see the
            same resamples.
        random: Where the resamples come from.
        units: How many values each sum has, ``(n,)``; ``None``: one.
    """
    count = values.shape[-1]
    step = max(1, _AT_ONCE // values.size)
    means = []
    for at in range(0, RESAMPLES, step):
        chosen = random.integers(count, size=(min(step, RESAMPLES - at), count))
        sums = values[..., chosen].sum(axis=-1, dtype=np.float64)
        means.append(sums / (count if units is None else units[chosen].sum(axis=1)))
    return np.concatenate(means, axis=-1)


def percentiles(resamples: np.ndarray, confidence: float) -> tuple[float, float]:
    """Returns the percentile interval."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resamples, [tail, 1.0 - tail])
    return float(low), float(high)


def _called(metric: Metric, sample: Sample, random: np.random.Generator) -> list[np.ndarray]:
    count = len(sample.labels)
    values = np.empty((len(sample.logits), RESAMPLES))
    for index in range(RESAMPLES):
        chosen = random.integers(count, size=count)
        for model, logits in enumerate(sample.logits):
            values[model, index] = metric(logits[chosen], sample.labels[chosen])
    return list(values)


def _accuracy(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    right: np.ndarray = counts[:, labels == predictions].sum(axis=1) / counts.sum(axis=1)
    return right


def _macro_f1(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """As scikit-learn's: the mean over the classes that occur as a label or a prediction."""
    classes = np.union1d(labels, predictions)
    is_label = (labels[:, None] == classes).astype(np.float64)  # (cells, classes)
    is_prediction = (predictions[:, None] == classes).astype(np.float64)
    both = counts @ (is_label * is_prediction)  # (resamples, classes)
    either = counts @ (is_label + is_prediction)
    f1 = 2.0 * both / np.maximum(either, 1.0)
    mean: np.ndarray = f1.sum(axis=1) / (either > 0).sum(axis=1)
    return mean


def _mcc(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Matthews' correlation of several classes (Gorodkin 2004); 0 where it has no value."""
    classes = np.union1d(labels, predictions)
    n = counts.sum(axis=1).astype(np.float64)
    true = counts @ (labels[:, None] == classes).astype(np.float64)  # (resamples, classes)
    said = counts @ (predictions[:, None] == classes).astype(np.float64)
    right = counts[:, labels == predictions].sum(axis=1)
    covariance = right * n - (true * said).sum(axis=1)
    spread = np.sqrt((n**2 - (true**2).sum(axis=1)) * (n**2 - (said**2).sum(axis=1)))
    mcc: np.ndarray = np.where(spread > 0, covariance / np.where(spread > 0, spread, 1.0), 0.0)
    return mcc


_COUNTED: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "mcc": _mcc,
}
"""Metrics of drawn counts ``(resamples, cells)`` and the cells' labels and predictions."""
