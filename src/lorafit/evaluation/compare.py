"""Is one model better than another on the same examples?

Both models see the same examples, so their errors go together; the interval of the
difference is found by resampling examples, not by comparing two intervals. For accuracy,
McNemar's exact test counts only the examples on which exactly one of the two is right.
"""

from __future__ import annotations

import numpy as np
import scipy

from lorafit.errors import DataError
from lorafit.evaluation.bootstrap import Sample, percentiles, resampled, resampled_mean
from lorafit.evaluation.score import Scores, check_labelled
from lorafit.tasks.base import Task


def paired(
    base: Scores, tuned: Scores, task: Task, confidence: float = 0.95, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Returns tuned minus base for every metric of the task and the loss.

    Args:
        base: Scores of one model.
        tuned: Scores of the other, on the same examples in the same order.
        task: Names the metrics.
        confidence: Level of the intervals (paired percentile bootstrap).
        seed: Of the bootstrap.

    Returns:
        ``{"accuracy": {"difference", "low", "high", "p_value"}, ...}``; ``p_value`` is of
        McNemar's exact test and stands at accuracy only.

    Raises:
        DataError: The two are not of the same examples, or examples have no label.
    """
    if base.labels.shape != tuned.labels.shape or not np.array_equal(base.labels, tuned.labels):
        raise DataError(
            f"the two models were not scored on the same examples ({len(base):,} and "
            f"{len(tuned):,}); a paired comparison needs the same ones in the same order."
        )
    check_labelled(base)
    sample = Sample(base.labels, (base.logits, tuned.logits))
    result: dict[str, dict[str, float]] = {}
    for number, (name, metric) in enumerate(task.metrics.items()):
        random = np.random.default_rng([seed, number])
        before, after = resampled(name, metric, sample, random)
        low, high = percentiles(after - before, confidence)
        value = metric(tuned.logits, tuned.labels) - metric(base.logits, base.labels)
        result[name] = {"difference": value, "low": low, "high": high}
    if "accuracy" in result and base.labels.ndim == 1:
        result["accuracy"]["p_value"] = mcnemar(
            base.logits.argmax(axis=-1) == base.labels, tuned.logits.argmax(axis=-1) == base.labels
        )
    difference = tuned.losses.astype(np.float64) - base.losses.astype(np.float64)
    random = np.random.default_rng([seed, len(task.metrics)])
    units = base.units
    low, high = percentiles(resampled_mean(difference, random, units), confidence)
    mean = float(difference.sum() / (len(base) if units is None else units.sum()))
    result[task.loss_name] = {"difference": mean, "low": low, "high": high}
    return result


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
