from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from lorafit.comparison.search import TRIALS, at_edge, chosen, next_rate


def searched(loss: Callable[[float], float], usual: float = 1e-3) -> dict[float, float]:
    tried: dict[float, float] = {}
    while (rate := next_rate(tried, usual)) is not None:
        tried[rate] = loss(rate)
    return tried


@pytest.mark.parametrize("best", [1e-4, 3e-4, 1e-3, 2e-3, 1e-2])
def test_the_best_rate_is_found_within_half_a_decade(best: float) -> None:
    tried = searched(lambda rate: math.log(rate / best) ** 2)
    assert len(tried) == TRIALS
    assert abs(math.log10(chosen(tried) / best)) <= 0.5 + 1e-9


def test_a_rate_at_the_edge_is_said() -> None:
    assert at_edge(searched(lambda rate: -rate))
    assert not at_edge(searched(lambda rate: math.log(rate / 1.2e-3) ** 2))


def test_rates_at_which_training_diverges_are_passed_over() -> None:
    tried = searched(lambda rate: math.inf if rate > 5e-4 else 1 - rate)
    assert chosen(tried) <= 5e-4
    tried = searched(lambda rate: math.inf if rate > 1e-4 else 1.0)
    assert chosen(tried) <= 1e-4  # the search goes further down when all diverged


def test_of_equal_rates_the_smallest_is_taken() -> None:
    assert chosen({1e-3: 1.0, 1e-4: 1.0, 1e-2: 2.0}) == 1e-4
