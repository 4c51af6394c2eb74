"""What came out, in numbers and in sentences that need no statistics to be understood."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from lorafit.report import metric, units
from lorafit.report.chart import Axis, interval_chart, small_intervals
from lorafit.report.folder import Json, mapping
from lorafit.report.metric import Interval, Verdict
from lorafit.report.units import Format, element, is_number

VERDICTS: dict[Verdict, tuple[str, str]] = {
    "better": ("▲", "Better than the base model"),
    "worse": ("▼", "Worse than the base model"),
    "unclear": ("●", "No clear difference from the base model"),
    "unknown": ("●", "Result"),
}
_IDENTICAL_ENOUGH = 1e-3
"""Differences of a logit up to here are called rounding; the run itself checks against the
tolerance of its number format before it is done."""


@dataclass(frozen=True)
class MetricRow:
    """One metric of the table."""

    name: str
    title: str
    note: str
    base: Interval
    tuned: Interval
    difference: Interval
    value_format: Format
    difference_format: Format
    verdict: Verdict
    values_chart: Markup | None
    difference_chart: Markup | None


@dataclass(frozen=True)
class Headline:
    """The answer to "did it work?"."""

    row: MetricRow
    symbol: str
    verdict: str
    sentences: list[Markup]
    chart: Markup


@dataclass(frozen=True)
class Handoff:
    """One way to pass the adapter on, and how far it is from the live model."""

    name: str
    value: object
    comment: str
    fine: bool


def metric_rows(evaluation: Json) -> list[MetricRow]:
    """The metrics of ``eval.json``, the headline one first."""
    base, tuned = mapping(evaluation.get("base")), mapping(evaluation.get("tuned"))
    paired = mapping(evaluation.get("paired"))
    headline = str(evaluation.get("metric"))
    names = sorted(dict.fromkeys([*tuned, *base]), key=lambda name: name != headline)
    return [_row(name, base.get(name), tuned.get(name), paired.get(name)) for name in names]


def tables(evaluation: Json) -> list[Json]:
    """The tables beside the metrics that are whole: title, columns, and rows of cells."""
    found = evaluation.get("tables")
    whole = [mapping(table) for table in found] if isinstance(found, list) else []
    return [
        table
        for table in whole
        if isinstance(table.get("title"), str)
        and isinstance(table.get("columns"), list)
        and isinstance(table.get("rows"), list)
        and all(isinstance(row, list) for row in table["rows"])
    ]


def samples(evaluation: Json) -> list[Json]:
    """What the models wrote, as far as it is whole: prompt, reference, both answers."""
    found = mapping(evaluation.get("generation")).get("samples")
    whole = [mapping(sample) for sample in found] if isinstance(found, list) else []
    return [sample for sample in whole if {"prompt", "reference", "base", "tuned"} <= set(sample)]


def headline(evaluation: Json) -> Headline | None:
    """The headline metric, ``None`` as long as the tuned model was not measured."""
    rows = metric_rows(evaluation)
    if not rows or rows[0].tuned.value is None:
        return None
    row = rows[0]
    symbol, verdict = VERDICTS[row.verdict]
    chart = _headline_chart(row)
    return Headline(row, symbol, verdict, _sentences(row, evaluation), chart)


def handoffs(evaluation: Json) -> list[Handoff]:
    """What the hand-off check of ``eval.json`` found."""
    names = {
        "reloaded": "Saved, then loaded again",
        "merged": "Merged into the base model",
    }
    found = []
    for key, value in mapping(evaluation.get("handoff")).items():
        name = key.removesuffix("_max_abs_diff")
        if name == key or not is_number(value):
            continue
        fine = abs(value) <= _IDENTICAL_ENOUGH
        comment = "the same, bit for bit" if value == 0 else "the same, up to rounding"
        comment = comment if fine else "not the same to three decimals"
        found.append(Handoff(names.get(name, name.replace("_", " ")), value, comment, fine))
    return found


def level(evaluation: Json) -> float:
    """Confidence level of the intervals; the design's 95 % where the file does not say."""
    found = evaluation.get("confidence")
    return float(found) if is_number(found) else 0.95


def _row(name: str, base: object, tuned: object, paired: object) -> MetricRow:
    before, after = Interval.read(base), Interval.read(tuned)
    difference = Interval.read(paired, "difference")
    form, signed = metric.value_format(name), metric.difference_format(name)
    verdict = metric.verdict(name, difference)
    values_chart = difference_chart = None
    shown = [
        (style, interval, _tip(style, interval, form))
        for style, interval in (("base", before), ("tuned", after))
        if interval.value is not None
    ]
    if shown:
        ends = [end for _, interval, _ in shown for end in _ends(interval)]
        label = "; ".join(tip for _, _, tip in shown)
        values_chart = small_intervals(shown, Axis.around(ends, margin=0.12), label)
    if difference.value is not None:
        tip = _tip("difference", difference, signed)
        axis = Axis.around([0.0, *_ends(difference)], margin=0.12)
        difference_chart = small_intervals([("diff", difference, tip)], axis, tip, zero=True)
    return MetricRow(
        name=name,
        title=metric.title(name),
        note=metric.note(name),
        base=before,
        tuned=after,
        difference=difference,
        value_format=form,
        difference_format=signed,
        verdict=verdict,
        values_chart=values_chart,
        difference_chart=difference_chart,
    )


def _ends(interval: Interval) -> list[float]:
    return [x for x in (interval.value, interval.low, interval.high) if x is not None]


def _tip(name: str, interval: Interval, form: Format) -> str:
    assert interval.value is not None
    text = f"{name}: {form(interval.value)}"
    if interval.low is not None and interval.high is not None:
        text += f", interval {form(interval.low)} to {form(interval.high)}"
    return text


def _headline_chart(row: MetricRow) -> Markup:
    rows = [
        (label, style, interval, _tip(style, interval, row.value_format))
        for label, style, interval in (("base", "base", row.base), ("tuned", "tuned", row.tuned))
        if interval.value is not None
    ]
    ends = [end for _, _, interval, _ in rows for end in _ends(interval)]
    axis = Axis(0.0, 1.0) if metric.is_share(row.name) else Axis.around(ends, margin=0.15)
    label = "Chart of intervals. " + "; ".join(tip for _, _, _, tip in rows)
    return interval_chart(rows, axis, metric.tick_format(row.name), f"{label}.")


def _sentences(row: MetricRow, evaluation: Json) -> list[Markup]:
    sentences = [_what_changed(row, evaluation)]
    if row.base.value is not None and metric.is_share(row.name):
        assert row.tuned.value is not None
        sentences.append(
            Markup("Of 100 such examples, about {} get the right label, where it was {}.").format(
                element(row.tuned.value, _of_hundred), element(row.base.value, _of_hundred)
            )
        )
    sentences += _how_sure(row, level(evaluation))
    return sentences


def _of_hundred(value: float) -> str:
    return f"{100 * value:.0f}"


def _what_changed(row: MetricRow, evaluation: Json) -> Markup:
    split = str(evaluation.get("split") or "test")
    n = evaluation.get("n")
    where = Markup("On {} {} examples").format(element(n, units.general), split)
    if not is_number(n):
        where = Markup("On the {} examples").format(split)
    if split == "test":
        where += Markup(", which training never saw,")
    tuned = element(row.tuned.value, row.value_format)
    base = element(row.base.value, row.value_format)
    known = row.base.value is not None
    if metric.is_share(row.name):
        text = "{} the tuned model is right <strong>{}</strong> of the time" + (
            "; before tuning it was right {} of the time." if known else "."
        )
        return Markup(text).format(where, tuned, base)
    text = "{} the tuned model reaches {} <strong>{}</strong>" + (
        "; before tuning it was {}." if known else "."
    )
    lower = "lower is better" if metric.lower_is_better(row.name) else "higher is better"
    name = f"{row.title} ({lower})"
    return Markup(text).format(where, name, tuned, base)


def _how_sure(row: MetricRow, confidence: float) -> list[Markup]:
    """What the interval of the paired difference says, in words."""
    difference = row.difference
    if not difference.complete:
        return []
    signed = row.difference_format
    value, low, high = (
        element(x, signed) for x in (difference.value, difference.low, difference.high)
    )
    sure = element(confidence, units.level)
    if row.verdict == "unclear":
        return [
            Markup(
                "The difference, {}, may be chance: the {} interval reaches from {} to {}, "
                "which includes no difference at all. More test examples would tell."
            ).format(value, sure, low, high)
        ]
    closing = (
        "so it is more than luck with these examples."
        if row.verdict == "better"
        else "so tuning has made the model worse on this data."
    )
    return [
        Markup(
            "The difference is <strong>{}</strong>; with {} confidence it lies between {} and {}, "
        ).format(value, sure, low, high)
        + Markup.escape(closing)
    ]
