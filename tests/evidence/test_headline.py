"""The result in sentences, for whoever does not read tables."""

from __future__ import annotations

from typing import Any

import pytest

from lorafit.evidence import Evaluation
from lorafit.evidence.headline import sentences, simple_sentence

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
    ("low", "high", "said"),
    [
        (-0.03, -0.01, "That is no better than always the same answer."),
        (-0.01, 0.03, "That may be no better than always the same answer."),
        (0.01, 0.03, None),
    ],
)
def test_the_paired_interval_says_whether_one_answer_is_as_good(
    low: float, high: float, said: str | None
) -> None:
    ahead = {"difference": (low + high) / 2, "low": low, "high": high}
    simple = {"answer": '"a"', "metrics": {"accuracy": 0.5}, "ahead": ahead}
    found = " ".join(sentences(evaluation(baseline=simple)))
    assert (said or "Right 82.5%") in found
    assert ("Train longer" in found) == (said is not None)


def test_of_tags_a_sentence_says_what_one_tag_comes_to() -> None:
    said = "Always answering O would be right on 83.0% of the words and find no span."
    found = sentences(
        evaluation(
            metric="f1",
            metrics={"f1": {"title": "F1"}},
            base={"f1": 0.02},
            tuned={"f1": 0.71},
            baseline={"answer": '"O"', "metrics": {"f1": 0.0}, "sentence": said},
        )
    )
    assert found == [
        "F1 0.710 on 387 test examples (higher is better); 0.02 before tuning.",
        said,
    ]


def test_of_written_text_it_is_said_what_the_frequencies_of_tokens_come_to() -> None:
    found = sentences(
        evaluation(
            metric="perplexity",
            metrics={"perplexity": {"title": "perplexity", "greater_is_better": False}},
            base={"perplexity": 25.1},
            tuned={"perplexity": 12.3},
            baseline={
                "answer": "the most frequent token",
                "metrics": {"perplexity": 310.0},
                "way": "guessing each token by how frequent it is",
            },
        )
    )
    assert found == [
        "Perplexity 12.300 on 387 test examples (lower is better); 25.1 before tuning; "
        "310 by guessing each token by how frequent it is."
    ]


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


@pytest.mark.parametrize(
    ("metric", "baseline", "said"),
    [
        (
            {"title": "accuracy", "form": "share"},
            {"answer": '"a"'},
            'Always answering "a" would be right 58.0% of the time.',
        ),
        (
            {"title": "perplexity", "greater_is_better": False},
            {"answer": "a token", "way": "guessing each token by how frequent it is"},
            "Guessing each token by how frequent it is would come to perplexity 0.58 (lower is "
            "better).",
        ),
        ({"title": "F1"}, {"answer": '"O"', "sentence": "It finds no span."}, "It finds no span."),
    ],
)
def test_pages_have_one_sentence_for_each_task(
    metric: dict[str, Any], baseline: dict[str, Any], said: str
) -> None:
    simple = baseline | {"metrics": {"accuracy": 0.58}}
    assert simple_sentence(evaluation(metrics={"accuracy": metric}, baseline=simple)) == said
    assert simple_sentence(evaluation(baseline=None)) == ""
