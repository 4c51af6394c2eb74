"""What a search shows: which run of several, and how long it will still take."""

from __future__ import annotations

import pytest

from lorafit.training.progress import QuietProgress, Update
from lorafit.training.stepper import Outcome
from lorafit.training.steps import Step, StepPlan
from lorafit.tune.bench.ledger import Cost, Ledger
from lorafit.tune.bench.notes import Notes
from tests.training import toy

PARAMETERS = 10
UNIT = Cost(trained=100.0)
"""A plain run: 100 tokens in 10 steps."""


class Kept(QuietProgress):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.updates: list[Update] = []

    def step(self, update: Update) -> None:
        """Keeps a step."""
        self.updates.append(update)


class Searching:
    """Notes of a search with a budget, and what they show."""

    def __init__(self, budget: float) -> None:
        self.progress, self.ledger = Kept(), Ledger(PARAMETERS, UNIT)
        plan = StepPlan(toy.examples(10), toy.config(max_steps=10))
        self.notes = Notes(None, self.progress, self.ledger, plan, budget)

    def step(self, number: int) -> Update:
        """A step of 10 tokens in 2 seconds."""
        outcome = Outcome(
            loss_sum=1.0, units=1, tokens=10, time_s=2.0, grad_norm=1.0, learning_rate=1e-3
        )
        self.notes.stepped(Step(number, number / 10, []), outcome)
        return self.progress.updates[-1]


def test_of_several_runs_the_time_left_is_that_of_all() -> None:
    search = Searching(budget=3.0)
    search.notes.expect_runs(3)
    search.notes.begin_run("learning rate 0.002")
    first = search.step(5)
    assert first.part == "run 1 of 3, learning rate 0.002"
    assert first.time_left_s == pytest.approx(2.5 * 20)  # at the speed of the steps
    search.notes.book("whole runs", Cost(trained=100.0, time_s=30.0))  # evaluations included
    search.notes.begin_run("learning rate 0.006")
    second = search.step(5)
    assert second.part == "run 2 of 3, learning rate 0.006"
    assert second.time_left_s == pytest.approx(1.5 * 30)
    search.notes.begin_run("learning rate 0.0007")
    assert search.step(10).time_left_s == 0.0


def test_a_search_beside_one_training_takes_its_budget_at_most() -> None:
    search = Searching(budget=1.5)
    assert search.step(1).part == ""
    assert search.progress.updates[-1].time_left_s == pytest.approx(1.4 * 20)
    search.notes.book("learning rate", Cost(trained=20.0, time_s=4.0))
    assert search.step(1).time_left_s == pytest.approx(1.2 * 20)
    search.notes.trunk_step = 10
    assert search.step(10).time_left_s == 0.0


def test_where_the_whole_cost_is_known_the_time_left_falls_with_every_step() -> None:
    search = Searching(budget=1.5)
    search.notes.expect_cost(1.8)
    left: list[float] = []
    for _ in range(4):  # four pieces of three steps
        left += [search.step(number).time_left_s for number in range(1, 4)]
        search.notes.book("number of steps", Cost(trained=30.0, time_s=6.0))
    assert left == pytest.approx([max(0.0, 1.8 - 0.1 * steps) * 20 for steps in range(1, 13)])
