from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lorafit.evaluation.score import Scores
from lorafit.evaluation.seeds import Measure, average, difference, verdict
from lorafit.evidence import Interval
from lorafit.tasks.sequence_classification import SequenceClassification
from tests.comparison.helpers import scores_of, task


def test_the_average_of_one_run_has_about_the_interval_of_a_proportion() -> None:
    right = np.arange(400) % 5 != 0
    found = average([scores_of(right)], Measure(task(), "accuracy"))
    assert found.value == pytest.approx(0.8)
    half = stats.t.ppf(0.975, 399) * np.sqrt(0.8 * 0.2 / 400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_seeds_that_differ_widen_the_interval() -> None:
    right = np.arange(400) % 5 != 0
    worse = np.arange(400) % 3 != 0
    alike = average([scores_of(right)] * 3, Measure(task(), "accuracy"))
    apart = average(
        [scores_of(right), scores_of(worse), scores_of(right)], Measure(task(), "accuracy")
    )
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_a_difference_is_paired() -> None:
    base = np.arange(400) % 2 == 0
    better = base.copy()
    better[1:21:2] = True  # ten examples more, all others the same
    found = difference([scores_of(better)], [scores_of(base)], Measure(task(), "accuracy"))
    assert found.value == pytest.approx(10 / 400)
    assert found.low > 0
    single = average([scores_of(base)], Measure(task(), "accuracy"))
    assert found.high - found.low < 0.4 * (single.high - single.low)
    swapped = difference([scores_of(base)], [scores_of(better)], Measure(task(), "accuracy"))
    assert swapped.value == pytest.approx(-found.value)


def test_the_difference_of_a_method_to_itself_is_exactly_zero() -> None:
    runs = [scores_of(np.arange(50) % 2 == 0), scores_of(np.arange(50) % 3 == 0)]
    assert difference(runs, runs, Measure(task(), "accuracy")) == Interval(0.0, 0.0, 0.0, 50, 0.95)
    assert difference(runs, runs, Measure(task(), "loss")) == Interval(0.0, 0.0, 0.0, 50, 0.95)


@pytest.mark.parametrize(("n", "said"), [(8, "cannot tell"), (1_000, "not worse")])
def test_equal_answers_prove_little_on_few_examples(n: int, said: str) -> None:
    base = scores_of(np.arange(n) % 4 != 0)
    surer = Scores(base.logits * 2, base.labels, base.losses)
    found = difference([surer], [base], Measure(task(), "accuracy"))
    bound = stats.binomtest(0, n).proportion_ci(method="exact").high
    assert found.high == pytest.approx(bound)
    assert found.low == pytest.approx(-bound)
    assert verdict(found, 0.01) == said


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        hard = random.random(200) * 0.3  # difficulty that both methods share
        ours, theirs = (
            [scores_of(random.random(200) < level - hard) for _ in range(3)]
            for level in (0.95, 0.9)
        )
        found = difference(ours, theirs, Measure(task(), "accuracy", seed=1))
        inside += found.low <= 0.05 <= found.high
    assert 90 <= inside <= 100


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.009, 0.02, "not worse"),
        (-0.02, 0.02, "cannot tell"),
    ],
)
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high), 0.01) == said
    mirrored = Interval(-(low + high) / 2, -high, -low)
    assert verdict(mirrored, 0.01, greater_is_better=False) == said


def test_losses_are_compared_too() -> None:
    random = np.random.default_rng(0)
    base = scores_of(random.random(300) < 0.7)
    lower = Scores(base.logits, base.labels, base.losses - 0.1)
    found = difference([lower], [base], Measure(task(), "loss"))
    assert found.value == pytest.approx(-0.1, abs=1e-6)
    assert isinstance(task(), SequenceClassification)
