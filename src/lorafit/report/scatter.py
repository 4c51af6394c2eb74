"""Points with names and intervals, and the front among them: a chart as in ``chart.py``.

The front is drawn in steps: what lies below and to the right of it is dominated, and nothing
is known of what would lie on a straight line between two of its points.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lorafit.evidence import Interval
from lorafit.report.chart import Axis, Line, Point, plot, polyline, x_labels, y_grid
from lorafit.report.numbers import Format
from lorafit.report.placing import Place, places


@dataclass(frozen=True)
class Spot:
    """One point.

    Attributes:
        name: What stands beside it.
        x: Where it is.
        y: How high, with its interval.
        front: Whether it belongs to the front.
        tip: What is said under the pointer.
    """

    name: str
    x: float
    y: Interval
    front: bool
    tip: str

    @property
    def point(self) -> Point:
        """Where its dot is."""
        return self.x, self.y.value

    @property
    def style(self) -> str:
        """Name of its look in the style sheet."""
        return "front" if self.front else "rest"


def scatter_chart(
    spots: Sequence[Spot],
    x: Axis,
    y: Axis,
    *,
    label: str,
    x_format: Format,
    y_format: Format,
    height: int,
) -> Markup:
    """Points over two axes.

    Args:
        spots: The points; each has a value.
        x: Horizontal axis.
        y: Vertical axis.
        label: What a reader who cannot see the chart is told.
        x_format: How the tick labels of x are written.
        y_format: The same for y.
        height: Of the drawing area, in CSS pixels.
    """
    ordered = sorted(spots, key=lambda spot: (not spot.front, spot.x))
    drawn = [(x.percent(spot.x), 100 - y.percent(spot.point[1])) for spot in ordered]
    edge = steps([spot.point for spot in ordered if spot.front], x.high)
    corners = [(x.percent(here), 100 - y.percent(value)) for here, value in edge]
    lines = [(*one, *other) for one, other in itertools.pairwise(corners)]
    lines += [
        (at[0], 100 - y.percent(spot.y.low), at[0], 100 - y.percent(spot.y.high))
        for spot, at in zip(ordered, drawn, strict=True)
        if spot.y.complete
    ]
    named = places(drawn, [spot.name for spot in ordered], height, lines)
    parts = [y_grid(y, y_format, 4), x_labels(x, x_format)]
    parts.append(polyline(Line(edge, "front"), x, y))
    # The front is drawn last, so that nothing hides it.
    for spot, at, place in reversed(list(zip(ordered, drawn, named, strict=True))):
        parts.append(_spot(spot, at, place, y))
    return plot(parts, label, height, "scatter")


def steps(front: Sequence[Point], end: float) -> list[Point]:
    """The edge of what a front dominates, from its first point to ``end``."""
    corners = list(front[:1])
    for (_, before), (here, value) in itertools.pairwise(front):
        corners += [(here, before), (here, value)]
    return [*corners, *((end, value) for _, value in front[-1:])]


def _spot(spot: Spot, at: tuple[float, float], place: Place | None, y: Axis) -> Markup:
    parts = []
    if spot.y.complete:
        parts.append(
            Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="{1:.2f}%" y2="{2:.2f}%"/>').format(
                at[0], 100 - y.percent(spot.y.low), 100 - y.percent(spot.y.high)
            )
        )
    dot = Markup('<circle cx="{:.2f}%" cy="{:.2f}%" r="{}"/>')
    parts.append(dot.format(*at, 5 if spot.front else 4))
    if place is not None:
        parts.append(_name(spot.name, at, place))
    return Markup('<g class="spot {}"><title>{}</title>{}</g>').format(
        spot.style, spot.tip, Markup("").join(parts)
    )


def _name(name: str, at: tuple[float, float], place: Place) -> Markup:
    """A name in pixels from its point, which is placed in percent."""
    lead = Markup('<line class="lead" x1="0" y1="0" x2="{:.1f}" y2="{:.1f}"/>')
    return Markup(
        '<svg class="beside" x="{:.2f}%" y="{:.2f}%">{}'
        '<text x="{:.1f}" y="{:.1f}" dy=".35em" text-anchor="{}">{}</text></svg>'
    ).format(
        *at,
        lead.format(place.dx, place.dy) if place.far else "",
        *(place.dx, place.dy, place.anchor, name),
    )
