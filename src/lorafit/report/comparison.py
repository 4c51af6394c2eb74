"""``compare.html``: a comparison on one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from lorafit.evidence import Arm, ComparisonRecord
from lorafit.evidence.comparison_rows import by_quality, metric_name, remarks
from lorafit.evidence.json import mapping
from lorafit.report import fronts, numbers
from lorafit.report.chart import Axis, Line, interval_chart, line_chart
from lorafit.report.curves import Curve
from lorafit.report.leaderboard import details, leaderboard
from lorafit.report.pages import templates
from lorafit.run import atomic

PAGE = "compare.html"


def write_comparison(folder: Path, found: ComparisonRecord) -> Path:
    """Writes the page of a comparison into its folder.

    Raises:
        RunError: The page cannot be written.
    """
    page = folder / PAGE
    config = found.request.get("config", {})
    text = (
        templates()
        .get_template("compare.html.j2")
        .render(
            found=found,
            name=folder.resolve().name,
            model=mapping(config.get("model")).get("name_or_path"),
            data=mapping(config.get("data")).get("path"),
            metric=metric_name(found),
            advice=_advice(found),
            chart=_chart(found),
            fronts=fronts.charts(found, f"Test {metric_name(found)}"),
            leaderboard=leaderboard(found),
            losses=_losses(found),
            details=details(found),
            remarks=remarks(found),
            command=found.environment.get("command"),
        )
    )
    atomic.write_text(page, text, "the page of the comparison")
    return page


def _advice(found: ComparisonRecord) -> str:
    """The recommendation, less the words that stand above it."""
    said = found.recommendation.sentence.removeprefix(f"Take {found.recommendation.method}: ")
    return said[:1].upper() + said[1:]


def _chart(found: ComparisonRecord) -> Markup:
    rows = [
        (
            name,
            "base" if name == found.reference else "tuned",
            arm.metric,
            f"{name}: {arm.metric:.3f}",
        )
        for name, arm in by_quality(found)
    ]
    ends = [end for _, _, spread, _ in rows for end in spread.ends]
    label = f"Test {metric_name(found)} of each method with its interval"
    return interval_chart(rows, Axis.around(ends), lambda value: f"{value:g}", label)


LINES = 4
"""Methods in one chart of losses: more lines could not be told apart."""
STYLES = ("train", "eval", "plain", "rest")


def _losses(found: ComparisonRecord) -> list[Curve]:
    """Validation loss over steps: the methods in the order of their quality, a few a chart.

    All charts have the same axes, so that they can be compared.
    """
    drawn = [(name, arm) for name, arm in by_quality(found) if len(arm.curve) > 1]
    points = [(point["step"], point["eval_loss"]) for _, arm in drawn for point in arm.curve]
    if not points:
        return []
    steps, losses = zip(*points, strict=True)
    x, y = Axis(0.0, max(steps)), Axis.around(losses, least=0.1 * max(map(abs, losses)))
    return [_some(drawn[at : at + LINES], x, y) for at in range(0, len(drawn), LINES)]


def _some(drawn: Sequence[tuple[str, Arm]], x: Axis, y: Axis) -> Curve:
    lines, keys, spoken = [], Markup(""), []
    for style, (name, arm) in zip(STYLES, drawn, strict=False):
        points = [(point["step"], point["eval_loss"]) for point in arm.curve]
        lines.append(Line(points, style, dots=True))
        keys += Markup('<span class="key {}">{}</span> ').format(style, name)
        spoken.append(f"{name} from {points[0][1]:.3f} to {points[-1][1]:.3f}")
    chart = line_chart(
        lines,
        x,
        y,
        label=f"Line chart: validation loss of {'; '.join(spoken)}.",
        y_format=numbers.general,
        x_format=numbers.general,
        height=170,
    )
    return Curve(Markup('<span class="legend">{}</span>').format(keys), "", chart)
