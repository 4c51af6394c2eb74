"""The result in sentences that need no statistics to be understood."""

from __future__ import annotations

from lorafit.evidence.evaluation import Evaluation
from lorafit.evidence.interval import Interval
from lorafit.evidence.rows import MetricRow, Verdict, metric_rows
from lorafit.units import count

MOST_NAMED = 10
"""Classes that are listed by name."""


def sentences(evaluation: Evaluation) -> list[str]:
    """How good the tuned model is, before and after, beside always the same answer.

    Args:
        evaluation: Of a run; without a tuned model there is nothing to say.
    """
    rows = metric_rows(evaluation)
    if not rows or rows[0].tuned is None:
        return []
    found = [_quality(rows[0], evaluation)]
    if evaluation.baseline is not None and evaluation.baseline.sentence:
        found.append(evaluation.baseline.sentence)
    found += [_error(row, evaluation) for row in rows[1:] if _is_error(row, evaluation)]
    found += _doubts(rows[0], evaluation)
    names = evaluation.never_predicted
    if names:
        more = f" and {count(len(names) - MOST_NAMED)} more" if len(names) > MOST_NAMED else ""
        found.append(f"Never predicted: {', '.join(names[:MOST_NAMED])}{more}.")
    return found


def _quality(row: MetricRow, evaluation: Evaluation) -> str:
    assert row.tuned is not None
    where = ""
    if evaluation.n is not None:
        part = "" if evaluation.split == "all rows" else f"{evaluation.split} "
        where = f" on {count(int(evaluation.n))} {part}examples"
    if row.info.is_share:
        first = f"Right {_percent(row.tuned.value)} of the time{where}"
        if row.info.title != "accuracy":
            first = f"{row.info.heading} {_percent(row.tuned.value)}{where}"
    else:
        first = f"{row.info.heading} {row.tuned.value:.3f}{where}{_way(row)}"
    return "; ".join([first, *_compared(row, evaluation)]) + "."


def _error(row: MetricRow, evaluation: Evaluation) -> str:
    assert row.tuned is not None
    first = f"{row.info.heading} {row.tuned.value:.3g}{_way(row)}"
    return "; ".join([first, *_compared(row, evaluation)]) + "."


def _is_error(row: MetricRow, evaluation: Evaluation) -> bool:
    """Whether it is an error in the units of the answers, which people ask for."""
    known = evaluation.baseline is not None and row.name in evaluation.baseline.metrics
    return known and row.tuned is not None and row.info.greater_is_better is False


def _compared(row: MetricRow, evaluation: Evaluation) -> list[str]:
    """The same before tuning, and of always the same answer."""
    said = _percent if row.info.is_share else (lambda value: f"{value:.3g}")
    found = []
    if row.base is not None:
        found.append(f"{said(row.base.value)} before tuning")
    baseline = evaluation.baseline
    if baseline is not None and row.name in baseline.metrics and not baseline.sentence:
        found.append(f"{said(baseline.metrics[row.name])} by {baseline.by}")
    return found


def _doubts(row: MetricRow, evaluation: Evaluation) -> list[str]:
    """What keeps the result from being a success."""
    found = []
    if row.verdict == "unclear":
        found.append("The difference from before tuning may be chance.")
    if row.verdict == "worse":
        found.append("Tuning made the model worse on these examples.")
    standing = beside_baseline(row, evaluation)
    if standing in ("worse", "unclear"):
        assert evaluation.baseline is not None
        simple = evaluation.baseline.way or "always the same answer"
        said = "That is no better" if standing == "worse" else "That may be no better"
        found.append(
            f"{said} than {simple}. Train longer (more epochs), or check the data with "
            "`lorafit preview`."
        )
    return found


def simple_sentence(evaluation: Evaluation) -> str:
    """What always the same answer comes to, as a sentence by itself; empty: there is none."""
    rows, baseline = metric_rows(evaluation), evaluation.baseline
    if not rows or baseline is None or rows[0].name not in baseline.metrics:
        return ""
    if baseline.sentence:
        return baseline.sentence
    row, value = rows[0], baseline.metrics[rows[0].name]
    by = f"{baseline.by[:1].upper()}{baseline.by[1:]}"
    if row.info.is_share:
        return f"{by} would be right {_percent(value)} of the time."
    return f"{by} would come to {row.info.title} {value:.3g}{_way(row)}."


def beside_baseline(row: MetricRow, evaluation: Evaluation) -> Verdict:
    """How the tuned model stands beside always the same answer.

    Args:
        row: The headline metric.
        evaluation: Has the baseline.

    Returns:
        ``worse``: no better at all; ``unclear``: the examples cannot tell; ``unknown``: there is no
        such answer, or nobody said which way the metric is better.
    """
    baseline, up = evaluation.baseline, row.info.greater_is_better
    if baseline is None or row.tuned is None or up is None or row.name not in baseline.metrics:
        return "unknown"
    ahead = baseline.ahead or Interval(row.tuned.value - baseline.metrics[row.name])
    sign = 1 if up else -1
    if sign * ahead.value <= 0:
        return "worse"
    sure = not ahead.complete or sign * (ahead.low if up else ahead.high) > 0
    return "better" if sure else "unclear"


def _way(row: MetricRow) -> str:
    ways = {True: " (higher is better)", False: " (lower is better)", None: ""}
    return ways[row.info.greater_is_better]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
