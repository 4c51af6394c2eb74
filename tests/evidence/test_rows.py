from __future__ import annotations

import pytest

from lorafit.evidence import Difference, Evaluation, Interval, MetricInfo
from lorafit.evidence.rows import metric_rows


def evaluation(difference: Difference | None, greater_is_better: bool | None) -> Evaluation:
    return Evaluation(
        metric="b",
        metrics={"b": MetricInfo("b", greater_is_better=greater_is_better)},
        tuned={"a": Interval(1), "b": Interval(2)},
        base={"b": Interval(1)},
        paired={} if difference is None else {"b": difference},
    )


def test_the_headline_metric_comes_first_and_what_is_missing_is_missing() -> None:
    first, second = metric_rows(evaluation(None, True))
    assert (first.name, second.name) == ("b", "a")
    assert second.base is None
    assert second.info == MetricInfo.unknown("a")


@pytest.mark.parametrize(
    ("difference", "greater", "said"),
    [
        (Difference(0.2, 0.1, 0.3), True, "better"),
        (Difference(0.2, 0.1, 0.3), False, "worse"),
        (Difference(-0.2, -0.3, -0.1), False, "better"),
        (Difference(0.1, -0.1, 0.3), True, "unclear"),
        (Difference(0.2, 0.1, 0.3), None, "unknown"),
        (Difference(0.2), True, "unknown"),
        (None, True, "unknown"),
    ],
)
def test_verdicts(difference: Difference | None, greater: bool | None, said: str) -> None:
    assert metric_rows(evaluation(difference, greater))[0].verdict == said
