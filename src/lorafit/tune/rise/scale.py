"""Phase 6: how much of the trained update is best, by forward passes on the selection set.

The factor c of ``W + c dW`` is searched around 1 (c below 1 undoes some over-fitting) and
written as ``lora_alpha``: it costs nothing at inference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.state import State
from lorafit.tune.decide import Gain, gain, vertex

FACTORS = (0.5, 0.75, 1.25)
"""Tried beside 1."""
BOUNDS = (0.25, 1.5)


@dataclass(frozen=True)
class Scale:
    """The outcome.

    Attributes:
        factor: The best, 1 if no other is certainly better.
        gain: Of the best other factor.
        curve: Factor to loss, nats per example, as it is (not freed of a common factor).
    """

    factor: float
    gain: Gain
    curve: dict[float, float]


def choose(bench: Bench, state: State, one: np.ndarray) -> Scale:
    """Searches the factor on evenly spread examples of the selection set.

    Args:
        bench: Scores.
        state: The trained state.
        one: Its losses on `Bench.scale_share` of the selection set, as they are.
    """
    share = bench.scale_share
    tried: dict[float, np.ndarray] = {}

    def try_(factor: float) -> np.ndarray:
        name = f"scale-{factor:.3f}"
        tried[factor] = bench.score_scaled(name, "scale", state, factor, share).raw
        return tried[factor]

    for factor in FACTORS:
        try_(factor)
    means = {1.0: float(one.mean())} | {c: float(v.mean()) for c, v in tried.items()}
    bottom = vertex(np.array(sorted(means)), np.array([means[c] for c in sorted(means)]))
    best = min(tried, key=lambda c: means[c])
    if bottom is not None:
        bottom = round(min(max(bottom, BOUNDS[0]), BOUNDS[1]), 3)
        if bottom not in means:
            means[bottom] = float(try_(bottom).mean())
            best = min(tried, key=lambda c: means[c])
    found = gain(one, tried[best])
    return Scale(best if found.pays else 1.0, found, dict(sorted(means.items())))
