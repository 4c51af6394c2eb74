"""Small charts as inline SVG that stretch with the page and need no script.

Everything is placed in percent of the drawing area, so text and dots keep their size at
every width; lines are drawn in a nested ``svg`` that is stretched, with strokes that are
not. Labels stand outside the drawing area, in the padding that the style sheet gives.
What is under the pointer is told by elements that the style sheet shows on hover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lorafit.evidence import Interval
from lorafit.report.numbers import Format

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        points: In order of x.
        style: Name of its look in the style sheet.
        dots: Whether the points are marked.
    """

    points: Sequence[Point]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``.

    Attributes:
        low: Its lower end; above zero on a logarithmic axis.
        high: Its upper end.
        log: Whether it is logarithmic.
        marks: Where its labels stand; empty: at round numbers.
    """

    low: float
    high: float
    log: bool = False
    marks: tuple[float, ...] = ()

    @classmethod
    def around(
        cls,
        values: Sequence[float],
        *,
        zero: bool = False,
        log: bool = False,
        margin: float = 0.06,
        least: float = 0.0,
    ) -> Axis:
        """The axis that shows all of the values, and zero if asked.

        Args:
            values: What it has to show.
            zero: Show zero, too.
            log: Make it logarithmic.
            margin: Room at both ends, as a share of what it shows.
            least: What it shows at least from end to end, so that next to nothing does not look
                like a leap.
        """
        low, high = min(values), max(values)
        if high - low < least and not log:
            low, high = (low + high - least) / 2, (low + high + least) / 2
            margin = 0.0
        if log:
            spread = (high / low if high > low else 10.0) ** margin
            return cls(low / spread, high * spread, log=True)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        span = (high - low) or abs(high) or 1.0
        return cls(
            low if zero and low == 0 else low - margin * span,
            high if zero and high == 0 else high + margin * span,
        )

    def percent(self, value: float) -> float:
        """Where a value stands, 0 to 100."""
        if self.log:
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * (value - self.low) / ((self.high - self.low) or 1.0)

    def ticks(self, about: int) -> list[float]:
        """Round numbers on the axis, roughly ``about`` of them, one alone being no scale.

        Or its own marks.
        """
        if self.marks:
            return list(self.marks)
        if self.log:
            return self._powers(about)
        rough = (self.high - self.low) / max(about, 1)
        if rough <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(rough))
        steps = [power * m for m in (1, 2, 2.5, 5, 10)]
        best = min(steps, key=lambda s: abs(math.log(s / rough)))
        smaller = [s for s in (*(step / 10 for step in steps), *steps) if s <= best]
        # The width is at least that of the fifth part of `rough`, so the last one has two.
        found: list[float] = []
        for step in reversed(smaller):
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            found = [round(i * step, 12) for i in range(first, last + 1)]
            if len(found) > 1:
                break
        return found

    def _powers(self, about: int) -> list[float]:
        """Powers of ten on the axis; where it has few of them 1, 2 and 5 times these."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 2, 5), range(1, 10)):
            every = [float(f"{m}e{power}") for power in powers for m in digits]
            found = [value for value in every if self.low <= value <= self.high]
            if len(found) >= (about if digits == (1,) else 2):
                return found[:: -(-len(found) // (2 * about))]
        # Less than between two neighbours of these: the axis is as good as linear.
        return Axis(self.low, self.high).ticks(about)


def line_chart(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    label: str,
    y_format: Format,
    x_format: Format,
    height: int,
    mark: tuple[float, str] | None = None,
    tips: Sequence[tuple[float, str]] = (),
    whiskers: Sequence[tuple[float, str, Interval]] = (),
) -> Markup:
    """Lines over a common x axis.

    Args:
        lines: Drawn in this order.
        x: Horizontal axis.
        y: Vertical axis.
        label: What a reader who cannot see the chart is told.
        y_format: How its tick labels are written.
        x_format: The same for x.
        height: Of the drawing area, in CSS pixels.
        mark: A vertical line at x, with its label.
        tips: What to say when the pointer is near x.
        whiskers: At an x an interval over y, with the style of its line.
    """
    parts = [y_grid(y, y_format, 2 if height < 160 else 4), x_labels(x, x_format)]
    if mark is not None:
        parts.append(_mark(x.percent(mark[0]), mark[1]))
    parts += [
        Markup(
            '<g class="bar"><line class="{0}" x1="{1:.2f}%" x2="{1:.2f}%" y1="{2:.2f}%" '
            'y2="{3:.2f}%"/></g>'
        ).format(style, x.percent(at), 100 - y.percent(one.low), 100 - y.percent(one.high))
        for at, style, one in whiskers
        if one.complete
    ]
    parts += [polyline(line, x, y) for line in lines]
    parts += [
        Markup('<circle class="{}" cx="{:.2f}%" cy="{:.2f}%" r="3.5"/>').format(
            line.style, x.percent(px), 100 - y.percent(py)
        )
        for line in lines
        if line.dots
        for px, py in line.points
    ]
    parts.append(_tips([(x.percent(at), text) for at, text in tips]))
    return plot(parts, label, height)


def interval_chart(
    rows: Sequence[tuple[str, str, Interval, str]], axis: Axis, form: Format, label: str
) -> Markup:
    """One interval a row over a common axis with labels.

    Args:
        rows: Label, style, interval and tip of each row.
        axis: The axis.
        form: How its tick labels are written.
        label: What a reader who cannot see the chart is told.
    """
    ticks = axis.ticks(4)
    parts = [
        Markup(
            '<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>'
            '<text class="tick" x="{0:.2f}%" y="100%" dy="17" text-anchor="middle">{1}</text>'
        ).format(axis.percent(tick), form(tick))
        for tick in ticks
    ]
    for number, (name, style, interval, tip) in enumerate(rows):
        at = 100 * (number + 0.5) / len(rows)
        parts.append(
            Markup(
                '<text class="row" x="0" dx="-12" y="{:.2f}%" dy=".35em" '
                'text-anchor="end">{}</text>'
            ).format(at, name)
        )
        parts.append(_bar(interval, axis, at, style, tip))
    return plot(parts, label, 34 * len(rows), "intervals")


def small_intervals(
    rows: Sequence[tuple[str, Interval, str]], axis: Axis, label: str, *, zero: bool = False
) -> Markup:
    """The same without labels, for a cell of a table; ``zero`` draws a line there."""
    parts = []
    if zero:
        parts.append(
            Markup(
                '<line class="zero" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>'
                '<text x="{0:.2f}%" y="0" dy="-3" text-anchor="middle">0</text>'
            ).format(axis.percent(0))
        )
    for number, (style, interval, tip) in enumerate(rows):
        at = 100 * (number + 0.5) / len(rows)
        track = Markup('<line class="track" x1="0" x2="100%" y1="{0:.2f}%" y2="{0:.2f}%"/>')
        parts += [track.format(at), _bar(interval, axis, at, style, tip)]
    return Markup('<svg class="small" height="{}" role="img" aria-label="{}">{}</svg>').format(
        max(16 * len(rows), 24), label, Markup("").join(parts)
    )


def plot(parts: Sequence[Markup], label: str, height: int, style: str = "lines") -> Markup:
    """The drawing area, ``height`` CSS pixels high, with what is drawn in it."""
    return Markup(
        '<div class="plot {}"><svg height="{}" role="img" aria-label="{}">{}</svg></div>'
    ).format(style, height, label, Markup("").join(parts))


def y_grid(y: Axis, form: Format, about: int) -> Markup:
    """Lines across the chart at about so many numbers, which stand on the left."""
    return Markup("").join(
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{0:.2f}%" y2="{0:.2f}%"/>'
            '<text class="tick" x="0" dx="-8" y="{0:.2f}%" dy=".35em" text-anchor="end">{1}</text>'
        ).format(100 - y.percent(tick), form(tick))
        for tick in y.ticks(about)
    )


def x_labels(x: Axis, form: Format) -> Markup:
    """A few numbers below the chart."""
    return Markup("").join(
        Markup(
            '<text class="tick" x="{:.2f}%" y="100%" dy="18" text-anchor="middle">{}</text>'
        ).format(x.percent(tick), form(tick))
        for tick in x.ticks(4)
    )


def polyline(line: Line, x: Axis, y: Axis) -> Markup:
    """A line, stretched with the chart."""
    if len(line.points) < 2:
        return Markup("")
    points = " ".join(
        f"{10 * x.percent(px):.1f},{1000 - 10 * y.percent(py):.1f}" for px, py in line.points
    )
    return Markup(
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">'
        '<polyline class="{}" points="{}"/></svg>'
    ).format(line.style, points)


def _mark(at: float, text: str) -> Markup:
    """A vertical line; its label goes to the side where there is room."""
    anchor, shift = ("start", 6) if at < 60 else ("end", -6)
    return Markup(
        '<line class="mark" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>'
        '<text class="mark" x="{0:.2f}%" dx="{1}" y="0" dy="10" text-anchor="{2}">{3}</text>'
    ).format(at, shift, anchor, text)


def _tips(tips: Sequence[tuple[float, str]]) -> Markup:
    """Strips that reach half way to their neighbours; the one under the pointer speaks."""
    parts = []
    for number, (at, text) in enumerate(tips):
        left = (tips[number - 1][0] + at) / 2 if number else 0.0
        right = (tips[number + 1][0] + at) / 2 if number + 1 < len(tips) else 100.0
        parts.append(
            Markup(
                '<g class="tip"><rect x="{:.2f}%" width="{:.2f}%" y="0" height="100%"/>'
                '<line x1="{:.2f}%" x2="{:.2f}%" y1="0" y2="100%"/>'
                '<text x="100%" y="0" dy="-8" text-anchor="end">{}</text></g>'
            ).format(left, max(right - left, 0.0), at, at, text)
        )
    return Markup("").join(parts)


def _bar(interval: Interval, axis: Axis, at: float, style: str, tip: str) -> Markup:
    """A dot at the value and a line over the interval."""
    whisker = Markup("")
    if interval.complete:
        whisker = Markup(
            '<line class="{0}" x1="{1:.2f}%" x2="{2:.2f}%" y1="{3:.2f}%" y2="{3:.2f}%"/>'
        ).format(style, axis.percent(interval.low), axis.percent(interval.high), at)
    return Markup(
        '<g class="bar"><title>{}</title>{}<circle class="{}" cx="{:.2f}%" cy="{:.2f}%" r="5"/></g>'
    ).format(tip, whisker, style, axis.percent(interval.value), at)
