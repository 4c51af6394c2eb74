import numpy as np
import pytest
from scipy import stats

from lorafit.errors import DataError
from lorafit.evaluation.compare import mcnemar, paired
from lorafit.evaluation.score import Scores
from tests.evaluation.test_score import TASK, random_scores


def better(scores, by=1.0, seed=9, noise=0.5):
    random = np.random.default_rng(seed)
    logits = scores.logits + random.normal(scale=noise, size=scores.logits.shape)
    logits[np.arange(len(scores)), scores.labels] += by
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(scores)), scores.labels]
    return Scores(logits, scores.labels, losses)


def test_a_better_model_is_better_in_every_metric():
    base = random_scores()
    found = paired(base, better(base), TASK)
    assert list(found) == ["accuracy", "macro_f1", "mcc", "nll"]
    assert found["accuracy"].low > 0
    assert found["macro_f1"].low > 0
    assert found["nll"].high < 0
    p_value = found["accuracy"].p_value
    assert p_value is not None
    assert p_value < 0.001


def test_differences_are_those_of_the_metrics():
    base = random_scores()
    tuned = better(base)
    found = paired(base, tuned, TASK)
    for name, metric in TASK.metrics.items():
        expected = metric(tuned.logits, tuned.labels) - metric(base.logits, base.labels)
        assert found[name].difference == expected
        assert found[name].low < expected < found[name].high
    assert found["nll"].difference == pytest.approx((tuned.losses - base.losses).mean())


def test_a_model_compared_with_itself_does_not_differ():
    base = random_scores()
    found = paired(base, base, TASK)
    for name in ("accuracy", "macro_f1", "mcc", "nll"):
        assert (found[name].difference, found[name].low, found[name].high) == (0, 0, 0)
    assert found["accuracy"].p_value == 1.0


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "mcc"])
def test_intervals_agree_with_scipys_paired_bootstrap(name):
    base = random_scores()
    tuned = better(base, by=0.3)
    metric = TASK.metrics[name]

    def statistic(indices):
        return metric(tuned.logits[indices], base.labels[indices]) - metric(
            base.logits[indices], base.labels[indices]
        )

    theirs = stats.bootstrap(
        (np.arange(len(base)),),
        statistic,
        n_resamples=400,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = paired(base, tuned, TASK)[name]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_nll_interval_agrees_with_scipys_bootstrap():
    base = random_scores()
    tuned = better(base, by=0.3)
    theirs = stats.bootstrap(
        (tuned.losses.astype(float) - base.losses,),
        np.mean,
        n_resamples=2_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = paired(base, tuned, TASK)["nll"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_pairing_makes_the_interval_narrower_than_two_samples_would():
    base = random_scores()
    tuned = better(base, by=0.1, noise=0.1)
    found = paired(base, tuned, TASK)["accuracy"]
    rates = [TASK.metrics["accuracy"](scores.logits, base.labels) for scores in (base, tuned)]
    apart = 2 * 1.96 * np.sqrt(sum(p * (1 - p) for p in rates) / len(base))
    assert found.high - found.low < 0.6 * apart


def test_the_interval_covers_zero_about_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        data = random_scores(200, seed=seed)
        # Shuffled logits guess: both models are equally good, at chance.
        one, other = (
            Scores(random.permuted(data.logits, axis=1), data.labels, data.losses) for _ in range(2)
        )
        found = paired(one, other, TASK, seed=seed)["accuracy"]
        covered += found.low <= 0 <= found.high
    assert covered >= 52  # a binomial of 60 and 0.95 is below 52 in 0.3 % of the cases


def test_mcnemar_is_the_exact_binomial_test():
    base = np.array([True] * 30 + [True] * 5 + [False] * 15 + [False] * 10)
    tuned = np.array([True] * 30 + [False] * 5 + [True] * 15 + [False] * 10)
    expected = min(1.0, 2 * stats.binom.cdf(5, 20, 0.5))
    assert mcnemar(base, tuned) == pytest.approx(expected)
    assert mcnemar(tuned, base) == pytest.approx(expected)


def test_the_seed_decides():
    base = random_scores()
    tuned = better(base)
    assert paired(base, tuned, TASK, seed=1) == paired(base, tuned, TASK, seed=1)
    assert paired(base, tuned, TASK, seed=1) != paired(base, tuned, TASK, seed=2)


def test_other_examples_are_refused():
    base = random_scores(20)
    with pytest.raises(DataError, match="same examples"):
        paired(base, random_scores(21), TASK)
    with pytest.raises(DataError, match="same examples"):
        paired(base, random_scores(20, seed=5), TASK)


def test_examples_without_labels_are_refused():
    base = random_scores(20)
    base.labels[:] = -100
    with pytest.raises(DataError, match="have no label"):
        paired(base, base, TASK)
