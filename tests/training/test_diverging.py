"""A training that goes on without learning says so, once; one that learns never does."""

from __future__ import annotations

import math

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lorafit.config import TrainConfig
from lorafit.training.diverging import BEGIN, FEWEST, Watch, guessing
from lorafit.training.stepper import Outcome
from lorafit.training.steps import Step
from tests.training import toy

TWENTY = math.log(20)
STEPS = 400


def said(losses: list[float], norms: list[float], guess: float | None = TWENTY) -> list[int]:
    """The steps after which something was said."""
    watch = Watch(guess, len(losses), TrainConfig(learning_rate=4e-3))
    return [
        number
        for number, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1)
        if watch.see(Step(number, 0.0, [[0]]), Outcome(loss, 1, 1, norm, 4e-3, 1.0))
    ]


def test_a_loss_that_comes_back_to_guessing_with_clipped_gradients_is_said_once() -> None:
    falls = [TWENTY - 0.01 * min(n, 60) for n in range(100)]
    back = [TWENTY + 0.05] * (STEPS - 100)
    (step,) = said(falls + back, [4.0] * STEPS)
    assert 100 < step <= 100 + FEWEST + 1


def test_a_loss_far_above_guessing_is_said_whatever_the_gradients_are() -> None:
    (step,) = said([2 * TWENTY] * STEPS, [0.0] * STEPS)
    assert step == BEGIN * STEPS


def test_the_message_says_what_to_try() -> None:
    watch = Watch(TWENTY, 100, TrainConfig(), peak=4e-3)
    found = [
        watch.see(Step(n, 0.0, [[0]]), Outcome(3.0, 1, 1, 5.0, 4e-3, 1.0)) for n in range(1, 101)
    ]
    (message,) = filter(None, found)
    assert message.endswith("diverges at learning rate 0.004. Try --learning-rate 0.001")
    assert "(3.000)" in message
    assert "(2.996)" in message


@given(st.floats(1e-6, 1.0))
def test_a_run_among_others_with_other_rates_names_its_rate_and_advises_none(peak: float) -> None:
    watch = Watch(TWENTY, 100, TrainConfig(), peak=peak, rivals=True)
    found = [
        watch.see(Step(n, 0.0, [[0]]), Outcome(3.0, 1, 1, 5.0, peak, 1.0)) for n in range(1, 101)
    ]
    (message,) = filter(None, found)
    assert f"diverges at learning rate {peak:.2g}." in message
    assert message.endswith("compares this run with runs at other learning rates")
    assert "--learning-rate" not in message


@pytest.mark.parametrize(
    ("losses", "norm"),
    [
        pytest.param([TWENTY + 0.01] * STEPS, 0.5, id="a rate that is too low"),
        pytest.param([TWENTY * 0.99] * STEPS, 9.0, id="learns slowly"),
        pytest.param([TWENTY + 1] * 60 + [1.0] * (STEPS - 60), 9.0, id="begins badly"),
    ],
)
def test_what_does_not_diverge_is_left_alone(losses: list[float], norm: float) -> None:
    assert not said(losses, [norm] * STEPS)


@given(st.lists(st.floats(0, TWENTY * 0.999), min_size=30, max_size=80), st.floats(0, 1e6))
def test_losses_below_guessing_are_never_said(losses: list[float], norm: float) -> None:
    assert not said(losses, [norm] * len(losses))


def test_of_a_task_without_a_guess_nothing_is_said() -> None:
    assert not said([1e6] * STEPS, [1e6] * STEPS, guess=None)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_guessing_is_the_entropy_of_the_labels(labels: list[int]) -> None:
    found = guessing(toy.ToyTask(), Dataset.from_dict({"labels": labels}))
    shares = [labels.count(label) / len(labels) for label in set(labels)]
    expected = -sum(share * math.log(share) for share in shares)
    assert found == (pytest.approx(expected) if len(shares) > 1 else None)


def test_numbers_and_several_labels_have_no_guess() -> None:
    for labels in ([0.5, 1.5], [[1.0, 0.0], [0.0, 1.0]]):
        assert guessing(toy.ToyTask(), Dataset.from_dict({"labels": labels})) is None


@pytest.mark.parametrize(("rate", "diverges"), [(3.0, True), (5e-3, False)])
def test_a_training_says_it_at_once(
    rate: float, diverges: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy.config(learning_rate=rate, num_train_epochs=8, early_stopping_patience=None)
    with caplog.at_level("WARNING", logger="lorafit"):
        toy.run_fit(config)
    lines = [r.getMessage() for r in caplog.records if "diverges" in r.getMessage()]
    assert len(lines) == diverges
    assert all(f"Try --learning-rate {rate / 4:.2g}" in line for line in lines)
