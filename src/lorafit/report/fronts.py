"""Quality against each cost as charts, with the front: what nothing else dominates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorafit.report import units
from lorafit.report.chart import Axis
from lorafit.report.curves import Curve
from lorafit.report.metric import Interval
from lorafit.report.scatter import Spot, scatter_chart
from lorafit.report.units import Format
from lorafit.units import interval

HEIGHT = 260


@dataclass(frozen=True)
class Cost:
    """What quality is set against.

    Attributes:
        name: In ``compare.json``.
        key: Where a method's row has it.
        title: What it is called.
        unit: What it is counted in.
        form: How it is written.
        log: Whether its axis is logarithmic.
    """

    name: str
    key: str
    title: str
    unit: str
    form: Format = units.general
    log: bool = False


COSTS = (
    Cost("parameters", "trainable_parameters", "Trained parameters", "", units.short, log=True),
    Cost("time", "cpu_s", "Training time", "processor seconds"),
    Cost("memory", "peak_memory_bytes", "Peak memory", "GB", lambda value: f"{value / 1e9:.3g}"),
    Cost("forgetting", "forgetting", "Forgetting", "1 - CKA"),
)

LANGUAGE = "KL divergence, nats a token"
"""The unit of forgetting where a language model's head is asked."""


def charts(content: Mapping[str, Any], quality: str) -> list[Curve]:
    """A chart for each cost.

    Args:
        content: Of ``compare.json``.
        quality: The metric's name.
    """
    return [_chart(content, cost, quality) for cost in COSTS if cost.name in content["fronts"]]


def _chart(content: Mapping[str, Any], cost: Cost, quality: str) -> Curve:
    rows, front = content["arms"], content["fronts"][cost.name]
    language = any(row["forgetting_kind"] == "language" for row in rows.values())
    unit = LANGUAGE if language and cost.key == "forgetting" else cost.unit
    spots = []
    for name, row in rows.items():
        found = row["metric"]
        spread = Interval(found["value"], found["low"], found["high"])
        paid = f"{cost.title.lower()} {cost.form(row[cost.key])} {unit}".rstrip()
        tip = f"{name}: {interval(found)}, {paid}"
        spots.append(Spot(name, row[cost.key], spread, name in front, tip))
    ends = [end for spot in spots for end in (spot.y.low, spot.y.high) if end is not None]
    chart = scatter_chart(
        spots,
        Axis.around([spot.x for spot in spots], log=cost.log),
        Axis.around(ends),
        label=f"{quality} against {cost.title.lower()}; on the front: {', '.join(front)}.",
        x_format=cost.form,
        y_format=units.general,
        height=HEIGHT,
    )
    return Curve(cost.title, unit, chart)
