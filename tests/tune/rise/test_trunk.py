"""The trunk's learning rate over the run, and what counts as its collapse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafit.config import TrainConfig
from lorafit.training.schedule import make_factor
from lorafit.tune.bench.bench import Bench, Trained
from lorafit.tune.bench.state import State
from lorafit.tune.rise import trunk as trunks
from lorafit.tune.rise.trunk import Trunk, advance, begun, current, falling

STEPS = 200


class MadeUp:
    """A bench where a piece has the loss that is given for its first step.

    Args:
        losses: First step of a piece to its loss; the pieces between go on with it.
        settings: Of the training.
    """

    def __init__(self, losses: dict[int, float], **settings: Any) -> None:
        self.total_steps = STEPS
        self.open = frozenset({"train.learning_rate"})
        self.config = SimpleNamespace(train=TrainConfig(**settings))
        self.journal = SimpleNamespace(forget=lambda entry: None)
        self.losses = losses

    def steps(self, share: float) -> int:
        return max(1, round(share * STEPS))

    def train(self, name: str, phase: str, state: Any, until: int, rate: Any, **about: Any) -> Any:
        first = max(step for step in self.losses if step <= state.step)
        losses = np.full(until - state.step, self.losses[first])
        return Trained(cast(State, at(until)), losses, cast(Any, name))

    def adopt(self, entries: Any, step: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def at(step: int) -> Any:
    return SimpleNamespace(step=step, shape=SimpleNamespace(settings={}))


def trunk_of(bench: MadeUp, step: int = 0) -> Trunk:
    return begun(cast(Bench, bench), at(step), 1e-3)


@given(st.integers(0, STEPS - 2))
def test_from_where_its_rate_was_chosen_it_falls_linearly_to_zero(step: int) -> None:
    bench = MadeUp({0: 1.0})
    trunk = trunk_of(bench, step)
    rate = falling(cast(Bench, bench), trunk)
    first = max(step, bench.steps(trunks.WARMUP))
    assert rate(first) == pytest.approx(1e-3)
    assert rate(STEPS) == 0.0
    assert rate((first + STEPS) // 2) == pytest.approx(1e-3 / 2, rel=0.01 + 1 / (STEPS - first))


def test_a_schedule_that_is_asked_for_is_kept() -> None:
    bench = MadeUp({0: 1.0}, lr_scheduler_type="warmup_stable_decay", warmup_ratio=trunks.WARMUP)
    rate = falling(cast(Bench, bench), trunk_of(bench))
    factor = make_factor(bench.config.train, STEPS)
    assert [rate(step) for step in range(STEPS)] == pytest.approx(
        [1e-3 * factor(step) for step in range(STEPS)]
    )


@pytest.mark.parametrize(("lost_at", "halved"), [(100, True), (180, False)])
def test_only_a_steep_trunk_collapses(lost_at: int, halved: bool) -> None:
    """What is lost where the rate is small already is noise of a short piece."""
    bench = MadeUp({0: 1.0, 20: 0.5, lost_at: 1.1, lost_at + 10: 0.4})
    trunk = trunk_of(bench, 20)
    trunk.pieces = [Trained(at(20), np.full(20, 1.0), cast(Any, "first"))]
    advance(cast(Bench, bench), trunk, STEPS)
    # A loss that no rate brings down is trained on at the lowest.
    assert trunk.rate == (1e-3 / 2**trunks.RETRIES if halved else 1e-3)
    assert len(trunk.changes) == (trunks.RETRIES if halved else 0)
    assert current(cast(Bench, bench), trunk) == 0.0
