"""Always the same answer, by tasks whose best one is known."""

from __future__ import annotations

import numpy as np

from lorafit.evaluation.baseline import baseline
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from lorafit.tasks.regression import Regression
from lorafit.tasks.sequence_classification import SequenceClassification


def test_of_classes_it_is_the_most_frequent_one() -> None:
    task = SequenceClassification(["text"], "label", ["a", "b", "c"])
    found = baseline(task, np.array([1, 1, 2, 1, 0]))
    assert found is not None
    assert found.answer == '"b"'
    assert found.metrics["accuracy"] == 0.6
    assert found.metrics["mcc"] == 0.0


def test_of_numbers_it_is_the_mean_whose_error_is_the_standard_deviation() -> None:
    labels = np.array([1.0, 2.0, 6.0], dtype=np.float32)
    found = baseline(Regression(["text"], "score"), labels)
    assert found is not None
    assert found.answer == "the mean, 3"
    assert np.isclose(found.metrics["rmse"], labels.std())
    assert (found.metrics["r2"], found.metrics["spearman"]) == (0.0, 0.0)


def test_of_several_labels_it_is_those_that_most_rows_have() -> None:
    task = MultiLabelClassification(["text"], "labels", ["a", "b"])
    found = baseline(task, np.array([[1, 0], [1, 0], [0, 0]]))
    assert found is not None
    assert found.answer == '"a"'
    assert np.isclose(found.metrics["exact_match"], 2 / 3)
    none = baseline(task, np.array([[1, 0], [0, 0], [0, 0]]))
    assert none is not None
    assert none.answer == "no label"
    assert none.metrics["micro_f1"] == 0.0


def test_classes_that_occur_and_are_never_predicted() -> None:
    task = SequenceClassification(["text"], "label", ["a", "b", "c", "d"])
    logits = np.eye(4)[[0, 0, 1]]
    assert task.never_predicted(logits, np.array([0, 2, 1])) == ["c"]
    several = MultiLabelClassification(["text"], "labels", ["a", "b", "c"])
    logits = np.array([[1.0, -1.0, -1.0]])
    assert several.never_predicted(logits, np.array([[1, 1, 0]])) == ["b"]
