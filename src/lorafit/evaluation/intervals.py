"""The three kinds of interval: Student's, the percentile bootstrap's, and Wilson's."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from lorafit.evidence import Interval


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
