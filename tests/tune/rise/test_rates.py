"""How the learning rate is chosen, on a bench whose losses are made up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lorafit.errors import TrainingError
from lorafit.tune.bench.bench import Bench, Scored, Trained
from lorafit.tune.bench.journal import Entry
from lorafit.tune.prior.centre import Centre, best_of
from lorafit.tune.rise import rates
from lorafit.tune.rise.rates import Rate

STEPS, USUAL = 1_000, 1e-3
SHRINK = 0.15**rates.HORIZON
"""Three short runs of 3 %, two longer ones of 10 % and their decays of 5 %."""
CENTRE = USUAL

Loss = Callable[[float], float]


def valley(best: float, curvature: float = 0.1) -> Loss:
    return lambda rate: 1 + curvature * math.log(rate / best) ** 2


class MadeUp:
    """A bench where the loss depends on the rate alone, with noise of its own in each batch.

    Args:
        loss: Of a batch; infinite: it diverges.
        decayed: Loss of an example of the selection set after a decay; ``None``: as ``loss``.
        noise: Of a batch and an example, the same for all rates; a hundredth of it is not.
        pays: Whether the budget allows more than three rates.
    """

    def __init__(
        self, loss: Loss, decayed: Loss | None = None, noise: float = 0.1, pays: bool = True
    ) -> None:
        self.pays = pays
        train = SimpleNamespace(
            per_device_train_batch_size=32,
            gradient_accumulation_steps=1,
            learning_rate=USUAL,
            warmup_ratio=0.06,
        )
        self.config = SimpleNamespace(train=train)
        self.prior: Any = None
        self.total_steps = STEPS
        self.trained: list[str] = []
        self.forgotten: list[str] = []
        self.journal = SimpleNamespace(forget=self.forgotten.append)
        self.loss, self.decayed, self.noise = loss, decayed or loss, noise
        self.random = np.random.default_rng(0)
        self.shared = self.random.normal(size=STEPS)

    def affords(self, state: Any, steps: float, evaluations: float) -> bool:
        return self.pays

    def steps(self, share: float) -> int:
        return max(1, round(share * STEPS))

    def _noisy(self, loss: float, count: int) -> np.ndarray:
        own = self.random.normal(size=count) / 100
        return loss + self.noise * (self.shared[:count] + own)

    def train(self, name: str, phase: str, state: Any, until: int, rate: Any, **about: Any) -> Any:
        tried = about["learning_rate"]
        loss = self.loss(tried)
        shape = SimpleNamespace(settings={})
        after = SimpleNamespace(step=until, rate=tried, shape=shape) if loss < math.inf else None
        self.trained.append(name)
        return Trained(cast(Any, after), self._noisy(loss, until - state.step), cast(Any, name))

    def score(self, name: str, phase: str, state: Any) -> Scored:
        losses = self._noisy(self.decayed(state.rate), 500)
        return Scored(losses, losses, {})


def choose(bench: MadeUp) -> Rate:
    start = SimpleNamespace(step=0)
    return rates.choose(cast(Bench, bench), cast(Any, start))


def wanted(best: float) -> float:
    """The rate for the whole run, after one that is best over 15 % of it."""
    return float(best * SHRINK)


def test_the_best_rate_is_found_and_the_trunk_has_begun() -> None:
    for best in (CENTRE, CENTRE * rates.FACTOR):
        bench = MadeUp(valley(best))
        found = choose(bench)
        assert found.value == pytest.approx(wanted(best), rel=0.1)
        # The trunk goes on from where a finalist stood before its decay.
        assert [piece.state.step for piece in found.trunk if piece.state] == [30, 100]
        assert found.state is found.trunk[-1].state
        kept = {piece.entry for piece in found.trunk}
        assert not kept & set(bench.forgotten)
        assert len(kept) + len(bench.forgotten) == len(bench.trained)


def test_the_decayed_losses_decide_between_the_two_best() -> None:
    """Without noise a constant rate looks too large; a decay shows that it is not."""
    low, high = CENTRE, CENTRE * rates.FACTOR
    assert choose(MadeUp(valley(low * 1.4), valley(high))).value == pytest.approx(
        wanted(high), rel=0.1
    )
    assert choose(MadeUp(valley(low * 1.4), valley(low))).value == pytest.approx(
        wanted(low), rel=0.1
    )


def test_the_trunk_goes_on_from_the_state_trained_most_like_it() -> None:
    """A whole run wants less than a short one, so often the lower of the two."""
    low, high = CENTRE, CENTRE * rates.FACTOR
    best = low * 1.55  # nearer to the higher one, but the rate for the whole run is not
    found = choose(MadeUp(valley(best)))
    assert abs(math.log(high / best)) < abs(math.log(low / best))
    assert abs(math.log(low / found.value)) < abs(math.log(high / found.value))
    assert cast(Any, found.state).rate == low


@pytest.mark.parametrize(
    ("low", "high", "best"),
    [(1.0, 1.0, math.sqrt(3)), (1.0, 1.1, 1.0), (1.1, 1.0, 3.0)],
    ids=["equal", "the lower", "the higher"],
)
@pytest.mark.parametrize("first", [(1.0, 1.0, 1.0), (1.0, 1.1, 1.15)], ids=["flat", "no bottom"])
def test_where_the_first_comparison_has_no_bottom_the_finalists_error_is_the_measure(
    low: float, high: float, best: float, first: tuple[float, float, float]
) -> None:
    noise = np.random.default_rng(0).normal(size=200)
    noise -= noise.mean()
    one, other = low + noise / 10, high - noise / 10
    scored = {1.0: Scored(one, one, {}), 3.0: Scored(other, other, {})}
    scores = dict(zip((1.0, 3.0, 9.0), first, strict=True))
    assert rates.between(scored, 1.0, scores) == pytest.approx(best)


@pytest.mark.parametrize("away", [1 / 27, 1 / 9, 9, 27])
def test_an_edge_is_followed_but_nothing_beyond_the_rates_that_were_tried(away: float) -> None:
    best = CENTRE * away
    found = choose(MadeUp(valley(best)))
    tried = [line["learning_rate"] for line in found.choice.evidence["tried"]]
    assert len(set(tried)) >= 4
    reached = min(max(best, min(tried)), max(tried))
    assert found.value == pytest.approx(wanted(reached), rel=0.1)


def test_an_edge_is_not_followed_where_the_budget_does_not_pay_for_it() -> None:
    found = choose(MadeUp(valley(CENTRE * 9), pays=False))
    assert len({line["learning_rate"] for line in found.choice.evidence["tried"]}) == 3
    assert found.value == pytest.approx(wanted(CENTRE * rates.FACTOR), rel=0.1)


def test_where_rates_cannot_be_told_apart_the_usual_one_is_taken() -> None:
    found = choose(MadeUp(lambda rate: 1.0))
    assert found.value == USUAL
    assert "hardly matters" in found.choice.reason


@pytest.mark.parametrize("told_apart", [True, False])
def test_with_a_prior_the_trials_begin_around_its_centre(told_apart: bool) -> None:
    """And where they cannot tell rates apart, it is what earlier runs found."""
    noted = Centre(2 * CENTRE, CENTRE, 0.8, 3)
    bench = MadeUp(valley(2 * CENTRE) if told_apart else lambda rate: 1.0)
    bench.prior = ()
    bench.journal.once = lambda name, work: Entry(name, {"centre": asdict(noted)})
    found = choose(bench)
    assert found.value == pytest.approx(wanted(2 * CENTRE), rel=0.1)
    evidence = found.choice.evidence
    rates_tried = {line["learning_rate"] for line in evidence["tried"]}
    assert rates_tried == {CENTRE, 2 * CENTRE, 4 * CENTRE}
    assert evidence["prior"] == asdict(noted)
    assert evidence.get("flat", False) != told_apart
    assert (best_of(found.choice) is None) != told_apart
    assert "because of 3 earlier runs of yours (weight 0.80)" in found.choice.reason


def test_rates_that_diverge_drop_out_and_lower_ones_are_tried() -> None:
    def loss(rate: float) -> float:
        return valley(CENTRE / 9)(rate) if rate < CENTRE / 8 else math.inf

    found = choose(MadeUp(loss))
    assert found.value < wanted(CENTRE / 8)
    assert any(line["diverged"] for line in found.choice.evidence["tried"])


def test_if_every_rate_diverges_that_is_said_with_what_to_do() -> None:
    with pytest.raises(TrainingError, match=r"every learning rate .* diverges.*lorafit preview"):
        choose(MadeUp(lambda rate: math.inf))
