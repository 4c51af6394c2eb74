import json
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from lorafit.evidence.confusion import largest_confusions
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from lorafit.tasks.parts.tables import MOST_CLASSES, tables_of_classes
from lorafit.tasks.sequence_classification import SequenceClassification

NAMES = ["a", "b", "c", "never"]


def made(count=90, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 4)), random.integers(classes, size=count)


def test_classes_and_confusions_are_those_of_scikit_learn():
    logits, labels = made()
    each, matrix, mistakes = SequenceClassification(["t"], "l", NAMES).tables(logits, labels)
    predicted = logits.argmax(-1)
    theirs = precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0.0)
    for row, name, *scores in zip(each["rows"], NAMES, *theirs, strict=True):
        assert row == [name, *map(float, scores[:3]), int(scores[3])]
    expected = confusion_matrix(labels, predicted, labels=range(4))
    assert [row[1:] for row in matrix["rows"]] == expected.tolist()
    assert matrix["columns"] == ["true", *NAMES]
    worst = mistakes["rows"][0]
    assert worst[2] == (expected - np.diag(np.diag(expected))).max()
    assert expected[NAMES.index(str(worst[0])), NAMES.index(str(worst[1]))] == worst[2]


def test_two_classes_need_no_list_of_mistakes():
    logits, labels = made(classes=2)
    tables = SequenceClassification(["t"], "l", ["a", "b"]).tables(logits[:, :2], labels)
    assert [table["title"].split(":")[0] for table in tables] == ["Each label", "Confusion"]


def test_each_of_several_labels_has_a_row():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 2)), random.integers(2, size=(50, 2))
    (each,) = MultiLabelClassification(["t"], "l", ["x", "y"]).tables(logits, labels)
    assert [row[4] for row in each["rows"]] == labels.sum(axis=0).tolist()


@pytest.mark.parametrize("classes", [31, 1_000, 5_000])
def test_of_many_classes_the_worst_and_the_most_confused_are_listed(classes: int) -> None:
    random = np.random.default_rng(0)
    names = [f"class {number}" for number in range(classes)]
    true = random.integers(classes, size=3 * classes)
    predicted = np.where(random.random(len(true)) < 0.5, true, (true + 1) % classes)
    each, mistakes = tables_of_classes(true, predicted, names)
    assert str(MOST_CLASSES) in each["title"]
    assert len(each["rows"]) == MOST_CLASSES
    assert len(mistakes["rows"]) <= MOST_CLASSES
    scores = f1_score(true, predicted, labels=range(classes), average=None, zero_division=0.0)
    lowest = sorted(scores[number] for number in set(true.tolist()))[:MOST_CLASSES]
    assert [row[3] for row in each["rows"]] == pytest.approx(lowest)
    assert all(row[4] for row in each["rows"])  # what does not occur has no score
    expected = Counter(zip(true[true != predicted], predicted[true != predicted], strict=True))
    assert [row[2] for row in mistakes["rows"]] == [
        n for _, n in expected.most_common(MOST_CLASSES)
    ]
    for actual, said, number in mistakes["rows"]:
        assert expected[names.index(str(actual)), names.index(str(said))] == number
    assert len(json.dumps([each, mistakes])) < 10_000


def test_the_card_names_the_largest_confusions_with_and_without_a_matrix() -> None:
    random = np.random.default_rng(0)
    true, predicted = random.integers(20, size=400), random.integers(20, size=400)
    names = [f"class {number:02d}" for number in range(MOST_CLASSES + 1)]
    few = tables_of_classes(true, predicted, names[:20])
    many = tables_of_classes(true, predicted, names)
    assert [n for *_, n in largest_confusions(few, 5)] == [
        n for *_, n in largest_confusions(many, 5)
    ]
    assert len(largest_confusions(many, 5)) == 5
