"""The measurements behind the automatic choices as charts: ``evidence`` in ``choices.json``.

What is not of a known form gets no chart; the page shows all evidence as tables anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from pydantic import ValidationError

from lorafit.evidence import Choice, Interval
from lorafit.evidence.json import Json, mapping
from lorafit.report import numbers
from lorafit.report.chart import Axis, Line, Point, interval_chart, line_chart
from lorafit.report.curves import LEAST, Curve
from lorafit.report.numbers import is_number, number

HEIGHT = 130
_STYLES = ("train", "eval", "plain")
"""One for each length of the runs in which rates were compared."""


def charts(choices: Mapping[str, Choice]) -> dict[str, list[Curve]]:
    """The charts of each choice, by its name."""
    found = {}
    for name, choice in choices.items():
        evidence = mapping(choice.evidence)
        drawn = [_rates(evidence), _gains(evidence), _scales(evidence)]
        found[name] = [curve for curve in drawn if curve is not None]
    return found


def _records(evidence: Json, key: str, *numbers: str) -> list[Json]:
    """The records of a list that have all of these numbers."""
    listed = evidence.get(key)
    records = [mapping(one) for one in listed] if isinstance(listed, list) else []
    return [one for one in records if all(is_number(one.get(name)) for name in numbers)]


def _rates(evidence: Json) -> Curve | None:
    """Loss against the logarithm of the rate, a line for each length that was tried."""
    tried = [
        one
        for one in _records(evidence, "tried", "learning_rate", "loss")
        if number(one, "learning_rate") > 0
    ]
    if len(tried) < 2:
        return None
    lengths = list(dict.fromkeys(one.get("steps") for one in tried))
    lines = []
    for style, steps in zip(_STYLES, lengths, strict=False):
        points = sorted(_point(one) for one in tried if one.get("steps") == steps)
        lines.append(Line(points, style, dots=True))
    at, lowest = _point(min(tried, key=lambda one: number(one, "loss")))
    chart = _loss_chart(
        lines,
        "loss against learning rate",
        lambda x: f"{x:g}",
        [(number(one, "learning_rate"), _tip(one)) for one in sorted(tried, key=_point)],
        f"lowest {numbers.general(lowest)} at {at:.2g}",
        log=True,
    )
    after = " and ".join(numbers.general(n) for n in lengths if is_number(n))
    note = f"after {after} steps" if after else ""
    if note and any(one.get("decayed") for one in tried):
        note += ", the last with a decay"
    return Curve("Loss by learning rate", note, chart)


def _point(one: Json) -> Point:
    return number(one, "learning_rate"), number(one, "loss")


def _tip(one: Json) -> str:
    rate, loss = _point(one)
    steps = one.get("steps")
    after = f", {numbers.general(steps)} steps" if is_number(steps) else ""
    return f"{rate:.2g}{after}: {numbers.decimals(loss)}"


def _gains(evidence: Json) -> Curve | None:
    """What going on gained at each rank that was tested."""
    rows = []
    for test in _records(evidence, "tests", "r", "against"):
        gain = _interval(test.get("gain"))
        if gain is not None:
            r, against = number(test, "r"), number(test, "against")
            name = f"{numbers.general(r)} to {numbers.general(against)}"
            form = numbers.signed(numbers.decimals)
            ends = [form(end) for end in gain.ends[1:]]
            rows.append((name, "tuned", gain, f"{name}: {form(gain.value)} {' to '.join(ends)}"))
    if not rows:
        return None
    values = [end for _, _, gain, _ in rows for end in gain.ends]
    spoken = "; ".join(tip for *_, tip in rows)
    chart = interval_chart(
        rows, Axis.around(values, zero=True), numbers.general, f"Gain of a larger rank: {spoken}."
    )
    return Curve("Gain of going on to a larger rank", "nats per example, with intervals", chart)


def _interval(content: object) -> Interval | None:
    try:
        return Interval.read(content)
    except ValidationError:
        return None


def _scales(evidence: Json) -> Curve | None:
    """Loss against the factor of the update."""
    points = sorted(
        (number(one, "factor"), number(one, "loss"))
        for one in _records(evidence, "curve", "factor", "loss")
    )
    if len(points) < 2:
        return None
    best = min(points, key=lambda point: point[1])
    chart = _loss_chart(
        [Line(points, "eval", dots=True)],
        "loss against the factor of the update",
        numbers.general,
        [(x, f"{numbers.general(x)}: {numbers.decimals(y)}") for x, y in points],
        f"lowest {numbers.general(best[1])} at {numbers.general(best[0])}",
    )
    return Curve("Loss by the factor of the update", "validation, nats per example", chart)


def _loss_chart(
    lines: Sequence[Line],
    what: str,
    x_format: numbers.Format,
    tips: Sequence[tuple[float, str]],
    spoken: str,
    log: bool = False,
) -> Markup:
    points = [point for line in lines for point in line.points]
    losses = [loss for _, loss in points]
    return line_chart(
        lines,
        Axis.around([x for x, _ in points], log=log),
        Axis.around(losses, least=LEAST * max(map(abs, losses))),
        label=f"Line chart: {what}; {spoken}.",
        y_format=numbers.general,
        x_format=x_format,
        height=HEIGHT,
        tips=tips,
    )
