import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from lorafit.tasks.multi_label_classification import MultiLabelClassification
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
