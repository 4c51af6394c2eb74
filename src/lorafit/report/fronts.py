"""Quality against each cost as charts, with the front: what nothing else dominates."""

from __future__ import annotations

from lorafit.evidence import ComparisonRecord
from lorafit.evidence.costs import COSTS, Cost
from lorafit.report import numbers
from lorafit.report.chart import Axis
from lorafit.report.curves import Curve
from lorafit.report.numbers import Format
from lorafit.report.scatter import Spot, scatter_chart

HEIGHT = 260


FORMS: dict[str, Format] = {
    "short": numbers.short,
    "gigabytes": lambda value: f"{value / 1e9:.3g}",
    "number": numbers.general,
}
"""How the numbers of a cost are written, by `Cost.form`."""

LANGUAGE = "KL divergence, nats a token"
"""The unit of forgetting where a language model's head is asked."""


def charts(found: ComparisonRecord, quality: str) -> list[Curve]:
    """A chart for each cost.

    Args:
        found: The comparison.
        quality: The metric's name.
    """
    return [_chart(found, cost, quality) for cost in COSTS if cost.name in found.fronts]


def _chart(found: ComparisonRecord, cost: Cost, quality: str) -> Curve:
    front, form = found.fronts[cost.name], FORMS[cost.form]
    language = any(arm.forgetting_kind == "language" for arm in found.arms.values())
    unit = LANGUAGE if language and cost.key == "forgetting" else cost.unit
    spots = []
    for name, arm in found.arms.items():
        paid = float(getattr(arm, cost.key))
        tip = f"{name}: {arm.metric:.3f}, {cost.title.lower()} {form(paid)} {unit}".rstrip()
        spots.append(Spot(name, paid, arm.metric, name in front, tip))
    ends = [end for spot in spots for end in spot.y.ends]
    chart = scatter_chart(
        spots,
        Axis.around([spot.x for spot in spots], log=cost.log),
        Axis.around(ends),
        label=f"{quality} against {cost.title.lower()}; on the front: {', '.join(front)}.",
        x_format=form,
        y_format=numbers.general,
        height=HEIGHT,
    )
    return Curve(cost.title, unit, chart)
