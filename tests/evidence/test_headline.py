"""The result in sentences, for whoever does not read tables."""

from __future__ import annotations

from typing import Any

import pytest

from lorafit.evidence import Evaluation
from lorafit.evidence.headline import sentences

ACCURACY = {"title": "accuracy", "form": "share", "low": 0, "high": 1}


def evaluation(accuracy: float = 0.825, **more: Any) -> Evaluation:
    content: dict[str, Any] = {
        "n": 387,
        "metric": "accuracy",
        "metrics": {"accuracy": ACCURACY},
        "base": {"accuracy": 0.51},
        "tuned": {"accuracy": accuracy},
        "baseline": {"answer": '"fresh"', "metrics": {"accuracy": 0.58}},
    }
    return Evaluation.from_json(content | more)


def test_a_share_is_how_often_the_model_is_right() -> None:
    assert sentences(evaluation()) == [
        "Right 82.5% of the time on 387 test examples; 51.0% before tuning; "
        '58.0% by always answering "fresh".'
    ]


def test_classes_that_are_never_predicted_are_named() -> None:
    assert sentences(evaluation(never_predicted=["a", "b"]))[-1] == "Never predicted: a, b."
    many = [str(number) for number in range(14)]
    assert sentences(evaluation(never_predicted=many))[-1].endswith("8, 9 and 4 more.")


def test_a_model_that_is_no_better_than_one_answer_is_no_success() -> None:
    assert any("no better than always the same answer" in s for s in sentences(evaluation(0.58)))
    assert not any("no better" in s for s in sentences(evaluation(0.59)))


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-0.1, 0.2, "may be chance"), (-0.3, -0.1, "made the model worse")]
)
def test_a_difference_that_is_none_is_said(low: float, high: float, said: str) -> None:
    paired = {"accuracy": {"difference": (low + high) / 2, "low": low, "high": high}}
    assert any(said in sentence for sentence in sentences(evaluation(paired=paired)))


def test_of_numbers_the_typical_error_is_told_beside_the_headline() -> None:
    metrics = {
        "spearman": {"title": "Spearman correlation"},
        "rmse": {"title": "root mean squared error", "greater_is_better": False},
        "nll": {"title": "loss", "greater_is_better": False},
    }
    found = sentences(
        evaluation(
            metric="spearman",
            metrics=metrics,
            base={"spearman": 0.01, "rmse": 3.2, "nll": 2.0},
            tuned={"spearman": 0.8, "rmse": 0.52, "nll": 1.0},
            baseline={"answer": "the mean, 3.1", "metrics": {"spearman": 0.0, "rmse": 1.1}},
        )
    )
    assert found == [
        "Spearman correlation 0.800 on 387 test examples (higher is better); 0.01 before tuning; "
        "0 by always answering the mean, 3.1.",
        "Root mean squared error 0.52 (lower is better); 3.2 before tuning; 1.1 by always "
        "answering the mean, 3.1.",
    ]


def test_without_a_tuned_model_there_is_nothing_to_say() -> None:
    assert sentences(Evaluation()) == []
