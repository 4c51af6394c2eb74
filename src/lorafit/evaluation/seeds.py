r"""Metrics averaged over seeds, and their differences, with both kinds of uncertainty.

Another sample of examples would give another number, and so would another seed. The two
variances add up:

.. math:: SE^2 = SE_{examples}^2 + s_{seeds}^2 / k

The first is a bootstrap over examples of the mean over seeds (all models see the same
resamples), the second the spread of the ``k`` seeds' values; of a difference it is the spread
of the paired differences, seed by seed. Intervals are Student's t with Satterthwaite's degrees
of freedom. With one seed the second part is unknown and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorafit.evaluation.bootstrap import Sample, resampled, resampled_mean
from lorafit.evaluation.intervals import of_difference, of_metric, student
from lorafit.evaluation.score import Scores
from lorafit.evidence import Interval, MetricInfo
from lorafit.evidence.comparison import Standing
from lorafit.tasks.base import Task
from lorafit.tasks.parts.metrics import described


@dataclass(frozen=True)
class Measure:
    """What is measured, and how surely it is to be known.

    Attributes:
        task: Has the metric.
        metric: One of the task's, or ``loss``, the mean loss of a unit.
        confidence: Level of the interval.
        seed: Of the bootstrap.
    """

    task: Task
    metric: str
    confidence: float = 0.95
    seed: int = 0

    @property
    def info(self) -> MetricInfo:
        """What the metric is."""
        if self.metric == "loss":
            return self.task.loss_info
        return described(self.task.metrics)[self.metric].info


def average(runs: Sequence[Scores], measure: Measure) -> Interval:
    """The metric's mean over seeds.

    Args:
        runs: Of each seed, on the same examples in the same order.
        measure: The metric.
    """
    values, resamples = _of_each(list(runs), measure)
    found = _estimate(values, resamples.mean(axis=0), len(runs[0]), measure.confidence)
    return of_metric(found, measure.info)


def difference(
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    measure: Measure,
) -> Interval:
    """The metric's mean over seeds of one method minus that of another.

    Args:
        ours: Of each seed.
        theirs: Of the same seeds in the same order, on the same examples.
        measure: The metric.
    """
    k = min(len(ours), len(theirs))
    values, resamples = _of_each([*ours[:k], *theirs[:k]], measure)
    paired = values[:k] - values[k:]
    apart = (resamples[:k] - resamples[k:]).mean(axis=0)
    found = _estimate(paired, apart, len(ours[0]), measure.confidence)
    same = all(np.array_equal(a.logits, b.logits) for a, b in zip(ours, theirs, strict=False))
    # Two models that count as equal on all n examples may still differ on others.
    return of_difference(found, measure.info, same)


def verdict(difference: Interval, margin: float, greater_is_better: bool = True) -> Standing:
    """What an interval of a difference says.

    Args:
        difference: New minus reference.
        margin: A loss of quality up to this does not matter ("not worse").
        greater_is_better: Of the metric.
    """
    low, high = difference.low, difference.high
    if not greater_is_better:
        low, high = -high, -low
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "not worse" if low > -margin else "cannot tell"


def _of_each(runs: list[Scores], measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    """The metric of each run ``(runs,)``, and on each resample ``(runs, resamples)``."""
    random = np.random.default_rng(measure.seed)
    if measure.metric == "loss":
        losses = np.stack([run.losses.astype(np.float64) for run in runs])
        units = runs[0].units
        total = losses.shape[1] if units is None else units.sum()
        return losses.sum(axis=1) / total, resampled_mean(losses, random, units)
    sample = Sample(runs[0].labels, tuple(run.logits for run in runs))
    function = described(measure.task.metrics)[measure.metric]
    values = np.array([function(run.logits, run.labels) for run in runs])
    return values, np.stack(resampled(function, sample, random))


def _estimate(values: np.ndarray, resamples: np.ndarray, n: int, confidence: float) -> Interval:
    examples = float(resamples.var(ddof=1))
    k = len(values)
    seeds = float(values.var(ddof=1)) / k if k > 1 else 0.0
    variance = examples + seeds
    weight = examples**2 / max(n - 1, 1) + (seeds**2 / (k - 1) if k > 1 else 0.0)
    freedom = variance**2 / weight if weight > 0.0 else 1.0
    return student(float(values.mean()), variance**0.5, freedom, n, confidence)
