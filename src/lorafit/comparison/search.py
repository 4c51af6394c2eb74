"""Which learning rate to try next: the same small search for every method.

From the method's usual rate half a decade down and up, then beyond the better edge, or
between the two best. Rankings of methods tuned with unequal care are rankings of care.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

TRIALS = 4
SPACING = math.sqrt(10.0)


def next_rate(tried: Mapping[float, float], usual: float) -> float | None:
    """The rate of the next trial.

    Args:
        tried: Validation loss by learning rate; infinite where training diverged.
        usual: The method's own rate, where the search starts.

    Returns:
        ``None`` after `TRIALS` trials.
    """
    if len(tried) >= TRIALS:
        return None
    for rate in (usual, usual / SPACING, usual * SPACING):
        if not any(math.isclose(rate, other) for other in tried):
            return rate
    rates = sorted(tried)
    best = min(rates, key=lambda rate: (tried[rate], rate))
    if math.isinf(tried[best]):
        return rates[0] / SPACING**2
    if best == rates[0]:
        return best / SPACING
    if best == rates[-1]:
        return best * SPACING
    place = rates.index(best)
    other = min((rates[place - 1], rates[place + 1]), key=lambda rate: tried[rate])
    return math.sqrt(best * other)


def chosen(tried: Mapping[float, float]) -> float:
    """The rate with the lowest validation loss; of equal ones the smallest."""
    return min(sorted(tried), key=lambda rate: tried[rate])


def at_edge(tried: Mapping[float, float]) -> bool:
    """Whether the best rate is the smallest or largest tried: a better one may lie beyond."""
    return chosen(tried) in (min(tried), max(tried))
