"""Whatever the models say, no interval reaches beyond what its quantity can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lorafit.evaluation import written
from lorafit.evaluation.compare import paired
from lorafit.evaluation.score import Scores, intervals
from lorafit.evaluation.seeds import Measure, average, difference
from lorafit.evidence import Interval
from lorafit.tasks.base import Task
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from lorafit.tasks.parts.metrics import described
from lorafit.tasks.regression import Regression
from lorafit.tasks.sequence_classification import SequenceClassification
from lorafit.tasks.token_classification import TokenClassification

CLASSES = SequenceClassification(["text"], "label", ["a", "b", "c"])
LABELS = MultiLabelClassification(["text"], "label", ["a", "b", "c"])
NUMBERS = Regression(["text"], "label")
TAGS = TokenClassification(["words"], "tags", ["NOUN", "VERB"])
SPANS = TokenClassification(["words"], "tags", ["O", "B-PER", "I-PER"])
TEXT = CausalLM(["text"])


def scored(task: Task, random: np.random.Generator, labels: np.ndarray, skill: float) -> Scores:
    """Answers from guessing (0) to certain and right (large)."""
    n = len(labels)
    if task is CLASSES:
        logits = random.normal(size=(n, 3)).astype(np.float32)
        logits[np.arange(n), labels] += skill
        losses = task.losses(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
        return Scores(logits, labels, losses)
    if task is LABELS:
        logits = (random.normal(size=(n, 3)) + skill * (labels - 0.5)).astype(np.float32)
        losses = task.losses(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
        return Scores(logits, labels, losses)
    if task is NUMBERS:
        noise = random.normal(size=n) / (1e-3 + skill)
        logits = (labels + noise).astype(np.float32)[:, None]
        return Scores(logits, labels, (logits[:, 0] - labels) ** 2)
    if task is TEXT:
        losses = random.exponential(size=n).astype(np.float32) / (1 + skill)
        kept = np.stack([losses, random.integers(0, labels + 1)], axis=1)
        return Scores(kept, labels, losses, labels)
    kinds = len(task.kinds)  # type: ignore[attr-defined]
    right = random.binomial(labels, min(1.0, 0.2 + skill / 10))
    kept = np.concatenate([right[:, None], np.tile(right[:, None], (1, 3 * kinds))], axis=1)
    kept[:, 2::3] = kept[:, 3::3] = labels[:, None]
    return Scores(kept, labels, random.exponential(size=n).astype(np.float32), labels)


def labels_of(task: Task, random: np.random.Generator, n: int) -> np.ndarray:
    if task is NUMBERS:
        return random.normal(size=n).astype(np.float32)
    if task is LABELS:
        return random.integers(2, size=(n, 3))
    low, high = (0, 3) if task is CLASSES else (1, 9)
    return random.integers(low, high, size=n)


def assert_within(found: Interval, low: float | None, high: float | None) -> None:
    assert low is None or low <= found.low
    assert high is None or found.high <= high
    assert found.low <= found.high


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize(
    "task", [CLASSES, LABELS, NUMBERS, TAGS, SPANS, TEXT], ids=lambda task: task.metric
)
@pytest.mark.parametrize(("n", "poor", "good"), [(2, 0.0, 0.0), (30, 3.0, 50.0)])
def test_every_interval_is_within_the_bounds_of_its_metric(
    task: Task, n: int, poor: float, good: float
) -> None:
    random = np.random.default_rng(n)
    labels = labels_of(task, random, n)
    base, tuned = scored(task, random, labels, poor), scored(task, random, labels, good)
    values, differences = intervals(tuned, task), paired(base, tuned, task)
    for name, info in task.infos.items():
        assert_within(values[name], info.low, info.high)
        assert_within(differences[name], *info.difference_bounds)
        assert values[name].n == n


@pytest.mark.parametrize("name", ["accuracy", "mcc", "loss"])
@pytest.mark.parametrize("n", [2, 5])
def test_so_are_those_over_seeds(name: str, n: int) -> None:
    """Student's interval knows no bounds by itself."""
    info = CLASSES.loss_info if name == "loss" else CLASSES.infos[name]
    for seed in range(8):
        random = np.random.default_rng(seed)
        labels = labels_of(CLASSES, random, n)
        base, tuned, again = (scored(CLASSES, random, labels, skill) for skill in (0.0, 8.0, 2.0))
        assert_within(average([tuned, again], Measure(CLASSES, name)), info.low, info.high)
        found = difference([tuned, again], [base, base], Measure(CLASSES, name))
        assert_within(found, *info.difference_bounds)


def test_a_few_large_losses_do_not_take_the_loss_below_zero() -> None:
    """Student's interval of these, as it was, begins at -0.4."""
    losses = np.array([1e-3] * 19 + [6.0], dtype=np.float32)
    logits = np.zeros((20, 3), dtype=np.float32)
    found = intervals(Scores(logits, np.zeros(20, dtype=np.int64), losses), CLASSES)["nll"]
    assert 0 <= found.low < found.value < found.high


def test_the_accuracy_of_tags_counts_words_and_resamples_sentences() -> None:
    """Its name is that of a share of examples, which it is not."""
    random = np.random.default_rng(0)
    words = random.integers(1, 30, size=60)
    right = random.binomial(words, 0.8)
    kept = np.concatenate([right[:, None], np.ones((60, 6), dtype=np.int64)], axis=1)
    scores = Scores(kept, words, np.ones(60, dtype=np.float32), words)
    found = intervals(scores, TAGS)["accuracy"]
    assert found.value == right.sum() / words.sum()
    spread = np.sqrt(0.8 * 0.2 / words.sum())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.3)
    worse = Scores(kept - np.eye(7, dtype=np.int64)[0] * (kept[:, :1] > 0), words, scores.losses)
    change = paired(scores, worse, TAGS)["accuracy"]
    assert change.p_value is None
    assert change.low <= change.value <= change.high < 0


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize(
    "task", [CLASSES, LABELS, NUMBERS, TAGS, SPANS], ids=lambda task: task.metric
)
@pytest.mark.parametrize("n", [1, 5, 80])
def test_a_perfect_score_is_not_certain(task: Task, n: int) -> None:
    """Resamples of perfect answers are perfect: what was not seen has to come from ``n``."""
    random = np.random.default_rng(n)
    labels = labels_of(task, random, n)
    if task is CLASSES:
        labels = np.arange(n) % 3
    perfect = scored(task, random, labels, 1e6)
    wide = 1.0 - 0.025 ** (1 / n)
    averaged = (average([perfect, perfect], Measure(task, name)) for name in task.metrics)
    for name, found, mean in zip(
        task.metrics, intervals(perfect, task).values(), averaged, strict=False
    ):
        info = described(task.metrics)[name].info
        if found.value != info.high or info.low is None:
            continue
        for one in (found, mean):
            assert one.high == info.high
            expected = info.high - (info.high - info.low) * wide
            if described(task.metrics)[name].right is None or one is mean:
                assert info.low <= one.low <= expected + 1e-9 or one.low == info.low
            assert one.low < one.high  # Wilson's, of a share of right examples


def test_a_difference_without_spread_has_a_width_where_the_answers_differ() -> None:
    labels = np.arange(40) % 3
    right = np.eye(3, dtype=np.float32)[labels]
    wrong = np.eye(3, dtype=np.float32)[(labels + 1) % 3]

    def said(logits: np.ndarray) -> Scores:
        return Scores(logits, labels, np.zeros(40, np.float32))

    unseen = 1.0 - 0.025 ** (1 / 40)
    gain = paired(said(wrong), said(right), CLASSES)["accuracy"]
    assert (gain.value, gain.high) == (1.0, 1.0)
    assert gain.low == pytest.approx(1.0 - unseen)
    equal = paired(said(right), said(2 * right), CLASSES)["macro_f1"]
    assert (equal.value, equal.low, equal.high) == pytest.approx((0.0, -unseen, unseen))
    same = paired(said(right), said(right), CLASSES)["macro_f1"]
    assert (same.low, same.high) == (0.0, 0.0)


def test_texts_that_are_all_right_or_all_wrong_are_not_certain() -> None:
    right = [f"the answer to this one is {n}" for n in range(20)]
    numbers = written.measured(right, [[text] for text in right])
    none = written.measured(["-"] * 20, [[text] for text in right])
    unseen = 1.0 - 0.025 ** (1 / 20)
    for name, found in written.intervals(numbers, 0.95).items():
        top = 100.0 if name == "bleu" else 1.0
        assert found.high == pytest.approx(found.value) == pytest.approx(top)
        assert found.low == pytest.approx(top * (1.0 - unseen))
    exact = written.intervals(none, 0.95)["exact_match"]
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.0, 0.0, unseen))
    gain = written.paired(none, numbers, 0.95)["exact_match"]
    assert (gain.low, gain.high) == pytest.approx((1.0 - unseen, 1.0))
