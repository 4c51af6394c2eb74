"""How many steps a training takes where nobody said, and what is said of its end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafit.config import TrainConfig
from lorafit.evidence import Course
from lorafit.training.ending import (
    MOST_STEPS,
    epochs_of,
    is_open,
    longer,
    most_steps,
    steps_of,
    still_falling,
)
from lorafit.training.steps import StepPlan
from tests.training import toy

AUTO = TrainConfig()
THREE = TrainConfig(num_train_epochs=3)


@given(st.integers(1, 5000))
def test_large_data_are_trained_as_with_three_epochs_and_small_ones_up_to_300_steps(
    per_epoch: int,
) -> None:
    usual = most_steps(THREE, per_epoch)
    assert usual == 3 * per_epoch
    assert is_open(AUTO, per_epoch) == (usual < MOST_STEPS)
    assert most_steps(AUTO, per_epoch) == max(usual, MOST_STEPS)


@pytest.mark.parametrize(
    "settings", [{"num_train_epochs": 3}, {"num_train_epochs": 0.1}, {"max_steps": 7}]
)
def test_a_number_that_somebody_gave_is_kept(settings: dict[str, float]) -> None:
    config = TrainConfig.model_validate(settings)
    assert not is_open(config, 10)
    expected = settings.get("max_steps") or steps_of(settings["num_train_epochs"], 10)
    assert most_steps(config, 10) == expected


@given(st.integers(1, 300), st.integers(1, 100))
def test_epochs_lead_back_to_their_steps(steps: int, per_epoch: int) -> None:
    assert steps_of(epochs_of(steps, per_epoch), per_epoch) == steps


def test_a_plan_of_large_data_is_that_of_three_epochs() -> None:
    """Of 404 examples, four at a time, three epochs are 303 steps."""
    plans = [
        StepPlan(toy.examples(404), toy.config(num_train_epochs=n, per_device_train_batch_size=4))
        for n in ("auto", 3)
    ]
    auto, three = ((p.open, p.total_steps, p.eval_steps, list(p.steps())) for p in plans)
    assert auto == three
    assert not plans[0].open


def falling(losses: list[float], **settings: float) -> Course:
    """Evaluated after each of as many steps, of 10 an epoch; the last quarter with falling rate."""
    steps = len(losses)
    config = TrainConfig.model_validate({"num_train_epochs": steps / 10} | settings)
    evaluated = list(enumerate(losses, start=1))
    return Course(steps, steps / 10, **still_falling(evaluated, config, steps, 10))


def test_a_loss_that_rises_with_the_falling_rate_is_not_said_to_fall() -> None:
    fallen = [3.0 - 0.05 * n for n in range(30)]
    assert falling(fallen).falling
    assert falling([*fallen[:-1], 2.0]).falling is False


def test_a_loss_that_falls_to_the_end_is_said_with_a_number_to_try() -> None:
    found = falling([3.0 - 0.05 * n for n in range(30)])
    assert found.falling
    assert found.advice == (
        "the validation loss was still falling at the end: try --num-train-epochs 10"
    )
    steps = falling([3.0 - 0.05 * n for n in range(30)], max_steps=30)
    assert steps.advice is not None
    assert steps.advice.endswith("try --max-steps 100")


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param([math.exp(-n) for n in range(40)], id="level"),
        pytest.param([1 / n for n in range(1, 20)] + [0.1 * n for n in range(20)], id="rises"),
        # The rate falls in the last ten steps: the loss always does, too.
        pytest.param([0.5] * 30 + [0.5 - 0.01 * n for n in range(10)], id="in the decay only"),
    ],
)
def test_a_loss_that_has_stopped_falling_asks_for_nothing(losses: list[float]) -> None:
    found = falling(losses)
    assert found.falling is False
    assert found.advice is None


def test_of_two_evaluations_nothing_is_said() -> None:
    assert falling([1.0, 0.5]) == Course(2, 0.2)


@given(st.floats(0.01, 1e5))
def test_the_number_to_try_is_round_and_about_three_times_as_large(number: float) -> None:
    found = longer(number)
    assert 2.99 * number <= found <= 6.01 * number
    digits = f"{found:.6e}".split("e")[0].rstrip("0").rstrip(".")
    assert digits in {"1", "1.5", "2", "3", "5"}


def test_a_training_that_stopped_too_early_says_so_in_its_result() -> None:
    config = toy.config(num_train_epochs=1, eval_steps=1, learning_rate=1e-3)
    result, _ = toy.run_fit(config, n=128)
    assert result.course.steps == result.steps == 16
    assert result.course.falling
    assert result.course.value == 3


def test_an_open_training_without_a_search_takes_the_most_steps() -> None:
    config = toy.config(num_train_epochs="auto", early_stopping_patience=None)
    result, _ = toy.run_fit(config, n=32)
    assert result.steps == MOST_STEPS
    assert result.course.most_steps == MOST_STEPS
