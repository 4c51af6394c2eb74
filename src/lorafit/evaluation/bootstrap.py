"""Resampling: how much a metric would vary with another sample of examples.

Most are computed once a resample. What depends only on which label was predicted for which
(`Metric.counted`) is not: drawing ``n`` examples with replacement draws the counts of the distinct
(label, prediction) pairs from one multinomial distribution, so 2,000 resamples are one matrix. What
is a function of sums over the examples needs one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lorafit.tasks.parts.metrics import Metric

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


def resampled(metric: Metric, sample: Sample, random: np.random.Generator) -> list[np.ndarray]:
    """Returns the metric of each model on each of `RESAMPLES` resamples of the examples.

    All models see the same resamples, so their differences are paired.

    Args:
        metric: The metric.
        sample: The examples.
        random: Where the resamples come from.

    Returns:
        For each model ``(RESAMPLES,)``, float64.
    """
    counted = metric.counted
    if counted is None:
        return _called(metric, sample, random)
    predictions = [logits.argmax(axis=-1) for logits in sample.logits]
    cells, counts = np.unique(
        np.stack([sample.labels, *predictions], axis=1), axis=0, return_counts=True
    )
    parts = [
        [counted(drawn, cells[:, 0], said) for said in cells[:, 1:].T]
        for drawn in _drawn(counts, random)
    ]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _drawn(counts: np.ndarray, random: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each cell is in each resample, ``(resamples, cells)``, some resamples at a time."""
    step = max(1, _AT_ONCE // len(counts))
    for at in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - at)
        yield random.multinomial(counts.sum(), counts / counts.sum(), size=size)


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


def resampled_sums(
    metric: Callable[[np.ndarray], float], numbers: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Returns a function of sums on each of `RESAMPLES` resamples of what is summed.

    Args:
        metric: From sums ``(k,)`` to a number.
        numbers: What is summed, ``(n, k)``.
        random: Where the resamples come from; the same draws the same ones.

    Returns:
        ``(RESAMPLES,)``, float64.
    """
    n = len(numbers)
    times = random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.array([metric(sums) for sums in times @ numbers])


def _called(metric: Metric, sample: Sample, random: np.random.Generator) -> list[np.ndarray]:
    count = len(sample.labels)
    values = np.empty((len(sample.logits), RESAMPLES))
    for index in range(RESAMPLES):
        chosen = random.integers(count, size=count)
        for model, logits in enumerate(sample.logits):
            values[model, index] = metric(logits[chosen], sample.labels[chosen])
    return list(values)
