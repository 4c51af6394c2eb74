"""The measurements behind the automatic choices as charts: ``evidence`` in ``choices.json``.

What is not of a known form gets no chart; the page shows all evidence as tables anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
        drawn = [
            _rates(evidence),
            _ranks(evidence) or _gains(evidence),
            _kinds(evidence),
            _scales(evidence),
        ]
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


def _ranks(evidence: Json) -> Curve | None:
    """The change of the loss against the rank: what was trained cut to less, and trials of more."""
    trained = evidence.get("trained")
    cuts = [
        (number(one, "r"), change)
        for one in _records(evidence, "ranks", "r")
        if number(one, "r") > 0 and (change := _change(one.get("gain"))) is not None
    ]
    if not is_number(trained) or not trained > 0 or not cuts:
        return None
    line = [*sorted((r, change.value) for r, change in cuts), (float(trained), 0.0)]
    whiskers = [(r, "train", change) for r, change in cuts]
    said = [(r, f"cut to {numbers.general(r)}: {_said(change)}") for r, change in cuts]
    said.append((float(trained), f"trained with {numbers.general(trained)}"))
    trials, more = _trials(evidence, float(trained))
    drawn = [Line(line, "train", dots=True)]
    if trials:
        drawn.append(Line(trials, "eval", dots=True))
        whiskers += [(r, "eval", change) for r, change in more]
        said += [
            (r, f"short trial with {numbers.general(r)}: {_said(change)}") for r, change in more
        ]
    ranks = sorted({x for one in drawn for x, _ in one.points})
    ends = [end for *_, change in whiskers for end in change.ends]
    around = Axis.around(ranks, log=True)
    chart = line_chart(
        drawn,
        Axis(around.low, around.high, log=True, marks=tuple(ranks)),
        Axis.around(ends, zero=True),
        label="Line chart: change of the loss against the rank; "
        + "; ".join(text for _, text in sorted(said))
        + ".",
        y_format=numbers.general,
        x_format=numbers.general,
        height=HEIGHT,
        tips=sorted(said),
        whiskers=whiskers,
    )
    note = "validation, nats per example, with intervals; what was trained, cut to less"
    return Curve("Loss by rank", note + ("; dashed: short trials of more" if trials else ""), chart)


def _trials(evidence: Json, trained: float) -> tuple[list[Point], list[tuple[float, Interval]]]:
    """What short trials with other ranks changed, set against the rank that was trained.

    Returns:
        The line through all of them, and at each rank but the trained one the interval.
    """
    level, changes = {trained: 0.0}, {}
    # The last begins or ends at the trained rank, the ones before lead up to it.
    for test in reversed(_records(evidence, "tests", "r", "against")):
        change = _change(test.get("gain"))
        r, against = number(test, "r"), number(test, "against")
        if change is None or min(r, against) <= 0:
            continue
        if r in level and against not in level:
            level[against] = level[r] + change.value
            shift = level[r]
            changes[against] = replace(
                change, value=level[against], low=change.low + shift, high=change.high + shift
            )
        elif against in level and r not in level:
            level[r] = level[against] - change.value
            shift = level[against]
            changes[r] = replace(
                change, value=level[r], low=shift - change.high, high=shift - change.low
            )
    return (sorted(level.items()) if changes else []), sorted(changes.items())


def _kinds(evidence: Json) -> Curve | None:
    """The change of the loss without each kind of module."""
    rows = [
        (str(one.get("name")), "diff", change, f"without {one.get('name')}: {_said(change)}")
        for one in _records(evidence, "kinds")
        if (change := _change(one.get("gain"))) is not None
    ]
    if not rows:
        return None
    ends = [end for _, _, change, _ in rows for end in change.ends]
    spoken = "; ".join(tip for *_, tip in rows)
    chart = interval_chart(
        rows, Axis.around(ends, zero=True), numbers.general, f"Change of the loss {spoken}."
    )
    return Curve(
        "Change of the loss without a kind of module", "nats per example, with intervals", chart
    )


def _change(content: object) -> Interval | None:
    """The change of the loss that a gain is."""
    gain = _interval(content)
    if gain is None:
        return None
    return replace(gain, value=-gain.value, low=-gain.high, high=-gain.low)


def _said(change: Interval) -> str:
    form = numbers.signed(numbers.decimals)
    if not change.complete:
        return form(change.value)
    return f"{form(change.value)} {form(change.low)} to {form(change.high)}"


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
