"""Always the same answer, by tasks whose best one is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from lorafit.evaluation.baseline import baseline
from lorafit.evaluation.score import Scores
from lorafit.evidence import Baseline
from lorafit.tasks.base import Task
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from lorafit.tasks.regression import Regression
from lorafit.tasks.sequence_classification import SequenceClassification
from lorafit.tasks.token_classification import TokenClassification


def found(task: Task, labels: Any, logits: Any = None, kept_labels: Any = None) -> Baseline:
    """The baseline of examples; the model is the constant answer unless others are given."""
    encoded = Dataset.from_dict({"labels": labels})
    constant = task.constant(encoded)
    assert constant is not None
    kept = constant.kept if logits is None else np.array(logits, dtype=np.float64)
    truth = np.array(labels) if kept_labels is None else np.array(kept_labels)
    scores = Scores(kept, truth, np.ones(len(kept), dtype=np.float32))
    result = baseline(task, scores, encoded)
    assert result is not None
    return result


def test_of_classes_it_is_the_most_frequent_one() -> None:
    task = SequenceClassification(["text"], "label", ["a", "b", "c"])
    simple = found(task, [1, 1, 2, 1, 0])
    assert simple.answer == '"b"'
    assert simple.by == 'always answering "b"'
    assert simple.metrics["accuracy"] == 0.6
    assert simple.metrics["mcc"] == 0.0


def test_the_distance_of_the_model_is_paired_and_has_an_interval() -> None:
    task = SequenceClassification(["text"], "label", ["a", "b"])
    labels = np.arange(200) % 2
    none = found(task, labels).ahead
    assert none is not None
    assert (none.low, none.value, none.high) == (0.0, 0.0, 0.0)
    perfect = found(task, labels, np.eye(2)[labels]).ahead
    assert perfect is not None
    assert perfect.value == 0.5
    assert 0.4 < perfect.low < 0.5 < perfect.high < 0.6
    assert perfect.p_value is not None
    assert perfect.p_value < 1e-6


def test_of_numbers_it_is_the_mean_whose_error_is_the_standard_deviation() -> None:
    labels = np.array([1.0, 2.0, 6.0], dtype=np.float32)
    simple = found(Regression(["text"], "score"), labels)
    assert simple.answer == "the mean, 3"
    assert np.isclose(simple.metrics["rmse"], labels.std())
    assert (simple.metrics["r2"], simple.metrics["spearman"]) == (0.0, 0.0)


def test_of_several_labels_it_is_the_set_with_the_highest_f1() -> None:
    """The labels that most rows have would be none, which is easily beaten."""
    task = MultiLabelClassification(["text"], "labels", ["a", "b", "c"])
    simple = found(task, [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert simple.answer == '"a" and "b"'
    assert simple.metrics["micro_f1"] == pytest.approx(2 * 4 / (8 + 5))
    one = found(task, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert one.answer == '"a"'
    assert one.metrics["micro_f1"] == pytest.approx(0.5)
    assert found(task, [[0, 0, 0], [0, 0, 0]]).answer == "no label"


def test_of_spans_it_is_said_how_many_words_are_right_and_how_many_spans_are_found() -> None:
    task = TokenClassification(["words"], "tags", ["O", "B-PER", "I-PER"])
    labels = [[-100, 0, 0, 1, 2], [-100, 0, 0, 0, -100]]
    simple = found(task, labels, kept_labels=[4, 3])
    assert simple.answer == '"O"'
    assert simple.metrics["f1"] == 0.0
    assert simple.metrics["word_accuracy"] == pytest.approx(5 / 7)
    assert simple.sentence == (
        'Always answering "O" would be right on 71.4% of the words and find no span.'
    )
    assert simple.ahead is not None  # beside "I-PER", the constant answer with the highest F1
    assert simple.ahead.value <= 0.0


def test_of_single_tags_it_is_the_most_frequent_one() -> None:
    task = TokenClassification(["words"], "tags", ["DET", "NOUN"])
    simple = found(task, [[-100, 0, 1, 1], [-100, 1, 1, -100]], kept_labels=[3, 2])
    assert (simple.answer, simple.sentence) == ('"NOUN"', "")
    assert simple.metrics["accuracy"] == pytest.approx(0.8)


def test_of_written_text_it_is_how_frequent_each_token_is() -> None:
    """The perplexity is the exponential of the entropy of the frequencies."""
    task = CausalLM(["prompt"], "completion")
    labels = [[-100, -100, 7, 7], [-100, 7, 3, 9]]
    simple = found(task, labels, kept_labels=[2, 3])
    p = np.array([3, 1, 1]) / 5
    assert simple.metrics["perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert simple.metrics["token_accuracy"] == pytest.approx(0.6)
    assert simple.by == "guessing each token by how frequent it is"


def test_classes_that_occur_and_are_never_predicted() -> None:
    task = SequenceClassification(["text"], "label", ["a", "b", "c", "d"])
    logits = np.eye(4)[[0, 0, 1]]
    assert task.never_predicted(logits, np.array([0, 2, 1])) == ["c"]
    several = MultiLabelClassification(["text"], "labels", ["a", "b", "c"])
    logits = np.array([[1.0, -1.0, -1.0]])
    assert several.never_predicted(logits, np.array([[1, 1, 0]])) == ["b"]
