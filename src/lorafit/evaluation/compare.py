"""Is one model better than another on the same examples?

Both models see the same examples, so their errors go together; the interval of the
difference is found by resampling examples, not by comparing two intervals. For a share of
examples that are right, McNemar's exact test counts only those on which exactly one of the two is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import scipy

from lorafit.errors import DataError
from lorafit.evaluation.bootstrap import Sample, resampled, resampled_mean
from lorafit.evaluation.intervals import of_difference, percentiles
from lorafit.evaluation.score import Scores, check_labelled, mean_loss
from lorafit.evidence import Difference, Interval
from lorafit.tasks.base import Task
from lorafit.tasks.parts.metrics import Metric, described


def paired(
    base: Scores, tuned: Scores, task: Task, confidence: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """Returns tuned minus base for every metric of the task and the loss.

    Args:
        base: Scores of one model.
        tuned: Scores of the other, on the same examples in the same order.
        task: Has the metrics.
        confidence: Level of the intervals (paired percentile bootstrap).
        seed: Of the bootstrap.

    Returns:
        By metric; ``p_value`` is of McNemar's exact test, where the metric is a share of examples
        that are right.

    Raises:
        DataError: The two are not of the same examples, or examples have no label.
    """
    if base.labels.shape != tuned.labels.shape or not np.array_equal(base.labels, tuned.labels):
        raise DataError(
            f"the two models were not scored on the same examples ({len(base):,} and "
            f"{len(tuned):,}); a paired comparison needs the same ones in the same order."
        )
    check_labelled(base)
    pair = base.logits, tuned.logits
    result = {
        name: metric_difference(metric, pair, base.labels, confidence, [seed, number])
        for number, (name, metric) in enumerate(described(task.metrics).items())
    }
    n = len(base)
    losses = np.stack([base.losses, tuned.losses]).astype(np.float64)
    random = np.random.default_rng([seed, len(task.metrics)])
    means = resampled_mean(losses[1] - losses[0], random, base.units)
    value = mean_loss(tuned) - mean_loss(base)
    result[task.loss_name] = as_difference(percentiles(value, means, n, confidence))
    return result


def metric_difference(
    metric: Metric,
    pair: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    confidence: float,
    seed: Sequence[int],
) -> Difference:
    """Returns one metric of the second of two models minus that of the first.

    Args:
        metric: The metric.
        pair: What `Task.keep` returns of both, ``(n, ...)`` each.
        labels: Of the same examples.
        confidence: Level of the interval (paired percentile bootstrap).
        seed: Of the bootstrap.
    """
    old, new = pair
    before, after = resampled(metric, Sample(labels, pair), np.random.default_rng(seed))
    value = metric(new, labels) - metric(old, labels)
    found = percentiles(value, after - before, len(labels), confidence)
    p_value = None
    if metric.right is not None:
        p_value = mcnemar(metric.right(old, labels), metric.right(new, labels))
    same = np.array_equal(old, new)
    return as_difference(of_difference(found, metric.info, same), p_value)


def as_difference(found: Interval, p_value: float | None = None) -> Difference:
    """The interval of a difference as one."""
    return Difference(**asdict(found), p_value=p_value)


def mcnemar(base_right: np.ndarray, tuned_right: np.ndarray) -> float:
    """Returns the two-sided p-value of McNemar's exact test.

    Under the hypothesis that both models are equally good, each example that exactly one of
    them gets right is a fair coin (McNemar 1947).

    Args:
        base_right: ``(n,)``, bool.
        tuned_right: ``(n,)``, bool.
    """
    gained = int((tuned_right & ~base_right).sum())
    lost = int((base_right & ~tuned_right).sum())
    if gained + lost == 0:
        return 1.0
    return float(scipy.stats.binomtest(gained, gained + lost, 0.5).pvalue)
