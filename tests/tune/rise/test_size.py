"""What a short search may train: never more than its budget, which is what `plan` states."""

from __future__ import annotations

import random
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lorafit.data.batches import lengths
from lorafit.training.steps import StepPlan
from lorafit.tune.rise.size import (
    EVALUATED,
    FACTORS,
    LENGTHS,
    TRIAL,
    WHOLE,
    Size,
    Tokens,
    level_steps,
    sized,
)
from tests.training import toy


def made(rows: int, batch: int, seed: int, **train: Any) -> tuple[StepPlan, Tokens]:
    """A plan of rows of uneven length, and what its steps and evaluations read."""
    draw = random.Random(seed)

    def texts(count: int) -> Dataset:
        return Dataset.from_dict({"input_ids": [[1] * draw.randint(1, 60) for _ in range(count)]})

    examples, held_out = texts(rows), texts(max(1, rows // 10))
    settings: dict[str, Any] = {"num_train_epochs": "auto", **train}
    config = toy.config(**settings, per_device_train_batch_size=batch)
    plan = StepPlan(examples, config)
    return plan, Tokens.of(plan, lengths(examples), lengths(held_out))


def spent(size: Size, plan: StepPlan, tokens: Tokens, share: float) -> float:
    """The most that a search of this size trains and evaluates, counted piece by piece, in runs.

    Args:
        share: What a token costs to evaluate, of what one costs in training.
    """
    sums = tokens.trained
    trained, evaluations = 0, 0
    if plan.open:
        for _ in range(size.rates):  # level part and decay of each rate
            trained += sums[size.trial]
            evaluations += 1
        stands = level_steps(size.trial)
        for length in size.lengths[1:]:
            trained += sums[level_steps(length)] - sums[stands]  # on from where it stood
            stands = level_steps(length)
            trained += sums[length] - sums[stands]  # the decay
            evaluations += 1
    elif size.trial == plan.total_steps:
        trained += size.rates * sums[-1]
        evaluations += size.rates * tokens.evaluations
    else:
        trained += size.rates * sums[size.trial] + sums[-1]
        evaluations += size.rates + tokens.evaluations
    whole = sums[-1] + share * tokens.evaluations * tokens.evaluated
    return (trained + share * evaluations * tokens.evaluated) / whole


SIZES = {
    "rows": st.integers(4, 400),
    "batch": st.sampled_from([4, 8, 32]),
    "seed": st.integers(0, 5),
    "open_rate": st.booleans(),
}


@given(**SIZES, budget=st.none() | st.floats(0.3, 4.0))
def test_an_open_search_never_costs_more_than_its_budget(
    rows: int, batch: int, seed: int, open_rate: bool, budget: float | None
) -> None:
    plan, tokens = made(rows, batch, seed)
    if not plan.open:
        return
    size = sized(plan, tokens, open_rate, budget)
    assert size.lengths[-1] <= plan.total_steps
    assert list(size.lengths) == sorted(set(size.lengths))
    assert size.trial == size.lengths[0]
    for share in EVALUATED:
        assert spent(size, plan, tokens, share) <= size.runs + 1e-9
    if budget is not None:
        assert size.runs <= budget + 1e-9


@given(**SIZES, steps=st.integers(30, 299), budget=st.none() | st.floats(1.0, 4.0))
def test_neither_does_one_of_a_given_number_of_steps(
    rows: int, batch: int, seed: int, open_rate: bool, steps: int, budget: float | None
) -> None:
    plan, tokens = made(rows, batch, seed, max_steps=steps)
    size = sized(plan, tokens, open_rate, budget)
    assert size.lengths == (steps,)
    for share in EVALUATED:
        assert spent(size, plan, tokens, share) <= size.runs + 1e-9
    if budget is not None:
        assert size.runs <= budget + 1e-9


def test_the_same_size_follows_from_the_budget_that_was_worked_out() -> None:
    """`plan` works it out, the search is handed the budget."""
    for rows in (40, 150, 300):
        plan, tokens = made(rows, 32, 0)
        wanted = sized(plan, tokens, True, None)
        assert sized(plan, tokens, True, wanted.runs) == wanted
        assert wanted.rates == len(FACTORS)
        assert wanted.lengths == LENGTHS
        assert wanted.runs < 1.7


@pytest.mark.parametrize(("steps", "trial"), [(WHOLE, WHOLE), (WHOLE + 1, TRIAL), (299, TRIAL)])
def test_rates_are_tried_for_a_number_of_steps_not_a_share(steps: int, trial: int) -> None:
    plan, tokens = made(300, 32, 0, max_steps=steps)
    size = sized(plan, tokens, True, None)
    assert (size.rates, size.trial) == (3, trial)
    assert size.runs == pytest.approx(3 * trial / steps + (trial != steps), rel=0.1)


def test_a_small_budget_pays_for_fewer_rates_and_then_for_fewer_steps() -> None:
    plan, tokens = made(300, 32, 0)
    sizes = [sized(plan, tokens, True, budget) for budget in (1.7, 1.4, 1.2, 1.0, 0.5)]
    assert [size.rates for size in sizes] == [3, 2, 1, 1, 1]
    assert [size.lengths[-1] for size in sizes[:3]] == [300, 300, 300]
    assert sizes[4].lengths[-1] < sizes[3].lengths[-1] < 300
