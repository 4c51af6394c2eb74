"""What a comparison shows: quality, costs, forgetting, redundancy, the recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafit.console.output import show, show_table
from lorafit.units import count, interval, size

Row = Mapping[str, Any]


def show_comparison(content: Mapping[str, Any], path: Path) -> None:
    """Shows a comparison, in the shape of ``compare.json``."""
    rows: Mapping[str, Row] = content["arms"]
    show()
    for table in (quality, costs, kept, redundancy):
        header, cells = table(content)
        if cells:
            show_table(cells, header)
            show()
    level, seeds = 100 * content["confidence"], content["request"]["seeds"]
    show(
        f"Test split, {count(content['n'])} examples, {seeds} seed{'s' * (seeds != 1)}; in "
        f"brackets {level:g} % intervals; not worse: by less than {content['margin']:.2g}."
    )
    for front, names in content["fronts"].items():
        show(f"Best for their {front}: {', '.join(names)}")
    for method, reason in content["left_out"].items():
        show(f"Left out: {method}: {reason}")
    for method, reason in content["failed"].items():
        show(f"Failed: {method}: {reason}")
    edge = [name for name, row in rows.items() if row["rate_at_edge"]]
    if edge:
        show(f"Best rate at the edge of the search, a better one may lie beyond: {', '.join(edge)}")
    show()
    show(content["recommendation"]["sentence"])
    show(f"All numbers: {path / 'compare.json'}")


def quality(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Metric, difference to the reference and verdict of each method."""
    reference, cells = content["reference"], []
    for name, row in _ordered(content):
        beside, said = "", "reference"
        if name != reference:
            beside, said = interval(row["difference"], signed=True), row["verdict"]
            if said == "cannot tell":
                said += f" on {count(content['n'])} examples"
        parameters = f"{row['trainable_parameters']:,}"
        share = f"{100 * row['share']:.3g} %"
        metric = interval(row["metric"])
        cells.append([row["family"], name, parameters, share, metric, beside, said])
    metric = content["metric"].replace("_", " ")
    header = ["family", "method", "trained", "share", f"test {metric}", f"beside {reference}", ""]
    return header, cells


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
                "never as good" if equal is None else f"{equal:.4f}",
            ]
        )
    return ["forgetting", main, other, f"{main} at equal quality"], cells


def redundancy(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Ranks of the updates, medians over weights."""
    cells = []
    for name, found in content["redundancy"].items():
        above = f"{found['above_noise']:.0f}" if "above_noise" in found else ""
        ranks = [f"{found[key]:.1f}" for key in ("stable_rank", "entropy_rank")]
        energy = [f"{found[key]:.0f}" for key in ("r90", "r99")]
        cells.append([name, f"{found['full_rank']:.0f}", *ranks, *energy, above])
    header = ["update", "of", "stable rank", "entropy rank", "r 90 %", "r 99 %", "above noise"]
    return header, cells


def _ordered(content: Mapping[str, Any]) -> list[tuple[str, Row]]:
    """Families together, the best method first."""
    sign = -1.0 if content["greater_is_better"] else 1.0
    families = ["yardstick", "selective", "reparametrization", "additive"]

    def place(item: tuple[str, Row]) -> tuple[int, float]:
        return families.index(item[1]["family"]), sign * item[1]["metric"]["value"]

    return sorted(content["arms"].items(), key=place)
