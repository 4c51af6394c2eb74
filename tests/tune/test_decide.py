"""The statistics agree with scipy's and with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lorafit.evaluation.score import Scores
from lorafit.tune.decide import Gain, gain, sharpened, vertex
from tests.training.toy import ToyTask


def test_a_paired_gain_is_scipys_paired_t_interval() -> None:
    random = np.random.default_rng(0)
    a = random.gamma(2.0, 1.0, 300)
    b = a - random.normal(0.05, 0.4, 300)
    found = gain(a, b)
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    assert found.mean == pytest.approx(float((a - b).mean()))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.se == pytest.approx(found.mean / theirs.statistic)


def test_a_gain_pays_above_one_standard_error_and_is_certain_above_the_interval() -> None:
    base = np.zeros(100)
    noise = np.where(np.arange(100) % 2, 1.0, -1.0)  # standard error 0.1005
    assert not gain(base + 0.09 + noise, base).pays
    assert gain(base + 0.11 + noise, base).pays
    assert not gain(base + 0.11 + noise, base).certain
    assert gain(base + 0.21 + noise, base).certain


def test_not_worse_needs_the_whole_interval_above_the_margin() -> None:
    base = np.zeros(100)
    noise = np.where(np.arange(100) % 2, 0.01, -0.01)
    worse = gain(base, base + 0.004 + noise)  # mean -0.004, interval about +-0.002
    assert not worse.not_worse(0.005)
    assert worse.not_worse(0.007)
    assert not gain(base + 0.009 + noise, base).below(0.01)
    assert gain(base + 0.007 + noise, base).below(0.01)


@pytest.mark.parametrize(("one", "other"), [(np.zeros(3), np.zeros(4)), (np.zeros(1), np.zeros(1))])
def test_losses_of_other_examples_are_refused(one: np.ndarray, other: np.ndarray) -> None:
    with pytest.raises(ValueError, match="equally long"):
        gain(one, other)


def test_a_common_factor_of_the_logits_does_not_matter_after_sharpening() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(400, 3)).astype(np.float32)
    labels = np.array([random.choice(3, p=p) for p in torch.tensor(2 * logits).softmax(-1).numpy()])
    found, factor = sharpened(Scores(logits, labels, np.zeros(400, np.float32)), ToyTask())
    again, tenth = sharpened(Scores(logits / 3, labels, np.zeros(400, np.float32)), ToyTask())
    assert factor == pytest.approx(2.0, rel=0.2)
    assert tenth == pytest.approx(3 * factor, rel=1e-2)
    assert found.mean() == pytest.approx(again.mean(), rel=1e-4)


def test_the_vertex_of_a_parabola_is_found_and_a_hill_has_none() -> None:
    x = np.array([-1.0, 0.0, 2.0, 3.0])
    assert vertex(x, (x - 0.7) ** 2 + 5) == pytest.approx(0.7)
    assert vertex(x, -((x - 0.7) ** 2)) is None
    assert vertex(x[:2], x[:2]) is None


def test_a_gain_in_a_sentence_has_four_digits_and_its_sign() -> None:
    found = Gain(-0.0009276357, -0.0040901400, 0.0022348686, n=1279, se=0.0016)
    assert f"{found}" == "-0.0009 [-0.0041, +0.0022]"
    assert found.change == "+0.0009 [-0.0022, +0.0041]"
