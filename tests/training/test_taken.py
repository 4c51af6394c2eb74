"""The loop as a generator: what it yields, keeps and stops at, whoever drives it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorafit.errors import DivergenceError
from lorafit.training.keeper import Keeper
from lorafit.training.learner import Learner
from lorafit.training.optim import make_optimizer
from lorafit.training.parallel import Workers
from lorafit.training.schedule import make_factor, make_schedule
from lorafit.training.state import TrainState
from lorafit.training.stepper import Stepper
from lorafit.training.steps import StepPlan
from lorafit.training.taken import Selection, Taken, steps_taken
from tests.training import toy


class Parts:
    """A training of the toy problem, in its parts."""

    def __init__(self, **settings: Any) -> None:
        config = toy.config(**settings)
        model = toy.bert()
        trainable = toy.train_some(model)
        data, held = toy.examples(64), toy.examples(32, seed=1)
        self.learner = Learner(toy.engine(model), model, toy.ToyTask(), trainable, data, held)
        self.plan = StepPlan(data, config)
        optimizer = make_optimizer(trainable, config.train)
        schedule = make_schedule(optimizer, make_factor(config.train, self.plan.total_steps))
        self.stepper = Stepper(self.learner, optimizer, schedule, config.train)
        keeper = Keeper(None, trainable, optimizer, self.plan.expects, Workers())
        self.selection = Selection(self.learner, keeper, config.train)
        self.state = TrainState()

    def all(self, **options: Any) -> list[Taken]:
        return list(steps_taken(self.stepper, self.plan, self.state, **options))


def test_it_yields_every_step_and_the_evaluations_where_they_are_due() -> None:
    parts = Parts(max_steps=5, eval_steps=2)
    taken = parts.all(selection=parts.selection)
    assert [one.step.number for one in taken] == [1, 2, 3, 4, 5]
    assert [bool(one.metrics) for one in taken] == [False, True, False, True, True]
    assert [one.stopped for one in taken] == ["", "", "", "", "all steps are done"]
    assert taken[1].best
    total = parts.state.total
    assert total.loss_sum == pytest.approx(sum(one.outcome.loss_sum for one in taken))
    assert taken[0].outcome.loss == taken[0].outcome.loss_sum / taken[0].outcome.units


def test_without_a_selection_it_only_trains_and_ends_where_it_is_told() -> None:
    parts = Parts(max_steps=6, eval_steps=1)
    taken = parts.all(until=4)
    assert [one.step.number for one in taken] == [1, 2, 3, 4]
    assert not any(one.metrics or one.best for one in taken)
    assert taken[-1].stopped == "all steps are done"
    assert parts.all(until=4) == []
    assert [one.step.number for one in parts.all()] == [5, 6]


def test_the_best_weights_are_in_the_model_at_the_end() -> None:
    parts = Parts(max_steps=12, eval_steps=1, learning_rate=0.3, max_grad_norm=None)
    best: dict[str, torch.Tensor] = {}
    for taken in steps_taken(parts.stepper, parts.plan, parts.state, parts.selection):
        if taken.best:
            best = toy.weights(dict(parts.learner.trainable))
    assert parts.state.best_step not in (None, 12)
    assert toy.same(best, toy.weights(dict(parts.learner.trainable)))


def test_it_stops_early_and_says_so() -> None:
    parts = Parts(
        **{"num_train_epochs": 20, "eval_steps": 1, "learning_rate": 0.3, "max_grad_norm": None},
        early_stopping_patience=3,
    )
    taken = parts.all(selection=parts.selection)
    assert taken[-1].stopped.startswith("early: 3 evaluations")
    assert [one.stopped for one in taken[:-1]] == [""] * (len(taken) - 1)
    assert parts.all(selection=parts.selection) == []


def test_a_state_is_kept_after_the_one_who_drives_has_counted_in_it() -> None:
    parts = Parts(max_steps=4, eval_steps=2)
    kept: list[tuple[int, int]] = []

    class Noting(Keeper):
        def save(self, state: TrainState) -> None:
            kept.append((state.step, state.metrics_lines))

        def restore_best(self, state: TrainState) -> None:
            kept.append((-1, state.best_step or 0))

    optimizer = make_optimizer(parts.learner.trainable, parts.selection.settings)
    keeper = Noting(None, parts.learner.trainable, optimizer, {}, Workers())
    selection = Selection(parts.learner, keeper, parts.selection.settings)
    for taken in steps_taken(parts.stepper, parts.plan, parts.state, selection):
        parts.state.metrics_lines = 10 * taken.step.number
    assert kept[:2] == [(2, 20), (4, 40)]
    assert kept[-1] == (-1, parts.state.best_step)


def test_a_divergence_leaves_the_weights_of_the_step_before() -> None:
    parts = Parts(max_steps=4)
    inner, calls = parts.learner.engine.forward_backward, [0]

    def breaking(batch: Any, scale: float) -> Any:
        calls[0] += 1
        return inner(batch, float("nan") if calls[0] == 3 else scale)

    parts.learner.engine.forward_backward = breaking  # type: ignore[method-assign]
    taken = steps_taken(parts.stepper, parts.plan, parts.state)
    assert [next(taken).step.number for _ in range(2)] == [1, 2]
    before = toy.weights(dict(parts.learner.trainable))
    with pytest.raises(DivergenceError, match="at step 3"):
        next(taken)
    assert parts.state.step == 2
    assert toy.same(before, toy.weights(dict(parts.learner.trainable)))
