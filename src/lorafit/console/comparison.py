"""What a comparison shows: quality, costs, forgetting, redundancy, the recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.console.output import show
from lorafit.console.tables import show_split_table, show_table
from lorafit.evidence import ComparisonRecord
from lorafit.evidence.comparison_rows import (
    costs,
    front_lines,
    kept,
    quality,
    redundancy,
    remarks,
)

if TYPE_CHECKING:
    from lorafit.comparison.forecast import ComparisonPlan


def show_comparison_plan(plan: ComparisonPlan) -> None:
    """Shows what a comparison would train, and how long."""
    header, *rows = plan.table()
    show()
    show_table(rows, header)
    show()
    for method, why in plan.left_out.items():
        show(f"Left out: {method}: {why}")
    show(plan.sentence)


def show_comparison(found: ComparisonRecord | Mapping[str, Any], path: Path) -> None:
    """Shows a comparison.

    Args:
        found: The comparison, or what ``compare.json`` holds of one.
        path: Its folder.
    """
    if not isinstance(found, ComparisonRecord):
        found = ComparisonRecord.from_json(found)
    show()
    header, families = quality(found)
    rows = []
    for family, members in families.items():
        rows.append([family, *[""] * (len(header) - 1)])
        rows += [[f"  {name}", *cells] for name, *cells in members]
    for columns, cells in ((header, rows), costs(found), kept(found), redundancy(found)):
        if cells:
            show_split_table(cells, columns)
            show()
    for remark in [*remarks(found), *front_lines(found)]:
        show(remark)
    show()
    show(found.recommendation.sentence)
    show(f"All numbers: {path / 'compare.json'}")
    show(f"The page: {path / 'compare.html'}")
