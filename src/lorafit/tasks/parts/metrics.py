"""What a metric is: its function, how it is spoken of, and how its interval is found.

A task describes each of its metrics once, in its own file; evaluation, terminal, report and
model card know no metric by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lorafit.evidence import MetricInfo

Function = Callable[[np.ndarray, np.ndarray], float]
"""What `Task.keep` returns of all examples, ``(n, ...)`` and ``(n, ...)``, to one number."""
Counted = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Counts ``(resamples, cells)`` and each cell's label and prediction ``(cells,)`` to the metric
on each resample, ``(resamples,)``."""
Right = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What `Task.keep` returns of all examples to whether each is right, ``(n,)`` bool."""


@dataclass(frozen=True)
class Metric:
    """One number about how good a model's answers are.

    Attributes:
        function: Computes it.
        info: How it is spoken of, which way is better, and its bounds.
        counted: For a metric of class numbers ``(n,)`` and logits ``(n, classes)`` that depends
            only on how often which class was predicted for which: computes it on many
            resamples at once. Others are called once a resample.
        right: For a metric that is the share of examples that are right: which ones are. It
            then has Wilson's interval, and McNemar's test of a difference.
    """

    function: Function
    info: MetricInfo
    counted: Counted | None = None
    right: Right | None = None

    def __call__(self, kept: np.ndarray, labels: np.ndarray) -> float:
        """Computes it."""
        return self.function(kept, labels)


def described(metrics: Mapping[str, Metric | Function]) -> dict[str, Metric]:
    """The metrics, where one that is only a function has a description without facts."""
    return {
        name: metric if isinstance(metric, Metric) else Metric(metric, MetricInfo.unknown(name))
        for name, metric in metrics.items()
    }


NLL = MetricInfo(
    "negative log-likelihood",
    "how surprised the model is by the truth, in nats per example; lower is better",
    greater_is_better=False,
    low=0,
    unit="nats per example",
)
NLL_OF_TOKENS = MetricInfo(
    "negative log-likelihood",
    "how surprised the model is by the truth, in nats per token; lower is better",
    greater_is_better=False,
    low=0,
    unit="nats per token",
)
F1 = "which balances misses and false alarms; 1 is perfect"
"""What an F1 is, for notes."""
