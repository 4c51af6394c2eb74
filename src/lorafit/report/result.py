"""What came out, in numbers and in sentences that need no statistics to be understood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from lorafit.evidence import Evaluation, Interval, Sample
from lorafit.evidence import rows as evidence_rows
from lorafit.evidence.headline import beside_baseline, simple_sentence
from lorafit.evidence.rows import MetricRow, Verdict
from lorafit.evidence.same_answer import baseline_of, never_predicted
from lorafit.report import numbers
from lorafit.report.chart import Axis, interval_chart, small_intervals
from lorafit.report.numbers import Format, element, is_number

VERDICTS: dict[Verdict, tuple[str, str]] = {
    "better": ("▲", "Better than the base model"),
    "worse": ("▼", "Worse than the base model"),
    "unclear": ("●", "No clear difference from the base model"),
    "unknown": ("●", "Result"),
}
_WAYS = {
    "reloaded": "Saved, then loaded again",
    "merged": "Merged into the base model",
}
_IDENTICAL_ENOUGH = 1e-3
"""Differences of a logit up to here are called rounding; the run itself checks against the
tolerance of its number format before it is done."""
LEVEL = 0.95
"""Confidence level of the intervals where a file does not say."""


@dataclass(frozen=True)
class ShownRow:
    """One metric of the table, with its charts."""

    row: MetricRow
    values_chart: Markup | None
    difference_chart: Markup | None

    @property
    def value_format(self) -> Format:
        """How its values are written."""
        return numbers.value_format(self.row.info)

    @property
    def difference_format(self) -> Format:
        """How its differences are written."""
        return numbers.difference_format(self.row.info)


@dataclass(frozen=True)
class Headline:
    """The answer to "did it work?".

    Attributes:
        row: The headline metric.
        value_format: How its values are written.
        symbol: Of the verdict.
        verdict: In a few words.
        mood: ``better``, ``worse``, ``unclear`` or ``unknown``, for the look of it.
        sentences: What it means.
        chart: Base and tuned model with their intervals.
    """

    row: MetricRow
    value_format: Format
    symbol: str
    verdict: str
    mood: str
    sentences: list[Markup]
    chart: Markup


@dataclass(frozen=True)
class Handoff:
    """One way to pass the adapter on, and how far it is from the live model."""

    name: str
    value: float
    comment: str
    fine: bool


def metric_rows(evaluation: Evaluation | None) -> list[ShownRow]:
    """The metrics, the headline one first."""
    if evaluation is None:
        return []
    return [_shown(row) for row in evidence_rows.metric_rows(evaluation)]


def samples(evaluation: Evaluation | None) -> list[Sample]:
    """What the models wrote."""
    if evaluation is None or evaluation.generation is None:
        return []
    return evaluation.generation.samples


def headline(evaluation: Evaluation | None) -> Headline | None:
    """The headline metric, ``None`` as long as the tuned model was not measured."""
    rows = [] if evaluation is None else evidence_rows.metric_rows(evaluation)
    if evaluation is None or not rows or rows[0].tuned is None:
        return None
    row, tuned = rows[0], rows[0].tuned
    mood: Verdict = row.verdict
    symbol, verdict = VERDICTS[mood]
    simple = _simple_answer(row, tuned, evaluation)
    if mood == "better" and simple is not None and not simple.beaten:
        mood, symbol, verdict = "unclear", VERDICTS["unclear"][0], _NO_BETTER
    sentences = _sentences(row, tuned, evaluation)
    sentences[1:1] = [] if simple is None else simple.sentences
    form = numbers.value_format(row.info)
    return Headline(row, form, symbol, verdict, mood, sentences, _headline_chart(row))


_NO_BETTER = "No better than always giving the most frequent answer"
_MOST_NAMES = 8
"""Classes that are never predicted and named."""


@dataclass(frozen=True)
class SimpleAnswer:
    """What a model has to beat that looks at no text at all.

    Attributes:
        beaten: Whether it certainly is.
        sentences: What it would reach, and which classes are never given.
    """

    beaten: bool
    sentences: list[Markup]


def _simple_answer(row: MetricRow, tuned: Interval, evaluation: Evaluation) -> SimpleAnswer | None:
    """Always the same answer, and classes that are never given; ``None``: neither is known."""
    baseline, never = baseline_of(evaluation), never_predicted(evaluation)
    if baseline is None and not never:
        return None
    said, beaten = [], True
    if baseline is not None and not row.info.is_share and (told := simple_sentence(evaluation)):
        beaten = beside_baseline(row, evaluation) in ("better", "unknown")
        said.append(Markup.escape(numbers.typeset(told)))
    if baseline is not None and row.info.is_share and row.name in baseline.metrics:
        share = baseline.metrics[row.name]
        low = tuned.low if tuned.complete else tuned.value
        beaten = low > share
        said.append(
            Markup("Always answering {} would be right {} of the time.").format(
                numbers.typeset(baseline.answer), element(share, numbers.percent)
            )
        )
    if never:
        names = ", ".join(f"“{name}”" for name in never[:_MOST_NAMES])
        more = ", ..." if len(never) > _MOST_NAMES else ""
        said.append(Markup("Never answered: {}{}.").format(names, more))
    return SimpleAnswer(beaten, said)


def handoffs(evaluation: Evaluation | None) -> list[Handoff]:
    """What the hand-off check found."""
    if evaluation is None or evaluation.handoff is None:
        return []
    found = []
    for name, value in evaluation.handoff.differences.items():
        fine = abs(value) <= _IDENTICAL_ENOUGH
        comment = "the same, bit for bit" if value == 0 else "the same, up to rounding"
        comment = comment if fine else "not the same to three decimals"
        found.append(Handoff(_WAYS[name], value, comment, fine))
    return found


def level(evaluation: Evaluation | None) -> float:
    """Confidence level of the intervals."""
    return LEVEL if evaluation is None else evaluation.confidence or LEVEL


def _sides(row: MetricRow) -> list[tuple[str, Interval, str]]:
    """Name, interval and tip of base and tuned model, where they were measured."""
    form = numbers.value_format(row.info)
    return [
        (name, found, _tip(name, found, form))
        for name, found in (("base", row.base), ("tuned", row.tuned))
        if found is not None
    ]


def _ends(found: Iterable[Interval]) -> list[float]:
    return [end for interval in found for end in interval.ends]


def _shown(row: MetricRow) -> ShownRow:
    values_chart = difference_chart = None
    sides = _sides(row)
    if sides:
        ends = _ends(found for _, found, _ in sides)
        label = "; ".join(tip for _, _, tip in sides)
        values_chart = small_intervals(sides, Axis.around(ends, margin=0.12), label)
    if row.difference is not None:
        tip = _tip("difference", row.difference, numbers.difference_format(row.info))
        axis = Axis.around([0.0, *row.difference.ends], margin=0.12)
        difference_chart = small_intervals([("diff", row.difference, tip)], axis, tip, zero=True)
    return ShownRow(row, values_chart, difference_chart)


def _tip(name: str, interval: Interval, form: Format) -> str:
    text = f"{name}: {form(interval.value)}"
    if interval.complete:
        text += f", interval {form(interval.low)} to {form(interval.high)}"
    return text


def _headline_chart(row: MetricRow) -> Markup:
    sides = _sides(row)
    ends = _ends(found for _, found, _ in sides)
    axis = Axis(0.0, 1.0) if row.info.is_share else Axis.around(ends, margin=0.15)
    label = "Chart of intervals. " + "; ".join(tip for _, _, tip in sides)
    drawn = [(name, name, found, tip) for name, found, tip in sides]
    return interval_chart(drawn, axis, numbers.tick_format(row.info), f"{label}.")


def _sentences(row: MetricRow, tuned: Interval, evaluation: Evaluation) -> list[Markup]:
    sentences = [_what_changed(row, tuned, evaluation)]
    if row.base is not None and row.info.is_share:
        sentences.append(
            Markup("Of 100 such examples, about {} get the right label, where it was {}.").format(
                element(tuned.value, _of_hundred), element(row.base.value, _of_hundred)
            )
        )
    sentences += _how_sure(row, level(evaluation))
    return sentences


def _of_hundred(value: float) -> str:
    return f"{100 * value:.0f}"


def _what_changed(row: MetricRow, after: Interval, evaluation: Evaluation) -> Markup:
    split, n = evaluation.split, evaluation.n
    where = Markup("On {} {} examples").format(element(n, numbers.general), split)
    if not is_number(n):
        where = Markup("On the {} examples").format(split)
    if split == "test":
        where += Markup(", which training never saw,")
    form = numbers.value_format(row.info)
    tuned = element(after.value, form)
    base = None if row.base is None else element(row.base.value, form)
    if row.info.is_share:
        text = "{} the tuned model is right <strong>{}</strong> of the time" + (
            "." if base is None else "; before tuning it was right {} of the time."
        )
        return Markup(text).format(where, tuned, base)
    text = "{} the tuned model reaches {} <strong>{}</strong>" + (
        "." if base is None else "; before tuning it was {}."
    )
    way = {True: " (higher is better)", False: " (lower is better)", None: ""}
    name = f"{row.info.title}{way[row.info.greater_is_better]}"
    return Markup(text).format(where, name, tuned, base)


def _how_sure(row: MetricRow, confidence: float) -> list[Markup]:
    """What the interval of the paired difference says, in words."""
    difference = row.difference
    if difference is None or not difference.complete:
        return []
    signed = numbers.difference_format(row.info)
    value, low, high = (
        element(x, signed) for x in (difference.value, difference.low, difference.high)
    )
    sure = element(confidence, numbers.level)
    if row.verdict == "unclear":
        return [
            Markup(
                "The difference, {}, may be chance: the {} interval reaches from {} to {}, "
                "which includes no difference at all. More test examples would tell."
            ).format(value, sure, low, high)
        ]
    closings = {
        "better": ", so it is more than luck with these examples.",
        "worse": ", so tuning has made the model worse on this data.",
    }
    return [
        Markup(
            "The difference is <strong>{}</strong>; with {} confidence it lies between {} and {}"
        ).format(value, sure, low, high)
        + Markup.escape(closings.get(row.verdict, "."))
    ]
