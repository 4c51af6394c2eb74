"""The tables of a comparison, for the terminal and for ``compare.html``.

Each function takes the content of ``compare.json`` and returns the names of the columns and
the rows, all text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafit import files
from lorafit.report import fronts
from lorafit.report.chart import Axis, interval_chart
from lorafit.report.html import templates
from lorafit.report.metric import Interval
from lorafit.units import count, interval, size

PAGE = "compare.html"

Row = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]


def write_comparison(folder: Path, content: Mapping[str, Any]) -> Path:
    """Writes the page of a comparison into its folder; it needs nothing but itself.

    Raises:
        RunError: The page cannot be written.
    """
    page = folder / PAGE
    template = templates().get_template("compare.html.j2")
    text = template.render(
        content=content,
        name=folder.resolve().name,
        model=content["request"]["config"]["model"]["name_or_path"],
        data=content["request"]["config"]["data"]["path"],
        metric=_metric(content),
        chart=_chart(content),
        fronts=fronts.charts(content, f"Test {_metric(content)}"),
        quality=quality(content),
        tables={
            "Costs": (costs(content), COSTS),
            "Forgetting": (kept(content), KEPT),
            "Redundancy of the updates": (redundancy(content), _redundancy_said(content)),
        },
        whole=_whole,
        remarks=remarks(content),
    )
    files.write_text(page, text, "the page of the comparison")
    return page


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


def remarks(content: Mapping[str, Any]) -> list[str]:
    """What else there is to say, a sentence each."""
    level, seeds = 100 * content["confidence"], content["request"]["seeds"]
    said = [
        f"Test split, {count(content['n'])} examples, {seeds} seed{'s' * (seeds != 1)}; in "
        f"brackets {level:g} % intervals; not worse: by less than {content['margin']:.2g}."
    ]
    if seeds == 1:
        said.append("With one seed the intervals do not know how much runs differ by their seed.")
    if not content["greater_is_better"]:
        said.append(f"{_metric(content).capitalize()}.")
    said += [f"Left out: {method}: {why}" for method, why in content["left_out"].items()]
    said += [f"Failed: {method}: {why}" for method, why in content["failed"].items()]
    edge = [name for name, row in content["arms"].items() if row["rate_at_edge"]]
    if edge:
        said.append(
            f"Best rate at the edge of the search, a better one may lie beyond: {', '.join(edge)}."
        )
    return said


def front_lines(content: Mapping[str, Any]) -> list[str]:
    """The fronts in words, a sentence each."""
    fronts = content["fronts"].items()
    return [f"Best for their {front}: {', '.join(names)}." for front, names in fronts]


def quality(content: Mapping[str, Any]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Metric, difference to the reference and verdict of each method; the rows by family."""
    reference = content["reference"]
    families: dict[str, list[list[str]]] = {}
    for name, row in _ordered(content):
        beside, said = "", "reference"
        if name != reference:
            beside, said = interval(row["difference"], signed=True), row["verdict"]
        parameters = f"{row['trainable_parameters']:,}"
        share = f"{100 * row['share']:.3g} %"
        metric = interval(row["metric"])
        cells = [name, parameters, share, metric, beside, said]
        families.setdefault(row["family"], []).append(cells)
    on = f"on {count(content['n'])} examples"
    metric = content["metric"].replace("_", " ")
    header = ["method", "trained", "share", f"test {metric}", f"beside {reference}", on]
    return header, families


def costs(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Learning rate, time, memory, size and over-fitting."""
    cells = [
        [
            name,
            f"{row['learning_rate']:.1e}",
            f"{row['time_s']:.0f}",
            f"{row['cpu_s']:.0f}",
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
            size(row["saved_bytes"]),
            f"{row['train_loss']:.3f}",
            f"{row['gap']:+.3f}",
        ]
        for name, row in _ordered(content)
    ]
    return (
        ["method", "rate", "train s", "cpu s", "peak GB", "saved", "train loss", "gap"],
        cells,
    )


def kept(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Forgetting: as trained, and where all are equally good."""
    ordered = _ordered(content)
    language = any(row["forgetting_kind"] == "language" for _, row in ordered)
    main, other = (
        ("KL, nats a token", "loss change") if language else ("1 - CKA", "neighbours lost")
    )
    key = "loss_change" if language else "neighbours_lost"
    cells = []
    for name, row in ordered:
        equal = row["forgetting_at_equal_quality"]
        cells.append(
            [
                name,
                f"{row['forgetting']:.4f}",
                f"{row['forgetting_details'].get(key, float('nan')):.3f}",
                "not reached" if equal is None else f"{equal:.4f}",
            ]
        )
    return ["forgetting", main, other, f"{main} at equal quality"], cells


def redundancy(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Ranks of the updates, medians over weights."""
    noise, cells = _has_noise(content), []
    for name, found in content["redundancy"].items():
        ranks = [f"{found[key]:.1f}" for key in ("stable_rank", "entropy_rank")]
        energy = [f"{found[key]:.0f}" for key in ("r90", "r99")]
        cells.append([name, f"{found['full_rank']:.0f}", *ranks, *energy])
        if noise:
            cells[-1].append(f"{found['above_noise']:.0f}" if "above_noise" in found else "")
    header = ["update", "of", "stable rank", "entropy rank", "r 90 %", "r 99 %"]
    return [*header, "above noise"] if noise else header, cells


def _has_noise(content: Mapping[str, Any]) -> bool:
    """Whether a method was trained on shuffled labels, which only one label a text allows."""
    return any("above_noise" in found for found in content["redundancy"].values())


def _redundancy_said(content: Mapping[str, Any]) -> str:
    return f"{REDUNDANCY} {NOISE}" if _has_noise(content) else REDUNDANCY


def _whole(cell: str) -> str:
    """A cell that is broken before its interval only, where there is no room for all of it."""
    return re.sub(r"(?<=,) | (?=%|[KMGT]iB|B$)", "\u00a0", cell)


def _metric(content: Mapping[str, Any]) -> str:
    """The metric's name, with the direction where it is not the usual one."""
    name: str = content["metric"].replace("_", " ")
    return name if content["greater_is_better"] else f"{name} (lower is better)"


def _ordered(content: Mapping[str, Any]) -> list[tuple[str, Row]]:
    """Families together, the best method first."""
    sign = -1.0 if content["greater_is_better"] else 1.0
    families = ["yardstick", "selective", "reparametrization", "additive"]

    def place(item: tuple[str, Row]) -> tuple[int, float]:
        return families.index(item[1]["family"]), sign * item[1]["metric"]["value"]

    return sorted(content["arms"].items(), key=place)


def _chart(content: Mapping[str, Any]) -> str:
    ordered = _ordered(content)
    rows = []
    for name, row in ordered:
        found = row["metric"]
        style = "base" if name == content["reference"] else "tuned"
        spread = Interval(found["value"], found["low"], found["high"])
        rows.append((name, style, spread, f"{name}: {interval(found)}"))
    ends = [row["metric"][end] for _, row in ordered for end in ("low", "high")]
    label = f"Test {_metric(content)} of each method with its interval"
    return interval_chart(rows, Axis.around(ends), lambda value: f"{value:g}", label)
