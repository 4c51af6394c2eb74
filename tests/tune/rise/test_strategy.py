"""When a rank grows, and to what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.state import State
from lorafit.tune.decide import gain
from lorafit.tune.rise import strategy as rise


def bench_that_pays_for(most: int) -> Bench:
    def affords(state: Any, steps: float, evaluations: float, r: int) -> bool:
        return r <= most

    return cast(Bench, SimpleNamespace(affords=affords, steps=lambda share: 10))


@pytest.mark.parametrize(
    ("most", "largest", "wanted"),
    [(1000, 384, 32), (1000, 24, 24), (31, 384, 16), (15, 384, None), (1000, 12, 12)],
)
def test_four_times_the_rank_or_twice_as_the_budget_and_the_layers_allow(
    most: int, largest: int, wanted: int | None
) -> None:
    state = cast(State, None)
    assert rise.next_rank(bench_that_pays_for(most), state, 8, largest) == wanted


@pytest.mark.parametrize(
    ("mean", "sd", "grows"),
    [
        (0.03, 0.1, True),  # certain
        (0.03, 0.25, True),  # more than its error of .025
        (0.03, 0.4, False),  # less than it
        (0.004, 0.01, False),  # certain, and certainly little
        (-0.03, 0.1, False),
    ],
)
def test_a_rank_grows_on_a_gain_that_pays_and_is_not_certainly_little(
    mean: float, sd: float, grows: bool
) -> None:
    differences = np.random.default_rng(0).normal(size=100)
    differences = mean + sd * (differences - differences.mean()) / differences.std(ddof=1)
    test = rise.RankTest(8, 32, 100, gain(differences, np.zeros(100)))
    assert test.grows == grows
