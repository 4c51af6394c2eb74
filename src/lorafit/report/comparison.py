"""``compare.html``: a comparison on one page that needs nothing but itself."""

from __future__ import annotations

import re
from pathlib import Path

from lorafit.evidence import ComparisonRecord
from lorafit.evidence.comparison_rows import (
    costs,
    has_noise,
    kept,
    metric_name,
    ordered,
    quality,
    redundancy,
    remarks,
)
from lorafit.report import fronts
from lorafit.report.chart import Axis, interval_chart
from lorafit.report.pages import templates
from lorafit.run import atomic

PAGE = "compare.html"

COSTS = (
    "Means over the runs; processor time is of all threads, memory of the whole process. Losses "
    "are in nats per example, of models that write text per token; the gap is validation loss "
    "minus training loss."
)
KEPT = (
    "How far the model's reading of general text moved. At equal quality: with the update scaled "
    "back to where the validation loss is one that half of the methods reach."
)
REDUNDANCY = "Medians over weight matrices."
NOISE = "Above noise: directions stronger than the strongest of a run on shuffled labels."


def write_comparison(folder: Path, found: ComparisonRecord) -> Path:
    """Writes the page of a comparison into its folder.

    Raises:
        RunError: The page cannot be written.
    """
    page = folder / PAGE
    config, about = found.request["config"], REDUNDANCY
    if has_noise(found):
        about += f" {NOISE}"
    text = (
        templates()
        .get_template("compare.html.j2")
        .render(
            found=found,
            name=folder.resolve().name,
            model=config["model"]["name_or_path"],
            data=config["data"]["path"],
            metric=metric_name(found),
            chart=_chart(found),
            fronts=fronts.charts(found, f"Test {metric_name(found)}"),
            quality=quality(found),
            tables={
                "Costs": (costs(found), COSTS),
                "Forgetting": (kept(found), KEPT),
                "Redundancy of the updates": (redundancy(found), about),
            },
            whole=_whole,
            remarks=remarks(found),
            command=found.environment.get("command"),
        )
    )
    atomic.write_text(page, text, "the page of the comparison")
    return page


def _whole(cell: str) -> str:
    """A cell that is broken before its interval only, where there is no room for all of it."""
    return re.sub(r"(?<=,) | (?=%|[KMGT]iB|B$)", "\u00a0", cell)


def _chart(found: ComparisonRecord) -> str:
    rows = [
        (
            name,
            "base" if name == found.reference else "tuned",
            arm.metric,
            f"{name}: {arm.metric:.3f}",
        )
        for name, arm in ordered(found)
    ]
    ends = [end for _, _, spread, _ in rows for end in spread.ends]
    label = f"Test {metric_name(found)} of each method with its interval"
    return interval_chart(rows, Axis.around(ends), lambda value: f"{value:g}", label)
