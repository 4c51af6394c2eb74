"""How the learning rate is chosen, on a bench whose losses are made up."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lorafit.errors import TrainingError
from lorafit.tune import rates
from lorafit.tune.bench import Bench, Trained
from lorafit.tune.rates import Rate

STEPS, USUAL = 1_000, 1e-3
CENTRE = USUAL / 0.1**rates.HORIZON

Loss = Callable[[float], float]


def valley(best: float, curvature: float = 0.1) -> Loss:
    return lambda rate: 1 + curvature * math.log(rate / best) ** 2


class MadeUp:
    """A bench where the loss depends on the rate alone, with noise of its own in each batch.

    Args:
        loss: Of a batch; infinite: it diverges.
        later: The same in the second, longer comparison; ``None``: as before.
        noise: Of a batch, the same for all rates; a hundredth of it is not.
    """

    def __init__(self, loss: Loss, later: Loss | None = None, noise: float = 0.1) -> None:
        train = SimpleNamespace(
            per_device_train_batch_size=32, gradient_accumulation_steps=1, learning_rate=USUAL
        )
        self.config = SimpleNamespace(train=train)
        self.total_steps = STEPS
        self.forgotten: list[str] = []
        self.journal = SimpleNamespace(forget=self.forgotten.append)
        self.trained: list[str] = []
        self.loss, self.later, self.noise = loss, later or loss, noise
        self.random = np.random.default_rng(0)
        self.shared = self.random.normal(size=STEPS)

    def steps(self, share: float) -> int:
        return max(1, round(share * STEPS))

    def train(self, name: str, phase: str, state: Any, until: int, rate: Any, **about: Any) -> Any:
        tried, count = about["learning_rate"], until - state.step
        loss = (self.later if state.step else self.loss)(tried)
        after = SimpleNamespace(step=until) if math.isfinite(loss) else None
        own = self.random.normal(size=count) / 100
        losses = loss + self.noise * (self.shared[:count] + own)
        self.trained.append(name)
        return Trained(cast(Any, after), losses, cast(Any, name))


def choose(bench: MadeUp) -> Rate:
    start = SimpleNamespace(step=0)
    return rates.choose(cast(Bench, bench), cast(Any, start))


def wanted(best: float) -> float:
    """The rate for the whole run, after one that is best over 10 % of it."""
    return best * 0.1**rates.HORIZON


def test_the_best_rate_is_found_and_the_survivor_is_the_trunk() -> None:
    for best in (CENTRE, CENTRE * rates.FACTOR):
        bench = MadeUp(valley(best))
        found = choose(bench)
        assert found.value == pytest.approx(wanted(best), rel=0.1)
        assert [piece.state.step for piece in found.trunk if piece.state] == [30, 100]
        assert found.state is found.trunk[-1].state
        kept = {piece.entry for piece in found.trunk}
        assert not kept & set(bench.forgotten)
        assert len(kept) + len(bench.forgotten) == len(bench.trained)


def test_the_longer_comparison_decides_between_the_two_best() -> None:
    """A rate that is a little better after 3 % may be worse after 10 %."""
    low, high = CENTRE, CENTRE * rates.FACTOR
    found = choose(MadeUp(valley(high * 0.7), later=valley(low)))
    assert found.value == pytest.approx(wanted(low), rel=0.2)


def test_between_the_finalists_the_valley_is_followed() -> None:
    best = CENTRE * math.sqrt(rates.FACTOR)
    assert choose(MadeUp(valley(best))).value == pytest.approx(wanted(best), rel=0.05)


@pytest.mark.parametrize("away", [1 / 27, 1 / 9, 9, 27])
def test_an_edge_is_followed_but_nothing_beyond_the_rates_that_were_tried(away: float) -> None:
    best = CENTRE * away
    found = choose(MadeUp(valley(best)))
    tried = [line["learning_rate"] for line in found.choice.evidence["tried"]]
    assert len(set(tried)) >= 4
    reached = min(max(best, min(tried)), max(tried))
    assert found.value == pytest.approx(wanted(reached), rel=0.1)


def test_where_rates_cannot_be_told_apart_the_usual_one_is_taken() -> None:
    found = choose(MadeUp(lambda rate: 1.0))
    assert found.value == USUAL
    assert "insensitive" in found.choice.reason


def test_rates_that_diverge_drop_out_and_lower_ones_are_tried() -> None:
    def loss(rate: float) -> float:
        return valley(CENTRE / 9)(rate) if rate < CENTRE / 8 else math.inf

    found = choose(MadeUp(loss))
    assert found.value < wanted(CENTRE / 8)
    assert any(line["diverged"] for line in found.choice.evidence["tried"])


def test_if_every_rate_diverges_that_is_said_with_what_to_do() -> None:
    with pytest.raises(TrainingError, match=r"every learning rate .* diverges.*lorafit preview"):
        choose(MadeUp(lambda rate: math.inf))
