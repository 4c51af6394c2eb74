"""Whether a search's loss was still falling, on made-up courses whose future is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from lorafit.config import TrainConfig
from lorafit.training import ending
from lorafit.tune.rise.course import Ended, still_falling

STEPS = 1000
USUAL = (0.15, 0.25, 0.40)
"""Where branches end if the rank does not rise."""

Curve = Callable[[float], float]
"""Share of the steps to the mean loss of a training that ends there."""


def exponential(tau: float) -> Curve:
    """A fall by 0.5 to 0.2 nats, all but a part ``exp(-1 / tau)`` of it by the end."""
    return lambda t: 0.2 + 0.5 * math.exp(-t / tau)


def logarithm(tau: float) -> Curve:
    """A fall that never ends."""
    return lambda t: 0.7 - 0.1 * math.log1p(t / tau)


def overfits(t: float) -> float:
    """Falls until 0.4 and rises again."""
    return 0.2 + 0.5 * math.exp(-min(t, 0.4) / 0.2) + 0.3 * max(0.0, t - 0.4)


def ended(curve: Curve, share: float, noise: float = 0.05, n: int = 600) -> Ended:
    """Losses of single examples around the curve; their differences are independent."""
    random = np.random.default_rng([round(1000 * share), n])
    hard = np.random.default_rng(1).exponential(1.0, n)
    losses = curve(share) * hard / hard.mean() + noise * random.standard_normal(n)
    return Ended(round(share * STEPS), losses)


def judged(curve: Curve, shares: tuple[float, ...] = USUAL, **about: float) -> bool | None:
    untuned = ended(curve, 0.0, **about).losses  # type: ignore[arg-type]
    branches = [ended(curve, share, **about) for share in shares]  # type: ignore[arg-type]
    return still_falling(untuned, branches, ended(curve, 1.0, **about))  # type: ignore[arg-type]


def plain(curve: Curve) -> bool:
    """What a plain run says that is evaluated twelve times."""
    evaluated = [(at, curve(at / STEPS)) for at in range(83, STEPS + 1, 83)]
    level = TrainConfig(lr_scheduler_type="warmup_stable_decay")
    return bool(ending.still_falling(evaluated, level, STEPS, STEPS // 3)["falling"])


@pytest.mark.parametrize("shares", [USUAL, (0.15, 0.25, 0.4, 0.55), (0.15, 0.65)])
@pytest.mark.parametrize("tau", [0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 3.0])
def test_of_an_exponential_it_says_what_a_plain_run_says(
    tau: float, shares: tuple[float, ...]
) -> None:
    curve = exponential(tau)
    assert judged(curve, shares) is plain(curve) is (tau >= 0.4)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_a_fall_without_an_end_is_one(tau: float) -> None:
    assert judged(logarithm(tau)) is True


@pytest.mark.parametrize("shares", [USUAL, (0.15, 0.25, 0.4, 0.55), (0.15, 0.65)])
def test_what_rises_again_is_not_falling(shares: tuple[float, ...]) -> None:
    assert judged(overfits, shares) is False


def test_a_long_decay_alone_is_no_fall() -> None:
    """The branches are level: that the end is better comes of its longer decay."""
    assert judged(lambda t: 0.7 if t == 0 else 0.4 if t < 1 else 0.3) is False


def test_a_fall_that_examples_cannot_tell_is_none() -> None:
    curve = exponential(0.6)
    assert judged(curve, noise=0.05, n=600) is True
    assert judged(curve, noise=3.0, n=20) is False


def test_a_loss_that_never_moves_or_only_rises_is_not_falling() -> None:
    assert judged(lambda t: 0.7) is False
    assert judged(lambda t: 0.7 + t) is False


@pytest.mark.parametrize("shares", [(), (0.15,), (0.15, 0.25), (0.4,), (0.36, 0.4), (0.65,)])
def test_where_it_cannot_be_told_nothing_is_said(shares: tuple[float, ...]) -> None:
    assert judged(exponential(1.0), shares) is None


def test_what_to_try_is_said_as_after_a_plain_run() -> None:
    epochs = TrainConfig(num_train_epochs=3.0)
    assert ending.judged(None, epochs, 900, 300) == {"falling": None}
    assert ending.judged(False, epochs, 900, 300) == {"falling": False}
    assert ending.judged(True, epochs, 900, 300) == {
        "falling": True,
        "setting": "num_train_epochs",
        "value": 10.0,
    }
    assert ending.judged(True, TrainConfig(max_steps=400), 400, 300) == {
        "falling": True,
        "setting": "max_steps",
        "value": 1500.0,
    }
