"""The kinds of interval: Student's, the percentile bootstrap's, Wilson's, and of the unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy

from lorafit.evidence import Interval, MetricInfo

_ROUNDING = 1e-9
"""Widths up to this share of a metric's range are of sums in another order."""


def student(value: float, error: float, freedom: float, n: int, level: float) -> Interval:
    """Student's interval around an estimate.

    Args:
        value: The estimate.
        error: Its standard error; 0: it has no spread.
        freedom: Degrees of freedom of the error.
        n: Examples it was estimated from.
        level: Confidence level, 0 to 1.
    """
    if error == 0.0:
        return Interval(value, value, value, n, level)
    half = float(scipy.stats.t.ppf(0.5 + level / 2, freedom)) * error
    return Interval(value, value - half, value + half, n, level)


def mean_interval(values: np.ndarray, level: float) -> Interval:
    """The mean of values ``(n,)`` with Student's interval; one value has no spread."""
    values = values.astype(np.float64)
    error = float(scipy.stats.sem(values)) if len(values) > 1 else 0.0
    return student(float(values.mean()), error, len(values) - 1, len(values), level)


def percentiles(value: float, resamples: np.ndarray, n: int, level: float) -> Interval:
    """The percentile interval of the bootstrap.

    It has no end that no resample has, so what is bounded stays within its bounds.

    Args:
        value: The estimate on all examples.
        resamples: The same on each resample, ``(resamples,)``.
        n: Examples.
        level: Confidence level, 0 to 1.
    """
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resamples, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high), n, level)


def wilson(successes: int, n: int, level: float) -> Interval:
    """A proportion with Wilson's score interval."""
    found: Any = scipy.stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(found.low), float(found.high), n, level)


def unseen(n: int, level: float) -> float:
    """The largest share of all examples that ``n`` may well not have one of ("rule of three").

    Clopper and Pearson's upper end for none among ``n``, two-sided.
    """
    return float(1.0 - ((1.0 - level) / 2.0) ** (1.0 / n))


def of_metric(found: Interval, info: MetricInfo) -> Interval:
    """The bootstrap's interval of a metric, within its bounds and never without a width.

    Resamples of a perfect score are perfect: there, and wherever no resample differs, the bootstrap
    is certain of what it has not seen. The interval then reaches at least as far as the metric
    would move if the largest share of examples that the sample may well lack (`unseen`) were on the
    other side: the whole range of a share, of F1 or of a correlation, times that share.
    """
    perfect = found.value in (info.low, info.high)
    return _widened(found, info, perfect).within(info.low, info.high)


def of_difference(found: Interval, info: MetricInfo, same: bool) -> Interval:
    """The bootstrap's interval of a metric's difference of two models, likewise.

    Args:
        found: The interval.
        info: Of the metric.
        same: Whether both models say the same of every example: then nothing is unseen.
    """
    bounds = info.difference_bounds
    return (found if same else _widened(found, info, found.value in bounds)).within(*bounds)


def _widened(found: Interval, info: MetricInfo, perfect: bool) -> Interval:
    if info.low is None or info.high is None or not found.n or found.level is None:
        return found
    range_ = info.high - info.low
    if not perfect and not found.high - found.low <= _ROUNDING * range_:
        return found
    half = range_ * unseen(int(found.n), found.level)
    low, high = min(found.low, found.value - half), max(found.high, found.value + half)
    return replace(found, low=low, high=high)
