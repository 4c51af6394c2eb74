"""Where the first rates are: near what near lines say, the more of them the nearer."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from lorafit.run import Choice
from lorafit.tune.prior.centre import (
    LENGTHS,
    MOST,
    NOISE,
    SPREAD,
    Centre,
    best_of,
    centred,
    similarity,
)
from tests.tune.prior.test_lessons import lesson

USUAL = 1e-3


def offset(*lines: Any) -> float:
    return math.log(centred(USUAL, lesson(), list(lines)).learning_rate / USUAL)


def test_without_lines_that_say_something_the_usual_rate_is_kept_to_the_bit() -> None:
    silent = [
        lesson(best=None),
        lesson(task="causal_lm"),
        lesson(method="dora"),
        lesson(modules=("query",)),
        lesson(classes=None),
    ]
    for lines in ([], silent):
        assert centred(USUAL, lesson(), lines) == Centre(USUAL, USUAL)


def test_lines_of_the_same_situation_shrink_as_the_mean_of_a_normal_distribution() -> None:
    """``n / (n + NOISE^2 / SPREAD^2)`` of their mean, and that is the weight, too."""
    for count in (1, 2, 5, 20):
        lines = [lesson(best=USUAL * 2, cost=1 + n) for n in range(count)]
        share = count / (count + (NOISE / SPREAD) ** 2)
        found = centred(USUAL, lesson(), lines)
        assert math.log(found.learning_rate / USUAL) == pytest.approx(share * math.log(2))
        assert found.weight == pytest.approx(share)
        assert found.near == count


@pytest.mark.parametrize("name", LENGTHS)
def test_the_further_a_line_the_less_it_says(name: str) -> None:
    here = getattr(lesson(), name)
    said = [offset(lesson(**{name: round(here * 3**n)})) for n in range(6)]
    assert all(late < early for early, late in itertools.pairwise(said))
    assert said[-1] < 0.05
    assert similarity(lesson(), lesson(**{name: round(here * 3)})) == pytest.approx(
        math.exp(-((math.log(3) / LENGTHS[name]) ** 2) / 2)
    )


def test_the_usual_rate_of_a_line_is_taken_off() -> None:
    """What is learned is by how much the usual rate is off, whatever the batch made it."""
    assert offset(lesson(usual=5e-4, best=1e-3)) == pytest.approx(
        offset(lesson(usual=1e-3, best=2e-3))
    )


def test_lines_that_disagree_come_to_their_middle_and_none_leads_far_away() -> None:
    pair = [lesson(best=USUAL * 2), lesson(best=USUAL / 2)]
    assert offset(*pair) == pytest.approx(0)
    wild = [lesson(best=1e300, usual=1e-300, cost=1 + n) for n in range(50)]
    assert MOST - 0.1 < offset(*wild) <= MOST + 1e-9


def test_it_is_the_posterior_mean_of_a_gaussian_process() -> None:
    draw = np.random.default_rng(0)
    lines = [
        lesson(
            classes=int(draw.integers(2, 60)),
            tokens=float(np.exp(draw.normal(11, 1))),
            best=USUAL * float(np.exp(draw.normal(0, 0.5))),
        )
        for _ in range(12)
    ]
    covariance = np.array([[similarity(a, b) for b in lines] for a in lines]) * SPREAD**2
    shared = np.array([similarity(lesson(), line) for line in lines]) * SPREAD**2
    offsets = np.array([math.log(line.best / line.usual) for line in lines if line.best])
    mean = shared @ np.linalg.inv(covariance + NOISE**2 * np.eye(12)) @ offsets
    assert offset(*lines) == pytest.approx(float(mean))


def test_the_order_of_the_lines_does_not_matter_and_thousands_are_no_trouble() -> None:
    lines = [lesson(tokens=1e5 * 1.001**n, best=USUAL * 1.5) for n in range(3_000)]
    assert offset(*lines) == pytest.approx(offset(*reversed(lines)), abs=1e-6)
    assert offset(*lines) == pytest.approx(math.log(1.5), rel=0.01)


def test_only_rates_that_were_told_apart_are_a_lesson() -> None:
    tried: Any = [
        {"learning_rate": rate, "steps": 20, "loss": 1.0, "diverged": False}
        for rate in (1e-3, 2e-3)
    ]
    assert best_of(Choice(9e-4, "", {"tried": tried})) == 9e-4
    after: Any = {"steps": 60, "learning_rate": 1.1e-3}
    assert best_of(Choice(9e-4, "", {"tried": tried, "best_after": after})) == 1.1e-3
    assert best_of(Choice(9e-4, "", {"tried": tried, "best_after": after, "flat": True})) is None
    assert best_of(Choice(9e-4, "", {"tried": tried[:1]})) is None
    assert best_of(Choice(9e-4)) is None
