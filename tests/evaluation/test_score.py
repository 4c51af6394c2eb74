import numpy as np
import pytest
import torch
from scipy import stats

from lorafit.engine.eager import EagerEngine
from lorafit.errors import DataError, DivergenceError
from lorafit.evaluation.intervals import mean_interval, wilson
from lorafit.evaluation.score import Scores, intervals, score
from lorafit.evidence import Interval
from lorafit.tasks.sequence_classification import SequenceClassification
from tests import tiny, tiny_text

TASK = SequenceClassification(["text"], "label", ["neg", "pos", "none"])


def random_scores(count=300, classes=3, seed=0, quality=1.0):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    logits = random.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += quality
    losses = TASK.losses(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
    return Scores(logits, labels, losses)


@pytest.fixture
def scored(tmp_path):
    tokenizer = tiny_text.bert_tokenizer(tmp_path)
    model = tiny.classifier("bert", num_labels=3)
    encoded = TASK.encode(tiny_text.rows(11), tokenizer, 16)
    engine = EagerEngine(model, TASK, tokenizer)
    return engine, encoded, tokenizer, model


def test_scores_are_in_the_order_of_the_data(scored):
    engine, encoded, tokenizer, model = scored
    found = score(engine, encoded, batch_size=4)
    for index in range(len(encoded)):
        batch = TASK.collate(encoded.__getitems__([index]), tokenizer)
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = model(**batch).logits
        np.testing.assert_allclose(found.logits[index], logits[0], rtol=1e-4, atol=1e-6)
        assert found.labels[index] == labels.item()
        assert found.losses[index] == pytest.approx(TASK.losses(logits, labels).item(), rel=1e-4)


def test_batch_size_does_not_change_the_scores(scored):
    engine, encoded, _, _ = scored
    one, other = (score(engine, encoded, batch_size=size) for size in (1, 100))
    np.testing.assert_allclose(one.logits, other.logits, rtol=1e-4, atol=1e-6)
    assert one.logits.dtype == np.float32
    assert one.losses.dtype == np.float32


def test_no_examples_is_an_error(scored):
    engine, encoded, _, _ = scored
    with pytest.raises(DataError, match="0 examples"):
        score(engine, encoded.select([]), 4)


def test_logits_that_are_not_finite_are_an_error(scored):
    engine, encoded, _, model = scored
    with torch.no_grad():
        model.classifier.bias[1] = float("nan")
    with pytest.raises(DivergenceError, match="11 of 11 examples"):
        score(engine, encoded, 4)


def test_values_are_the_metrics_of_the_task():
    scores = random_scores()
    found = intervals(scores, TASK)
    assert list(found) == ["accuracy", "macro_f1", "mcc", "nll"]
    for name, metric in TASK.metrics.items():
        assert found[name].value == metric(scores.logits, scores.labels)
    assert found["nll"].value == pytest.approx(scores.losses.mean(), rel=1e-5)
    for interval in found.values():
        assert interval.low < interval.value < interval.high


def test_wilson_agrees_with_the_formula():
    for successes, count in [(0, 10), (7, 10), (10, 10), (800, 1066)]:
        z, p = stats.norm.ppf(0.975), successes / count
        middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
        found = wilson(successes, count, 0.95)
        assert (found.low, found.high) == pytest.approx(
            (max(0, middle - half), min(1, middle + half))
        )


def test_macro_f1_interval_agrees_with_scipys_bootstrap():
    scores = random_scores()
    metric = TASK.metrics["macro_f1"]

    def statistic(indices):
        return metric(scores.logits[indices], scores.labels[indices])

    theirs = stats.bootstrap(
        (np.arange(len(scores)),),
        statistic,
        n_resamples=400,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = intervals(scores, TASK)["macro_f1"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_mean_interval_is_students():
    values = np.random.default_rng(0).exponential(size=50)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    found = mean_interval(values, 0.9)
    expected = (values.mean(), theirs.low, theirs.high)
    assert (found.value, found.low, found.high) == pytest.approx(expected)
    assert (found.n, found.level) == (50, 0.9)
    assert mean_interval(values[:1], 0.9) == Interval(values[0], values[0], values[0], 1, 0.9)
    assert mean_interval(np.ones(5), 0.9) == Interval(1.0, 1.0, 1.0, 5, 0.9)


def test_the_seed_decides_the_intervals():
    scores = random_scores()
    assert intervals(scores, TASK, seed=3) == intervals(scores, TASK, seed=3)
    assert intervals(scores, TASK, seed=3) != intervals(scores, TASK, seed=4)


def test_more_confidence_is_a_wider_interval():
    scores = random_scores()
    wide, narrow = (intervals(scores, TASK, confidence=level) for level in (0.99, 0.8))
    for name in wide:
        assert wide[name].low < narrow[name].low
        assert wide[name].high > narrow[name].high


def test_other_metrics_are_resampled_by_calling_them():
    class Other(SequenceClassification):
        @property
        def metrics(self):
            return {"error": lambda logits, labels: float((logits.argmax(-1) != labels).mean())}

    scores = random_scores(100)
    found = intervals(scores, Other(["text"], "label", ["a", "b", "c"]))["error"]
    accuracy = intervals(scores, TASK)["accuracy"]
    assert found.value == pytest.approx(1 - accuracy.value)
    assert found.low == pytest.approx(1 - accuracy.high, abs=0.03)


def test_examples_without_labels_cannot_be_scored():
    scores = random_scores(5)
    scores.labels[2] = -100
    with pytest.raises(DataError, match="1 of 5 examples have no label"):
        intervals(scores, TASK)
